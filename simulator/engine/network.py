"""A network of stations: the plain data that defines a run, and the rules that a run follows.

*Servers* serve one batch at a time; *stations* are queues with a rule that says how batches are built and where they
go; *cards* carry what servers send on. A class of requests follows a `Route` through stations, or is dispatched by a
`Frontend` that reserves slices on the way of a whole pipeline or reacts stage by stage. The compiled engine and the
SimPy oracle both run what is described here, and give the same records to the µs. Times are integer µs.

**Order.** What happens at one instant goes by kind: changes of the configuration and plans that take over; failures
(in the order of their list), repairs (by number of server); reactive timers; ends of service; arrivals over a card;
timers of central queues; fill timeouts; reactive queues that something joined; frontends; at last requests that arrive
(by number: class by class, in order of arrival). Ends and arrivals over a card go by the number of the batch, in
order of dispatch over the whole run; all else by number of server, station or class. What a step causes at once (a
batch is built, a request joins the next queue) is part of that step.

**Servers.** In front of a server stand the batches that were sent to it. Where it is up, idle and not held, it begins
the first of them at ``max(now, until)``, ``until`` being the end of its loading; it then counts as busy until
the *planned* end ``until = start + latency_us[kind, size]``, and really ends ``service`` µs after the start:

    no spread, no factors   the planned latency
    spread σ of the station max(1, round(planned · exp(σ · z))), z = normal(seed, SERVICE, server, n)
    factors                 max(1, round(planned · factors[floor(u · len)])), u = uniform(seed, SERVICE, server, n)

where n counts the services that this server began before (`simulator.engine.streams`). All servers load at 0 for
``load_us``. At the end ``until = now``; the server begins the next batch, if there is one, before what it served
goes on.

**Cards.** A batch that goes on from a station whose ``wire_us`` and ``hop_us`` are 0 is there at once (routes only);
else it joins its server's card, which sends one batch at a time, first come, first served, in ``size · wire_us``, times
the factors of the `Slowdown` s in whose time the sending begins, rounded; ``hop_us`` after it has been sent it is
there. (A reservation or reactive pipeline always sends over a card, whose hop of 0 µs is an arrival at the same
instant.)

**Routes.** A request joins the station of step 0 when it arrives, and that of a later step when all steps that lead to
it have served it. It is finished when all steps without a successor have served it. Once it has another outcome its
places in queues and batches are void: a batch that is built passes over it, a batch that it is in counts it.

*Central queue* (`CENTRAL`). First come, first served. A queue is due if it holds ``max_batch`` requests or its head
joined ``timeout_us`` ago. It is looked at when a request joins that fills it (each one, if ``timeout_us`` is 0), at the
timer of its head, when a server is repaired or its configuration changes, and, idle first, when a server has ended and
has nothing in front of it. Then, as long as it is due: void requests and those of at least ``drop_age_us`` since their
arrival (outcome LATE) leave its head; if it is still due, a server is chosen; none: stop. A batch of up to
``max_batch`` is sent there, passing over (and removing) those that are void or too old. *Round robin*: the servers in
turn, from the one after that chosen last, passing over those that are down or off; the batch waits in front of it.
*Idle first*: the first of ``servers`` that is up, on, and has nothing to do. *By slack*: over the servers that are up
and on, a batch of all that the queue holds, up to ``max_batch``, would end on each after ``until`` and all that stands
in front of it, at planned latencies. Of the servers where that is by its head's arrival + ``end_by_us`` it goes to one
of the largest kind (kinds are numbered from the least to the most accurate variant), of these to where it would end
first; where there is none, to where it would end first of all; the first of ``servers`` on ties. A request whose age is
``drop_age_us`` when the station has served it is LATE as well. A server belongs to one central station.

*Latest start first* (`LATEST_START`). Servers may belong to several stations. A request's latest start is its arrival
plus the step's ``latest_start_us``, its discard line its arrival plus ``discard_us``; a batch has the latest start of
the request that opened it and the earliest discard line of its requests. In front of a server batches stand by (latest
start, number). They are planned to start one after the other from max(now, until), each taking ``counted_us[kind,
size]``. A request that joins

1. takes the open batch of the station with the largest latest start of at most its own + ``epsilon_us`` (least
   number on ties), if with one request more that batch and all behind it start by their discard lines (its own now
   included);
2. else that of the open batches with the smallest latest start beyond, on the same condition;
3. else opens a batch. Over the servers that are up and on: would it, put in its place, start by its line, and all
   behind it by theirs? Of those where so, the one where it would end first, the first of ``servers`` on ties. If there
   is none and the step is the first and ``discard`` holds, or no server is up and on, it is HOPELESS; else it goes to
   the one where it ends first.

A batch is open until it is full or begun. The first in front of an idle server begins when it is full or
``timeout_us`` have passed since it was opened.

**Failures.** An `Outage` stops its servers at once; they are back ``repair_us`` later (if several overlap, at the
latest of these times) and load again for ``load_us``. What a server was serving is recorded as a visit of no requests
from its start to now, if it started before now. No request joins what stands in front of these servers any more. Then,
server by server, what it served and what stood in front of it is dealt with in that order. Batches of routes dissolve:
their requests join their station again one by one, but those whose service was cut are LOST if that had happened to
them before in this step.

**Reservations** (`RESERVED`; PPipe's data plane, `simulator.dispatch`). A frontend works through its queue when a
request arrives, at its timer (which goes first and is cancelled by an arrival before it), after a failure and when it
takes over. It calls the policy, whose books hold until when each slice is taken; the batch takes the slices that the
books chose, in all stages, and each later slice is *promised* to it. Where nothing goes differently from the plan
(`Conditions.corrected` is false) the books are what was reserved. Where it is true, a slice's entry is
corrected whenever a batch reaches or leaves it, fails, is promised or withdrawn, and when the slice is back and has
begun what stands in front of it: from max(now, until) on, each batch promised to it and not in service takes its
planned latency, not before it is expected, in the order of the promises.
A batch is expected in a later stage when the books said, and, once it has left the stage before, at that time plus
``size · wire_us + hop_us``. A batch whose slice fails, or that reaches one that is down and could not serve it by its
deadline (the slice's entry plus what follows at planned times), is *retried* once: on the slice that is up and would be
free first, the lowest on ties, if from max(that time, now + size · wire_us + hop_us of the hop to it) on it could be
finished by its first request's deadline; it then comes over the card of the stage before (in the first stage it is
there at once). Else it is LOST. Stations of several frontends may list the same servers: what one reserves is entered
in the others' books (with the links of its card, as far as their stages receive or send).

**Plans that take over** (`Takeover`). A frontend with its own stations and servers takes the queue of another one over
as it is; batches on their way go on under the plan that sent them. Those of one instant take over together: then their
servers are *held* as long as a server on the same ``device`` of a frontend that was taken over by then is promised to a
batch, or, with reactive dispatch, requests of that frontend are under way: sent and not decided, nor back in the queue
of the first stages. At the takeover a held server's ``until`` is what the books of those frontends say of their slices
on its device, the latest (not before now), plus ``load_us``. When it is let go, at once when nothing holds it any more,
it loads: ``until`` is now, or the end of its repair where it is down, plus ``load_us``. Then the frontends work through
their queues. What comes back to the queue of the first stages (reactive) joins that of the frontend now in charge.
What a policy remembers (whose turn it is, that the head has waited) is about the plan that is gone: the new frontend
begins without it, and looks at the head as at one that has just come. Frontends that share servers are taken over at
once. Routes are not taken over: a request stands in front of a server from when it comes, in no queue to be handed on.

**Reactive dispatch** (`REACTIVE`; `simulator.dispatch.reactive`). A queue in front of every stage, the frontend's for
all first stages. It is worked through at its timer, and when requests have joined it (after all that join it at that
instant): those of a batch that has reached it, or that come back from a slice that failed. The books hold the planned
end of what a slice serves and has in front of it; in corrected runs they are corrected when a batch begins or ends
there, or the slice fails. Requests of batches on a slice that fails join the queue again; those whose service was cut
are LOST if that had happened to them before in this stage.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simulator.dispatch.system import Ints, System

CENTRAL, LATEST_START, RESERVED, REACTIVE = range(4)
ROUND_ROBIN, IDLE_FIRST, BY_SLACK = range(3)

NO_LIMIT_US = 1 << 41  # longer than any run (25 days)


@dataclass(frozen=True, eq=False)
class Servers:
    """What serves: slices, devices or replicas, as columns ``[server]``.

    Attributes
    ----------
    kind
        Row of its stations' latency tables: a type of device, a kind of segment, or a variant.
    card
        Number of the network card that it sends over, from 0.
    device
        What must drain before a later plan may use it: a device, or a type where it is not known which device it is.
    on
        Whether it is part of the configuration at the start.
    """

    kind: Ints
    card: Ints
    device: Ints
    on: NDArray[np.bool_]

    def __len__(self) -> int:
        """Count them."""
        return len(self.kind)


def servers(
    kind: Sequence[int],
    card: Sequence[int] | None = None,
    device: Sequence[int] | None = None,
    on: Sequence[bool] | None = None,
) -> Servers:
    """Return servers of these kinds; where nothing else is said each is on, on a device and a card of its own.

    >>> servers([0, 0, 1]).card.tolist()
    [0, 1, 2]
    """
    numbers = np.arange(len(kind), dtype=np.int64)
    return Servers(
        np.asarray(kind, np.int64),
        numbers if card is None else np.asarray(card, np.int64),
        numbers if device is None else np.asarray(device, np.int64),
        np.ones(len(kind), np.bool_) if on is None else np.asarray(on, np.bool_),
    )


@dataclass(frozen=True, eq=False)
class Station:
    """A queue with a rule; the module says what each rule does with the fields.

    Attributes
    ----------
    rule
        CENTRAL, LATEST_START, RESERVED or REACTIVE.
    servers
        Numbers of the servers it may use, in the order of preference; for frontends the slices of the pool.
    latency_us
        ``[kind, batch]`` for batch = 0 .. the largest; what is at 0 is not used.
    max_batch
        Largest batch (routes).
    timeout_us
        CENTRAL: how long the head may wait for a full batch. LATEST_START: how long an open batch may.
    placement
        CENTRAL: ROUND_ROBIN, IDLE_FIRST or BY_SLACK.
    drop_age_us
        CENTRAL: age at which requests are dropped.
    end_by_us
        CENTRAL, BY_SLACK: age by which the head of a batch is to be served.
    epsilon_us, discard, counted_us
        LATEST_START: by how much a batch may start later than a request that joins it; whether hopeless requests are
        discarded; ``[kind, batch]``, the latencies that insertion counts (None: ``latency_us``).
    wire_us, hop_us
        Time per request on the wire to what follows, and the delay after that.
    spread
        Standard deviation of the logarithm of service times.
    """

    rule: int
    servers: tuple[int, ...]
    latency_us: Ints
    max_batch: int = 1
    timeout_us: int = 0
    placement: int = ROUND_ROBIN
    drop_age_us: int = NO_LIMIT_US
    end_by_us: int = NO_LIMIT_US
    epsilon_us: int = 0
    discard: bool = False
    counted_us: Ints | None = None
    wire_us: int = 0
    hop_us: int = 0
    spread: float = 0.0


@dataclass(frozen=True)
class Step:
    """A step of a route: its station, the steps that follow, and (LATEST_START) the lines after the arrival."""

    station: int
    then: tuple[int, ...] = ()
    latest_start_us: int = NO_LIMIT_US
    discard_us: int = NO_LIMIT_US


@dataclass(frozen=True)
class Route:
    """The steps of a class of requests: a chain, a tree, or any graph without cycles whose only entry is step 0."""

    name: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, eq=False)
class Frontend:
    """The dispatcher of a DNN.

    Attributes
    ----------
    system
        Its pipelines.
    policy
        Number in `simulator.dispatch.frontend.POLICIES`, `ASKED` for a function in Python, `REACTS` for reactive
        dispatch.
    stations
        ``stations[pipeline][stage]``, numbers of stations of rule RESERVED (REACTIVE), whose ``servers`` are the slices
        of that pool, in order.
    """

    system: System
    policy: int
    stations: tuple[tuple[int, ...], ...]


ASKED, REACTS = -1, -2


@dataclass(frozen=True, eq=False)
class Network:
    """Servers, stations, and the classes of requests that use them."""

    servers: Servers
    stations: tuple[Station, ...]
    classes: tuple[Route | Frontend, ...]


@dataclass(frozen=True)
class Outage:
    """Servers that stop at ``at_us`` and are back ``repair_us`` later."""

    at_us: int
    servers: tuple[int, ...]
    repair_us: int


@dataclass(frozen=True)
class Slowdown:
    """A time in which sending that begins takes ``factor`` times as long."""

    from_us: int
    until_us: int
    factor: float


@dataclass(frozen=True, eq=False)
class Conditions:
    """What goes differently from the plan, network by network; `simulator.engine.world.World` is the user's side.

    ``outages`` are in order of time. ``corrected`` says that frontends' books follow what happens; it must be true
    where anything else here differs from its default.
    """

    seed: int = 0
    factors: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    load_us: int = 0
    outages: tuple[Outage, ...] = ()
    slowdowns: tuple[Slowdown, ...] = ()
    corrected: bool = False


@dataclass(frozen=True)
class Change:
    """A new configuration of a central station (adaptation).

    ``replicas[kind]`` is how many servers of each kind are wanted. At ``at_us``, kind by kind, servers of the station
    that are off, up and have nothing to do start loading as that kind (first ones of ``servers`` first), as many as are
    needed so that so many of it are on or loading. At ``ready_us`` the first so many of each kind are on, with batches
    of at most ``max_batch``; all others of the station are off: they finish what is in front of them. Then the queue is
    looked at.
    """

    at_us: int
    station: int
    replicas: tuple[int, ...]
    max_batch: int
    ready_us: int


@dataclass(frozen=True, eq=False)
class Takeover:
    """Frontends that take the queues of others over, together.

    Attributes
    ----------
    of
        Numbers of the frontends whose queues are taken over, in order of those of ``network``; frontends of takeovers
        are numbered on, as are stations, servers and cards.
    network
        What is added; servers on one ``device`` with those before must drain first.
    outages
        What of it fails, by the numbers of servers in ``network``.
    """

    at_us: int
    of: tuple[int, ...]
    network: Network
    outages: tuple[Outage, ...] = ()
