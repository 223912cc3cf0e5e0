"""Whole runs on this machine with a model that takes no time; what takes time is slept."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest

from planner.files import save
from planner.model import InputError
from simulator.dispatch.decisions import FINISHED, LOST, OPEN
from simulator.executor import Emulation, Execution, Patience, Settings, execute
from simulator.executor.fleet import Equipment, Event, SliceId, Up
from simulator.executor.local import LocalFleet

A_WHILE_S = 300  # longer than anything takes on a machine that has very much else to do


def arrivals(count: int, gap_us: int) -> np.ndarray:
    return np.arange(count, dtype=np.int64) * gap_us


def slowed(factor: float, **more: object) -> Settings:
    """Batches that take ``factor`` times a fraction of a millisecond."""
    return Settings(oversubscribe=True, emulation=Emulation(slowdown={"core": factor}), **more)  # type: ignore[arg-type]


class Meddling:
    """Makes local fleets, and does something to a worker once the run is at a given time."""

    def __init__(self, at_us: int, act: Callable[[LocalFleet], None]) -> None:
        self.at_us, self.act = at_us, act
        self.fleet: LocalFleet | None = None

    def make(self, equipment: Equipment) -> LocalFleet:
        self.fleet = LocalFleet(equipment)
        return self.fleet

    def tick(self, now_us: int) -> None:
        if now_us >= self.at_us and self.fleet is not None:
            fleet, self.fleet = self.fleet, None
            self.act(fleet)


def signal_worker(slice_id: SliceId, number: int) -> Callable[[LocalFleet], None]:
    def act(fleet: LocalFleet) -> None:
        process_id = fleet.process_id(slice_id)
        assert process_id is not None
        os.kill(process_id, number)

    return act


def assert_nothing_left() -> None:
    """No worker survives a run (the resource tracker of multiprocessing may)."""
    workers = [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]
    psutil.wait_procs(workers, timeout=A_WHILE_S)
    assert not [p for p in workers if p.is_running()]


def assert_conserved(execution: Execution, requests: int) -> None:
    """Every request is in the records once, and those that finished went through every stage in order."""
    records = execution.records
    assert len(records) == requests
    for row, visits in zip(records.visit, records.visits, strict=True):
        assert (row[records.finished] >= 0).all()
        assert (visits.arrive_us <= visits.start_us).all()
        assert (visits.start_us <= visits.end_us).all()
    sizes = np.bincount(records.visit[-1][records.visit[-1] >= 0])
    assert (sizes == records.visits[-1].size).all()
    assert execution.journal.in_flight[-1][1] == 0


def test_every_request_is_answered_as_the_unsplit_model_would(make_case) -> None:
    case = make_case(cuts=(1, 3), slices=(1, 2, 1), batch=4)
    run = execute(case.problem, case.plan, case.dnn, case.models, arrivals(200, 2_000), replace(slowed(1), verify=True))
    assert_conserved(run, 200)
    assert run.records.finished.all()
    assert run.verdict is not None
    assert run.verdict.compared == 200
    assert run.verdict.wrong == 0
    assert run.records.engine == "executor"
    # The input is read by the first and the last stage, so at both cuts a tensor of the stage and the input are alive.
    assert {hop.nbytes // hop.size for hop in run.journal.hops if hop.stage in (1, 2)} == {2 * 64}
    assert_nothing_left()


def test_a_script_needs_no_guard_against_its_workers(make_case, tmp_path: Path) -> None:
    case = make_case(batch=1)
    save(case.problem, tmp_path / "problem.json")
    save(case.plan, tmp_path / "plan.json")
    script = tmp_path / "script.py"
    script.write_text(
        f"""
from pathlib import Path
import numpy as np, onnx_ir
from planner.files import load_plan, load_problem
from simulator.executor import Settings, execute
print("begun")
folder = Path({str(tmp_path)!r})
problem, plan = load_problem(folder / "problem.json"), load_plan(folder / "plan.json")
models = {{"tiny": onnx_ir.load(folder / "tiny.onnx")}}
run = execute(problem, plan, "tiny", models, np.arange(9) * 1000, Settings(oversubscribe=True))
print(int(run.records.finished.sum()), "of 9")
"""
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=A_WHILE_S, check=False)
    assert done.stdout.split("\n")[:2] == ["begun", "9 of 9"], done.stderr


def test_a_worker_killed_under_its_batches_costs_nothing_where_another_slice_has_time(make_case) -> None:
    case = make_case(slices=(1, 2), slo_us=A_WHILE_S * 1_000_000)
    killed = SliceId(0, 1, 0)
    enough = threading.Event()

    class Watched(LocalFleet):
        """Kills the worker when it is sent its first batch, and says so when it is sent one after it is back."""

        alive, back = True, False

        def send(self, batch: int, stage: int, slices: Sequence[SliceId]) -> None:
            super().send(batch, stage, slices)
            if killed in slices and self.back:
                enough.set()
            elif killed in slices and self.alive:
                self.alive = False
                signal_worker(killed, signal.SIGKILL)(self)

        def poll(self, timeout_s: float) -> list[Event]:
            events = super().poll(timeout_s)
            self.back |= not self.alive and Up(killed) in events
            return events

    def stop_then(now_us: int) -> None:
        if enough.is_set():
            enough.clear()
            os.kill(os.getpid(), signal.SIGINT)

    arrivals_us = arrivals(A_WHILE_S * 1_000 // 15, 15_000)
    run = execute(
        case.problem, case.plan, case.dnn, case.models, arrivals_us, replace(slowed(100), verify=True),
        make_fleet=Watched, tick=stop_then,
    )  # fmt: skip
    assert run.interrupted  # long before the last arrival
    assert_conserved(run, len(run.records))
    assert set(np.unique(run.records.outcome)) <= {FINISHED, OPEN}  # of those that wait at the end nothing was lost
    assert run.verdict is not None
    assert run.verdict.wrong == 0
    what = [incident.what for incident in run.journal.incidents]
    assert any("exit code -9" in text for text in what)
    assert "up again" in what  # the slice comes back within the run
    back_us = next(incident.time_us for incident in run.journal.incidents if incident.what == "up again")
    visits = run.records.visits[1]
    assert (visits.slice[visits.start_us > back_us] == 0).any()


def test_requests_of_the_only_slice_that_dies_are_reported_lost(make_case) -> None:
    case = make_case(slo_us=100_000)  # too short for a worker to start again
    meddling = Meddling(200_000, signal_worker(SliceId(0, 1, 0), signal.SIGKILL))
    run = execute(
        case.problem, case.plan, case.dnn, case.models, arrivals(2_000, 1_000), slowed(20),
        make_fleet=meddling.make, tick=meddling.tick,
    )  # fmt: skip
    assert_conserved(run, 2_000)
    assert (run.records.outcome == LOST).any()
    assert sum(i.requests for i in run.journal.incidents if "lost" in i.what) == (run.records.outcome == LOST).sum()
    assert_nothing_left()


def test_a_worker_that_hangs_is_replaced(make_case) -> None:
    case = make_case(slo_us=A_WHILE_S * 1_000_000)
    meddling = Meddling(200_000, signal_worker(SliceId(0, 0, 0), signal.SIGSTOP))
    run = execute(
        case.problem, case.plan, case.dnn, case.models, arrivals(100, 5_000),
        replace(slowed(1), patience=Patience(batch_s=0.5)), make_fleet=meddling.make, tick=meddling.tick,
    )  # fmt: skip
    assert_conserved(run, 100)
    assert any("no answer for" in incident.what for incident in run.journal.incidents)
    assert run.records.finished.all()  # the slice came back, and the deadline allowed to wait for it


def test_a_limit_on_batches_in_flight_keeps_requests_in_the_queue(make_case) -> None:
    case = make_case(batch=2, slo_us=30_000_000)
    run = execute(case.problem, case.plan, case.dnn, case.models, arrivals(60, 0), replace(slowed(50), in_flight=2))
    assert_conserved(run, 60)
    assert max(requests for _, requests in run.journal.in_flight) == 4  # two batches of two
    assert run.records.finished.all()


def test_workers_pass_batches_on_by_themselves(make_case) -> None:
    case = make_case(cuts=(1, 2, 3), slices=(1, 2, 1, 1), batch=2, slo_us=30_000_000)
    sent: list[tuple[int, int]] = []

    class Counting(LocalFleet):
        def send(self, batch: int, stage: int, slices: Sequence[SliceId]) -> None:
            sent.append((batch, stage))
            super().send(batch, stage, slices)

    run = execute(
        case.problem, case.plan, case.dnn, case.models, arrivals(100, 3_000), replace(slowed(5), verify=True),
        make_fleet=Counting,
    )  # fmt: skip
    assert_conserved(run, 100)
    assert run.verdict is not None
    assert (run.verdict.compared, run.verdict.wrong) == (100, 0)
    assert sent == [(batch.number, 0) for batch in run.journal.batches]  # once each, to the first stage
    for batch in run.journal.batches:
        assert [visit.slice.stage for visit in batch.visits] == [0, 1, 2, 3]
        for before, after in pairwise(batch.visits):
            assert before.start_us < before.computed_us <= before.end_us == after.arrive_us <= after.start_us


def test_ctrl_c_drains_and_keeps_what_there_is(make_case) -> None:
    case = make_case()
    sent = threading.Event()

    def interrupt(now_us: int) -> None:
        if now_us > 200_000 and not sent.is_set():
            sent.set()
            os.kill(os.getpid(), signal.SIGINT)

    run = execute(case.problem, case.plan, case.dnn, case.models, arrivals(50_000, 2_000), slowed(1), tick=interrupt)
    assert run.interrupted
    assert 50 < len(run.records) < 50_000
    assert set(np.unique(run.records.outcome)) <= {FINISHED, OPEN}
    assert_conserved(run, len(run.records))
    assert_nothing_left()


def test_emulated_links_take_their_time(make_case) -> None:
    # 128 bytes a request cross the cut (64 of the stage's, 64 of the input): 1024 bit at 0.0001 Gbit/s = 10.24 ms.
    case = make_case(batch=1, bandwidth_gbps=1e-4, hop_latency_us=5_000.0)
    run = execute(
        case.problem, case.plan, case.dnn, case.models, arrivals(20, 30_000),
        Settings(oversubscribe=True, emulation=Emulation(network=True)),
    )  # fmt: skip
    hops_us = [hop.end_us - hop.start_us for hop in run.journal.hops if hop.stage == 1]
    assert 15_240 <= min(hops_us) < 2 * 15_240
    assert "network is emulated" in run.emulated


def test_the_frontend_dies_and_its_workers_follow(make_case) -> None:
    case = make_case()

    def act(now_us: int) -> None:
        raise RuntimeError("a requester's mistake")

    with pytest.raises(RuntimeError, match="mistake"):
        execute(case.problem, case.plan, case.dnn, case.models, arrivals(5, 0), slowed(1), tick=act)
    assert_nothing_left()


def test_a_model_that_was_not_profiled_is_refused(make_case) -> None:
    case = make_case()
    with pytest.raises(InputError, match="no model is given for variant 'tiny'"):
        execute(case.problem, case.plan, case.dnn, {}, arrivals(1, 0), slowed(1))
    for node in case.models["tiny"].graph:
        node.name = f"other_{node.name}"
    with pytest.raises(InputError, match="profile tiny is of another model"):
        execute(case.problem, case.plan, case.dnn, case.models, arrivals(1, 0), slowed(1))


SETTINGS = [
    (Settings(), "need 40 cores"),
    (Settings(oversubscribe=True, policy="magic"), "unknown policy 'magic'"),
    (Settings(oversubscribe=True, in_flight=0), "in-flight: expected"),
    (Settings(oversubscribe=True, guard_fraction=1.0), "guard: expected"),
    (Settings(oversubscribe=True, emulation=Emulation(slowdown={"core": 0.5})), "slowdown of core: expected"),
    (Settings(oversubscribe=True, emulation=Emulation(cores={"gpu": 1})), "unknown device type 'gpu'"),
]


@pytest.mark.parametrize(("settings", "said"), SETTINGS)
def test_bad_settings_are_refused(make_case, settings: Settings, said: str) -> None:
    case = make_case(slices=(20, 20))
    with pytest.raises(InputError, match=said):
        execute(case.problem, case.plan, case.dnn, case.models, arrivals(1, 0), settings)


def test_a_missing_provider_is_found_before_a_worker_starts(make_case) -> None:
    case = make_case()
    settings = Settings(oversubscribe=True, provider="NoSuchProvider")
    with pytest.raises(InputError, match="NoSuchProvider"):
        execute(case.problem, case.plan, case.dnn, case.models, arrivals(1, 0), settings, make_fleet=pytest.fail)


def test_a_worker_that_cannot_start_leaves_no_other_behind(make_case) -> None:
    case = make_case()

    def make(equipment: Equipment) -> LocalFleet:
        equipment.tasks[SliceId(0, 1, 0)].parts[0].path.write_bytes(b"no model")
        return LocalFleet(equipment)

    with pytest.raises(InputError, match=r"stage 1 slice 0: its worker did not start: onnxruntime cannot run"):
        execute(case.problem, case.plan, case.dnn, case.models, arrivals(1, 0), slowed(1), make_fleet=make)
    assert_nothing_left()


def test_real_time_priority_is_taken_for_the_run_and_given_back(make_case, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case()
    taken: list[int] = []
    during: list[int] = []
    monkeypatch.setattr(os, "sched_setscheduler", lambda process, policy, parameter: taken.append(policy))
    execute(
        case.problem, case.plan, case.dnn, case.models, arrivals(5, 1_000), replace(slowed(1), realtime=True),
        tick=lambda now_us: during.append(taken[-1]),
    )  # fmt: skip
    assert set(during) == {os.SCHED_RR | os.SCHED_RESET_ON_FORK}
    assert taken[-1] == os.sched_getscheduler(0)
    taken.clear()
    execute(case.problem, case.plan, case.dnn, case.models, arrivals(5, 1_000), slowed(1))
    assert not taken  # only if asked to


def test_real_time_priority_that_is_not_allowed_is_one_line(make_case, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case()

    def forbid(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", forbid)
    with pytest.raises(InputError, match="realtime: this system does not let .* or leave out --realtime"):
        execute(
            case.problem, case.plan, case.dnn, case.models, arrivals(1, 0), replace(slowed(1), realtime=True),
            make_fleet=pytest.fail,
        )  # fmt: skip
