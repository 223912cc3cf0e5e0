"""Published node profiles, cuts and tensor shapes: what a prepartition starts from."""

import json
import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from planner.files.ppipe.text import read_cells, read_text
from planner.model import InputError

# PPipe sends activations in half precision and indices as 32-bit numbers; other types keep their size.
WIRE_BYTES = {"<f4": 2, "<i8": 4}


@dataclass(frozen=True)
class Layers:
    """The layers of a DNN in topological order.

    ``latency_us[device][layer]`` is for a batch of 1; ``cut_bytes[i]`` is what a request sends over the cut
    between layers i and i + 1.
    """

    names: tuple[str, ...]
    latency_us: dict[str, tuple[float, ...]]
    cut_bytes: tuple[int, ...]


def list_dnns(data: Path) -> tuple[str, ...]:
    """Return the DNNs of a data folder, in alphabetical order; raises InputError where there are none.

    Where ``model_list.txt`` says which were used, these; else those that have tensor shapes.
    """
    listed = data / "model_list.txt"
    if listed.exists():
        names = tuple(sorted({line.strip() for line in read_text(listed).splitlines() if line.strip()}))
    else:
        names = tuple(sorted(path.stem for path in (data / "models" / "shapes").glob("*.json")))
    if not names:
        raise InputError(f"{data}: no models/shapes/*.json there; give a folder laid out as the published data")
    return names


def read_layers(data: Path, dnn: str) -> Layers:
    """Read a DNN's layers on every device type that has a node profile.

    Raises
    ------
    InputError
        A file is missing or does not fit the others.
    """
    folder = data / "models" / "node-profile-no-const"
    latency_us: dict[str, tuple[float, ...]] = {}
    names: tuple[str, ...] = ()
    for path in sorted(folder.glob(f"{dnn}-*.csv")):
        device = path.stem.removeprefix(f"{dnn}-")
        if "-" in device:  # another DNN whose name begins like this one's
            continue
        rows = read_cells(path)[1:]
        here = tuple(row[0] for row in rows)
        if names and here != names:
            raise InputError(
                f"{path}: its nodes differ from those of {dnn} on {next(iter(latency_us))}; profile it again"
            )
        names = here
        latency_us[device] = tuple(_latency(path, row) for row in rows)
    if not names:
        raise InputError(f"{folder}: no {dnn}-DEVICE.csv there; {dnn} has no node profile")
    return Layers(names, latency_us, _read_cut_bytes(data, dnn, names))


def _latency(path: Path, row: list[str]) -> float:
    try:
        return float(row[1])
    except (IndexError, ValueError):
        raise InputError(f"{path}: node {row[0]}: expected a latency in µs, got {row[1:]}") from None


def _read_cut_bytes(data: Path, dnn: str, names: tuple[str, ...]) -> tuple[int, ...]:
    """Return the bytes of each cut; the file's first entry is the input, its last two the output."""
    path = data / "models" / "cuts-no-const" / f"{dnn}.json"
    try:
        shapes = json.loads(read_text(data / "models" / "shapes" / f"{dnn}.json"))
        cuts = json.loads(read_text(path))[1:-2]
        if tuple(cut["node"] for cut in cuts) != names[:-1]:
            raise InputError(f"{path}: its nodes differ from those of the node profile of {dnn}")
        return tuple(sum(_wire_bytes(shapes[tensor]) for tensor in cut["cut"]) for cut in cuts)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the cuts of {dnn} with the shapes of their tensors ({error!r})") from None


def _wire_bytes(tensor: dict[str, Any]) -> int:
    """Return the bytes per request of a tensor; -1 stands for the batch."""
    dtype: str = tensor["dtype"]
    item_bytes = WIRE_BYTES.get(dtype) or int(re.sub(r"\D", "", dtype))
    elements: int = prod(abs(size) for size in tensor["shape"])
    return elements * item_bytes
