"""Courses: the models on the way of a class of requests, and where in a crate what they make lies.

A step of the way may be served by several *kinds* of servers: variants of a task, or device types that run the same
file. Kinds of a step take and make tensors of the same layouts, in the same order, whatever these are called. Courses
of several classes may lead through one station (a merged stage, which is one model for all of them).

An input of a step is the tensor of that name which the latest step before it makes, else one that requests bring; where
nothing has its name, the steps are tasks, and it is the tensor in the same place among what the step before makes. A
model that serves several courses has the names of one of them; the others say what they call its tensors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from planner.model import InputError
from planner.profiling import open_session, run_model
from planner.profiling.samples import Tensors, join_requests
from simulator.executor.layouts import StageModel, TensorLayout, aligned
from simulator.executor.workers import Places

REQUEST = -1  # the step that requests are "made" by


class Source(NamedTuple):
    """Where a tensor comes from: a step (`REQUEST`: the requester), and its place among what that makes."""

    step: int
    place: int


@dataclass(frozen=True, eq=False)
class Course:
    """The way of a class of requests.

    Attributes
    ----------
    name
        For messages.
    samples
        What requests bring in turn, ``[sample, ...]`` by input.
    requests
        The layouts of that.
    steps
        Per step the model of every kind that may serve it; kinds that cannot are left out.
    before
        Per step the steps that lead to it.
    answers
        Where the tensors that requesters get come from, by name.
    names
        Per step what this course calls the tensors of the step's models, where it is not what they are called.
    """

    name: str
    samples: Tensors
    requests: tuple[TensorLayout, ...]
    steps: tuple[Mapping[int, StageModel], ...]
    before: tuple[tuple[int, ...], ...]
    answers: Mapping[str, Source]
    names: Mapping[int, Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse kinds that are unlike, and inputs that nothing makes."""
        for number, kinds in enumerate(self.steps):
            first = next(iter(kinds.values()))
            for kind, model in kinds.items():
                if [_shape(one) for one in model.outputs] != [_shape(one) for one in first.outputs]:
                    raise InputError(
                        f"{self.name}: step {number}: kind {kind} makes {_said(model.outputs)}, another one makes "
                        f"{_said(first.outputs)}; variants of a task must make the same"
                    )
                for position, layout in enumerate(model.inputs):
                    made = self._layouts(self.source(number, kind, position))
                    if _shape(made) != _shape(layout):
                        raise InputError(
                            f"{self.name}: step {number}: kind {kind} reads {_said([layout])}, "
                            f"what comes there is {_said([made])}"
                        )

    def made(self, step: int) -> tuple[TensorLayout, ...]:
        """Return what a step makes, called as its first kind does."""
        return self.requests if step == REQUEST else next(iter(self.steps[step].values())).outputs

    def source(self, step: int, kind: int, position: int) -> Source:
        """Return where an input of a step comes from."""
        model = self.steps[step][kind]
        name, ways = self._called(step, model.inputs[position]), self._ways_to(step)
        for earlier in [*sorted(ways, reverse=True), REQUEST]:
            for place in range(len(self.made(earlier))):
                kinds = self.steps[earlier].values() if earlier != REQUEST else ()
                names = {self._called(earlier, one.outputs[place]) for one in kinds} or {self.requests[place].name}
                if name in names:
                    return Source(earlier, place)
        directly = self.before[step][-1] if self.before[step] else REQUEST
        if len(self.made(directly)) != len(model.inputs):
            raise InputError(
                f"{self.name}: step {step}: nothing before it makes {name!r}, and what step {directly} makes are "
                f"{len(self.made(directly))} tensors where {len(model.inputs)} are read"
            )
        return Source(directly, position)

    def _called(self, step: int, layout: TensorLayout) -> str:
        return self.names.get(step, {}).get(layout.name, layout.name)

    def _layouts(self, source: Source) -> TensorLayout:
        return self.made(source.step)[source.place]

    def _ways_to(self, step: int) -> set[int]:
        """Return all steps before one."""
        found: set[int] = set()
        waiting = list(self.before[step])
        while waiting:
            earlier = waiting.pop()
            if earlier not in found:
                found.add(earlier)
                waiting += self.before[earlier]
        return found


def course_of_chain(
    name: str,
    samples: Tensors,
    requests: tuple[TensorLayout, ...],
    stages: Sequence[StageModel],
    answers: Sequence[str],
    names: Mapping[int, Mapping[str, str]],
) -> Course:
    """Return stages one after the other as a course; ``answers`` are what requesters get, by its own names."""
    made = [(REQUEST, requests), *((step, stage.outputs) for step, stage in enumerate(stages))]
    found = {}
    for step, layouts in made:
        for place, layout in enumerate(layouts):
            called = names.get(step, {}).get(layout.name, layout.name)
            if called in answers:
                found[called] = Source(step, place)
    before = tuple((step - 1,) if step else () for step in range(len(stages)))
    return Course(name, samples, requests, tuple({0: stage} for stage in stages), before, found, names)


def _shape(layout: TensorLayout) -> tuple[object, ...]:
    return layout.dtype, layout.shape, layout.batch_axis


def _said(layouts: Sequence[TensorLayout]) -> str:
    return ", ".join(f"{one.name!r} ({one.dtype} {list(one.shape)})" for one in layouts)


class CrateMap:
    """Where a course's tensors lie in a crate of one request, behind a docket of ``begin`` bytes.

    ``samples`` says where the samples of each input begin in the segment of requests.
    """

    def __init__(self, course: Course, begin: int, samples: Mapping[str, int]) -> None:
        self._course, self._samples = course, samples
        made = [(step, place) for step in range(len(course.steps)) for place in range(len(course.made(step)))]
        sizes = [aligned(course.made(step)[place].nbytes(1)) for step, place in made]
        *offsets, self.nbytes = accumulate(sizes, initial=begin)
        self._offsets = dict(zip(made, offsets, strict=True))

    def place(self, source: Source) -> int:
        """Return a place as workers have it (`workers.Places`)."""
        if source.step == REQUEST:
            return -1 - self._samples[self._course.requests[source.place].name]
        return self._offsets[source.step, source.place]

    def places(self, step: int, kind: int) -> Places:
        """Return where a step's inputs and outputs lie."""
        model = self._course.steps[step][kind]
        return Places(
            tuple(self.place(self._course.source(step, kind, at)) for at in range(len(model.inputs))),
            tuple(self._offsets[step, at] for at in range(len(model.outputs))),
        )


def write_warm_up(course: Course, batches: Sequence[int]) -> None:
    """Run every step on batches of samples, and write what each kind reads to where its workers look for it."""
    count = len(next(iter(course.samples.values())))
    for batch in batches:
        numbers = [number % count for number in range(batch)]
        alive: dict[Source, np.ndarray] = {}
        for place, layout in enumerate(course.requests):
            samples = course.samples[layout.name]
            alive[Source(REQUEST, place)] = join_requests(layout.name, samples, numbers, layout.batch_axis)
        for step, kinds in enumerate(course.steps):
            made: list[np.ndarray] = []
            for kind, model in kinds.items():
                feeds = {layout.name: alive[course.source(step, kind, at)] for at, layout in enumerate(model.inputs)}
                np.savez(model.warm_up_file(batch), *feeds.values())
                made = made or list(run_model(open_session(model.path), feeds))
            for place, (layout, tensor) in enumerate(zip(course.made(step), made, strict=True)):
                if mismatch := layout.mismatch(tensor, batch):
                    raise InputError(f"{course.name}: step {step} at batch {batch}: {mismatch}")
                alive[Source(step, place)] = tensor
