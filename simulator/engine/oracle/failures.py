"""Servers that stop, and what becomes of the batches of routes that were there."""

from typing import TYPE_CHECKING

from simulator.dispatch.decisions import LOST
from simulator.engine.network import CENTRAL, Outage
from simulator.engine.oracle.core import FAILURE, REPAIR, Batch, Server

if TYPE_CHECKING:
    from simulator.engine.oracle.routes import Requests


def schedule(requests: "Requests") -> None:
    """Let all outages happen."""
    for number, outage in enumerate(requests.run.conditions.outages):
        requests.run.at(outage.at_us, FAILURE, number, lambda o=outage: fail(requests, o))  # type: ignore[misc]


def fail(requests: "Requests", outage: Outage) -> None:
    """Stop servers at once, then deal with what they had, server by server."""
    run = requests.run
    struck = []
    for server in (run.servers[w] for w in outage.servers):
        struck.append((server, server.serving, server.waiting))
        stop(requests, server, run.now + outage.repair_us)
    for _, serving, waiting in struck:
        for batch in waiting:
            batch.opened = False
        if serving is not None:
            dissolve(requests, serving, cut=True)
        for batch in waiting:
            dissolve(requests, batch, cut=False)


def stop(requests: "Requests", server: Server, back_us: int) -> None:
    """Take a server out of service until ``back_us``, or until a later repair that is under way."""
    run = requests.run
    server.down, server.serving, server.waiting = True, None, []
    server.attempt += 1
    if back_us > server.back_us:
        server.back_us = back_us
    server.until_us = server.back_us + run.conditions.load_us
    back_us = server.back_us
    run.at(back_us, REPAIR, server.number, lambda: repair(requests, server, back_us))


def repair(requests: "Requests", server: Server, back_us: int) -> None:
    """Let a server come back, unless another failure took it on."""
    if not server.down or server.back_us != back_us:
        return
    server.down = False
    requests.run.begin(server)
    for number, station in enumerate(requests.run.network.stations):
        if station.rule == CENTRAL and server.number in station.servers:
            requests.central[number].look()


def dissolve(requests: "Requests", batch: Batch, *, cut: bool) -> None:
    """Let the requests of a batch join their station again; a second cut in one step loses them."""
    run = requests.run
    if not cut or batch.start_us >= run.now:
        batch.start_us = -1
    batch.kind = batch.server.kind if batch.kind < 0 else batch.kind
    batch.end_us, batch.size = run.now, 0
    tokens, batch.tokens = batch.tokens, []
    for token in tokens:
        if not requests.is_open(token):
            continue
        if cut and token in requests.cut_before:
            requests.finish(token[0], LOST)
            continue
        if cut:
            requests.cut_before.add(token)
        requests.visit.pop(token, None)
        requests.join(token)
