"""From a problem and a plan to what is simulated, and plans that cannot be."""

from dataclasses import replace

import numpy as np
import pytest

from planner.model import InputError
from simulator.engine import build_system


def test_pools_cards_and_times_by_hand(two_stages) -> None:
    """Four halves of GPUs, one GPU per server, so two slices a card; three of four blocks, 2 · 2 ms each a request."""
    system = build_system(*two_stages, "first")
    assert system.latency_us.tolist() == [[[0, 12_000, 24_000], [0, 10_000, 20_000]]]
    assert system.transfer_us.tolist() == [[0, 100]]
    assert system.slices.tolist() == [[4, 4]]
    assert system.card_slices.tolist() == [[2, 1]]
    assert system.later_us.tolist() == [[20_000, 0]]
    assert system.devices == (2.0, 4.0)
    assert system.spread is not None
    np.testing.assert_array_equal(system.spread, [[0, 0]])  # estimated, not measured


def test_a_latency_may_be_50_us_off(two_stages) -> None:
    problem, plan = two_stages
    for off_us, fits in ((50, True), (-50, True), (51, False), (-51, False)):
        (second,) = plan.of("second")
        stage = replace(second.stages[0], latency_us=8_000 + off_us)
        other = replace(plan, pipelines=(replace(second, stages=(stage,)),))
        if fits:
            assert build_system(problem, other, "second").latency_us.max() == 8_000  # the profile's
        else:
            with pytest.raises(InputError, match=f"latency {8_000 + off_us} µs, the profile says 8000 µs"):
                build_system(problem, other, "second")


BAD = [
    # the second stage is missing
    (lambda stages: stages[:1], r"pipeline 0 of first: stages cover \[\(0, 3\)\]; expected all 4 blocks once"),
    # block 2 twice
    (lambda stages: (stages[0], replace(stages[1], first_block=2)), r"stages cover \[\(0, 3\), \(2, 4\)\]"),
    # beyond the last block
    (lambda stages: (stages[0], replace(stages[1], last_block=5)), r"stages cover \[\(0, 3\), \(3, 5\)\]"),
    (lambda stages: (stages[0], replace(stages[1], device="TPU")), "unknown device type 'TPU'"),
    # a half of a CPU was not profiled
    (lambda stages: (stages[0], replace(stages[1], share=2)), "profile net has no latencies for CPU 1/2"),
    # batches that would be taken apart between the stages
    (
        lambda stages: (stages[0], replace(stages[1], batch=1)),
        r"one batch size .* got \[2, 1\]; plan without stage_batches",
    ),
]


@pytest.mark.parametrize(("change", "words"), BAD, ids=[words for _, words in BAD])
def test_plans_that_cannot_be_simulated_are_one_line(two_stages, change, words) -> None:
    problem, plan = two_stages
    (first,) = plan.of("first")
    with pytest.raises(InputError, match=words) as caught:
        build_system(problem, replace(plan, pipelines=(replace(first, stages=change(first.stages)),)), "first")
    assert "\n" not in str(caught.value)


def test_a_plan_without_the_dnn_is_refused(two_stages) -> None:
    problem, plan = two_stages
    with pytest.raises(InputError, match=r"the plan has no pipeline for second; it serves \['first'\]"):
        build_system(problem, replace(plan, pipelines=plan.of("first")), "second")


@pytest.mark.parametrize("slices", [32_768, 10**7, 10**12])
def test_a_plan_of_more_slices_than_records_hold_is_refused_before_memory_is_taken(one_stage, slices: int) -> None:
    problem, plan = one_stage()
    (pipeline,) = plan.pipelines
    stage = replace(pipeline.stages[0], slices=slices)
    absurd = replace(plan, pipelines=(replace(pipeline, stages=(stage,)),))
    with pytest.raises(InputError, match=f"net: stages of up to {slices} slices; expected at most 32767 a stage"):
        build_system(problem, absurd, "net")
