"""Plans of every kind with one thing in them changed: a wrong one never passes."""

from mixtures import random_mixture
from mutants import missed, still_true

from planner.model.check import check
from planner.planning import make_plan

SEEDS = 1, 2, 4, 8, 9, 12, 13, 15, 17, 20, 21, 24, 27, 28


def test_plans_of_every_kind_are_checked_in_everything_that_they_say() -> None:
    plans = [(problem, make_plan(problem)) for problem in map(random_mixture, SEEDS)]
    stages = [stage for _, plan in plans for one in plan.pipelines for stage in one.stages]
    assert {type(stage.share) for stage in stages} == {int, str}  # equal shares and named segments
    assert {problem.options.device_sharing for problem, _ in plans} == {"own", "shared"}
    assert {"least_energy", "most_accurate", "least_cost"} <= {plan.objective for _, plan in plans}
    tried, passed = missed(plans, check, still_true)
    assert tried > 1000
    assert passed == []
