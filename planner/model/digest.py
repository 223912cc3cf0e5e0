"""Content hashes: equal objects have equal digests on every machine."""

import hashlib
import json
from dataclasses import asdict
from typing import Any


def _plain(value: Any) -> Any:
    """Write 10.0 as 10, so that equal numbers are equal texts."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def digest(record: Any) -> str:
    """Return the SHA-256 (hex) of a model object's JSON with sorted keys.

    >>> from planner.model.cluster import Network
    >>> digest(Network(10.0)) == digest(Network(10, 0))
    True
    """
    text = json.dumps(_plain(asdict(record)), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
