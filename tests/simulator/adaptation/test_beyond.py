"""Beyond the published system: variants by slack, looking ahead, hedging, the planner of the loop, the LSTM."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_loop import ONE, SMALL, always

from planner.model import InputError
from planner.planning.applications.ipa import Ipa, Option, Weights
from simulator.adaptation import (
    Configuration,
    Controller,
    Setting,
    oracle,
    outcomes_of,
    reactive,
    running,
    smape_percent,
    trained_lstm,
)
from simulator.adaptation.ipa import hedged, planner_of
from simulator.engine.networks import simulate_network

BOTH = Setting((1, 1), 1)  # 0.1 s and 0.3 s a request
BY_SLACK = replace(ONE, placement="by slack", timeout_s=0.0, answer_by_s=1.0)


@pytest.mark.parametrize("engine", ["events", "simpy"])
@pytest.mark.parametrize(
    ("answer_by_s", "done_us", "variants"),
    [
        # The large one ends the first two at 0.3 and 0.6 s, in time; the others it would end at 0.9 s.
        (0.7, [300_000, 600_000, 120_000, 220_000], [1, 1, 0, 0]),
        # Nothing is in time: each goes where it ends first, the last one at 0.33 s by the large one, not at 0.4 s.
        (0.05, [100_000, 200_000, 300_000, 330_000], [0, 0, 0, 1]),
    ],
)
def test_variants_by_slack_by_hand(engine: str, answer_by_s: float, done_us: list[int], variants: list[int]) -> None:
    network = replace(BY_SLACK, answer_by_s=answer_by_s).network((BOTH,))
    records = simulate_network(network, [np.array([0, 10_000, 20_000, 30_000])], engine=engine)  # type: ignore[arg-type]
    assert records.done_us.tolist() == done_us
    assert records.kind[records.visit[:, 0]].tolist() == variants


def test_more_slack_is_never_less_accurate_by_hand_made_bursts() -> None:
    arrivals_us = np.sort(np.random.default_rng(3).integers(0, 30_000_000, 200))
    accuracy = []
    for answer_by_s in (0.1, 0.5, 1.0, 5.0):
        service = replace(BY_SLACK, answer_by_s=answer_by_s)
        controller = Controller(service, reactive, always((BOTH,)), (BOTH,))
        records = controller.run(arrivals_us)
        accuracy.append(outcomes_of(service, controller.decisions, records, 5.0, 30).accuracy)
    assert accuracy == sorted(accuracy)
    assert accuracy[0] < accuracy[-1]


def test_what_is_left_when_a_plan_begins_by_hand() -> None:
    """12 requests/s for 10 served: 20 are left after 10 s, 28 when the plan begins at 14 s, to be served in 10 s."""
    configuration = (running(0, 1, 1),)
    controller = Controller(
        ONE, reactive, always(configuration), configuration, interval_s=10, start_up_s=4.0, clears=True
    )
    controller.run(np.arange(0, 10 * 12 + 6) * 1_000_000 // 12)
    assert controller.decisions[1].rate_rps == pytest.approx(12 + 28 / 10)


def test_nothing_is_left_where_there_is_room() -> None:
    configuration = (running(0, 1, 2),)
    controller = Controller(ONE, reactive, always(configuration), configuration, clears=True)
    controller.run(np.arange(0, 10 * 12 + 6) * 1_000_000 // 12)
    assert controller.decisions[1].rate_rps == pytest.approx(12)


OPTIONS = ((Option("small", 0.6, 1, 1, 0.1, 10.0), Option("large", 0.8, 2, 1, 0.3, 3.3)),)
IPA = Ipa(OPTIONS, 1.0, 1.0, "sum", Weights(100.0, 1.0), most_replicas=8)


def test_the_programme_plans_for_the_loop() -> None:
    """The large variant, worth 20 more, sustains up to 26.4 requests/s on 8 replicas; the small one up to 80."""
    plan = planner_of(ONE, IPA)
    assert plan(20.0, ()) == (running(1, 1, 7),)
    assert plan(50.0, ()) == (running(0, 1, 5),)
    assert plan(90.0, ()) is None


def test_of_equal_optima_the_one_that_changes_least() -> None:
    """Both are worth as much at 10 requests/s: 60 - 1 and 62 - 3 cores; what is in use stays in use."""
    options = ((Option("small", 0.60, 1, 1, 0.1, 10.0), Option("large", 0.62, 3, 1, 0.3, 10.0)),)
    plan = planner_of(ONE, replace(IPA, options=options))
    for variant in (0, 1):
        assert plan(10.0, (running(variant, 1, 4),)) == (running(variant, 1, 1),)


def test_a_cost_of_changing_keeps_what_is_in_use() -> None:
    """At 20 requests/s the large variant is worth 80 - 14 and the small one 60 - 2: 8 more, less than a change."""
    in_use = (running(0, 1, 3),)
    assert planner_of(ONE, IPA, switching=7.0)(20.0, in_use) == (running(1, 1, 7),)
    assert planner_of(ONE, IPA, switching=9.0)(20.0, in_use) == (running(0, 1, 2),)


def test_hedging_by_hand() -> None:
    """Accurate variants for 16 of 20 requests/s; the other four take 0.4 of a small replica."""
    asked = []

    def planner(rate_rps: float, in_use: Configuration) -> Configuration:
        asked.append(rate_rps)
        return (running(1, 1, 5),)

    assert hedged(BY_SLACK, planner, 0.8)(20.0, ()) == (Setting((1, 5), 1),)
    assert asked == [16.0]
    assert hedged(BY_SLACK, lambda rate_rps, in_use: None, 0.8)(20.0, ()) is None
    with pytest.raises(InputError, match="share of the rate that accurate variants serve: expected above 0"):
        hedged(BY_SLACK, planner, 0.0)


def test_the_shipped_lstm_foresees_steady_loads_and_scales_with_them() -> None:
    counts = np.full(400, 30.0)
    predict = trained_lstm()
    assert predict(counts) == pytest.approx(30.0, rel=0.1)
    assert predict(10 * counts) == pytest.approx(10 * predict(counts), rel=1e-5)
    noisy = np.random.default_rng(1).poisson(40, 2000).astype(float)
    assert smape_percent(predict, noisy) < 15
    assert smape_percent(oracle(noisy), noisy) == 0


def test_a_file_that_is_no_predictor_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "no.onnx"
    path.write_bytes(b"no")
    with pytest.raises(InputError, match=r"no.onnx: is no ONNX file of a predictor .*train_lstm.py"):
        trained_lstm(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer_by_s": None}, "placement by slack: expected answer_by_s above 0 s, got None"),
        ({"answer_by_s": 0.0}, "placement by slack: expected answer_by_s above 0 s, got 0.0"),
        (
            {"tasks": (replace(ONE.tasks[0], variants=ONE.tasks[0].variants[::-1]),)},
            "task classify: expected variants from the least to the most accurate",
        ),
    ],
)
def test_services_by_slack_that_cannot_be_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(BY_SLACK, **change)  # type: ignore[arg-type]


def test_times_between_known_batches() -> None:
    assert SMALL.takes_s(2) == pytest.approx(0.15)
    assert SMALL.takes_s(9) == pytest.approx(0.25)
