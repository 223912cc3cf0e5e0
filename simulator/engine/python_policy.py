"""Policies as Python functions: a read-only view of the head of the queue in, an answer out.

    def impatient(view: View) -> Answer:
        for pipeline in range(view.pipelines):
            if view.completion_us(pipeline, 1) <= view.deadline_us:
                return Send(pipeline, 1)
        return Drop()

    records = simulate(system, arrivals_us, policy=impatient)

The function is asked about the head on every arrival and when it is time that it asked for, and again after each
answer that moved the queue. It runs on the events engine, where the books that it sees follow what happens
(`simulator.engine.running`). The policies of `simulator.dispatch` are the same thing, compiled.
"""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from planner.model import InputError
from simulator.dispatch.books import (
    FACTS,
    FREE,
    HEAD,
    MAX_STAGES,
    NEVER,
    NOTES,
    PIPELINES,
    PLANNED,
    SENT,
    SLICES,
    SLO,
    STAGES,
    TAIL,
    WAKE,
    WORK,
    Books,
    completion,
    reserve,
)
from simulator.dispatch.decisions import LATE
from simulator.dispatch.system import Ints


@dataclass(frozen=True)
class Send:
    """Send the first ``batch`` requests of the queue on a pipeline, on the slices that complete them first."""

    pipeline: int
    batch: int


@dataclass(frozen=True)
class Drop:
    """Drop the head."""


@dataclass(frozen=True)
class Wait:
    """Ask again at a time, or when a request arrives before."""

    until_us: int


Answer = Send | Drop | Wait


class View:
    """What a policy sees: the queue, and what the books say about pipelines and slices; times in µs."""

    __slots__ = ("_arrivals_us", "_books", "_head", "_tail", "now_us")

    def __init__(self, books: Books, arrivals_us: Ints, now_us: int) -> None:
        self._books, self._arrivals_us = books, arrivals_us
        self._head, self._tail = (int(books[NOTES, 0, note]) for note in (HEAD, TAIL))
        self.now_us = now_us

    @property
    def queued(self) -> int:
        """Requests in the queue."""
        return self._tail - self._head

    @property
    def deadlines_us(self) -> Ints:
        """``[queued request]``, in increasing order."""
        deadlines_us: Ints = self._arrivals_us[self._head : self._tail] + self._books[NOTES, 0, SLO]
        return deadlines_us

    @property
    def deadline_us(self) -> int:
        """The head's deadline."""
        return int(self._arrivals_us[self._head] + self._books[NOTES, 0, SLO])

    @property
    def pipelines(self) -> int:
        """How many there are; they are numbered in plan order."""
        return int(self._books[NOTES, 0, PIPELINES])

    def stages(self, pipeline: int) -> int:
        """Return how many stages a pipeline has."""
        return int(self._books[FACTS, self._row(pipeline), STAGES])

    def planned_batch(self, pipeline: int) -> int:
        """Return the planned batch size, the largest that may be sent."""
        return int(self._books[FACTS, self._row(pipeline), PLANNED])

    def work_us(self, pipeline: int, batch: int) -> int:
        """Return how long a batch would take if it waited nowhere."""
        self._require_batch(pipeline, batch)
        return int(self._books[WORK, self._row(pipeline), batch])

    def completion_us(self, pipeline: int, batch: int) -> int:
        """Return when a batch that is sent now would be finished."""
        self._require_batch(pipeline, batch)
        return int(completion(self._books, pipeline, batch, self.now_us))

    def free_us(self, pipeline: int, stage: int) -> Ints:
        """Return ``[slice]``, until when each slice of a stage is taken."""
        if not 0 <= stage < self.stages(pipeline):
            raise InputError(f"policy: pipeline {pipeline} has {self.stages(pipeline)} stages, from 0; got {stage}")
        row = self._row(pipeline) + stage
        free_us: Ints = self._books[FREE, row, : int(self._books[FACTS, row, SLICES])].copy()
        return free_us

    def _require_batch(self, pipeline: int, batch: int) -> None:
        if not 1 <= batch <= self.planned_batch(pipeline):
            most = self.planned_batch(pipeline)
            raise InputError(f"policy: batches of pipeline {pipeline} have 1 to {most} requests; got {batch}")

    def _row(self, pipeline: int) -> int:
        if not 0 <= pipeline < self.pipelines:
            raise InputError(f"policy: there are {self.pipelines} pipelines, from 0; got {pipeline}")
        return pipeline * int(self._books[NOTES, 0, MAX_STAGES])


PythonPolicy = Callable[[View], Answer]


def advance_by(
    policy: PythonPolicy, books: Books, arrivals_us: Ints, fate: NDArray[np.int32], now_us: int
) -> tuple[int, int]:
    """Work through the queue as `simulator.dispatch.frontend.advance` does, asking a Python function.

    Raises
    ------
    InputError
        The function's answer cannot be followed.
    """
    notes = books[NOTES, 0]
    notes[WAKE] = NEVER
    while notes[HEAD] < notes[TAIL]:
        view = View(books, arrivals_us, now_us)
        answer = _checked(policy, view)
        head = int(notes[HEAD])
        if isinstance(answer, Wait):
            notes[WAKE] = min(answer.until_us, NEVER)
            break
        if isinstance(answer, Send):
            reserve(books, answer.pipeline, answer.batch, now_us)
            fate[head : head + answer.batch] = notes[SENT]
            notes[SENT] += 1
            notes[HEAD] += answer.batch
            notes[WAKE] = now_us if notes[HEAD] < notes[TAIL] else NEVER
            return answer.batch, answer.pipeline
        fate[head] = -LATE
        notes[HEAD] += 1
    return 0, 0


def _checked(policy: PythonPolicy, view: View) -> Answer:
    answer = policy(view)
    if expected := _expected_instead(answer, view):
        name = getattr(policy, "__name__", type(policy).__name__)
        raise InputError(f"policy {name} at {view.now_us} µs: expected {expected}, got {answer}")
    return answer


def _expected_instead(answer: Answer, view: View) -> str:
    """Return what was expected in place of an answer, nothing if it can be followed.

    Whole numbers only: a wait that ends within this µs would be asked again for ever.
    """
    if isinstance(answer, Send):
        if not (isinstance(answer.pipeline, Integral) and 0 <= answer.pipeline < view.pipelines):
            return f"a pipeline of 0 to {view.pipelines - 1}"
        largest = min(view.queued, view.planned_batch(answer.pipeline))
        if not (isinstance(answer.batch, Integral) and 1 <= answer.batch <= largest):
            return f"a batch of 1 to {largest}, the queue and the plan allow no more"
        return ""
    if isinstance(answer, Wait):
        later = isinstance(answer.until_us, Integral) and answer.until_us > view.now_us
        return "" if later else f"a time after {view.now_us} µs, in whole µs"
    return "" if isinstance(answer, Drop) else "Send, Drop or Wait"
