"""ParvaGPU's published data (SC'24): profiles of DNNs on MIG segments, experiments, and the GPUs they took.

    prof_data/DNN.csv        MIG size (1, 2, 3, 4, 7 of an A100-80GB), batch size, processes, throughput of one process
                             (requests/s), latency (s)
    SLO_req_rate.csv         a row per experiment, a column per DNN in alphabetical order: requests/s, N/A if not served
    SLO_latency.csv          the same of SLOs (ms)
    deployment/SLO<n>.csv    what was deployed in experiment n: a row per segment, with the GPU that it lies on

A batch is feasible where its latency is strictly below 0.45 of the SLO, and nothing is kept for building it. Latencies
are rounded to ms, so that of a batch of b is taken as b / throughput, which is what the throughput was computed from.
"""

import csv
from collections.abc import Iterator
from math import ceil
from pathlib import Path

from planner.model import (
    Block,
    Cluster,
    DeviceType,
    Dnn,
    InputError,
    LatencyTable,
    Network,
    Options,
    Problem,
    Profile,
    Provenance,
)

PROVENANCE = Provenance("measured", "published profiles of ParvaGPU (SC'24), A100-80GB")
DEVICE = "A100-80GB"
SEGMENTS = {1: "1g.10gb", 2: "2g.20gb", 3: "3g.40gb", 4: "4g.40gb", 7: "7g.80gb"}
PROCESSES = 5
FREE_OF_SLO = 0.55
BELOW_US = 1e-3  # a budget reached to the µs is not kept
BANDWIDTH_GBPS = 100.0  # whole models: nothing travels

PROFILE_COLUMNS = ("Mig instance", "Batch size", "Workload Number", "Throughput", "Latency")


def read_profiles(data: Path) -> dict[str, Profile]:
    """Read the profiles of all DNNs, by name in alphabetical order; raises InputError."""
    paths = sorted((data / "prof_data").glob("*.csv"))
    if not paths:
        raise InputError(f"{data / 'prof_data'}: expected a CSV file per DNN, got none")
    return {path.stem: _profile(path) for path in paths}


def _profile(path: Path) -> Profile:
    measured: dict[tuple[int, int], dict[int, float]] = {}
    for line, row in _rows(path, PROFILE_COLUMNS):
        try:
            size, batch, processes = (int(row[name]) for name in PROFILE_COLUMNS[:3])
            throughput_rps = float(row["Throughput"])
        except ValueError as error:
            raise InputError(f"{path}, line {line}: expected numbers ({error})") from None
        if size not in SEGMENTS or batch < 1 or not 1 <= processes <= PROCESSES:
            got = f"{size}, {batch} and {processes}"
            raise InputError(
                f"{path}, line {line}: expected a size of {list(SEGMENTS)}, a batch >= 1 and 1 to {PROCESSES} "
                f"processes, got {got}"
            )
        if throughput_rps > 0:  # else it did not fit the segment's memory
            measured.setdefault((size, processes), {})[batch] = throughput_rps
    tables = []
    for (size, processes), throughputs in sorted(measured.items()):
        batches = tuple(sorted(throughputs))
        share = SEGMENTS[size] if processes == 1 else f"{SEGMENTS[size]}/{processes}"
        latency_us = tuple((ceil(batch / throughputs[batch] * 1e6),) for batch in batches)
        tables.append(LatencyTable(DEVICE, share, batches, latency_us, PROVENANCE))
    return Profile(path.stem, (Block((path.stem,)),), (), tuple(tables))


def read_experiments(data: Path, most_gpus: int) -> list[Problem]:
    """Read the experiments as problems: the fewest of at most so many GPUs that serve the rates; raises InputError."""
    profiles = read_profiles(data)
    rates, slos = (_table(data / name, len(profiles)) for name in ("SLO_req_rate.csv", "SLO_latency.csv"))
    if len(rates) != len(slos):
        raise InputError(f"{data}: expected as many rows of SLOs as of rates, {len(rates)}, got {len(slos)}")
    gpus = DeviceType(DEVICE, most_gpus, mig="a100-80gb", processes=PROCESSES)
    options = Options(
        "fewest_devices", max_stages=1, slack_fraction=FREE_OF_SLO, batch_building_factor=0.0, device_sharing="shared"
    )
    return [
        Problem(
            Cluster((gpus,), Network(BANDWIDTH_GBPS)),
            tuple(
                Dnn(name, slo_ms * 1000 - BELOW_US, (profile,), rate_rps=rate_rps)
                for (name, profile), rate_rps, slo_ms in zip(profiles.items(), rate_row, slo_row, strict=True)
                if rate_rps is not None and slo_ms is not None
            ),
            options,
        )
        for rate_row, slo_row in zip(rates, slos, strict=True)
    ]


def _table(path: Path, columns: int) -> list[list[float | None]]:
    found = []
    for line, cells in enumerate(_cells(path), start=1):
        if len(cells) != columns:
            raise InputError(f"{path}, line {line}: expected {columns} cells, one per profile, got {len(cells)}")
        try:
            row = [None if cell.strip() == "N/A" else float(cell) for cell in cells]
        except ValueError as error:
            raise InputError(f"{path}, line {line}: expected numbers or N/A ({error})") from None
        if any(value is not None and not value > 0 for value in row):
            raise InputError(
                f"{path}, line {line}: expected numbers above 0, got {min(v for v in row if v is not None)}"
            )
        found.append(row)
    return found


def read_published_gpus(data: Path, experiment: int) -> int:
    """Read how many GPUs an experiment, counted from 1, was published with; raises InputError."""
    path = data / "deployment" / f"SLO{experiment}.csv"
    gpus = {(row["Num instance"], row["Num GPU"]) for _, row in _rows(path, ("Num instance", "Num GPU"))}
    if not gpus:
        raise InputError(f"{path}: expected a row per segment, got none")
    return len(gpus)


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and cells by column."""
    lines = _cells(path)
    header = [name.strip() for name in lines[0]] if lines else []
    missing = [name for name in columns if name not in header]
    if missing:
        raise InputError(f"{path}: expected columns {list(columns)}, got {header}")
    for number, cells in enumerate(lines[1:], start=2):
        if len(cells) != len(header):
            raise InputError(f"{path}, line {number}: expected {len(header)} cells, got {len(cells)}")
        yield number, dict(zip(header, cells, strict=True))


def _cells(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            return [cells for cells in csv.reader(stream) if cells]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise InputError(f"{path}: cannot read it ({reason}); expected ParvaGPU's published data") from None
