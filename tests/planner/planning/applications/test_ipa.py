"""IPA's programme against enumeration, by hand, and on sizes that its authors' could not do."""

from dataclasses import replace
from itertools import product
from math import ceil

import numpy as np
import pytest

from planner.model import InputError
from planner.model.applications import combined_accuracy
from planner.planning.applications.accuracy import ranked
from planner.planning.applications.ipa import (
    Ipa,
    Option,
    Weights,
    evaluate,
    least_change,
    optima,
    optimise,
    optimise_from,
)
from planner.planning.applications.ipa_profiles import Point, TaskProfile, base_cores, fitted, task_sla_s


def random_ipa(seed: int, tasks: int, variants: int, rule: str) -> Ipa:
    rng = np.random.default_rng(seed)
    options = []
    for _ in range(tasks):
        accuracy = np.sort(rng.uniform(0.3, 1, variants))
        work_s = np.sort(rng.uniform(0.02, 0.4, variants))
        options.append(
            tuple(
                Option(f"v{v}", float(accuracy[v]), int(2 ** rng.integers(0, 4)), batch, latency_s, batch / latency_s)
                for v in range(variants)
                for batch in (1, 2, 4, 8)
                for latency_s in [float(work_s[v] * (0.4 + 0.6 * batch))]
            )
        )
    rate_rps, sla_s = float(rng.uniform(1, 40)), float(rng.uniform(0.5, 1.5) * tasks)
    weights = Weights(float(rng.uniform(1, 100)), float(rng.uniform(0.05, 1)))
    return Ipa(tuple(options), rate_rps, sla_s, rule, weights)  # type: ignore[arg-type]


def enumerated(ipa: Ipa, in_use: tuple[Option, ...] = (), switching: float = 0.0) -> float | None:
    """Word for word the paper's programme, without any of the planner's code but the rule of accuracies."""
    best = None
    for chosen in product(*ipa.options):
        latency_s = sum(option.latency_s + (option.batch - 1) / ipa.rate_rps for option in chosen)
        replicas = [ceil(ipa.rate_rps / option.throughput_rps) for option in chosen]
        if latency_s > ipa.sla_s or max(replicas) > 100:
            continue
        value = ipa.weights.accuracy * combined_accuracy([option.accuracy for option in chosen], ipa.rule, whole=1.0)
        value -= ipa.weights.cores * sum(n * option.cores for n, option in zip(replicas, chosen, strict=True))
        value -= ipa.weights.batch * sum(option.batch for option in chosen)
        value -= switching * sum(option is not used for option, used in zip(chosen, in_use, strict=False))
        best = value if best is None else max(best, value)
    return best


@pytest.mark.parametrize("rule", ["sum", "average", "multiply"])
@pytest.mark.parametrize("seed", range(12))
def test_equal_to_enumeration(seed: int, rule: str) -> None:
    ipa = random_ipa(seed, tasks=1 + seed % 3, variants=3, rule=rule)
    found = optimise(ipa)
    assert found.objective == pytest.approx(enumerated(ipa), abs=1e-9)
    assert found.latency_s <= ipa.sla_s * (1 + 1e-9)


@pytest.mark.parametrize("worst", [None, 0.0])
@pytest.mark.parametrize("seed", range(5))
def test_long_products_equal_enumeration(seed: int, worst: float | None) -> None:
    """Ranks make the worst variant's accuracy 0, which has no logarithm."""
    ipa = random_ipa(seed, 4, variants=2, rule="multiply")
    if worst is not None:
        options = tuple(
            tuple(replace(one, accuracy=worst) if one.variant == "v0" else one for one in own) for own in ipa.options
        )
        ipa = replace(ipa, options=options)
    assert optimise(ipa).objective == pytest.approx(enumerated(ipa), abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_longer_sla_never_hurts_and_a_higher_rate_never_helps(seed: int) -> None:
    ipa = random_ipa(seed, 3, 4, "multiply")
    longer = Ipa(ipa.options, ipa.rate_rps, 10.0, ipa.rule, ipa.weights)
    longest = Ipa(ipa.options, ipa.rate_rps, 20.0, ipa.rule, ipa.weights)
    assert optimise(longest).objective >= optimise(longer).objective - 1e-9
    no_building = [option for options in ipa.options for option in options if option.batch == 1]
    ones = tuple(tuple(option for option in options if option in no_building) for options in ipa.options)
    slow, fast = (Ipa(ones, rate, 20.0, ipa.rule, ipa.weights) for rate in (ipa.rate_rps, ipa.rate_rps * 2))
    assert optimise(fast).objective <= optimise(slow).objective + 1e-9


def test_products_of_long_chains_keep_their_digits() -> None:
    ipa = random_ipa(3, tasks=12, variants=6, rule="multiply")
    found = optimise(ipa)
    again = evaluate(ipa, [choice.option for choice in found.choices])
    assert found.objective == again.objective
    everything = [len(own) for own in ipa.options]
    assert found.latency_s <= ipa.sla_s * (1 + 1e-9)
    rng = np.random.default_rng(3)
    for _ in range(200):
        other = evaluate(ipa, [own[rng.integers(n)] for own, n in zip(ipa.options, everything, strict=True)])
        assert other.objective <= found.objective or other.latency_s > ipa.sla_s


def test_every_optimum_and_least_change() -> None:
    twins = tuple(Option(name, 0.9, 1, 1, 0.1, 10.0) for name in ("a", "b"))
    worse = Option("c", 0.1, 4, 1, 0.1, 10.0)
    ipa = Ipa(((*twins, worse), (*twins, worse)), 5.0, 1.0, "sum", Weights(1.0, 0.1))
    found = {tuple(choice.option.variant for choice in best.choices) for best in optima(ipa)}
    assert found == set(product("ab", "ab"))
    current = evaluate(ipa, [twins[1], twins[0]])
    assert least_change(ipa, current).changes(current) == 0
    assert least_change(ipa, evaluate(ipa, [worse, twins[1]])).choices[1].option.variant == "b"


@pytest.mark.parametrize("rule", ["sum", "multiply"])
@pytest.mark.parametrize("seed", range(8))
def test_a_change_is_made_where_it_is_worth_its_cost(seed: int, rule: str) -> None:
    """Against enumeration from random configurations in use, at costs from nothing to more than anything gains."""
    ipa = random_ipa(seed, tasks=2, variants=3, rule=rule)
    rng = np.random.default_rng(seed)
    in_use = tuple(options[rng.integers(len(options))] for options in ipa.options)
    for switching in (0.0, 0.5, 5.0, 500.0):
        expected = enumerated(ipa, in_use, switching)
        if expected is None:
            with pytest.raises(InputError):
                optimise_from(ipa, evaluate(ipa, in_use), switching)
            continue
        found = optimise_from(ipa, evaluate(ipa, in_use), switching)
        changed = sum(choice.option is not used for choice, used in zip(found.choices, in_use, strict=True))
        assert found.objective - switching * changed == pytest.approx(expected, abs=1e-8)


def test_fixed_replicas_leave_out_what_cannot_keep_up() -> None:
    slow, fast = Option("good", 0.9, 1, 1, 0.5, 2.0), Option("fast", 0.5, 1, 1, 0.1, 10.0)
    rim = Ipa(((slow, fast),), 5.0, 1.0, "sum", Weights(1.0, 0.01), replicas=(2,))
    assert optimise(rim).choices[0].option.variant == "fast"  # good needs three
    free = Ipa(((slow, fast),), 5.0, 1.0, "sum", Weights(1.0, 0.01))
    assert [(c.option.variant, c.replicas) for c in optimise(free).choices] == [("good", 3)]


def test_ranks_have_a_floor() -> None:
    assert ranked({"a": 3.0, "b": 1.0, "c": 2.0}, floor=0.2) == {"a": 1.0, "b": 0.2, "c": pytest.approx(0.6)}
    assert ranked({"only": 50.0}) == {"only": 1.0}


def test_base_cores_by_hand() -> None:
    """Threshold 4, SLA 1 s. small: 1 core reaches 5 (batch 1 counts). large: 1 core 2, 2 cores 4.5: one step up."""
    speed = {("small", 1): 5.0, ("small", 2): 9.0, ("large", 1): 2.0, ("large", 2): 4.5}
    points = (Point(v, {"small": 1.0, "large": 2.0}[v], c, 1, 1 / rps, rps) for (v, c), rps in speed.items())
    profile = TaskProfile("t", tuple(points))
    assert base_cores(profile, 4.0, 1.0) == {"small": 1, "large": 2}
    assert task_sla_s(profile, 5) == pytest.approx(25 * (1 / 9 + 1 / 4.5) / 2)
    with pytest.raises(InputError, match="large reaches 6 requests/s within 1 s on none"):
        base_cores(profile, 6.0, 1.0)


def test_fit_goes_through_what_is_a_parabola() -> None:
    batches = (1, 2, 4, 8)
    points = tuple(Point("v", 1.0, 1, b, 0.1 + 0.02 * b + 0.001 * b * b, 1.0) for b in batches)
    found = fitted(TaskProfile("t", points))
    assert [point.batch for point in found.points] == [1, 2, 4, 8]
    for point in found.points:
        assert point.latency_s == pytest.approx(0.1 + 0.02 * point.batch + 0.001 * point.batch**2)
        assert point.throughput_rps == pytest.approx(point.batch / point.latency_s)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": "median"}, "unknown rule of accuracy 'median'"),
        ({"rate_rps": -1.0}, "expected at least 0 requests/s, got -1"),
        ({"rate_rps": 1e6}, "task 0: no variant serves 1e\\+06 requests/s with 100 replicas"),
        ({"sla_s": 0.01}, "no choice of variants meets the SLA of 0.01 s"),
        ({"replicas": (1, 1)}, "expected one number per task \\(1\\), got 2"),
    ],
)
def test_bad_input_is_one_line(change: dict[str, object], message: str) -> None:
    known = {"rate_rps": 5.0, "sla_s": 1.0, "rule": "sum", "weights": Weights(1.0, 1.0)}
    with pytest.raises(InputError, match=message):
        optimise(Ipa(((Option("v", 0.5, 1, 1, 0.1, 10.0),),), **(known | change)))  # type: ignore[arg-type]


def test_a_negative_accuracy_cannot_be_multiplied() -> None:
    with pytest.raises(InputError, match="at least 0 to multiply, got -0.3"):
        Ipa(((Option("wer", -0.3, 1, 1, 0.1, 10.0),),), 5.0, 1.0, "multiply", Weights(1.0, 1.0))
