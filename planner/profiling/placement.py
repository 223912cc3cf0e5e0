"""Which of a model's nodes an execution provider really runs, and which onnxruntime gives to another one.

onnxruntime runs what a provider lacks on the CPU, without a word. Its own profiler tells for every kernel who ran it.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from planner.model import InputError
from planner.profiling.runtime import open_session, run_model

RUNS = 3
_NAMED = 3  # nodes that a text names


@dataclass(frozen=True)
class Placement:
    """Nodes that the ``provider`` runs, and those ``elsewhere``: (name, operator, its provider); all after fusion.

    ``share`` is the part of the kernels' time that is spent elsewhere.
    """

    provider: str
    nodes: int
    elsewhere: tuple[tuple[str, str, str], ...]
    share: float

    def __str__(self) -> str:
        """Return a text for people, empty where all nodes run where they should.

        >>> str(Placement("CUDAExecutionProvider", 10, (("up", "Resize", "CPUExecutionProvider"),), 0.25))
        '1 of 10 nodes (25.0 % of the time) not on CUDAExecutionProvider: up (Resize) on CPUExecutionProvider'
        """
        if not self.elsewhere:
            return ""
        named = ", ".join(f"{name} ({operator}) on {provider}" for name, operator, provider in self.elsewhere[:_NAMED])
        more = f" and {len(self.elsewhere) - _NAMED} more" if len(self.elsewhere) > _NAMED else ""
        return (
            f"{len(self.elsewhere)} of {self.nodes} nodes ({self.share:.1%} of the time) not on {self.provider}: "
            f"{named}{more}"
        ).replace("%", " %", 1)


def find_placement(model: ir.Model, provider: str, feeds: Mapping[str, np.ndarray], threads: int = 1) -> Placement:
    """Run a model some times with onnxruntime's profiler, and return who ran what.

    Raises
    ------
    InputError
        The provider is missing or cannot be used, or runs not a single node of the model.
    """
    with tempfile.TemporaryDirectory(prefix="poolpipe-") as folder:
        prefix = str(Path(folder) / "placement")
        session = open_session(model, threads=threads, provider=provider, profile_prefix=prefix)
        for _ in range(RUNS):
            run_model(session, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return read_placement(events, provider, str(model.graph.name))


def read_placement(events: Sequence[Mapping[str, Any]], provider: str, model: str) -> Placement:
    """Return what the events of onnxruntime's profiler say; of several runs of a node the fastest counts."""
    times_us: dict[str, float] = {}
    who: dict[str, tuple[str, str, str]] = {}
    for event in events:
        name = str(event.get("name"))
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            name = name.removesuffix("_kernel_time")
            own = event.get("args", {})
            who[name] = name, str(own.get("op_name")), str(own.get("provider"))
            times_us[name] = min(times_us.get(name, float("inf")), float(event["dur"]))
    elsewhere = tuple(each for each in who.values() if each[2] != provider)
    if who and len(elsewhere) == len(who):
        others = ", ".join(sorted({each[2] for each in elsewhere}))
        raise InputError(
            f"{provider} runs no node of {model}: all of its {len(who)} run on {others}, whose times would be stored "
            f"under its name; ask for that one"
        )
    spent_us = sum(times_us[each[0]] for each in elsewhere)
    return Placement(provider, len(who), elsewhere, spent_us / (sum(times_us.values()) or 1.0))
