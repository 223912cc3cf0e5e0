"""Central stations get another configuration while they work: kinds of servers (variants), how many, batch size."""

from simulator.dispatch.compiled import compiled_apart
from simulator.engine.core.routes import is_free, work
from simulator.engine.core.state import LOADING, OFF, ON, State


@compiled_apart
def load_servers(S: State, q: int, kind: int, replicas: int) -> None:
    """Let servers of a station that are off load, so that ``replicas`` of a kind are on or loading."""
    station = S.station[q]
    have = 0
    for k in range(station.first, station.first + station.servers):
        server = S.server[S.lists[k]]
        have += server.off != OFF and server.kind == kind
    for k in range(station.first, station.first + station.servers):
        server = S.server[S.lists[k]]
        free = server.off == OFF and not server.down and server.serving < 0 and server.head < 0
        if have < replicas and free:
            server.off = LOADING
            server.kind = kind
            have += 1


@compiled_apart
def reconfigure(S: State, q: int, kind: int, max_batch: int, replicas: int, now: int) -> None:
    """Let the first servers of a kind that are on or have loaded serve a station, and all others drain."""
    station = S.station[q]
    station.max_batch = max_batch
    station.idle = 0
    serving = 0
    for k in range(station.first, station.first + station.servers):
        w = S.lists[k]
        server = S.server[w]
        if server.off != OFF and server.kind == kind and serving < replicas:
            server.off = ON
            serving += 1
        else:
            server.off = OFF
        station.idle += is_free(S, w)
    work(S, q, now)
