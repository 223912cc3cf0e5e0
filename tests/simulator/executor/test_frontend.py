"""The frontend with workers that do as they are told: every kind of trouble, without a process."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pytest

from simulator.dispatch.decisions import FINISHED, LOST
from simulator.engine import System, build_system
from simulator.executor.dispatcher import Dispatcher, compile_policy
from simulator.executor.fleet import Down, Event, Finished, Parcel, Refused, SliceId, Tensors, Up
from simulator.executor.frontend import Frontend, Patience
from simulator.executor.journal import Journal, to_records
from simulator.executor.layouts import PipelineModels, StageModel, TensorLayout
from simulator.executor.links import Links
from simulator.results import Records

SERVICE_S = 0.002
RESTART_S = 0.05
Behaviour = Literal["serve", "dawdle", "refuse", "die", "hang"]


def layout(name: str) -> TensorLayout:
    return TensorLayout(name, "float32", (1,), 4, 0)


# Three stages: the first makes a and b, the second reads a, the third reads b (which skips a stage) and c.
MODELS = (
    PipelineModels(
        (
            StageModel(None, (layout("x"),), (layout("a"), layout("b"))),  # type: ignore[arg-type]
            StageModel(None, (layout("a"),), (layout("c"),)),  # type: ignore[arg-type]
            StageModel(None, (layout("b"), layout("c")), (layout("y"),)),  # type: ignore[arg-type]
        ),
        (layout("x"),),
        ("y",),
    ),
)


class Scripted:
    """A fleet in this process: every tensor is the numbers of its batch's requests."""

    def __init__(self, behave: Callable[[SliceId, int], Behaviour]) -> None:
        self.behave = behave
        self.due: list[tuple[float, Event]] = []
        self.given: defaultdict[SliceId, list[int]] = defaultdict(list)
        self.parcels: set[int] = set()
        self.handed: list[tuple[SliceId, int, frozenset[str]]] = []

    def place(self, pipeline: int, first: int, size: int) -> Parcel:
        return self._parcel(None, ("x",), np.arange(first, first + size, dtype=np.float32))

    def submit(self, slice_id: SliceId, batch: int, parcels: Mapping[str, Parcel]) -> bool:
        for name, parcel in parcels.items():
            assert id(parcel) in self.parcels, f"{name} was freed before it was read"
        self.handed.append((slice_id, batch, frozenset(parcels)))
        self.given[slice_id].append(batch)
        behaviour = self.behave(slice_id, batch)
        at_s = time.monotonic() + SERVICE_S * len(self.given[slice_id]) * (10 if behaviour == "dawdle" else 1)
        if behaviour in ("serve", "dawdle"):
            names = [output.name for output in MODELS[0].stages[slice_id.stage].outputs]
            value = next(iter(parcels.values())).held
            now_ns = round(at_s * 1e9)
            made = self._parcel(slice_id, names, value)
            self.due.append((at_s, Finished(slice_id, batch, made, now_ns - 2_000_000, now_ns, now_ns)))
        elif behaviour == "refuse":
            self.due.append((at_s, Refused(slice_id, batch, "told to")))
        elif behaviour == "die":
            self.due = [(s, event) for s, event in self.due if event.slice != slice_id]
            self.due.append((at_s, Down(slice_id, "told to")))
        return True

    def poll(self, timeout_s: float) -> list[Event]:
        first_s = min((s for s, _ in self.due), default=float("inf"))
        time.sleep(max(0.0, min(timeout_s, first_s - time.monotonic())))
        now_s = time.monotonic()
        found = sorted((item for item in self.due if item[0] <= now_s), key=lambda item: item[0])
        self.due = [item for item in self.due if item[0] > now_s]
        for _, event in found:
            if isinstance(event, Finished | Refused):
                self.given[event.slice].remove(event.batch)
        return [event for _, event in found]

    def fetch(self, parcel: Parcel, names: Sequence[str]) -> Tensors:
        return dict.fromkeys(names, parcel.held)

    def release(self, parcel: Parcel) -> None:
        self.parcels.remove(id(parcel))

    def dismiss(self, slice_id: SliceId) -> None:
        self.given[slice_id].clear()
        self.due = [(s, event) for s, event in self.due if event.slice != slice_id]

    def restart(self, slice_id: SliceId) -> None:
        self.due.append((time.monotonic() + RESTART_S, Up(slice_id)))

    def usage(self) -> dict[SliceId, tuple[float, int]]:
        return {}

    def close(self) -> None: ...

    def _parcel(self, maker: SliceId | None, names: Sequence[str], value: np.ndarray) -> Parcel:
        parcel = Parcel(maker, {name: value.nbytes for name in names}, value)
        self.parcels.add(id(parcel))
        self.keep = [*getattr(self, "keep", []), parcel]  # so that no two ever have one id
        return parcel


class Numbers:
    """Requests that bring their own number, and must get it back."""

    def __init__(self) -> None:
        self.answers: dict[int, float] = {}

    def answer(self, first: int, size: int, outputs: Tensors) -> None:
        for number, answer in zip(range(first, first + size), outputs["y"].tolist(), strict=True):
            assert number not in self.answers, "answered twice"
            self.answers[number] = answer


@pytest.fixture
def system(make_case) -> System:
    case = make_case(cuts=(1, 2), slices=(1, 2, 1), batch=2, latency_us=4_000, slo_us=10_000_000)
    system = build_system(case.problem, case.plan, case.dnn)
    compile_policy(system, "reservation")
    return system


class Run(NamedTuple):
    records: Records
    journal: Journal
    fleet: Scripted


def serve(
    system: System, behave: Callable[[SliceId, int], Behaviour], requests: int = 60, patience: Patience | None = None
) -> Run:
    arrivals_us = np.arange(requests, dtype=np.int64) * 2_000
    fleet, numbers = Scripted(behave), Numbers()
    dispatcher = Dispatcher(system, arrivals_us, "reservation", 0)
    frontend = Frontend(system, dispatcher, fleet, MODELS, numbers, Links(None), 20, 50_000, patience)
    frontend.run()
    records = to_records(frontend.journal, system, arrivals_us, dispatcher.fate)
    assert not fleet.parcels, "tensors were never freed"
    assert all(number == answer for number, answer in numbers.answers.items())
    assert sorted(numbers.answers) == np.flatnonzero(records.outcome == FINISHED).tolist()
    assert frontend.journal.in_flight[-1][1] == 0
    return Run(records, frontend.journal, fleet)


def test_every_stage_gets_what_it_reads_and_every_requester_its_own_answer(system: System) -> None:
    run = serve(system, lambda at, batch: "serve")
    assert (run.records.outcome == FINISHED).all()
    assert {names for at, _, names in run.fleet.handed if at.stage == 2} == {frozenset("bc")}
    assert not run.journal.incidents


def test_a_slow_slice_gets_less_to_do_and_loses_nothing(system: System) -> None:
    run = serve(system, lambda at, batch: "dawdle" if at == (0, 1, 0) else "serve", requests=400)
    assert (run.records.outcome == FINISHED).all()
    slow, quick = np.bincount(run.records.visits[1].slice, minlength=2)
    assert 0 < slow < quick / 2
    assert not run.journal.incidents


def test_a_batch_that_one_slice_refuses_goes_to_another(system: System) -> None:
    run = serve(system, lambda at, batch: "refuse" if at == (0, 1, 0) else "serve")
    assert (run.records.outcome == FINISHED).all()
    assert (run.records.visits[1].slice == 1).all()
    assert any("could not run a batch: told to" in incident.what for incident in run.journal.incidents)


def test_a_batch_that_nobody_can_run_is_lost_and_only_that(system: System) -> None:
    run = serve(system, lambda at, batch: "refuse" if at.stage == 1 and batch == 3 else "serve")
    lost = np.flatnonzero(run.records.outcome == LOST)
    assert len(lost) == run.records.visits[0].size[3]
    assert (run.records.visit[0][lost] == 3).all()  # it went through the first stage,
    assert (run.records.visit[1][lost] < 0).all()  # and no further
    assert [incident.what for incident in run.journal.incidents][-1] == "batch 3 lost: failed twice"


def test_a_slice_that_keeps_dying_stays_down(system: System) -> None:
    run = serve(system, lambda at, batch: "die" if at == (0, 1, 0) else "serve", requests=400)
    downs = [incident for incident in run.journal.incidents if incident.what.startswith("down")]
    assert len(downs) == 3
    assert (run.records.outcome == FINISHED).all()  # the other slice did it all


def test_requests_are_dropped_or_lost_when_no_slice_is_left(system: System) -> None:
    run = serve(system, lambda at, batch: "die" if at.stage == 2 else "serve", requests=400)
    assert not (run.records.outcome == FINISHED).any()
    assert (run.records.outcome == LOST).any()
    assert len(run.records) == 400


def test_a_slice_that_hangs_is_replaced_and_its_batch_served(system: System) -> None:
    hung: list[int] = []

    def behave(at: SliceId, batch: int) -> Behaviour:
        if at == (0, 0, 0) and batch == 4 and not hung:
            hung.append(batch)
            return "hang"
        return "serve"

    run = serve(system, behave, patience=Patience(batch_s=0.1, times=5))
    assert (run.records.outcome == FINISHED).all()
    assert sum("no answer for" in incident.what for incident in run.journal.incidents) == 1


def test_what_is_not_finished_long_after_the_last_arrival_is_lost(make_case) -> None:
    case = make_case(cuts=(1, 2), slices=(1, 1, 1), batch=1, slo_us=100_000)
    system = build_system(case.problem, case.plan, case.dnn)
    patience = Patience(batch_s=60, drain_s=0.2)
    run = serve(system, lambda at, batch: "hang" if at.stage == 2 else "serve", requests=5, patience=patience)
    assert (run.records.outcome == LOST).any()
    assert not (run.records.outcome == FINISHED).any()
