"""Servers that stop and come back."""

from collections.abc import Callable, Sequence

from simulator.engine.network import Outage
from simulator.engine.oracle.core import FAILURE, REPAIR, Clockwork, Server


def schedule(
    run: Clockwork,
    outages: Sequence[Outage],
    stopped: Callable[[list[Server]], None],
    back: Callable[[Server], None],
) -> None:
    """Let outages happen, those of one instant in the order in which they became known.

    ``stopped`` is called when all that was on the servers has been dealt with, ``back`` when one is repaired.
    """
    for outage in outages:
        run.at(outage.at_us, FAILURE, 0, lambda o=outage: fail(run, o, stopped, back))  # type: ignore[misc]


def fail(
    run: Clockwork, outage: Outage, stopped: Callable[[list[Server]], None], back: Callable[[Server], None]
) -> None:
    """Stop servers at once, then deal with what they had, server by server."""
    struck = [(server, server.serving, server.waiting) for server in (run.servers[w] for w in outage.servers)]
    for server, _, waiting in struck:
        stop(run, server, run.now + outage.repair_us, back)
        for batch in waiting:
            batch.opened = False
    for _, serving, waiting in struck:
        if serving is not None:
            serving.owner.stranded(serving, cut=True)
        for batch in waiting:
            batch.owner.stranded(batch, cut=False)
    stopped([server for server, _, _ in struck])


def stop(run: Clockwork, server: Server, back_us: int, back: Callable[[Server], None]) -> None:
    """Take a server out of service until ``back_us``, or until a later repair that is under way; it then loads."""
    server.down, server.serving, server.waiting = True, None, []
    server.attempt += 1
    server.back_us = back_us = max(server.back_us, back_us)
    server.until_us = max(server.until_us if server.held else 0, back_us + run.conditions.load_us)

    def repair() -> None:
        if server.down and server.back_us == back_us:
            server.down = False
            run.begin(server)
            back(server)

    run.at(back_us, REPAIR, server.number, repair)
