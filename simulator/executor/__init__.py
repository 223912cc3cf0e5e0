"""Plans run on real devices: the simulator's dispatch on a real clock, onnxruntime in a process per slice.

`execute` runs one DNN's part of a plan and returns the same records as a simulation, and what only a real run has.

Names are imported on first use: every worker imports this package when it starts, and needs none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.executor.devices import Emulation
    from simulator.executor.execution import Execution, Settings, check_settings, execute
    from simulator.executor.frontend import Patience
    from simulator.executor.requesters import Verdict

__all__ = ["Emulation", "Execution", "Patience", "Settings", "Verdict", "check_settings", "execute"]

_HOMES = {
    "Emulation": "devices",
    "Execution": "execution",
    "Patience": "frontend",
    "Settings": "execution",
    "Verdict": "requesters",
    "check_settings": "execution",
    "execute": "execution",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
