"""Plans that take over: slices of the new ones are held until those of earlier plans on their device have drained."""

from simulator.compilation import compiled, compiled_apart
from simulator.dispatch.books import NEVER
from simulator.engine.core.books import correct
from simulator.engine.core.servers import begin
from simulator.engine.core.state import HELD, LOAD, State


@compiled_apart
def hand_over(S: State, device: int, now: int) -> None:
    """Let slices on a device load their models if no plan that was taken over by their time is at work there."""
    at_work = NEVER  # the first takeover whose predecessors are at work
    for w in range(len(S.server)):
        server = S.server[w]
        mine = server.device == device and server.frontend >= 0
        if mine and (server.promised >= 0 or is_expected(S, server.station)):
            at_work = min(at_work, S.frontend[server.frontend].until)
    for w in range(len(S.server)):
        server = S.server[w]
        if server.held and server.device == device and S.frontend[server.frontend].since < at_work:
            server.held = 0
            S.c[HELD] -= 1
            server.until = max(now, server.back if server.down else 0) + S.c[LOAD]
            begin(S, w, now)
            correct(S, w, now)


@compiled
def is_expected(S: State, q: int) -> bool:
    """Return whether requests of a DNN whose pool a station is are under way (reactive), so that it may get some."""
    other = q
    while S.frontend[S.station[other].frontend].under_way == 0:
        other = S.station[other].alike
        if other == q:
            return False
    return True


@compiled_apart
def hand_over_all(S: State, now: int) -> None:
    """Look at the devices of all slices that are held."""
    for w in range(len(S.server)):
        if S.server[w].held:
            hand_over(S, S.server[w].device, now)
