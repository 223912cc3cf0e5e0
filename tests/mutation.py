"""Copies of inputs with something wrong in them: documents by their values, all files by their bytes."""

import json
import math
import random
from collections.abc import Iterator
from typing import Any

NAMES = [
    "",
    "=cmd",
    "\0",
    "\ud800",
    "\x1b[2J\x07",
    "../../x",
    "a/b",
    "x" * 300,
    "日本",
    "NA",
    "[/x]",
    "a\nb",
    "$\\frac$",
]
NUMBERS: list[Any] = [
    0, -1, 1, 2, 10**6, 10**9, 10**12, 10**15, 10**19, -(10**19), 10**400, 32_768, 2**31, 2**63,
    0.5, -0.0, 1e-300, 1e300, 1e19, math.nan, math.inf, -math.inf,
]  # fmt: skip
OTHERS: list[Any] = [None, True, [], {}, [[]], [1], {"a": 1}, "1", "1e3"]
TEXTS = [*map(str, NUMBERS), *NAMES, "1,5", '"', '""', "1e9999", "0x10", "1_000", " 5 ", "+3"]
INSERTED = [b"\0", b"\xff\xfe", b"\x1b[2J", b"\r", b"\n\n\n", b'"', b",,,", b"\xef\xbb\xbf", b"'", b"\t", b"\x0c"]
ENCODINGS = ["utf-16", "utf-32", "latin-1", "cp500", "utf-16-le"]


def mutated(document: Any, draw: random.Random) -> Any:
    """Return a copy of a document with one to three values changed, dropped, doubled, added or nested."""
    copy = json.loads(json.dumps(document))
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        *path, key = draw.choice([path for path in _paths(copy) if path])
        holder = copy
        for step in path:
            holder = holder[step]
        _change(holder, key, draw)
    return copy


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value[:30]) if isinstance(value, list) else ()
    for key, part in parts:
        yield from _paths(part, (*path, key))


def _change(holder: Any, key: Any, draw: random.Random) -> None:
    old, kind = holder[key], draw.random()
    if kind < 0.45:
        number = isinstance(old, int | float) and draw.random() < 0.7
        holder[key] = draw.choice(NUMBERS if number else [*NUMBERS, *NAMES, *OTHERS])
    elif kind < 0.6 and isinstance(old, int | float) and not isinstance(old, bool):
        holder[key] = old * draw.choice([-1, 0, 10, 1000, 10**6, 0.001])
    elif kind < 0.72:
        del holder[key]
    elif kind < 0.8 and isinstance(holder, dict):
        holder[draw.choice([*NAMES, "extra"])] = draw.choice(OTHERS)
    elif kind < 0.88 and isinstance(holder, list):
        holder.insert(draw.randrange(len(holder) + 1), json.loads(json.dumps(old)))
    elif kind < 0.94:
        for _ in range(draw.choice([5, 50, 150])):
            holder[key] = [holder[key]]
    else:
        holder[key] = str(old)


def broken(content: bytes, draw: random.Random) -> bytes:
    """Return a copy of a text file with bytes, lines or cells cut, changed, doubled, swapped, or another encoding."""
    kind = draw.randrange(8)
    place = draw.randrange(len(content) + 1)
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + draw.randbytes(draw.randrange(1, 4)) + content[place + 1 :]
    if kind == 2:
        return content.decode("utf-8", "replace").encode(draw.choice(ENCODINGS), "replace")
    if kind == 3:
        return content[:place] + draw.choice(INSERTED) + content[place:]
    lines = content.split(b"\n")
    row = draw.randrange(len(lines))
    cells = lines[row].split(b",")
    column = draw.randrange(len(cells))
    if kind == 4:
        draw.shuffle(lines)
    elif kind == 5:
        lines.insert(row, lines[row])
    elif kind == 6:
        cells[column] = draw.choice(TEXTS).encode("utf-8", "surrogatepass")
    elif draw.random() < 0.5:
        cells.insert(column, b"1")
    else:
        cells.pop(column)
    if kind > 5:
        lines[row] = b",".join(cells)
    return b"\n".join(lines)


def as_toml(document: dict[str, Any]) -> str:
    """Return a document in TOML, null as a text."""
    return "\n".join(f"{json.dumps(key)} = {_toml(value)}" for key, value in document.items()) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, list):
        return "[" + ",".join(map(_toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}={_toml(part)}" for key, part in value.items()) + "}"
    return json.dumps("none" if value is None else value)
