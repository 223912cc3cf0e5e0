"""Candidates: pipelines with everything fixed but their size (DESIGN section 5)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """A pipeline of one DNN with its cuts, devices, shares and batch sizes chosen; only slices are open.

    Sequences have one entry per stage; stage s runs blocks [cuts[s], cuts[s + 1]) on 1/shares[s] of a device
    of type ``devices[s]`` (an index into ``cluster.device_types``) and one of its slices sustains
    ``slice_rps[s]`` requests/s (x_s). ``dnn`` and ``variant`` are indices into the problem.
    """

    dnn: int
    variant: int
    cuts: tuple[int, ...]
    devices: tuple[int, ...]
    shares: tuple[int, ...]
    batches: tuple[int, ...]
    slice_rps: tuple[float, ...]
