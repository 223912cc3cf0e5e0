"""Searches for schemes: the reference's by hand, ours against brute force, oracles that err."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from merging_oracle import fewest_refusals

from planner.model import InputError
from planner.planning.merging import bisection, choices, exact, questions
from planner.planning.merging.choices import best_choice, candidates
from planner.planning.merging.deployment import DeployedStage, Deployment, MergeProblem, deploy, device_bytes
from planner.planning.merging.layouts import Layouts
from planner.planning.merging.oracles import Budget, Command, History, within
from planner.planning.merging.results import Savings
from planner.planning.merging.schemes import LayerGroup, MergeModel, Scheme, Sharing, sharing_of
from planner.planning.programme.backends import TooLate

SHARED = frozenset({frozenset({(0, 0), (1, 0)})})
MORE = frozenset({frozenset({(0, 0), (1, 0)}), frozenset({(0, 1), (1, 1)})})


def small(seed: int, models: int = 2, groups: int = 3) -> MergeProblem:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(10, 90, groups)
    layers = tuple(
        LayerGroup(int(size), float(rng.uniform(1, 3)), number < groups - 1) for number, size in enumerate(sizes)
    )
    limits = sorted(int(rng.integers(1, 3)) for _ in range(models))
    made = tuple(MergeModel(f"m{n}", layers, limit, 1.0, 0.4) for n, limit in enumerate(limits))
    return MergeProblem(made, (1000, 1000))


def every_sharing(problem: MergeProblem) -> Iterator[Sharing]:
    """All that can be shared, by trying every set of candidates of which no two meet."""
    sets = candidates(problem)
    for chosen in product([False, True], repeat=len(sets)):
        kept = [members for members, take in zip(sets, chosen, strict=True) if take]
        if len(set().union(*kept)) == sum(map(len, kept)):
            yield frozenset(kept)


@pytest.mark.parametrize("seed", range(8))
def test_the_best_accepted_sharing_is_found_and_proven(seed: int) -> None:
    problem = small(seed, models=2 + seed % 2)
    budget = Budget(1 + seed % 3)
    savings = Savings(problem)
    expected = max(savings.of(sharing) or 0 for sharing in every_sharing(problem) if budget(sharing))
    found = exact.search(problem, History(problem.models, budget))
    assert budget(found.sharing)
    assert found.saved_bytes == expected == found.bound_bytes
    assert savings.of(found.sharing) == expected
    by_rule = bisection.search(problem, budget)
    assert by_rule.saved_bytes <= expected
    assert budget(by_rule.sharing)


def test_questions_that_are_not_asked_leave_a_bound() -> None:
    problem = small(1, models=3)
    stopped = exact.search(problem, History(problem.models, Budget(2)), most_tries=1)
    proven = exact.search(problem, History(problem.models, Budget(2)))
    assert len(stopped.tries) == 1
    assert stopped.bound_bytes is not None
    assert stopped.saved_bytes <= proven.saved_bytes <= stopped.bound_bytes


def late(*arguments: object, **options: object) -> None:
    raise TooLate(bound=10.0)


@pytest.mark.parametrize("seed", range(4))
def test_never_less_is_saved_than_by_the_rule(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Proven, or with all programmes that choose late; and in that case what it says is possible is."""
    rng = np.random.default_rng(seed)
    problem = small(seed, models=2 + seed % 2, groups=4)
    budget = Budget(int(rng.integers(1, 4)))
    by_rule = bisection.search(problem, budget)
    proven = exact.search(problem, History(problem.models, budget))
    assert by_rule.saved_bytes <= proven.saved_bytes == proven.bound_bytes
    monkeypatch.setattr(exact, "best_choice", late)
    found = exact.search(problem, History(problem.models, budget))
    assert budget(found.sharing)
    assert found.bound_bytes is not None
    assert by_rule.saved_bytes <= found.saved_bytes <= proven.saved_bytes <= found.bound_bytes
    assert len({tried.sharing for tried in found.tries}) == len(found.tries)


@pytest.mark.parametrize("seed", [*range(3), 103, 106])
def test_oracles_that_know_nothing_of_loads(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Refused is what holds some random sharing: proven, and late (103 and 106 follow the rule) not less than it."""
    rng = np.random.default_rng(seed)
    problem = small(seed, models=3)
    sharings = sorted(every_sharing(problem), key=lambda one: sorted(map(sorted, one)))
    refused = [sharings[int(at)] for at in rng.integers(1, len(sharings), 1 + seed % 4)]

    def oracle(sharing: Sharing) -> bool:
        return not any(within(one, sharing) for one in refused)

    savings = Savings(problem)
    expected = max(savings.of(sharing) or 0 for sharing in sharings if oracle(sharing))
    found = exact.search(problem, History(problem.models, oracle))
    assert found.saved_bytes == expected == found.bound_bytes
    assert oracle(found.sharing)
    monkeypatch.setattr(exact, "best_choice", late)
    found = exact.search(problem, History(problem.models, oracle))
    assert bisection.search(problem, oracle).saved_bytes <= found.saved_bytes <= expected


@pytest.mark.parametrize("seed", range(4))
def test_proofs_take_few_more_refusals_than_any_proof(seed: int) -> None:
    """At least as many, and a few that were to find out how much is accepted."""
    problem = small(seed, models=2 + seed % 2, groups=4)
    budget = Budget(1 + seed % 3)
    found = exact.search(problem, History(problem.models, budget))
    needed = fewest_refusals(problem, budget)
    refused = sum(not tried.accepted for tried in found.tries)
    assert needed <= refused <= 1.3 * needed + 3


def test_too_many_sets_are_as_a_programme_that_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, budget = small(3, models=3), Budget(2)
    monkeypatch.setattr(choices, "MOST_USES", 3 * 4 * 2 * 2 - 1)  # members, sets that hold each, places, devices
    with pytest.raises(TooLate, match="too many sets of models"):
        best_choice(problem, [])
    found = exact.search(problem, History(problem.models, budget))
    assert found.bound_bytes is not None
    assert bisection.search(problem, budget).saved_bytes <= found.saved_bytes <= found.bound_bytes
    monkeypatch.setattr(choices, "MOST_USES", 3 * 4 * 2 * 2)
    assert best_choice(problem, []) is not None


def test_one_question_is_enough_where_pairs_suffice() -> None:
    """Four models of load 0.4 on two devices: two pairs share all, and no three models can meet."""
    layers = (*(LayerGroup(size, 1.0) for size in (10, 20, 30)), LayerGroup(5, 1.0, mergeable=False))
    problem = MergeProblem(tuple(MergeModel(f"m{n}", layers, 1, 1.0, 0.4) for n in range(4)), (1000, 1000))
    found = exact.search(problem, History(problem.models, Budget(3)))
    assert [(tried.saved_bytes, tried.accepted) for tried in found.tries] == [(120, True)]
    assert found.bound_bytes == 120


def test_two_pairs_that_were_refused_are_refused_as_one_set() -> None:
    """What shares 0.0, 1.0, 2.0 and 3.0 shares both pairs: a set of four is no way around the refusal of two pairs."""
    layers = (LayerGroup(10, 1.0), LayerGroup(5, 1.0, mergeable=False))
    problem = MergeProblem(tuple(MergeModel(f"m{n}", layers, 1, 1.0, 0.2) for n in range(4)), (1000,))
    pairs = frozenset({frozenset({(0, 0), (1, 0)}), frozenset({(2, 0), (3, 0)})})
    choice = best_choice(problem, [pairs])
    assert choice is not None
    assert not within(pairs, choice.sharing)
    layouts = Layouts(problem)
    layouts.add(choice.deployment.stages)
    again = layouts.best([pairs])
    assert again is not None
    assert not within(pairs, again.sharing)
    assert again.deployment.memory_bytes == choice.deployment.memory_bytes == 40


@pytest.mark.parametrize("seed", range(8))
def test_what_is_best_on_a_layout_is_the_best_of_all_sharing(seed: int) -> None:
    """By trying everything; what is found holds no set of which a part would do."""
    rng = np.random.default_rng(seed)
    problem = small(seed, models=3)
    stages = deploy(replace(problem, sharing=questions.everything(problem))).stages
    layouts, load = Layouts(problem), int(rng.integers(1, 4))
    layouts.add(stages)
    refused = [questions.core(problem, questions.everything(problem), 3)]
    left = [one for one in every_sharing(problem) if not any(within(answer, one) for answer in refused)]
    for best, among in (
        (layouts.best(refused), left),
        (layouts.best_of_load(refused, load), [one for one in left if questions.load_of(one) <= load]),
    ):
        assert best is not None
        used = {one: sum(device_bytes(problem, stages, one)) for one in among}
        assert best.deployment.memory_bytes == used[best.sharing] == min(used.values())
        less = [one for one in among if one != best.sharing and within(one, best.sharing)]
        assert all(used[one] > used[best.sharing] for one in less)


def test_layouts_have_the_memory_of_their_devices() -> None:
    """Two models of 15 bytes on one device of 20: only with the group of 10 bytes shared."""
    layers = (LayerGroup(10, 1.0), LayerGroup(5, 1.0, mergeable=False))
    problem = MergeProblem(tuple(MergeModel(f"m{n}", layers, 1, 1.0, 0.2) for n in range(2)), (20,))
    layouts = Layouts(problem)
    layouts.add((DeployedStage(0, 0, 2, (0,)), DeployedStage(1, 0, 2, (0,))))
    shared = frozenset({frozenset({(0, 0), (1, 0)})})
    assert layouts.deployed(frozenset()) is None
    assert layouts.deployed(shared) == Deployment(
        (DeployedStage(0, 0, 2, (0,)), DeployedStage(1, 0, 2, (0,))), 20, 0.0, "feasible"
    )
    best = layouts.best([])
    assert best is not None
    assert best.sharing == shared
    assert layouts.best([shared]) is None


def test_equal_layouts_are_one() -> None:
    layers = (LayerGroup(10, 1.0), LayerGroup(5, 1.0, mergeable=False))
    problem = MergeProblem(tuple(MergeModel(f"m{n}", layers, 1, 1.0, 0.2) for n in range(2)), (20, 20))
    layouts = Layouts(problem)
    for first, second in ((0, 1), (1, 0)):
        layouts.add((DeployedStage(0, 0, 2, (first,)), DeployedStage(1, 0, 2, (second,))))
    assert len(layouts) == 1


def test_teams_by_hand() -> None:
    """Loads of 0.5, 0.5, 0.3 and 0.3, groups of 10, 20 and 30 bytes, a load of 2: pairs share two groups, threes one.

    0 and 1 save 50, so do 2 and 3; no three models fit on one device but 2, 3 and none else.
    """
    layers = (*(LayerGroup(size, 1.0) for size in (10, 20, 30)), LayerGroup(5, 1.0, mergeable=False))
    loads = (0.5, 0.5, 0.3, 0.3)
    problem = MergeProblem(
        tuple(MergeModel(f"m{n}", layers, 1, 1.0, load) for n, load in enumerate(loads)), (1000, 1000)
    )
    found = [{tuple(sorted(n for n, _ in one)) for one in sharing} for sharing in questions.teams(problem, 2)]
    assert {frozenset(one) for one in found[:3]} == {
        frozenset({(0, 1), (2, 3)}),
        frozenset({(0, 2), (1, 3)}),
        frozenset({(0, 3), (1, 2)}),
    }
    assert all(len(models) == 2 for one in found for models in one)
    assert len(found) == 9, "three divisions, and six with one pair"


def test_a_search_without_time_asks_nothing() -> None:
    problem = small(2, models=3)
    found = exact.search(problem, History(problem.models, Budget(2)), time_limit_s=1e-9)
    assert not found.tries
    assert found.saved_bytes == 0
    assert found.bound_bytes is not None
    assert found.bound_bytes >= exact.search(problem, History(problem.models, Budget(2))).saved_bytes


def test_what_is_on_file_is_where_a_search_begins(tmp_path: Path) -> None:
    """Asked again with all answers on file it asks nothing, and with no question left it has the best accepted."""
    problem = small(4, models=3)
    first = exact.search(problem, History(problem.models, Budget(2), tmp_path / "answers.jsonl"))
    again = exact.search(problem, History(problem.models, None, tmp_path / "answers.jsonl"))
    assert not again.tries
    assert (again.saved_bytes, again.bound_bytes) == (first.saved_bytes, first.bound_bytes)
    stopped = exact.search(problem, History(problem.models, None, tmp_path / "answers.jsonl"), most_tries=0)
    assert stopped.saved_bytes == first.saved_bytes


def of_three(*groups: tuple[int, ...]) -> Sharing:
    """Groups 0, 1, ... shared by these models each."""
    return frozenset(frozenset((model, group) for model in models) for group, models in enumerate(groups))


def test_parts_of_sharing_by_hand() -> None:
    """Groups of 10, 20, 30 bytes: all by three models is a load of 6 for each."""
    layers = (*(LayerGroup(size, 1.0) for size in (10, 20, 30)), LayerGroup(5, 1.0, mergeable=False))
    models = tuple(MergeModel(f"m{n}", layers, 1, 1.0, 0.3) for n in range(3))
    problem = MergeProblem(models, (1000,))
    everything = of_three((0, 1, 2), (0, 1, 2), (0, 1, 2))
    assert questions.everything(problem) == everything
    assert questions.load_of(everything) == 6
    third, second = frozenset({(0, 2), (1, 2), (2, 2)}), frozenset({(0, 1), (1, 1)})
    assert questions.core(problem, everything, 3) == {third, second}
    assert questions.core(problem, everything, 7) == everything, "no model has so much"


@pytest.mark.parametrize("seed", range(10))
def test_parts_of_sharing_are_parts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = small(seed, models=3, groups=4)
    sharing = questions.everything(problem)
    load = int(rng.integers(1, 7))
    core = questions.core(problem, sharing, load)
    assert within(core, sharing)
    assert questions.load_of(core) == load


def test_choices_are_the_deployment_of_what_they_choose() -> None:
    problem = small(3, models=3)
    choice = best_choice(problem, [])
    assert choice is not None
    assert deploy(replace(problem, sharing=choice.sharing)).memory_bytes == choice.deployment.memory_bytes
    without = best_choice(problem, [choice.sharing])
    assert without is not None
    assert not within(choice.sharing, without.sharing)
    assert without.deployment.memory_bytes >= choice.deployment.memory_bytes


def test_the_reference_rule_by_hand() -> None:
    """One device, groups of 10, 20 and 30 bytes and a head, latency 1 each; limits 1, 1, 2; budget 3.

    All of all saves 2 · 60, load 6: refused. Its halves: groups 0-1 save 2 · 30, group 2 saves 2 · 30, models 0 and 1
    save 60. Of these equals the first, load 4: refused. Models 0 and 1, load 3: accepted. All else overlaps that.
    """
    layers = (*(LayerGroup(size, 1.0) for size in (10, 20, 30)), LayerGroup(5, 1.0, mergeable=False))
    models = tuple(MergeModel(f"m{n}", layers, limit, 1.0, 0.3) for n, limit in enumerate((1, 1, 2)))
    found = bisection.search(MergeProblem(models, (1000,)), Budget(3))
    assert [(tried.scheme, tried.saved_bytes, tried.accepted) for tried in found.tries] == [
        (Scheme((0, 1, 2), 0, 4), 120, False),
        (Scheme((0, 1, 2), 0, 2), 60, False),
        (Scheme((0, 1), 0, 4), 60, True),
    ]
    assert found.saved_bytes == 60


def test_schemes_halve_where_limits_change_and_at_half_the_latency() -> None:
    layers = tuple(LayerGroup(1, latency) for latency in (1.0, 1.0, 1.0, 5.0))
    models = tuple(MergeModel(f"m{n}", layers, limit, 1.0, 0.1) for n, limit in enumerate((1, 1, 1, 2)))
    found = list(bisection.halves(MergeProblem(models, (100,)), Scheme((0, 1, 2, 3), 0, 4)))
    assert found == [
        Scheme((0, 1, 2, 3), 0, 3),
        Scheme((0, 1, 2, 3), 3, 4),
        Scheme((0, 1, 2), 0, 4),
        Scheme((3,), 0, 4),
    ]


def test_groups_of_unlike_architectures_share_where_they_are_alike() -> None:
    stem, block, wide = (
        LayerGroup(10, 1.0, kind="stem"),
        LayerGroup(20, 1.0, kind="block"),
        LayerGroup(20, 1.0, kind="wide"),
    )
    models = (MergeModel("a", (stem, block), 1, 1.0, 0.1), MergeModel("b", (wide, stem, block), 1, 1.0, 0.1))
    assert candidates(MergeProblem(models, (100,))) == [frozenset({(0, 0), (1, 1)}), frozenset({(0, 1), (1, 2)})]


def test_answers_are_kept_and_never_asked_twice(tmp_path: Path) -> None:
    models = small(0).models
    asked: list[Sharing] = []

    def oracle(sharing: Sharing) -> bool:
        asked.append(sharing)
        return len(sharing) < 2

    history = History(models, oracle, tmp_path / "answers.jsonl")
    assert history(SHARED)
    assert not history(MORE)
    again = History(models, None, tmp_path / "answers.jsonl")
    assert again(SHARED)
    assert not again(MORE)
    assert len(asked) == 2
    assert history(frozenset())  # nothing shared needs no oracle
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["nonsense"], "line 1: expected shared and accepted, got 'nonsense'"),
        ([{"shared": [[["x", 0], ["m1", 0]]], "accepted": True}], "line 1: an answer about \\['x'\\]"),
        (
            [
                {"shared": [[["m0", 0], ["m1", 0]]], "accepted": False},
                {"shared": [[["m0", 0], ["m1", 0]], [["m0", 1], ["m1", 1]]], "accepted": True},
            ],
            "line 2: it says accepted, which earlier answers contradict",
        ),
    ],
)
def test_histories_that_cannot_be(tmp_path: Path, lines: list[object], message: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    with pytest.raises(InputError, match=message):
        History(small(0).models, None, path)


def test_a_history_without_an_oracle_says_what_it_lacks() -> None:
    with pytest.raises(InputError, match="no answer on file for"):
        History(small(0).models)(SHARED)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("print('yes')", "expected {\"accepted\": true} or false, got 'yes'"),
        ("raise SystemExit(3)", "exit status 3: , in 2 tries"),
        ("import time; time.sleep(60)", "no answer within 0.5 s, in 2 tries"),
    ],
)
def test_commands_that_fail(program: str, message: str) -> None:
    oracle = Command(small(0).models, (sys.executable, "-c", program), limit_s=0.5)
    with pytest.raises(InputError, match=message):
        oracle(SHARED)


def test_a_command_is_asked_in_json() -> None:
    program = "import json, sys; print(json.dumps({'accepted': len(json.load(sys.stdin)['shared']) == 1}))"
    oracle = Command(small(0).models, (sys.executable, "-c", program))
    assert oracle(SHARED)
    assert not oracle(MORE)


def test_models_out_of_order_are_refused() -> None:
    problem = small(0)
    models = tuple(replace(model, max_stages=limit) for model, limit in zip(problem.models, (2, 1), strict=True))
    with pytest.raises(InputError, match="expected them by increasing stage limit"):
        bisection.search(replace(problem, models=models), Budget(2))


def test_sharing_is_checked() -> None:
    problem = small(0)
    with pytest.raises(InputError, match="heads cannot be merged"):
        replace(problem, sharing=frozenset({frozenset({(0, 2), (1, 2)})}))
    with pytest.raises(InputError, match="two or more different models"):
        replace(problem, sharing=frozenset({frozenset({(0, 0), (0, 1)})}))
    assert sharing_of(problem.models, [Scheme((0, 1), 0, 3)]) == MORE
