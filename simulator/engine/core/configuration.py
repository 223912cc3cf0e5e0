"""Central stations get another configuration while they work: kinds of servers (variants), how many, batch size."""

from simulator.compilation import compiled_apart
from simulator.dispatch.system import Ints
from simulator.engine.core.routes import is_free, work
from simulator.engine.core.state import LOADING, OFF, ON, State


@compiled_apart
def load_servers(S: State, q: int, replicas: Ints) -> None:
    """Let servers of a station that are off load, so that so many of each kind are on or loading."""
    station = S.station[q]
    for kind in range(len(replicas)):
        missing = replicas[kind]
        for k in range(station.first, station.first + station.servers):
            server = S.server[S.lists[k]]
            missing -= server.off != OFF and server.kind == kind
        for k in range(station.first, station.first + station.servers):
            server = S.server[S.lists[k]]
            free = server.off == OFF and not server.down and server.serving < 0 and server.head < 0
            if missing > 0 and free:
                server.off = LOADING
                server.kind = kind
                missing -= 1


@compiled_apart
def reconfigure(S: State, q: int, left: Ints, max_batch: int, now: int) -> None:
    """Let the first ``left[kind]`` servers that are on or have loaded serve a station, and all others drain.

    ``left`` is used up.
    """
    station = S.station[q]
    station.max_batch = max_batch
    station.idle = 0
    for k in range(station.first, station.first + station.servers):
        w = S.lists[k]
        server = S.server[w]
        if server.off != OFF and server.kind < len(left) and left[server.kind] > 0:
            server.off = ON
            left[server.kind] -= 1
        else:
            server.off = OFF
        station.idle += is_free(S, w)
    work(S, q, now)
