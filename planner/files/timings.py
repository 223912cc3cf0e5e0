"""A user's timings, however few: a CSV file in, runs of models out.

Columns ``model,device,share,batch,block,latency_us``, in any order, and a row per timing, blocks counted from 0; a
share is k, for 1/k of a device, or names a segment. Where there is a column ``beside`` it names the models that ran on
the device meanwhile, joined by +; a column ``spread`` has the standard deviation of the logarithms of what a row is the
median of. Blocks that nobody timed have no row; rows that repeat a timing count as repetitions of it.
"""

from collections.abc import Mapping
from pathlib import Path

from planner.files.csv_rows import batch_in, csv_rows, integer_in, number_in, share_in, text_in
from planner.files.measurements import load_cuts
from planner.model import Block, InputError, Profile, Provenance
from planner.model.observed import Run
from planner.model.segments import Share

COLUMNS = ("model", "device", "share", "batch", "block", "latency_us")
OPTIONAL = ("beside", "spread")

Place = tuple[str, str, Share, int, tuple[str, ...]]
Timing = tuple[float, float | None]  # µs, and its spread


def blank_model(name: str, cuts: Path) -> Profile:
    """Return a model of which nothing is known but its blocks, from the bytes between them; raises InputError."""
    cut_bytes = load_cuts(cuts)
    return Profile(name, tuple(Block((f"block {index}",)) for index in range(len(cut_bytes) + 1)), cut_bytes, ())


def models_in(path: Path) -> tuple[str, ...]:
    """Return the names of the models that a file has timings of, in order of appearance; raises InputError."""
    rows = csv_rows(path, COLUMNS, optional=OPTIONAL)
    return tuple(dict.fromkeys(text_in(row, "model", where) for where, row in rows))


def load_timings(path: Path, models: Mapping[str, Profile]) -> tuple[Run, ...]:
    """Read runs of known models, by name.

    Raises
    ------
    InputError
        The file cannot be read, a column is missing or unknown, a value is missing, zero, negative or no number, a
        model is unknown, or a block is beyond those of its model.
    """
    places: dict[Place, dict[int, list[Timing]]] = {}
    for where, row in csv_rows(path, COLUMNS, optional=OPTIONAL):
        model = text_in(row, "model", where)
        beside = tuple(name.strip() for name in row.get("beside", "").split("+") if name.strip())
        for name in (model, *beside):
            if name not in models:
                raise InputError(
                    f"{where}: unknown model {name!r}; expected one of {sorted(models)}: observe a profile of it "
                    "first, or give the bytes between its blocks with --cuts"
                )
        block, last = integer_in(row, "block", where, 0), len(models[model].blocks) - 1
        if block > last:
            raise InputError(f"{where}: block: expected 0 to {last}, which are the blocks of {model}, got {block}")
        place = (model, text_in(row, "device", where), share_in(row, where), batch_in(row, where), beside)
        spread = number_in(row, "spread", where) if row.get("spread") else None
        timing = number_in(row, "latency_us", where, zero=False), spread
        places.setdefault(place, {}).setdefault(block, []).append(timing)
    provenance = Provenance("measured", f"imported from {path.name}")
    return tuple(run for place, timings in places.items() for run in _runs(place, timings, models, provenance))


def _runs(
    place: Place, timings: Mapping[int, list[Timing]], models: Mapping[str, Profile], provenance: Provenance
) -> list[Run]:
    """Return as many runs as a block was timed at most, each with the blocks that were timed so often."""
    runs = []
    for number in range(max(map(len, timings.values()))):
        row = [
            timings[block][number] if number < len(timings.get(block, ())) else (None, None)
            for block in range(len(models[place[0]].blocks))
        ]
        spread = tuple(own for _, own in row)
        latency_us = tuple(value for value, _ in row)
        known = None if all(own is None for own in spread) else spread
        runs.append(Run(*place[:4], latency_us, provenance, known, place[4]))
    return runs
