"""The frontend with workers that do as they are told: every kind of trouble, without a process."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pytest

from simulator.dispatch.decisions import FINISHED, LOST
from simulator.engine import System, build_system
from simulator.executor.dispatcher import Dispatcher, compile_policy
from simulator.executor.fleet import Down, Event, Finished, Refused, SliceId, Tensors, Up
from simulator.executor.frontend import Frontend, Patience
from simulator.executor.journal import Journal, to_records
from simulator.executor.links import Links
from simulator.results import Records

SERVICE_S = 0.002
RESTART_S = 0.05
Behaviour = Literal["serve", "dawdle", "refuse", "die", "hang"]


class Scripted:
    """A fleet in this process; with ``relay`` slices pass batches on, and only the last one of a way says so."""

    answers_in_place = False

    def __init__(self, behave: Callable[[SliceId, int], Behaviour], relay: bool) -> None:
        self.behave, self.relay = behave, relay
        self.due: list[tuple[float, Event]] = []
        self.unsaid: list[tuple[float, Finished]] = []
        self.given: defaultdict[SliceId, list[int]] = defaultdict(list)
        self.ways: dict[int, list[SliceId]] = {}
        self.under_way: dict[int, range] = {}
        self.sent: list[tuple[int, int]] = []

    def take(self, batch: int, pipeline: int, first: int, size: int) -> int:
        self.under_way[batch] = range(first, first + size)
        return 4 * size

    def send(self, batch: int, stage: int, slices: Sequence[SliceId]) -> None:
        assert batch in self.under_way
        self.sent.append((batch, stage))
        self.ways[batch] = [*slices[: None if self.relay else 1]]
        self._serve(batch, time.monotonic())

    def _serve(self, batch: int, from_s: float) -> None:
        slice_id = self.ways[batch].pop(0)
        self.given[slice_id].append(batch)
        behaviour = self.behave(slice_id, batch)
        at_s = from_s + SERVICE_S * len(self.given[slice_id]) * (10 if behaviour == "dawdle" else 1)
        if behaviour in ("serve", "dawdle"):
            now_ns, more = round(at_s * 1e9), bool(self.ways[batch])
            event = Finished(slice_id, batch, 4, now_ns - 2_000_000, now_ns, now_ns, more)
            if more:
                self.unsaid.append((at_s, event))
            else:
                self.due.append((at_s, event))
        elif behaviour == "refuse":
            self.due.append((at_s, Refused(slice_id, batch, "told to")))
        elif behaviour == "die":
            self.due.append((at_s, Down(slice_id, "told to")))

    def poll(self, timeout_s: float) -> list[Event]:
        first_s = min((s for s, _ in [*self.due, *self.unsaid]), default=float("inf"))
        time.sleep(max(0.0, min(timeout_s, first_s - time.monotonic())))
        earlier = self.look()
        now_s = time.monotonic()
        found = sorted((item for item in self.due if item[0] <= now_s), key=lambda item: item[0])
        self.due = [item for item in self.due if item[0] > now_s]
        for _, event in found:
            if isinstance(event, Finished | Refused):
                self.given[event.slice].remove(event.batch)
            elif isinstance(event, Down):
                self._empty(event.slice)
        return sorted([*earlier, *(event for _, event in found)], key=lambda event: isinstance(event, Down))

    def look(self) -> list[Event]:
        """Let slices pass on what they are through with."""
        found: list[Event] = []
        now_s = time.monotonic()
        while past := sorted((item for item in self.unsaid if item[0] <= now_s), key=lambda item: item[0]):
            at_s, event = past[0]
            self.unsaid.remove(past[0])
            self.given[event.slice].remove(event.batch)
            self._serve(event.batch, at_s)
            found.append(event)
        return found

    def tell_ends(self, wanted: bool) -> None: ...

    def answers(self, batch: int) -> Tensors:
        return {"y": np.array(self.under_way[batch], np.float32)}

    def release(self, batch: int) -> None:
        del self.under_way[batch]

    def dismiss(self, slice_id: SliceId) -> None:
        self._empty(slice_id)
        for batch, way in self.ways.items():
            if slice_id in way:
                self.ways[batch] = way[: way.index(slice_id)]
                if not self.ways[batch]:  # it comes back from where it is
                    moved = [(s, e._replace(handed_on=False)) for s, e in self.unsaid if e.batch == batch]
                    self.unsaid = [(s, e) for s, e in self.unsaid if e.batch != batch]
                    self.due += moved

    def _empty(self, slice_id: SliceId) -> None:
        self.given[slice_id].clear()
        self.due = [(s, event) for s, event in self.due if event.slice != slice_id]
        self.unsaid = [(s, event) for s, event in self.unsaid if event.slice != slice_id]

    def restart(self, slice_id: SliceId) -> None:
        self.due.append((time.monotonic() + RESTART_S, Up(slice_id)))

    def usage(self) -> dict[SliceId, tuple[float, int]]:
        return {}

    def close(self) -> None: ...


class Numbers:
    """Requests that bring their own number, and must get it back."""

    reads = True

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


Serve = Callable[..., Run]


@pytest.fixture(params=[False, True], ids=["stage by stage", "passed on"])
def serve(request: pytest.FixtureRequest) -> Serve:
    def run(
        system: System,
        behave: Callable[[SliceId, int], Behaviour],
        requests: int = 60,
        patience: Patience | None = None,
    ) -> Run:
        arrivals_us = np.arange(requests, dtype=np.int64) * 2_000
        fleet, numbers = Scripted(behave, request.param), Numbers()
        dispatcher = Dispatcher(system, arrivals_us, "reservation", 0)
        frontend = Frontend(system, dispatcher, fleet, numbers, Links(None), 20, 50_000, patience)
        frontend.run()
        records = to_records(frontend.journal, system, arrivals_us, dispatcher.fate)
        assert not fleet.under_way, "a batch was never released"
        assert all(number == answer for number, answer in numbers.answers.items())
        assert sorted(numbers.answers) == np.flatnonzero(records.outcome == FINISHED).tolist()
        assert frontend.journal.in_flight[-1][1] == 0
        return Run(records, frontend.journal, fleet)

    return run


def test_every_requester_gets_its_own_answer(system: System, serve: Serve) -> None:
    run = serve(system, lambda at, batch: "serve")
    assert (run.records.outcome == FINISHED).all()
    batches = [batch.number for batch in run.journal.batches]
    assert [batch for batch, stage in run.fleet.sent if stage == 0] == batches
    assert len(run.fleet.sent) == len(batches) * (1 if run.fleet.relay else 3)
    assert [[visit.slice.stage for visit in batch.visits] for batch in run.journal.batches] == [[0, 1, 2]] * len(
        batches
    )
    assert not run.journal.incidents


def test_a_slow_slice_gets_less_to_do_and_loses_nothing(system: System, serve: Serve) -> None:
    run = serve(system, lambda at, batch: "dawdle" if at == (0, 1, 0) else "serve", requests=400)
    assert (run.records.outcome == FINISHED).all()
    slow, quick = np.bincount(run.records.visits[1].slice, minlength=2)
    assert 0 < slow < quick / 2
    assert not run.journal.incidents


def test_a_batch_that_one_slice_refuses_goes_to_another(system: System, serve: Serve) -> None:
    run = serve(system, lambda at, batch: "refuse" if at == (0, 1, 0) else "serve")
    assert (run.records.outcome == FINISHED).all()
    assert (run.records.visits[1].slice == 1).all()
    assert any("could not run a batch: told to" in incident.what for incident in run.journal.incidents)


def test_a_batch_that_nobody_can_run_is_lost_and_only_that(system: System, serve: Serve) -> None:
    run = serve(system, lambda at, batch: "refuse" if at.stage == 1 and batch == 3 else "serve")
    lost = np.flatnonzero(run.records.outcome == LOST)
    assert len(lost) == run.records.visits[0].size[3]
    assert (run.records.visit[0][lost] == 3).all()  # it went through the first stage,
    assert (run.records.visit[1][lost] < 0).all()  # and no further
    assert [incident.what for incident in run.journal.incidents][-1] == "batch 3 lost: failed twice"


def test_a_slice_that_keeps_dying_stays_down(system: System, serve: Serve) -> None:
    run = serve(system, lambda at, batch: "die" if at == (0, 1, 0) else "serve", requests=400)
    downs = [incident for incident in run.journal.incidents if incident.what.startswith("down")]
    assert len(downs) == 3
    assert (run.records.outcome == FINISHED).all()  # the other slice did it all


def test_requests_are_dropped_or_lost_when_no_slice_is_left(system: System, serve: Serve) -> None:
    run = serve(system, lambda at, batch: "die" if at.stage == 2 else "serve", requests=400)
    assert not (run.records.outcome == FINISHED).any()
    assert (run.records.outcome == LOST).any()
    assert len(run.records) == 400


def test_a_slice_that_hangs_is_replaced_and_its_batch_served(system: System, serve: Serve) -> None:
    hung: list[int] = []

    def behave(at: SliceId, batch: int) -> Behaviour:
        if at == (0, 0, 0) and batch == 4 and not hung:
            hung.append(batch)
            return "hang"
        return "serve"

    run = serve(system, behave, patience=Patience(batch_s=1.0, times=5))
    assert (run.records.outcome == FINISHED).all()
    assert sum("no answer for" in incident.what for incident in run.journal.incidents) == 1


def test_what_is_not_finished_long_after_the_last_arrival_is_lost(make_case, serve: Serve) -> None:
    case = make_case(cuts=(1, 2), slices=(1, 1, 1), batch=1, slo_us=100_000)
    system = build_system(case.problem, case.plan, case.dnn)
    patience = Patience(batch_s=60, drain_s=0.2)
    run = serve(system, lambda at, batch: "hang" if at.stage == 2 else "serve", requests=5, patience=patience)
    assert (run.records.outcome == LOST).any()
    assert not (run.records.outcome == FINISHED).any()
