"""Both engines give the same records, and those obey the rules of queues."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from same_records import assert_same

from planner.model import InputError
from simulator.dispatch.decisions import FINISHED, OPEN
from simulator.engine import POLICIES, System, simulate
from simulator.engine.replay import replay
from simulator.results.metrics import latencies_us, latency_parts_us


def make_system(pipelines: list[list[dict]], slo_us: int, batches: list[int]) -> System:
    """A system of pipelines, each a list of stages: latency_us (per batch size), slices, card, transfer_us, hop_us."""
    width, most = max(map(len, pipelines)), max(batches)
    shape = len(pipelines), width
    arrays = {name: np.zeros(shape, np.int64) for name in ("transfer_us", "hop_us", "slices", "card_slices", "share")}
    latency_us = np.zeros((*shape, most + 1), np.int64)
    for p, stages in enumerate(pipelines):
        for s, stage in enumerate(stages):
            latency_us[p, s, 1 : batches[p] + 1] = stage["latency_us"][: batches[p]]
            arrays["slices"][p, s] = stage["slices"]
            arrays["share"][p, s] = 1
            arrays["card_slices"][p, s] = stage.get("card", 1) if s < len(stages) - 1 else 1
            if s > 0:
                arrays["transfer_us"][p, s], arrays["hop_us"][p, s] = (
                    stage.get("transfer_us", 0),
                    stage.get("hop_us", 0),
                )
    after = np.zeros(shape, np.int64)
    for p, stages in enumerate(pipelines):
        for s in range(len(stages) - 2, -1, -1):
            out = arrays["transfer_us"][p, s + 2] * batches[p] if s + 2 < len(stages) else 0
            after[p, s] = after[p, s + 1] + latency_us[p, s + 1, batches[p]] + out
    return System(
        dnn="net",
        slo_us=slo_us,
        stages=np.array([len(stages) for stages in pipelines]),
        batch=np.array(batches),
        latency_us=latency_us,
        later_us=after,
        server_slices=np.maximum(arrays["card_slices"], 1),
        device=np.where(arrays["slices"] > 0, 0, -1),
        device_types=("GPU",),
        devices=(float(arrays["slices"].sum()),),
        prices_per_hour=(1.0,),
        **arrays,
    )


@st.composite
def systems(draw) -> System:
    """Small systems in which ties, waiting cards and drops are common; latencies need not grow with the batch."""
    batches = draw(st.lists(st.integers(1, 8), min_size=1, max_size=3))
    pipelines = []
    for batch in batches:
        stage = st.fixed_dictionaries(
            {
                "latency_us": st.lists(st.integers(1, 60).map(lambda x: 10 * x), min_size=batch, max_size=batch),
                "slices": st.integers(1, 9),
                "card": st.integers(1, 4),
                "transfer_us": st.integers(0, 30),
                "hop_us": st.sampled_from([0, 0, 25]),
            }
        )
        pipelines.append(draw(st.lists(stage, min_size=1, max_size=3)))
    return make_system(pipelines, draw(st.integers(100, 4000)), batches)


arrivals = st.lists(st.integers(0, 200), min_size=1, max_size=120).map(lambda gaps: np.cumsum(np.array(gaps) // 2 * 2))


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=40, deadline=None)
@given(system=systems(), arrivals_us=arrivals)
def test_engines_give_the_same_records(policy: str, system: System, arrivals_us) -> None:
    chosen, found = (simulate(system, arrivals_us, policy=policy, engine=engine) for engine in ("auto", "events"))
    assert chosen.engine == ("events" if policy == "reactive" else "replay")
    other = simulate(system, arrivals_us, policy=policy, engine="simpy") if policy == "reactive" else chosen
    assert_same(found, other)


@pytest.mark.parametrize("slices", [1, 2, 31, 32, 33, 64, 70])
def test_single_pools_of_any_size_on_replay(slices: int) -> None:
    """Slices are bits of words there: each number of words, busy to the last slice, with ties and hopeless requests."""
    system = make_system([[{"latency_us": [100], "slices": slices}]], 150, [1])
    rng = np.random.default_rng(slices)
    busy_us = np.sort(rng.integers(0, 2000, 60 * slices)) // 5 * 5
    for arrivals_us in (busy_us, busy_us * 4):
        found = simulate(system, arrivals_us)
        assert found.engine == "replay"
        assert_same(simulate(system, arrivals_us, engine="events"), found)
    assert np.unique(simulate(system, busy_us).visits[0].slice).tolist() == list(range(slices))


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=40, deadline=None)
@given(system=systems(), arrivals_us=arrivals)
def test_every_request_is_accounted_for(policy: str, system: System, arrivals_us) -> None:
    records = simulate(system, arrivals_us, policy=policy)
    assert not (records.outcome == OPEN).any()
    for visit, visits in zip(records.visit, records.visits, strict=True):
        # a batch has as many requests as it says
        np.testing.assert_array_equal(np.bincount(visit[visit >= 0], minlength=len(visits.size)), visits.size)
        # a slice serves one batch at a time, each for its stage's latency
        for p in range(len(system.stages)):
            for w in np.unique(visits.slice[(visits.pipeline == p) & (visits.slice >= 0)]):
                here = (visits.pipeline == p) & (visits.slice == w)
                order = np.lexsort((visits.end_us[here], visits.start_us[here]))
                start_us, end_us = visits.start_us[here][order], visits.end_us[here][order]
                assert (start_us[1:] >= end_us[:-1]).all()
        assert (visits.arrive_us <= visits.start_us).all()
    parts = latency_parts_us(records, warm_up_us=0)
    assert (sum(parts.values()) == latencies_us(records, warm_up_us=0)).all()
    assert all((values >= 0).all() for values in parts.values())


def test_md1_by_hand() -> None:
    """One slice of 10 µs, batch 1: arrivals at 0, 4, 30 are served at 0, 10, 30 and end at 10, 20, 40."""
    system = make_system([[{"latency_us": [10], "slices": 1}]], slo_us=1000, batches=[1])
    records = simulate(system, np.array([0, 4, 30]))
    assert records.end_us().tolist() == [10, 20, 40]
    assert records.outcome.tolist() == [FINISHED] * 3


def test_a_batch_waits_until_its_head_would_be_late() -> None:
    """Batch 2 takes 15 µs, batch 1 takes 10; SLO 40. The only request waits until 40 - 15 + 1 = 26 and goes alone."""
    system = make_system([[{"latency_us": [10, 15], "slices": 1}]], slo_us=40, batches=[2])
    records = simulate(system, np.array([0]))
    assert records.visits[0].arrive_us.tolist() == [26]
    assert records.visits[0].end_us.tolist() == [36]


@pytest.mark.parametrize(
    ("arrivals_us", "options", "message"),
    [
        ([], {}, "zero requests"),
        ([5, 3], {}, "not sorted: request 1 at 3 µs after 5 µs"),
        ([-1, 3], {}, "expected times from 0 µs on, got -1"),
        ([0.5, 3.0], {}, "expected one row of integer µs, got float64 of shape .2,.; simulator.workload.from_seconds"),
        ([1], {"policy": "fifo"}, "unknown policy 'fifo'"),
        ([1], {"engine": "fast"}, "unknown engine 'fast'"),
        ([1], {"policy": "reactive", "engine": "replay"}, "policy reactive needs the events engine, got replay"),
    ],
)
def test_bad_input_is_one_line(arrivals_us, options, message) -> None:
    system = make_system([[{"latency_us": [10], "slices": 1}]], slo_us=40, batches=[1])
    with pytest.raises(InputError, match=message):
        simulate(system, np.array(arrivals_us), **options)


def test_batches_take_what_is_true_while_the_dispatcher_decides_by_what_it_believes() -> None:
    """One slice, 10 ms believed and 12 ms true, a request every 10 ms: none is dropped, and they fall behind."""
    believed = make_system([[{"latency_us": [10_000], "slices": 1}]], 25_000, [1])
    true = make_system([[{"latency_us": [12_000], "slices": 1}]], 25_000, [1])
    arrivals_us = np.arange(10, dtype=np.int64) * 10_000
    as_believed, as_true = replay(believed, arrivals_us, 0), replay(believed, arrivals_us, 0, truth=true)
    assert (as_true.outcome == as_believed.outcome).all()
    assert latencies_us(as_believed, 0).tolist() == [10_000] * 10
    assert latencies_us(as_true, 0).tolist() == [12_000 + 2_000 * number for number in range(10)]
    same = replay(believed, arrivals_us, 0, truth=believed)
    assert (same.end_us() == as_believed.end_us()).all()
