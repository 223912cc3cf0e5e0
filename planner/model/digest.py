"""Content hashes: equal objects have equal digests on every machine."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any

SCALARS = (int, str, bool, type(None))


def _plain(value: Any) -> Any:
    """Return JSON's own types; 10.0 as 10, so that equal numbers are equal texts."""
    if type(value) in SCALARS:
        return value
    if is_dataclass(value) and not isinstance(value, type):
        kept = [
            each for each in _fields(type(value)) if not each.metadata.get("digest") or not _is_default(value, each)
        ]
        return {each.name: _plain(getattr(value, each.name)) for each in kept}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        if all(type(item) is int for item in value):  # rows of latencies, of which profiles consist
            return value
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


@cache
def _fields(kind: type) -> tuple[Any, ...]:
    return fields(kind)


def _is_default(record: Any, each: Any) -> bool:
    default = each.default if each.default_factory is MISSING else each.default_factory()
    return bool(getattr(record, each.name) == default)


def digest(record: Any) -> str:
    """Return the SHA-256 (hex) of a model object's JSON with sorted keys.

    Fields that came later (`planner.model.record.LATER`) count only where they are not at their default.

    >>> from planner.model.cluster import Network
    >>> digest(Network(10.0)) == digest(Network(10, 0))
    True
    """
    text = json.dumps(_plain(record), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
