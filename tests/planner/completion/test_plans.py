"""What a plan rests on: by hand, for a chain of variants, and what of it was measured."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from planner.completion.plans import Relied, among, relied_on, unmeasured
from planner.completion.profiles import monotone
from planner.model import Block, InputError, Pipeline, Plan, Profile, Provenance, Stage
from planner.model.observed import Observed, Run

MEASURED = Provenance("measured", "by hand")
MODELS = tuple(Profile(name, tuple(Block((f"{name}{n}",)) for n in range(3)), (8, 8), ()) for name in ("a", "b"))


def stage(first, last, device="L4", share=1, batch=2):
    return Stage(first, last, device, share, 1, batch, 10, 0.0, 100.0)


def pipeline(variant, throughput_rps, *stages):
    return Pipeline("dnn", variant, throughput_rps, 0.0, 0.0, stages)


def plan(*pipelines):
    return Plan("pipelines", "max_min_throughput", "optimal", 1, 1, "milp", "highs", 0.1, "", {}, pipelines)


def run(model, device, batch, latency_us, **more):
    return Run(model, device, 1, batch, latency_us, MEASURED, **more)


def test_runs_of_a_plan_by_hand():
    made = plan(
        pipeline("a", 40.0, stage(0, 1), stage(1, 3, "P4")),
        pipeline("a", 25.0, stage(0, 2), stage(2, 3, "P4")),
        pipeline("b", 30.0, stage(0, 3, share=2)),
    )
    assert relied_on(made, Observed(MODELS)) == (
        Relied(("a", "L4", 1, 2), 0, 2, 65.0),  # blocks of both pipelines' stages, and their requests
        Relied(("a", "P4", 1, 2), 1, 3, 65.0),
        Relied(("b", "L4", 2, 2), 0, 3, 30.0),
    )


def test_a_stage_of_a_chain_rests_on_a_run_of_each_variant():
    made = plan(pipeline("a+b", 10.0, stage(0, 2), stage(2, 5, "P4"), stage(5, 6)))
    assert set(relied_on(made, Observed(MODELS))) == {
        Relied(("a", "L4", 1, 2), 0, 2, 10.0),
        Relied(("a", "P4", 1, 2), 2, 3, 10.0),
        Relied(("b", "P4", 1, 2), 0, 2, 10.0),
        Relied(("b", "L4", 1, 2), 2, 3, 10.0),
    }


def test_what_was_measured_alone_and_in_the_blocks_that_count_is_not_asked_for():
    made = plan(pipeline("a", 40.0, stage(0, 1), stage(1, 3, "P4")))
    seen = Observed(MODELS, (run("a", "L4", 2, (5.0, None, None)), run("a", "P4", 2, (None, None, 7.0))))
    assert [one.place for one in unmeasured(made, seen)] == [("a", "P4", 1, 2)]
    twice = replace(seen, runs=(*seen.runs, run("a", "P4", 2, (None, 6.0, None))))
    assert unmeasured(made, twice) == ()
    beside = replace(seen, runs=(*seen.runs, run("a", "P4", 2, (9.0, 9.0, 9.0), beside=("b",))))
    assert unmeasured(made, beside) == unmeasured(made, seen)


def test_of_many_runs_those_asked_for_are_taken():
    runs = (run("a", "L4", 2, (1.0,) * 3), run("a", "L4", 4, (1.0,) * 3), run("a", "L4", 2, (1.0,) * 3, beside=("b",)))
    assert among(runs, (Relied(("a", "L4", 1, 2), 0, 3, 1.0),)) == runs[:1]


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (plan(pipeline("c", 1.0, stage(0, 3))), "the plan serves 'c', which was never observed; expected some of"),
        (plan(pipeline("a+c", 1.0, stage(0, 6))), "the plan serves 'c'"),
        (plan(pipeline("a", 1.0, stage(0, 4))), "pipeline of dnn: a has 3 blocks in the observations, 4 in the plan"),
    ],
)
def test_plans_of_other_models_are_refused(made, text):
    with pytest.raises(InputError, match=text) as refused:
        unmeasured(made, Observed(MODELS))
    assert "\n" not in str(refused.value)


@given(arrays(float, (5, 2), elements=st.floats(1, 9)), arrays(bool, (5, 2)))
def test_latencies_do_not_fall_with_the_batch_nor_below_what_was_measured(rows, known):
    measured = np.where(known, np.sort(rows, axis=0), np.nan)
    found = monotone(rows, measured)
    assert (np.diff(found, axis=0) >= 0).all()
    assert (found[known] == measured[known]).all()  # measurements that do not fall stand
