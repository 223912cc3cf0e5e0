"""New configurations of central stations while the run goes on (adaptation)."""

from typing import TYPE_CHECKING

from simulator.engine.network import Change
from simulator.engine.oracle.core import CHANGE, Server

if TYPE_CHECKING:
    from simulator.engine.oracle.routes import Requests


def schedule(requests: "Requests", changes: tuple[Change, ...]) -> None:
    """Let all changes happen, at one instant in their order."""
    for number, change in enumerate(changes):
        requests.run.at(change.at_us, CHANGE, 2 * number, lambda c=change: load(requests, c))  # type: ignore[misc]
        requests.run.at(change.ready_us, CHANGE, 2 * number + 1, lambda c=change: take_over(requests, c))  # type: ignore[misc]


def load(requests: "Requests", change: Change) -> None:
    """Let spare servers load what will be needed."""
    servers = requests.central[change.station].servers
    for kind, wanted in enumerate(change.replicas):
        known = sum((server.on or server.loading) and server.kind == kind for server in servers)
        spare = [server for server in servers if not server.on and not server.loading and is_free(server)]
        for server in spare[: max(0, wanted - known)]:
            server.loading, server.kind = True, kind


def is_free(server: Server) -> bool:
    """Whether a server is up and has nothing to do."""
    return not server.down and server.serving is None and not server.waiting


def take_over(requests: "Requests", change: Change) -> None:
    """Put the wanted servers on and all others off; these finish what is in front of them."""
    queue = requests.central[change.station]
    queue.max_batch = change.max_batch
    ready = [server for server in queue.servers if server.on or server.loading]
    of_kinds = [
        [server for server in ready if server.kind == kind][:wanted] for kind, wanted in enumerate(change.replicas)
    ]
    for server in queue.servers:
        server.on, server.loading = any(server in chosen for chosen in of_kinds), False
    queue.look()
