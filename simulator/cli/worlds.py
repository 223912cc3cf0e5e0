"""Worlds as files: what goes differently from the plan, for ``--world``. Times are µs.

    schema = "world/1"
    spread = "profile"       # service times vary as the profile measured; or a number, the same for all stages
    load_us = 300_000        # to load a model: at the start, after repairs and switches

    [failure_rate]           # or [[failures]] with dnn, unit, pipeline, stage, index, at_us, repair_us, plan
    unit = "device"          # what fails together: slice, device or server, with all that the plan places on it
    between_us = 60e6        # mean times, exponential
    repair_us = 5e6

    [[switches]]
    at_us = 15_000_000
    plan = "np.json"         # beside this file

`simulator.engine.world.World` says what each means; the seed is the run's.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, MinLen

from planner.cli.app import about
from planner.files import load_record
from planner.model import InputError, digest
from planner.model.record import record
from simulator.cli.plan_files import LoadedPlan, load_plans
from simulator.engine import System, World, build_system
from simulator.engine.network import NO_LIMIT_US
from simulator.engine.plans import pools_of
from simulator.engine.world import Degradation, Failure, FailureRate, Switch, TimeUs, require_same_service

LEAST_BETWEEN_US = 1000.0  # more failures than that no run would live to tell


@record
class FailureOf(Failure):
    """A failure in the plan of a DNN, which may be left out where there is one."""

    dnn: str = ""


@record
class PlanSwitch:
    """A plan file that takes over."""

    at_us: TimeUs
    plan: Annotated[str, MinLen(1)]


@record
class WorldDocument:
    """What a world file holds."""

    spread: float | str = 0.0
    factors: tuple[Annotated[float, Gt(0)], ...] = ()
    failures: tuple[FailureOf, ...] = ()
    failure_rate: FailureRate | None = None
    load_us: Annotated[int, Ge(0), Le(NO_LIMIT_US)] = 0
    switches: tuple[PlanSwitch, ...] = ()
    degradations: tuple[Degradation, ...] = ()


@dataclass(frozen=True)
class LoadedWorld:
    """A world file, with the plans that take over."""

    path: Path
    document: WorldDocument
    plans: tuple[LoadedPlan, ...]

    def shares_pools(self) -> bool:
        """Return whether DNNs share pools in a plan that takes over."""
        return any(stage.pool for one in self.plans for pipeline in one.plan.pipelines for stage in pipeline.stages)

    @property
    def record(self) -> dict[str, Any]:
        """What the record of a run says about it."""
        found = {"name": self.path.name} | asdict(self.document)
        for switch, one in zip(found["switches"], self.plans, strict=True):
            switch["plan_sha256"] = digest(one.plan)
        return found

    def of(self, system: System, seed: int, dnns: Sequence[str]) -> World:
        """Return the world of a DNN, one of those that are served; raises InputError where it cannot be."""
        document = self.document
        if document.failure_rate is not None and document.failure_rate.between_us < LEAST_BETWEEN_US:
            raise InputError(
                f"{self.path}: failure_rate.between_us: expected at least {LEAST_BETWEEN_US:g} (a millisecond between "
                f"failures), got {document.failure_rate.between_us:g}"
            )
        switches = tuple(
            _switch(one, to, system, dnns, self.path) for one, to in zip(document.switches, self.plans, strict=True)
        )
        with about(self.path):
            world = World(
                seed=seed,
                spread=document.spread,
                factors=document.factors,
                failures=tuple(_of_dnn(document.failures, system.dnn, dnns)),
                failure_rate=document.failure_rate,
                load_us=document.load_us,
                switches=switches,
                degradations=document.degradations,
            )
            world.check(system)
        return world


def _switch(one: PlanSwitch, to: LoadedPlan, system: System, dnns: Sequence[str], path: Path) -> Switch:
    """Return that a plan takes over, for one of the DNNs that are served; raises InputError where it serves others."""
    planned = sorted({pipeline.dnn for pipeline in to.plan.pipelines})
    if planned != sorted(dnns):
        raise InputError(
            f"{path}: switches: {one.plan}: serves {', '.join(planned) or 'no DNN'}; expected "
            f"{', '.join(sorted(dnns))}, which the plan before it serves"
        )
    pools = pools_of(to.plan, dnns)
    with about(path), about(to.path):
        switch = Switch(
            one.at_us, build_system(to.problem, to.plan, system.dnn), pools[dnns.index(system.dnn)] if pools else {}
        )
        require_same_service(system, switch.system)
    return switch


def load_world(path: Path, problem: Path | None = None, data: Path | None = None) -> LoadedWorld:
    """Read a world file and the plans in it, as `load_plans` does; raises InputError."""
    document = load_record(path, "world", WorldDocument)
    names = list(dict.fromkeys(one.plan for one in document.switches))
    with about(path):
        plans = dict(zip(names, load_plans([path.parent / name for name in names], problem, data), strict=True))
    return LoadedWorld(path, document, tuple(plans[one.plan] for one in document.switches))


def load_worlds(paths: Sequence[Path], problem: Path | None = None, data: Path | None = None) -> dict[str, LoadedWorld]:
    """Read world files, by name; raises InputError where two have the same."""
    loaded = {path.name: load_world(path, problem, data) for path in paths}
    if len(loaded) < len(paths):
        raise InputError("--world: expected files of different names, which tell their runs apart")
    return loaded


def _of_dnn(failures: Sequence[FailureOf], dnn: str, dnns: Sequence[str]) -> list[Failure]:
    """Return the failures in the plan of a DNN."""
    found = []
    for failure in failures:
        if failure.dnn not in dnns and (failure.dnn or len(dnns) > 1):
            raise InputError(f"world: failures: dnn: expected one of {', '.join(dnns)}, got {failure.dnn!r}")
        if failure.dnn in ("", dnn):
            found.append(Failure(**{name: value for name, value in asdict(failure).items() if name != "dnn"}))
    return found
