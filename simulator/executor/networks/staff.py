"""Worker processes that serve a network: a crate per request, batches put together anew at every station.

A worker runs the models of all stations that list its server, each for whatever classes come there: a merged stage
serves several DNNs in one batch, a pool may be several DNNs'. Requests of a batch lie in crates of their own; the
worker joins what it reads and cuts what it makes.
"""

import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from planner.model import InputError
from simulator.executor.crates import Crates, docket_bytes
from simulator.executor.fleet import READY_WITHIN_S, Tensors
from simulator.executor.layouts import StageModel
from simulator.executor.local import shared_samples
from simulator.executor.messages import MOST_CRATES, Done, Work
from simulator.executor.messages import Ready as SaidReady
from simulator.executor.networks.courses import REQUEST, Course, CrateMap
from simulator.executor.networks.talk import Ended, Event, Gone, Ready, Service
from simulator.executor.requesters import Requester
from simulator.executor.transport import free_bytes, read, read_requests
from simulator.executor.workers import Desk, Places, WorkerTask
from simulator.executor.workforce import Died, Workforce

MOST_UNDER_WAY = 4096  # requests that workers have seen; others wait
SHARE_OF_MEMORY = 0.5  # of the shared memory that is free, for them

RequesterOf = Callable[[tuple[int, ...]], Requester]


@dataclass(frozen=True, eq=False)
class Layout:
    """How the requests of a network are served by models.

    Attributes
    ----------
    courses
        All courses.
    starts
        Per class the number of its first request, and at last that of all requests.
    course_of
        ``(class, station)`` -> its course; the stations of a route have one.
    step_at
        ``(course, station)`` -> the step that is served there.
    stations
        Per server the stations that list it.
    """

    courses: tuple[Course, ...]
    starts: tuple[int, ...]
    course_of: Mapping[tuple[int, int], int]
    step_at: Mapping[tuple[int, int], int]
    stations: tuple[tuple[int, ...], ...]

    def class_of(self, request: int) -> int:
        """Return the class of a request."""
        return bisect_right(self.starts, request) - 1


class NetworkStaff:
    """Workers of this machine (see `live.Staff`); a task per server says what its worker is beside its parts.

    ``at_once`` requests may be served at once, so there are as many crates at least.
    """

    def __init__(
        self, layout: Layout, tasks: Sequence[WorkerTask], requesters: Sequence[RequesterOf], at_once: int
    ) -> None:
        self._layout, self._tasks, self._requesters = layout, tasks, requesters
        courses = layout.courses
        steps = max(len(course.steps) for course in courses)
        requests = [replace(one, name=f"{number} {one.name}") for number, c in enumerate(courses) for one in c.requests]
        samples = {f"{number} {name}": own for number, c in enumerate(courses) for name, own in c.samples.items()}
        self._samples = [len(next(iter(course.samples.values()))) for course in courses]
        self._requests, first = shared_samples(requests, samples, max(self._samples))
        begin = docket_bytes(steps)
        self._maps = [
            CrateMap(course, begin, {one.name: first[f"{number} {one.name}"] for one in course.requests})
            for number, course in enumerate(courses)
        ]
        nbytes = max(one.nbytes for one in self._maps)
        self._room = max(at_once, min(MOST_UNDER_WAY, layout.starts[-1], _affordable(nbytes)))
        try:
            self._crates = Crates(self._room, steps, nbytes - begin)
        except BaseException:
            self._requests.close()
            raise
        self._crate_of: dict[int, int] = {}
        self._services: dict[int, Service] = {}
        self._backlog: list[Service] = []
        self._workforce = Workforce(len(tasks))
        self._kinds: dict[int, list[int]] = {}  # per request, of the servers of its steps
        self._origin_ns = time.monotonic_ns()

    def start(self, kinds: Mapping[int, int]) -> None:
        """Start the workers of some servers and wait until they are ready; raises InputError if one is not."""
        for server, kind in kinds.items():
            self.load(server, kind)
        missing, until_s = set(kinds), time.monotonic() + READY_WITHIN_S
        while missing:
            for report in self._workforce.poll(1.0):
                if isinstance(report, Died):
                    raise InputError(f"server {report.worker}: its worker did not start: {report.reason}")
                missing.discard(report.worker)
            if missing and time.monotonic() > until_s:
                raise InputError(
                    f"server {min(missing)}: its worker was not ready after {READY_WITHIN_S:.0f} s; "
                    "is the machine busy?"
                )

    def start_clock(self) -> None:
        """Let time 0 be now."""
        self._origin_ns = time.monotonic_ns()

    def now_us(self) -> int:
        """Return the time since the clock was started."""
        return (time.monotonic_ns() - self._origin_ns) // 1000

    def begin(self, service: Service) -> None:
        """Give a worker a batch, as soon as there are crates for all of its requests."""
        self._backlog.append(service)
        self._send()

    def poll(self, until_us: int) -> list[Event]:
        """Read what workers said, and the dockets that it is about."""
        events: list[Event] = []
        timeout_s = min(1.0, max(0.0, (until_us - self.now_us()) / 1e6))
        for report in self._workforce.poll(timeout_s):
            if isinstance(report, Died):
                self._forget(report.worker)
                events.append(Gone(report.worker, report.reason))
            elif isinstance(report, SaidReady):
                events.append(Ready(report.worker))
            elif report.ticket in self._services:
                failed = "" if isinstance(report, Done) else report.reason
                events.append(self._ended(self._services.pop(report.ticket), failed))
        return events

    def load(self, server: int, kind: int) -> None:
        """Start a worker for a server in place of the one that is there."""
        self._workforce.kill(server)
        self._forget(server)
        parts: list[StageModel] = []
        places = [dict[int, Places]() for _ in self._layout.courses]
        for part, station in enumerate(self._layout.stations[server]):
            for course, step in self._at(station):
                places[course][part] = self._maps[course].places(step, kind)
                model = self._layout.courses[course].steps[step][kind]
            parts.append(model)  # one for all courses that come there
        task = replace(self._tasks[server], parts=tuple(parts))
        desk = Desk(server, self._requests.name, self._crates.segment.name, tuple(places))
        self._workforce.start(server, task, desk)

    def leave(self, server: int) -> None:
        """End a worker."""
        self._workforce.kill(server)

    def done(self, request: int, finished: bool) -> None:
        """Give a requester its answer, if there is one, and the crate back."""
        if request not in self._crate_of:  # its worker went before it could begin
            return
        crate, kinds = self._crate_of.pop(request), self._kinds.pop(request)
        if finished:
            of_class = self._layout.class_of(request)
            course = self._layout.courses[self._crates.of_class(crate)]
            number, requester = request - self._layout.starts[of_class], self._requesters[of_class](tuple(kinds))
            requester.answer(number, 1, self._answers(course, crate) if requester.reads else {})
        self._crates.give_back(crate)
        self._send()

    def usage(self) -> Mapping[int, tuple[float, int]]:
        """Return CPU seconds used so far and resident bytes of the workers that are up."""
        return self._workforce.usage()

    def process_id(self, server: int) -> int | None:
        """Return the number of a worker's process."""
        return self._workforce.process_id(server)

    def close(self) -> None:
        """Stop all workers and free all memory."""
        self._workforce.close()
        self._crates.close()
        self._requests.close()

    def _forget(self, server: int) -> None:
        """Forget what a worker had to do that is no more; what is in its inbox is void."""
        for one in self._services.values():
            if one.server == server and one.requests[0] in self._crate_of:
                self._crates.void(self._crate_of[one.requests[0]], one.steps[0])
        self._services = {number: one for number, one in self._services.items() if one.server != server}
        self._backlog = [one for one in self._backlog if one.server != server]

    def _send(self) -> None:
        """Send what waits to its workers, as far as there are crates; requests on their way have theirs already."""
        for service in list(self._backlog):
            new = [request for request in service.requests if request not in self._crate_of]
            if len(self._crate_of) + len(new) <= self._room:
                self._backlog.remove(service)
                self._hand_over(service, new)

    def _hand_over(self, service: Service, new: Sequence[int]) -> None:
        """Give a worker a batch, whose ``new`` requests get crates."""
        for request in new:
            of_class = self._layout.class_of(request)
            course = self._layout.course_of[of_class, service.station]
            sample = (request - self._layout.starts[of_class]) % self._samples[course]
            self._crate_of[request] = self._crates.take(course, 1, sample)
            self._kinds[request] = [0] * len(self._layout.courses[course].steps)
        for request, step in zip(service.requests, service.steps, strict=True):
            self._kinds[request][step] = service.kind
        crates = tuple(self._crate_of[request] for request in service.requests)
        part = self._layout.stations[service.server].index(service.station)
        self._services[service.number] = service
        self._crates.direct(crates[0], service.steps[0], service.number, [service.server], tell=True)
        self._workforce.send(service.server, Work(service.number, part, service.steps[0], crates))

    def _ended(self, service: Service, failed: str) -> Ended:
        start_ns, _, end_ns = self._crates.times_ns(self._crate_of[service.requests[0]], service.steps[0])
        end_ns = end_ns or time.monotonic_ns()
        start_us, end_us = ((ns - self._origin_ns) // 1000 for ns in (start_ns, end_ns))
        return Ended(service.server, service.number, start_us, end_us, failed)

    def _at(self, station: int) -> list[tuple[int, int]]:
        """Return the courses that come to a station, each with its step there."""
        return [(course, step) for (course, at), step in self._layout.step_at.items() if at == station]

    def _answers(self, course: Course, crate: int) -> Tensors:
        found = {}
        of_crate = self._maps[self._crates.of_class(crate)]
        for name, source in course.answers.items():
            layout, place = course.made(source.step)[source.place], of_crate.place(source)
            if source.step == REQUEST:
                offset = -1 - place + self._crates.sample(crate) * layout.request_bytes
                found[name] = read_requests(self._requests.memory, offset, layout, 1)
            else:
                found[name] = read(self._crates.segment.memory, crate + place, layout, 1)
        return found


def _affordable(nbytes: int) -> int:
    """Return how many crates of some bytes should be had at most."""
    free = free_bytes()
    return MOST_UNDER_WAY if free is None else int(SHARE_OF_MEMORY * free) // nbytes


def layout_of(
    courses: Sequence[Course],
    requests: Sequence[int],
    ways: Sequence[Mapping[int, Sequence[int]]],
    stations: Sequence[Sequence[int]],
) -> Layout:
    """Return how a network is served.

    Parameters
    ----------
    requests
        Per class, how many there are.
    ways
        Per class: course -> the stations of its steps (a route has one course, a DNN one per pipeline).
    stations
        Per server the stations that list it.

    Raises
    ------
    InputError
        A course comes to a station twice.
    """
    course_of: dict[tuple[int, int], int] = {}
    step_at: dict[tuple[int, int], int] = {}
    for of_class, own in enumerate(ways):
        for course, way in own.items():
            for step, station in enumerate(way):
                if step_at.setdefault((course, station), step) != step:
                    raise InputError(f"{courses[course].name}: it comes to station {station} twice; expected once")
                course_of[of_class, station] = course
    return Layout(
        tuple(courses),
        tuple(accumulate(requests, initial=0)),
        course_of,
        step_at,
        tuple(tuple(each) for each in stations),
    )


def of_any_kind(requester: Requester) -> RequesterOf:
    """Return that a requester gets all answers, whatever kinds of servers they come from."""
    return lambda kinds: requester


def check_batches(batches: Sequence[int]) -> None:
    """Raise InputError for batches that are too large to be told."""
    if max(batches) > MOST_CRATES:
        raise InputError(f"batches of up to {max(batches)} requests; expected at most {MOST_CRATES}")
