"""Measurements and comparisons on runs whose every time is known, because they were simulated."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planner.model import InputError, LatencyBound, Provenance
from simulator.engine import build_system, simulate
from simulator.executor.bounds import Bounds, bounds_of
from simulator.executor.compare import Compared, compare, comparison_csv, latency_shares
from simulator.executor.devices import Emulation
from simulator.executor.dispatcher import with_guard
from simulator.executor.execution import Execution, Settings
from simulator.executor.fleet import SliceId
from simulator.executor.hand_over import hand_over, with_hand_over
from simulator.executor.journal import Batch, Hop, Journal, Usage, Visit, to_records
from simulator.executor.measure import littles_law, measure, throughput
from simulator.results import latencies_us, utilisation
from simulator.results.tables import read_records, write_records


def rehearse(
    case, arrivals_us: np.ndarray, guard_us: int = 0, *, stretch: float = 1.0, way_back_us: int = 0, way_in_us: int = 0
) -> Execution:
    """Return the run that a simulation foretells; ``stretch`` makes the last stage's batches end later.

    ``way_in_us`` is how much later than due batches reach their first slice, ``way_back_us`` how long answers take.
    """
    system = build_system(case.problem, case.plan, case.dnn)
    records = simulate(with_guard(system, guard_us), arrivals_us + way_in_us)
    journal = Journal()
    fate = np.where(records.finished, records.visit[0], -records.outcome).astype(np.int32)
    stages = range(int(system.stages[0]))
    for number, size in enumerate(records.visits[0].size.tolist()):
        first = int(np.flatnonzero(records.visit[0] == number)[0])
        slices = [SliceId(0, s, int(records.visits[s].slice[number])) for s in stages]
        sent_us = int(records.visits[0].arrive_us[number])
        batch = Batch(number, 0, first, size, sent_us, 0, slices, sent_us - way_in_us)
        for s in stages:
            visits = records.visits[s]
            arrive_us, start_us, end_us = (
                int(column[number]) for column in (visits.arrive_us, visits.start_us, visits.end_us)
            )
            if s == stages[-1]:
                end_us = start_us + round((end_us - start_us) * stretch)
            batch.visits.append(Visit(slices[s], number, size, arrive_us, start_us, end_us, end_us))
            journal.hops.append(Hop(0, s, number, size, 64 * size, start_us - 250, start_us, 100))
        batch.answered_us = batch.visits[-1].end_us + way_back_us
        journal.batches.append(batch)
    changes = sorted(
        [(b.sent_us, b.size) for b in journal.batches] + [(b.answered_us or 0, -b.size) for b in journal.batches]
    )
    journal.in_flight = [(0, 0)]
    for time_us, change in changes:
        journal.count_in_flight(time_us, change)
    return Execution(
        records=to_records(journal, system, arrivals_us, fate),
        journal=journal,
        system=system,
        settings=Settings(),
        guard_us=guard_us,
        window_us=(100_000, int(arrivals_us[-1])),
        interrupted=False,
        verdict=None,
        load_average=(0.0, 0.0),
        frontend_cpu_s=0.0,
        emulated="",
    )


@pytest.fixture
def run(make_case) -> Execution:
    return rehearse(make_case(batch=1, latency_us=8_000, slo_us=80_000), np.arange(500, dtype=np.int64) * 5_000)


def test_throughput_of_a_steady_stream(run: Execution) -> None:
    found = throughput(run)
    assert found.rps == pytest.approx(200, rel=0.01)
    assert found.half_width_rps < 2


def test_the_confidence_interval_holds_the_true_rate(make_case) -> None:
    inside = 0
    for seed in range(20):
        arrivals_us = np.cumsum(np.random.default_rng(seed).exponential(8_000, 1_000)).astype(np.int64)
        found = throughput(rehearse(make_case(batch=1, latency_us=8_000, slo_us=400_000), arrivals_us))
        inside += abs(found.rps - 125) <= found.half_width_rps
    assert inside >= 16  # 95 % of 20 are 19; fewer than 16 have a probability of 0.3 %


def test_records_of_a_run_are_those_of_its_simulation(run: Execution) -> None:
    simulated = simulate(run.system, run.records.arrival_us)
    assert (run.records.outcome == simulated.outcome).all()
    assert (run.records.end_us() == simulated.end_us()).all()
    for ours, theirs in zip(run.records.visits, simulated.visits, strict=True):
        for column in ("pipeline", "size", "slice", "arrive_us", "start_us", "end_us"):
            assert (getattr(ours, column) == getattr(theirs, column)).all(), column


def test_slices_and_hops(run: Execution) -> None:
    measurement = measure(run)
    first = measurement.slices[0]
    # A stage takes 4 ms, a request comes every 5 ms.
    assert first.busy == pytest.approx(0.8, abs=0.01)
    assert first.bubble == pytest.approx(0.2, abs=0.01)
    assert first.requests_per_s == pytest.approx(200, rel=0.01)
    assert first.device == "core"
    assert [hop.stage for hop in measurement.hops] == [0, 1]
    assert measurement.hops[1].bytes_per_request == 64
    assert (measurement.hops[1].mean_us, measurement.hops[1].waited_us) == (250, 100)


def test_cpu_is_taken_from_samples_and_tells_of_other_programs(run: Execution) -> None:
    at, memory = SliceId(0, 0, 0), 5_000_000
    run.journal.usage += [Usage(t, at, cpu_s, memory) for t, cpu_s in ((500_000, 1.0), (1_500_000, 1.4))]
    measurement = measure(run)
    assert measurement.slices[0].cpu == pytest.approx(0.4)
    assert measurement.slices[0].memory_bytes == memory
    assert measurement.disturbed == (at,)  # busy for 0.8 of the time, on a core for 0.4
    run.journal.usage[-1] = Usage(1_500_000, at, 1.8, memory)
    assert measure(run).disturbed == ()


def test_littles_law_holds(run: Execution) -> None:
    little = littles_law(run)
    # 8 ms in the pipeline, 200 requests a second.
    assert little.in_flight == pytest.approx(1.6, rel=0.01)
    assert little.error < 1e-9


TAMPERED: list[tuple[str, Callable[[Execution], None]]] = [
    # a clock that runs at half speed in the workers: latencies too short
    ("latencies", lambda run: run.records.answered_us.__isub__(4_000)),
    # requests counted twice
    ("counts", lambda run: setattr(run.journal, "in_flight", [(t, 2 * n) for t, n in run.journal.in_flight])),
]


@pytest.mark.parametrize(("what", "tamper"), TAMPERED, ids=[name for name, _ in TAMPERED])
def test_a_result_that_breaks_littles_law_is_refused_with_its_figures(
    run: Execution, what: str, tamper: Callable[[Execution], None]
) -> None:
    tamper(run)
    with pytest.raises(
        InputError, match=r"result refused: it breaks Little's law .* requests in flight, .* requests/s"
    ):
        measure(run)


def test_an_empty_window_is_refused(run: Execution) -> None:
    with pytest.raises(InputError, match="nothing to measure"):
        measure(replace(run, window_us=(9_000_000, 2_000_000)))


def test_a_run_as_foretold_compares_equal(make_case) -> None:
    case = make_case(batch=2, latency_us=8_000, slo_us=60_000)
    arrivals_us = np.cumsum(np.random.default_rng(3).exponential(4_000, 600)).astype(np.int64)
    comparison = compare(rehearse(case, arrivals_us, guard_us=3_000))
    assert all(row.difference == pytest.approx(0) for row in comparison.rows)
    assert {row.quantity for row in comparison.rows} == {
        "throughput",
        "p50 latency",
        "p99 latency",
        "attainment",
        "utilisation of pipeline 0 stage 0",
        "utilisation of pipeline 0 stage 1",
    }


def test_a_slower_stage_shows(make_case) -> None:
    case = make_case(batch=1, latency_us=8_000, slo_us=60_000)
    comparison = compare(rehearse(case, np.arange(400, dtype=np.int64) * 10_000, stretch=1.5))
    assert comparison.row("p50 latency").difference == pytest.approx(0.25)  # 8 ms foretold, 10 ms taken
    assert comparison.row("utilisation of pipeline 0 stage 1").difference == pytest.approx(20, abs=0.5)
    assert comparison.row("throughput").difference == pytest.approx(0, abs=0.01)
    latencies = latency_shares(comparison)
    assert latencies.loc[latencies["share"] == 0.5].to_numpy().tolist() == [pytest.approx([0.5, 8.0, 10.0, 60.0])]


def test_stages_tell_how_many_batches_kept_their_bounds_and_medians_are_none(make_case) -> None:
    """The first stage's two blocks were measured, the last one's are bounded: only that one is held to its level."""
    case = make_case(batch=1, latency_us=8_000, slo_us=60_000)
    dnn = case.problem.dnns[0]
    (table,) = dnn.variants[0].tables

    def bounds(*measured: bool) -> Bounds | None:
        bound = replace(table, provenance=Provenance("bound", "by hand", level=0.95), measured=(measured,))
        variants = (replace(dnn.variants[0], bounds=(bound,)),)
        options = replace(case.problem.options, latency=LatencyBound(0.95))
        problem = replace(case.problem, dnns=(replace(dnn, variants=variants),), options=options)
        return bounds_of(problem, case.plan, case.dnn)

    arrivals_us = np.arange(400, dtype=np.int64) * 10_000
    for stretch, kept in ((1.0, 1.0), (1.5, 0.0)):  # the rehearsal stretches the last stage
        run = rehearse(case, arrivals_us, stretch=stretch)
        told = [row for row in compare(run, bounds=bounds(True, True, False, True)).rows if "bounds" in row.quantity]
        assert [(row.quantity, row.predicted, row.measured) for row in told] == [
            ("bounds kept by pipeline 0 stage 1", 0.95, kept)
        ]
        assert not any("bounds" in row.quantity for row in compare(run, bounds=bounds(True, True, True, True)).rows)
    assert bounds_of(case.problem, case.plan, case.dnn) is None


def test_differences_have_units() -> None:
    rows = [Compared("a", "ms", 20.0, 21.0, "relative"), Compared("b", "share", 0.99, 0.98, "points")]
    assert [row.text for row in rows] == ["+5.0%", "-1.0 points"]
    assert comparison_csv(rows).splitlines() == [
        "quantity,unit,predicted,measured,difference,difference_unit",
        "a,ms,20,21,5,%",
        "b,share,0.99,0.98,-1,points",
    ]


def test_the_way_back_belongs_to_the_latency_and_not_to_the_last_slice(make_case) -> None:
    case = make_case(batch=1, latency_us=8_000, slo_us=80_000)
    arrivals_us = np.arange(200, dtype=np.int64) * 10_000
    run = rehearse(case, arrivals_us, way_back_us=3_000)
    # Two stages of 4 ms every 10 ms; the answer takes 3 ms more.
    comparison = compare(run)
    assert comparison.row("p50 latency").measured == pytest.approx(11.0)
    assert comparison.row("utilisation of pipeline 0 stage 1").measured == pytest.approx(0.4, abs=0.01)
    assert utilisation(run.records)["core"] == pytest.approx(0.4, abs=0.01)


def test_what_handing_over_costs_is_found_and_makes_the_prediction_true(make_case) -> None:
    """Batches come 400 µs late, stages take 100 µs longer than planned, hops 250 µs, answers 300 µs."""
    case = make_case(batch=1, latency_us=8_000, slo_us=80_000, bandwidth_gbps=1e6)
    slower = make_case(batch=1, latency_us=8_200, slo_us=80_000, bandwidth_gbps=1e6, hop_latency_us=250)
    arrivals_us = np.cumsum(np.random.default_rng(5).exponential(6_000, 1_000)).astype(np.int64)
    run = rehearse(slower, arrivals_us, way_in_us=400, way_back_us=300)
    for batch in run.journal.batches:  # of the 4.1 ms on a slice, 4 ms are computed
        batch.visits = [visit._replace(computed_us=visit.start_us + 4_000) for visit in batch.visits]
    run = replace(run, window_us=(1_000_000, run.window_us[1]), frontend_cpu_s=0.2)
    costs = hand_over(run)
    assert costs is not None
    assert costs.ways_us == ((pytest.approx(400), pytest.approx(250), pytest.approx(300)),)
    assert costs.on_slice_us == ((pytest.approx(100), pytest.approx(100)),)
    assert costs.per_batch_us(0) == pytest.approx(1150)
    assert costs.frontend_us == pytest.approx(200)
    planned = replace(run, system=build_system(case.problem, case.plan, case.dnn))
    informed, ignorant = compare(planned, costs), compare(planned)
    for quantity in ("throughput", "p50 latency", "p99 latency", "attainment"):
        assert informed.row(quantity).difference == pytest.approx(0, abs=1e-3), quantity
    assert ignorant.row("p50 latency").difference > 0.1


def test_an_emulated_network_is_no_part_of_the_ways(make_case) -> None:
    slower = make_case(batch=1, latency_us=8_000, hop_latency_us=250)
    run = rehearse(slower, np.arange(300, dtype=np.int64) * 10_000)
    run.journal.hops = [hop._replace(waited_us=0) for hop in run.journal.hops]
    emulating = replace(run, settings=Settings(emulation=Emulation(network=True)))
    costs = hand_over(replace(emulating, window_us=(2_000_000, 3_000_000)))
    assert costs is not None
    assert costs.ways_us[0][1] == pytest.approx(0)
    system = with_hand_over(run.system, costs, emulated=True)
    assert (system.hop_us == run.system.hop_us).all()


def test_a_short_warm_up_tells_nothing_of_handing_over(make_case) -> None:
    run = rehearse(make_case(batch=1, latency_us=8_000), np.arange(300, dtype=np.int64) * 10_000)
    assert hand_over(replace(run, window_us=(100_000, 3_000_000))) is None


def test_records_of_a_run_are_read_as_they_were_written(make_case, tmp_path: Path) -> None:
    case = make_case(batch=2, latency_us=8_000, slo_us=30_000)
    # More than can be served: some requests have no answer.
    run = rehearse(case, np.arange(300, dtype=np.int64) * 1_500, way_back_us=500)
    assert 0 < run.records.finished.sum() < 300
    write_records(run.records, tmp_path / "tiny.records.csv")
    again = read_records(tmp_path / "tiny.records.csv", run.system)
    assert again.answered_us is not None
    np.testing.assert_array_equal(again.answered_us, run.records.answered_us)
    np.testing.assert_array_equal(latencies_us(again), latencies_us(run.records))
