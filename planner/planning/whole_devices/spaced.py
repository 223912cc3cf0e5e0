"""Some sizes of every candidate, for clusters so large that all of them are too many.

Of a candidate on thousands of devices almost every size loses next to nothing by rounding. Listed are the first sizes,
and then in windows that lie a fixed factor apart the sizes that lose least; whole plans are put together of few. What
they cannot reach is not out of reach, so that the relaxation's bound stays the bound.
"""

import numpy as np

from planner.compilation import compiled
from planner.planning.arrays import Floats, Integers
from planner.planning.pipelines.sizes import TIE, CandidateTable, Items

FIRST, WINDOW, KEPT, FACTOR = 24, 24, 2, 1.25  # sizes listed one by one; in a window; kept of it; between windows


def spaced_items(
    table: CandidateTable, counts: Integers, units: Integers, device_price: Floats, enough: float
) -> Items:
    """Return some sizes of every candidate that fit the cluster, up to the first of a value that is enough.

    Parameters
    ----------
    device_price
        Of each type, by which sizes of a window are compared.
    """
    arrays = table.value, table.share, table.device, table.stages, counts, units, device_price, enough
    room = 0
    while True:
        rows, values = np.empty(room, dtype=np.int64), np.empty(room)
        uses = np.zeros((room, len(counts) * table.positions), dtype=np.int64)
        found = _spaced_items(*arrays, rows, values, uses)
        if found <= room:
            return Items(rows, values, uses, len(counts))
        room = found


@compiled
def _spaced_items(
    value: Floats,
    share: Integers,
    device: Integers,
    stages: Integers,
    counts: Integers,
    units: Integers,
    device_price: Floats,
    enough: float,
    rows: Integers,
    values: Floats,
    uses: Integers,
) -> int:
    found, types = 0, len(counts)
    slices = np.empty(value.shape[1], np.int64)
    whole = np.empty(types, np.int64)
    kept_slices = np.empty((KEPT, value.shape[1]), np.int64)
    kept_loss, kept_value = np.empty(KEPT), np.empty(KEPT)
    for row in range(len(stages)):
        count = stages[row]
        unit_cost = 0.0
        for stage in range(count):
            unit_cost += device_price[device[row, stage]] / (value[row, stage] * share[row, stage])
        slices[:] = 1
        walked, begin, full = 0, 0.0, False
        while not full:
            window = 1 if walked < FIRST else WINDOW
            kept_loss[:] = np.inf
            slowest = 0.0
            for _ in range(window):
                whole[:] = 0
                cost, slowest = 0.0, np.inf
                for stage in range(count):
                    kind = device[row, stage]
                    whole[kind] += -(-slices[stage] // share[row, stage])
                    cost += device_price[kind] * slices[stage] / share[row, stage]
                    slowest = min(slowest, value[row, stage] * slices[stage])
                if (whole > counts).any():
                    full = True
                    break
                loss = cost - unit_cost * min(slowest, enough)
                worst = kept_loss.argmax()
                if loss < kept_loss[worst]:
                    kept_loss[worst], kept_value[worst] = loss, slowest
                    kept_slices[worst] = slices
                if slowest >= enough:
                    full = True
                    break
                for stage in range(count):
                    if value[row, stage] * slices[stage] <= slowest * TIE:
                        slices[stage] += 1
            for entry in range(KEPT):
                if kept_loss[entry] == np.inf:
                    continue
                if found < len(rows):
                    rows[found], values[found] = row, kept_value[entry]
                    for stage in range(count):
                        kind = device[row, stage]
                        uses[found, types * stage + kind] = kept_slices[entry, stage] * units[kind] // share[row, stage]
                found += 1
            walked += window
            if walked >= FIRST and not full:
                begin = max(begin, slowest) * FACTOR
                for stage in range(count):
                    slices[stage] = max(slices[stage], np.int64(np.ceil(min(begin, enough) / value[row, stage] / TIE)))
    return found
