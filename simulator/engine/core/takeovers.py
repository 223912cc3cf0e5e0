"""Plans that take over: slices of the new one are held until earlier plans have left their device."""

from simulator.dispatch.compiled import compiled_apart
from simulator.engine.core.books import correct
from simulator.engine.core.servers import begin
from simulator.engine.core.state import HELD, LOAD, State


@compiled_apart
def hand_over(S: State, device: int, now: int) -> None:
    """Let slices on a device load their models, if those of all earlier plans on it have drained."""
    for d in range(len(S.frontend)):
        busy = False
        for w in range(len(S.server)):
            server = S.server[w]
            if server.frontend == d and server.device == device:
                if server.held:
                    server.held = 0
                    S.c[HELD] -= 1
                    server.until = max(now, server.back if server.down else 0) + S.c[LOAD]
                    begin(S, w, now)
                    correct(S, w, now)
                busy = busy or server.promised >= 0 or S.frontend[d].under_way > 0
        if busy and not S.frontend[d].in_charge:
            return


@compiled_apart
def hand_over_all(S: State, now: int) -> None:
    """Look at the devices of all slices that are held."""
    for w in range(len(S.server)):
        if S.server[w].held:
            hand_over(S, S.server[w].device, now)
