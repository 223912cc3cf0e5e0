"""Latest start first (CoMPI, SoCC 2025): requests join open batches, batches stand in order of their latest start."""

from typing import TYPE_CHECKING

from simulator.dispatch.decisions import HOPELESS
from simulator.engine.network import Station
from simulator.engine.oracle.core import Batch, Server, Token

if TYPE_CHECKING:
    from simulator.engine.oracle.routes import Requests

Planned = tuple[int, int, Batch]  # planned start and end of a batch


def insert(requests: "Requests", number: int, token: Token) -> None:
    """Let a request join an open batch, else open one, else discard it."""
    run, station = requests.run, requests.run.stations[number]
    step = requests.route[token[0]].steps[token[1]]
    latest_us = requests.arrival_us[token[0]] + step.latest_start_us
    line_us = requests.arrival_us[token[0]] + step.discard_us
    batch = fitting(requests, number, latest_us, line_us)
    if batch is not None:
        batch.tokens.append(token)
        batch.line_us = min(batch.line_us, line_us)
        if len(batch.tokens) == station.max_batch:
            close(requests, batch)
            run.begin(batch.server)
    else:
        trial = Batch(requests, len(run.batches), number, run.servers[0], [token], run.now)
        trial.latest_start_us, trial.line_us, trial.opened = latest_us, line_us, station.max_batch > 1
        server = place(requests, station, trial, may_discard=station.discard and token[1] == 0)
        if server is None:
            return requests.finish(token[0], HOPELESS)
        batch, trial.server = trial, server
        run.batches.append(batch)
        if batch.opened:
            requests.opened[number].append(batch)
        server.waiting = in_order([*server.waiting, batch])
        run.begin(server)
    requests.visit[token] = batch.number
    return None


def fitting(requests: "Requests", number: int, latest_us: int, line_us: int) -> Batch | None:
    """Return the open batch that a request joins: the latest that is not too late, else the first beyond."""
    station = requests.run.stations[number]
    opened = [batch for batch in requests.opened[number] if batch.opened]
    near = [batch for batch in opened if batch.latest_start_us <= latest_us + station.epsilon_us]
    beyond = [batch for batch in opened if batch.latest_start_us > latest_us + station.epsilon_us]
    choices = [min(near, key=lambda b: (-b.latest_start_us, b.number))] if near else []
    choices += [min(beyond, key=lambda b: (b.latest_start_us, b.number))] if beyond else []
    for batch in choices:
        planned = plan(requests, batch.server, batch.server.waiting, larger=batch)
        behind = planned[[one for _, _, one in planned].index(batch) :]
        own_line_us = min(batch.line_us, line_us)
        if all(start_us <= (own_line_us if one is batch else one.line_us) for start_us, _, one in behind):
            return batch
    return None


def place(requests: "Requests", station: Station, trial: Batch, *, may_discard: bool) -> Server | None:
    """Return the server in front of which a new batch ends first, of those where all lines are kept if any."""
    ends_us: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    for rank, w in enumerate(station.servers):
        server = requests.run.servers[w]
        if server.down or not server.on:
            continue
        planned = plan(requests, server, in_order([*server.waiting, trial]))
        at = [one for _, _, one in planned].index(trial)
        kept = all(start_us <= one.line_us for start_us, _, one in planned[at:])
        ends_us[kept].append((planned[at][1], rank))
    if ends_us[True]:
        return requests.run.servers[station.servers[min(ends_us[True])[1]]]
    if may_discard or not ends_us[False]:
        return None
    return requests.run.servers[station.servers[min(ends_us[False])[1]]]


def plan(requests: "Requests", server: Server, queue: list[Batch], larger: Batch | None = None) -> list[Planned]:
    """Return when batches in front of a server are planned to start and end; ``larger`` has one request more."""
    time_us = max(requests.run.now, server.until_us)
    planned = []
    for batch in queue:
        station = requests.run.station(batch)
        counted = station.latency_us if station.counted_us is None else station.counted_us
        end_us = time_us + int(counted[server.kind, len(batch.tokens) + (batch is larger)])
        planned.append((time_us, end_us, batch))
        time_us = end_us
    return planned


def in_order(queue: list[Batch]) -> list[Batch]:
    """Return batches by (latest start, number)."""
    return sorted(queue, key=lambda batch: (batch.latest_start_us, batch.number))


def close(requests: "Requests", batch: Batch) -> None:
    """Let no request join a batch any more."""
    batch.opened = False
    requests.opened[batch.station] = [one for one in requests.opened[batch.station] if one.opened]
