"""What a dispatcher serves one DNN with: pipelines of stages, in integer µs."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Pools = Mapping[tuple[int, int], Hashable]  # (pipeline, stage) of a DNN -> a pool that all share who name it


@dataclass(frozen=True, eq=False)
class System:
    """The pipelines of one DNN as arrays; entries beyond a pipeline's stages are 0.

    Attributes
    ----------
    dnn
        Name of the DNN.
    slo_us
        A request's deadline is its arrival plus this.
    stages
        ``[pipeline]``, how many stages each has.
    batch
        ``[pipeline]``, the planned batch size, the same in all stages.
    latency_us
        ``[pipeline, stage, batch]`` for batch = 0 .. the largest planned one; 0 for batch 0 and beyond the
        planned batch.
    transfer_us
        ``[pipeline, stage]``, the time that one request's input takes on the wire to this stage; 0 for the first.
    hop_us
        ``[pipeline, stage]``, the delay between the end of a transfer and its arrival at this stage.
    later_us
        ``[pipeline, stage]``, the planned inference and transfer of all stages after this one.
    slices
        ``[pipeline, stage]``, the size of the pool.
    card_slices
        ``[pipeline, stage]``, how many consecutive slices share a network card.
    server_slices
        ``[pipeline, stage]``, how many consecutive slices are in one server.
    share
        ``[pipeline, stage]``, k where a slice is 1/k of a device.
    device
        ``[pipeline, stage]``, index into ``device_types``; -1 beyond a pipeline's stages.
    device_types, devices, prices_per_hour
        Per type: its name, how many the plan fills (in fractions where shares do), its price (NaN if unknown).
    watts
        Per type: what a device draws idle and busy (NaN if unknown).
    number
        ``[pipeline, stage, slice]``, which device of its type a slice lies on, as the plan places it; None where each
        ``share`` slices of a pool have a device of their own.
    cores
        ``[pipeline, stage, slice, 2]``, the first core of its device and how many cores a slice has, where segments are
        cores; 0 cores where a slice shares all of its device's. None as for ``number``.
    spread
        ``[pipeline, stage]``, the standard deviation of the logarithm of service times at the planned batch, as the
        profile measured it; 0 where it did not, None where nobody asked.
    variants, accuracies
        Per pipeline: the variant that it runs, and how accurate that is (percent, NaN if unknown); empty where nobody
        asked.
    """

    dnn: str
    slo_us: int
    stages: Ints
    batch: Ints
    latency_us: Ints
    transfer_us: Ints
    hop_us: Ints
    later_us: Ints
    slices: Ints
    card_slices: Ints
    server_slices: Ints
    share: Ints
    device: Ints
    device_types: tuple[str, ...]
    devices: tuple[float, ...]
    prices_per_hour: tuple[float, ...]
    watts: tuple[tuple[float, float], ...] = ()
    number: Ints | None = None
    cores: Ints | None = None
    spread: NDArray[np.float64] | None = None
    variants: tuple[str, ...] = ()
    accuracies: tuple[float, ...] = ()

    @cached_property
    def work_us(self) -> Ints:
        """``[pipeline, batch]``: a batch's inferences and transfers where nothing makes it wait."""
        batches = np.arange(self.latency_us.shape[2])
        travel = self.transfer_us.sum(axis=1)[:, None] * batches + self.hop_us.sum(axis=1)[:, None]
        work_us: Ints = self.latency_us.sum(axis=1) + travel
        return work_us

    @cached_property
    def max_stages(self) -> int:
        """Stages of the longest pipeline."""
        return int(self.stages.max())
