"""How the planner's time, memory and gap grow with the size of the problem."""

import csv
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from matplotlib.figure import Figure
from problems import Size, make_problem

from planner.files import replacing
from planner.planning import make_plan
from planner.planning.whole_devices import columns

GAP = 1e-4  # at which a plan counts as proven

# Along one axis at a time from a middle size. "mixed" are small clusters of several types, "shared" such ones whose
# devices serve several DNNs, the last rows large ones.
SIZES: dict[str, tuple[Size, ...]] = {
    "dnns": tuple(Size(dnns, 4, 20 * dnns, 3) for dnns in (3, 10, 20, 50)),
    "types": tuple(Size(10, types, 500, 3) for types in (2, 4, 6, 8)),
    "devices": tuple(Size(10, 4, devices, 3) for devices in (100, 1_000, 10_000)),
    "stages": tuple(Size(3, 2, 100, stages) for stages in (2, 3, 4, 5)),
    "mixed": (
        Size(10, 3, 50, 2),
        Size(10, 3, 100, 2),
        Size(10, 4, 100, 3),
        Size(20, 4, 100, 3),
        Size(10, 6, 100, 3),
        Size(20, 6, 300, 3),
        Size(20, 3, 1_000, 3),
    ),
    "shared": tuple(
        Size(dnns, types, devices, 2, sharing="shared")
        for dnns, types, devices in ((8, 2, 10), (10, 3, 20), (20, 4, 40))
    ),
    "bars": (Size(20, 4, 1_000, 3), Size(50, 8, 10_000, 3), Size(100, 10, 100_000, 3)),
}


@dataclass(frozen=True)
class Row:
    """What planning one problem took."""

    axis: str
    dnns: int
    types: int
    devices: int
    stages: int
    pipelines: int
    method: str
    value: float
    gap: float
    seconds: float
    cpu_seconds: float
    peak_mib: float


def measure(axis: str, size: Size, data: Path, time_limit_s: float | None) -> Row:
    """Plan one problem in a process of its own, so that its peak memory is its own."""
    request = json.dumps({"axis": axis, "size": asdict(size), "data": str(data), "time_limit_s": time_limit_s})
    command = [sys.executable, str(Path(__file__).parent), "growth", "--one", request]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    return Row(**json.loads(finished.stdout.splitlines()[-1]))


def measure_here(request: str) -> Row:
    """Plan one problem in this process; the kernels' compilation is left out of the times."""
    asked = json.loads(request)
    data, size = Path(asked["data"]), Size(**asked["size"])
    warm_up(data)
    problem = make_problem(data, size)
    begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
    plan = make_plan(problem, gap=GAP, time_limit_s=asked["time_limit_s"])
    seconds, cpu_seconds = time.perf_counter() - begin_s, time.process_time() - begin_cpu_s
    return Row(
        axis=asked["axis"],
        dnns=size.dnns,
        types=size.types,
        devices=size.devices,
        stages=size.stages,
        pipelines=columns.enumeration_size(problem),
        method=plan.method,
        value=plan.value,
        gap=plan.gap,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        peak_mib=_peak_mib(),
    )


def warm_up(data: Path) -> None:
    """Load or compile the kernels of the methods."""
    for types, method in ((2, "dynamic"), (3, "columns"), (3, "decomposition")):
        make_plan(make_problem(data, Size(2, types, 30, 2)), method=method, time_limit_s=30.0)


def _peak_mib() -> float:
    memory = psutil.Process().memory_info()
    peak = getattr(memory, "peak_wset", None)
    if peak is None:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return float(peak) / 2**20


def chosen_sizes(axes: list[str]) -> Iterator[tuple[str, Size]]:
    """Yield the sizes of some axes, smallest first."""
    for axis in axes:
        for size in SIZES[axis]:
            yield axis, size


def write_table(rows: list[Row], path: Path) -> None:
    """Write the rows as CSV."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(Row.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def draw(rows: list[Row], path: Path) -> None:
    """Draw time and gap along each axis."""
    axes = [axis for axis in SIZES if axis not in ("mixed", "shared", "bars") and any(row.axis == axis for row in rows)]
    figure = Figure(figsize=(3.2 * max(1, len(axes)), 5.2), layout="constrained")
    panels = figure.subplots(2, max(1, len(axes)), squeeze=False, sharey="row")
    for column, axis in enumerate(axes):
        mine = [row for row in rows if row.axis == axis]
        x = [getattr(row, axis) for row in mine]
        time_panel, gap_panel = panels[0, column], panels[1, column]
        time_panel.plot(x, [row.cpu_seconds for row in mine], marker="o", color="#1f5fa8")
        gap_panel.plot(x, [100 * row.gap for row in mine], marker="s", color="#b5482a")
        time_panel.set_yscale("log")
        for panel in (time_panel, gap_panel):
            panel.grid(alpha=0.3)
            if axis == "devices":
                panel.set_xscale("log")
        gap_panel.set_xlabel({"dnns": "DNNs", "types": "device types"}.get(axis, axis))
    panels[0, 0].set_ylabel("CPU time (s)")
    panels[1, 0].set_ylabel("gap to the bound (%)")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
