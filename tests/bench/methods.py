"""What every method finds in the same time, and whether ``auto`` is right: a grid of sizes; and pipelines beside NP."""

import csv
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from problems import Size, make_problem

from planner.files import replacing
from planner.model import InputError, Plan, Problem
from planner.model.plan import Scheduler
from planner.planning import make_plan
from planner.planning.baselines import with_x0
from planner.planning.whole_devices import dynamic

GAP = 1e-4
# Few and many of each of DNNs, types, devices and stages; the last one is beyond listing.
GRID = (
    Size(5, 2, 50, 3),
    Size(12, 3, 24, 2),
    Size(3, 8, 50, 3),
    Size(10, 4, 100, 3),
    Size(20, 4, 100, 3),
    Size(10, 6, 200, 3),
    Size(40, 4, 200, 3),
    Size(10, 8, 300, 3),
    Size(60, 5, 400, 2),
    Size(3, 5, 600, 2),
    Size(20, 2, 1_000, 3),
    Size(50, 8, 10_000, 3),
)


@dataclass(frozen=True)
class Found:
    """What one method found: nothing, where it refused or had no plan in time."""

    size: str
    seed: int
    limit_s: float
    asked: str
    used: str
    value: float
    gap: float
    seconds: float
    cpu_seconds: float


def sized(text: str) -> Size:
    """Return the size that ``DNNs/types/devices/stages`` names."""
    try:
        dnns, types, devices, stages = (int(part) for part in text.split("/"))
    except ValueError:
        raise InputError(f"--cells: expected DNNs/types/devices/stages like 10/6/200/3, got {text!r}") from None
    return Size(dnns, types, devices, stages)


def compared(data: Path, cells: Sequence[Size], seed: int, limit_s: float) -> Iterator[list[Found]]:
    """Yield what every method finds in each cell of the grid, ``auto`` first and NP last; X0 is given, and the same."""
    for size in cells:
        problem = with_x0(make_problem(data, size, seed))
        methods = ["auto", "milp", "decomposition", "columns"]
        methods += ["dynamic"] if size.types <= dynamic.TYPES else []
        rows = [_found(problem, size, seed, limit_s, "pipelines", method) for method in methods]
        yield [*rows, _found(problem, size, seed, limit_s, "np", "auto")]


def _found(problem: Problem, size: Size, seed: int, limit_s: float, scheduler: Scheduler, method: str) -> Found:
    begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
    try:
        plan = make_plan(problem, scheduler, method=method, gap=GAP, time_limit_s=limit_s)
        used, value, gap = plan.method, plan.value, plan.gap
    except InputError:
        used, value, gap = "none", 0.0, float("inf")
    seconds, cpu_seconds = time.perf_counter() - begin_s, time.process_time() - begin_cpu_s
    asked = method if scheduler == "pipelines" else scheduler
    return Found(_name(size), seed, limit_s, asked, used, value, gap, seconds, cpu_seconds)


def _name(size: Size) -> str:
    return f"{size.dnns}/{size.types}/{size.devices}/{size.stages}"


def short_by(rows: Sequence[Found]) -> float:
    """Return by what part ``auto``, the first, is below the best of all."""
    best = max(row.value for row in rows)
    return 1 - rows[0].value / best if best else 0.0


@dataclass(frozen=True)
class Pair:
    """NP's plan and the pipelines' that are found in the same time (0: none), each with X0 of its own."""

    size: str
    seed: int
    limit_s: float
    np_value: float
    value: float
    same_x0: bool
    np_seconds: float
    seconds: float

    @property
    def below(self) -> float:
        """By what part the pipelines are below NP."""
        return 1 - self.value / self.np_value if self.np_value else 0.0


def paired(data: Path, cells: Sequence[Size], seeds: Sequence[int], limits_s: Sequence[float]) -> Iterator[Pair]:
    """Yield NP and pipelines beside each other, as somebody finds them who gives both the same time."""
    for size in cells:
        for seed in seeds:
            problem = make_problem(data, size, seed)
            for limit_s in limits_s:
                plans, seconds = [], []
                for scheduler in ("np", "pipelines"):
                    begin_s = time.perf_counter()
                    plans.append(_in_time(problem, scheduler, limit_s))
                    seconds.append(time.perf_counter() - begin_s)
                values = [0.0 if plan is None else plan.value for plan in plans]
                stated = [{} if plan is None else plan.np_throughput_rps for plan in plans]
                yield Pair(_name(size), seed, limit_s, *values, stated[0] == stated[1], *seconds)


def _in_time(problem: Problem, scheduler: Scheduler, limit_s: float) -> Plan | None:
    try:
        return make_plan(problem, scheduler, time_limit_s=limit_s)
    except InputError:
        return None


def write_records(rows: Sequence[Found] | Sequence[Pair], path: Path) -> None:
    """Write rows as CSV."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([field.name for field in fields(rows[0])])
        writer.writerows(astuple(row) for row in rows)
