"""More choices than can be listed: against all of them, and as large as wanted."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from test_per_task import small

from planner.model import (
    Application,
    Block,
    Cluster,
    DeviceType,
    InputError,
    LatencyTable,
    Network,
    Options,
    Problem,
    Profile,
    Provenance,
    Task,
)
from planner.model.applications import combined_accuracy
from planner.planning.applications import choices
from planner.planning.applications.choices import best_choice
from planner.planning.applications.per_task import plan_per_task

TABLE = LatencyTable("L4", 1, (1,), ((9,),), Provenance("measured", "by hand"))


def random_application(seed: int, tasks: int, variants: int, rule: str, device: str = "L4") -> Application:
    """Tasks whose slower variants are more accurate."""
    rng = np.random.default_rng(seed)
    made = []
    for t in range(tasks):
        us = np.sort(rng.integers(200, 5_000, variants)).tolist()
        profiles = tuple(
            Profile(
                f"v{t}{v}", (Block(("a",)),), (), (LatencyTable(device, 1, (1,), ((us[v],),), TABLE.provenance),),
                input_bytes=100,
            )
            for v in range(variants)
        )  # fmt: skip
        percents = np.sort(rng.uniform(50, 99, variants)).tolist()
        made.append(Task(f"t{t}", profiles, {p.name: a for p, a in zip(profiles, percents, strict=True)}))
    return Application("app", 1e6, tuple(made), rule=rule, rate_rps=100.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", ["multiply", "sum", "average"])
@pytest.mark.parametrize("seed", range(5))
def test_the_best_choice_equals_enumeration(seed: int, rule: str) -> None:
    application = random_application(seed, 4, 3, rule)
    rng = np.random.default_rng(seed)
    able = [task.variants for task in application.tasks]
    prices = [{v.name: float(rng.uniform(0, 20)) for v in task.variants} for task in application.tasks]
    kappa = float(rng.uniform(0, 2))
    values = []
    for choice in product(*able):
        percents = [task.accuracy[v.name] for task, v in zip(application.tasks, choice, strict=True)]
        paid = sum(price[v.name] for price, v in zip(prices, choice, strict=True))
        values.append(kappa * combined_accuracy(percents, application.rule) - paid)
    assert best_choice(application, able, kappa, prices)[1] == pytest.approx(max(values))


@pytest.mark.parametrize("seed", range(8))
def test_prices_find_the_choices_that_matter(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit of one choice only those asked for are listed; what they reach lies below what all reach."""
    problem = small(seed)
    try:
        every = plan_per_task(problem)
    except InputError:
        monkeypatch.setattr(choices, "MOST_CHOICES", 1)
        with pytest.raises(InputError):
            plan_per_task(problem)
        return
    monkeypatch.setattr(choices, "MOST_CHOICES", 1)
    priced = plan_per_task(problem)
    assert priced.value <= every.value + 1e-6
    assert every.value <= priced.bound + 1e-6
    assert priced.value >= 0.95 * every.value


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["most_accurate", "least_cost"])
def test_sixteen_thousand_choices(objective: str) -> None:
    """Six tasks of five variants; what is found is within the stated gap of a bound, and that is small."""
    application = replace(random_application(1, 6, 5, "multiply"), rate_rps=5_000.0)
    cluster = Cluster((DeviceType("L4", 400, price_per_hour=1.0),), Network(10))
    limits = {"budget_per_hour": 90.0} if objective == "most_accurate" else {"min_accuracy": 20.0}
    problem = Problem(cluster, (), Options(objective, batch_building_factor=0, **limits), (application,))  # type: ignore[arg-type]
    plan = plan_per_task(problem)
    assert plan.value == pytest.approx(plan.bound, rel=0.1)
    assert len(plan.flows) < 100
