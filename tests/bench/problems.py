"""Problems of any size drawn from the published profiles, with seeded variations of device speeds."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.random import Generator

from planner.files.ppipe import list_dnns, read_profile
from planner.model import Cluster, DeviceType, Dnn, LatencyTable, Network, Options, Problem, Profile
from planner.model.problem import DeviceSharing

MEASURED = {"L4": (1, 2, 3, 4), "P4": (1,), "T4": (1, 2, 3, 4), "V100": (1, 2, 3, 4)}
DEVICES_PER_SERVER = {"L4": 4, "P4": 1, "T4": 2, "V100": 4}
BANDWIDTH_GBPS = 10.0
SLO_MULTIPLIER = 5  # of the whole model's latency on an L4, as published
SPEEDS = (0.5, 2.0)  # of a further device type, relative to the measured one that it varies
BLOCK_SPREAD = 0.1  # of the logarithm of a block's own speed there


@dataclass(frozen=True)
class Size:
    """How large a problem is."""

    dnns: int
    types: int
    devices: int
    stages: int
    slack_fraction: float = 0.4
    sharing: DeviceSharing = "own"

    def __str__(self) -> str:
        """Return a name for tables."""
        shared = ", shared" if self.sharing == "shared" else ""
        return f"{self.dnns} DNNs, {self.types} types, {self.devices:,} devices, {self.stages} stages{shared}"


def make_problem(data: Path, size: Size, seed: int = 0) -> Problem:
    """Return a problem of a size; the same for the same seed.

    DNNs are the published ones in turn, further device types variations of the four measured: a random speed, and
    another of each block around it. Counts are random parts of the devices, weights random. X0 is left to the planner.
    """
    rng = np.random.default_rng(seed)
    bases = [list(MEASURED)[number % len(MEASURED)] for number in range(size.types)]
    names = [base if number < len(MEASURED) else f"{base}x{number}" for number, base in enumerate(bases)]
    parts = rng.dirichlet(np.full(size.types, 3.0))
    counts = np.maximum(1, np.floor(parts * size.devices)).astype(int)
    counts[0] += size.devices - counts.sum()
    types = tuple(
        DeviceType(name, int(count), shares=MEASURED[base], devices_per_server=DEVICES_PER_SERVER[base])
        for name, base, count in zip(names, bases, counts, strict=True)
    )
    speeds = {name: 1.0 if name in MEASURED else float(rng.uniform(*SPEEDS)) for name in names}
    published = list_dnns(data)
    dnns = []
    for number in range(size.dnns):
        measured = read_profile(data, published[number % len(published)], MEASURED)
        profile = _varied(measured, dict(zip(names, bases, strict=True)), speeds, rng)
        slo_us = SLO_MULTIPLIER * float(sum(measured.table("L4", 1).block_latency_us(1)))
        name = f"{measured.name}-{number}"
        weight = float(rng.uniform(0.2, 1.0))
        dnns.append(Dnn(name, slo_us, (replace(profile, name=name),), weight=weight))
    options = Options(max_stages=size.stages, slack_fraction=size.slack_fraction, device_sharing=size.sharing)
    return Problem(Cluster(types, Network(BANDWIDTH_GBPS)), tuple(dnns), options)


def _varied(measured: Profile, bases: dict[str, str], speeds: dict[str, float], rng: Generator) -> Profile:
    """Return the profile on all device types, those that were not measured varied from their base."""
    tables = []
    for name, base in bases.items():
        blocks = 1.0 if name in MEASURED else np.exp(rng.normal(0.0, BLOCK_SPREAD, len(measured.blocks)))
        for share in MEASURED[base]:
            table = measured.table(base, share)
            latency_us = np.ceil(np.array(table.latency_us) / speeds[name] * blocks).astype(int)
            rows = tuple(tuple(row) for row in latency_us.tolist())
            tables.append(LatencyTable(name, share, table.batches, rows, table.provenance))
    return replace(measured, tables=tuple(tables))
