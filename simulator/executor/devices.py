"""Which cores each slice gets, and how a device that is not at hand is emulated.

On this machine a device is a number of cores (one, unless told otherwise), and a slice of 1/k of it shares them
with k - 1 others, as in the profiler; a segment of some cores has these for itself. Devices take cores in plan order;
every slice stays on the device that the plan's placement gives it.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from planner.model import InputError
from simulator.dispatch.system import System
from simulator.executor.fleet import SliceId

CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Emulation:
    """How this machine stands in for the plan's devices.

    Attributes
    ----------
    cores
        Per device type: cores of one device; 1 where not given.
    slowdown
        Per device type: how many times as long a batch takes as it does here; 1 where not given.
    network
        Whether batches take the time that the plan's network would need; else as long as they do here.
    """

    cores: Mapping[str, int] = field(default_factory=dict)
    slowdown: Mapping[str, float] = field(default_factory=dict)
    network: bool = False

    def describe(self) -> str:
        """Return what is emulated in words, an empty text for nothing.

        >>> Emulation(slowdown={"pi4": 8}, network=True).describe()
        'pi4 is this CPU slowed down 8 times; the network is emulated'
        """
        slower = [(name, factor) for name, factor in sorted(self.slowdown.items()) if factor != 1]
        parts = [f"{name} is this CPU slowed down {factor:g} times" for name, factor in slower]
        return "; ".join(parts + ["the network is emulated"] * self.network)


def check_emulation(emulation: Emulation, system: System) -> None:
    """Raise InputError for unknown device types and for numbers out of range."""
    for name in [*emulation.cores, *emulation.slowdown]:
        require_device_type(name, system.device_types)
    for name, cores in emulation.cores.items():
        if cores < 1:
            raise InputError(f"cores of {name}: expected an integer >= 1, got {cores}")
    for name, factor in emulation.slowdown.items():
        if not 1 <= factor < inf:
            raise InputError(
                f"slowdown of {name}: expected a finite factor >= 1, got {factor:g}; a CPU cannot run faster"
            )


def require_device_type(name: str, types: Sequence[str]) -> None:
    """Raise InputError for a device type that the cluster does not have."""
    if name not in types:
        raise InputError(f"emulation: unknown device type {name!r}; the cluster has {list(types)}")


def assign_cores(
    system: System,
    slices: Sequence[SliceId],
    cores: Mapping[str, int],
    *,
    oversubscribe: bool = False,
    available: Sequence[int] | None = None,
) -> dict[SliceId, tuple[int, ...]]:
    """Return the cores of each slice; without pinning (no cores) where there are too few and that is allowed.

    Raises
    ------
    InputError
        The devices need more cores than there are, and ``oversubscribe`` is not set.
    """
    available = sorted(os.sched_getaffinity(0)) if available is None else available
    assigned: dict[SliceId, tuple[int, ...]] = {}
    begins: dict[tuple[str, object], int] = {}  # device -> where its cores begin
    used = 0
    for slice_id in slices:
        first, own = _cores_within(system, slice_id)
        device = device_of(system, slice_id), _device_number(system, slice_id)
        width = max(cores_of_device(system, device[0], cores), own)
        if device not in begins:
            begins[device] = used
            used += width
        begin = begins[device]
        assigned[slice_id] = tuple(
            available[begin + first : begin + first + own] if own else available[begin : begin + width]
        )
    if used > len(available):
        if not oversubscribe:
            raise InputError(
                f"the plan's devices need {used} cores, this machine offers {len(available)}; plan for fewer devices, "
                "or let them share cores with --oversubscribe (latencies will then not hold)"
            )
        return dict.fromkeys(slices, ())
    return assigned


def cores_of_device(system: System, device: str, cores: Mapping[str, int]) -> int:
    """Return how many cores of this machine a device of a type is: as told, as its segments need, or one."""
    if device in cores or system.cores is None:
        return cores.get(device, 1)
    on_type = system.device == system.device_types.index(device)
    return max(1, int(system.cores[on_type].sum(axis=-1).max(initial=1)))


def threads_of(system: System, slice_id: SliceId, cores: Mapping[str, int]) -> int:
    """Return the threads of a slice's worker: its own cores, or its share of the device's."""
    _, own = _cores_within(system, slice_id)
    share = int(system.share[slice_id.pipeline, slice_id.stage])
    return own or max(1, cores_of_device(system, device_of(system, slice_id), cores) // share)


def _cores_within(system: System, slice_id: SliceId) -> tuple[int, int]:
    """Return the first core of its device and how many cores a slice has for itself; 0 where it shares all."""
    if system.cores is None:
        return 0, 0
    first, own = system.cores[slice_id.pipeline, slice_id.stage, slice_id.slice].tolist()
    return first, own


def _device_number(system: System, slice_id: SliceId) -> object:
    """Return what is equal for slices on one device of a type."""
    if system.number is not None:
        return int(system.number[slice_id.pipeline, slice_id.stage, slice_id.slice])
    share = int(system.share[slice_id.pipeline, slice_id.stage])
    return slice_id.pipeline, slice_id.stage, slice_id.slice // share


def device_of(system: System, slice_id: SliceId) -> str:
    """Return the name of a slice's device type."""
    return system.device_types[int(system.device[slice_id.pipeline, slice_id.stage])]


def slices_of(system: System) -> tuple[SliceId, ...]:
    """Return all slices of a system, in plan order."""
    return tuple(
        SliceId(p, s, w)
        for p in range(len(system.stages))
        for s in range(int(system.stages[p]))
        for w in range(int(system.slices[p, s]))
    )
