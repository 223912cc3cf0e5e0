"""Problems: a cluster, the DNNs to serve on it, and the rules that a plan must keep."""

from collections.abc import Mapping
from dataclasses import field, replace
from functools import cached_property
from typing import Annotated, Literal, TypeVar

from annotated_types import Ge, Gt, Lt

from planner.model.applications import Application, Task, virtual_models
from planner.model.cluster import Cluster, Positive
from planner.model.dnn import Dnn
from planner.model.errors import InputError
from planner.model.merged import Copy, Merged, Variant, copies_of, with_largest_latencies
from planner.model.record import LATER, record

Objective = Literal[
    "max_min_throughput", "max_weighted_throughput", "least_cost", "fewest_devices", "least_energy", "least_memory",
    "most_accurate",
]  # fmt: skip

# What the value of each counts, for people.
UNITS: Mapping[str, str] = {
    "max_min_throughput": "requests/s per weight",
    "max_weighted_throughput": "weighted requests/s",
    "least_cost": "per hour",
    "fewest_devices": "devices",
    "least_energy": "W",
    "least_memory": "MB",
    "most_accurate": "% accurate",
}

MINIMISED: tuple[Objective, ...] = ("least_cost", "fewest_devices", "least_energy", "least_memory")
GIVEN_RATES: tuple[Objective, ...] = (*MINIMISED, "most_accurate")

CardSharing = Literal["own", "larger"]

DeviceSharing = Literal["own", "shared"]

Served = TypeVar("Served", Dnn, Task)


@record
class LatencyBound:
    """Plan with upper bounds that hold with probability ``bound`` in place of latencies that are only estimated."""

    bound: Annotated[float, Gt(0), Lt(1)]


@record
class Options:
    """Rules of planning.

    A pipeline has at most ``max_stages`` stages. ``slack_fraction`` of the SLO is kept free for queueing.
    Building a batch of b takes ``batch_building_factor`` · (b - 1) / X0.
    The objectives are told in `planner.model.objective`.

    With ``stage_batches`` later stages may run a batch of b in parts: b / b_s parts of size b_s at the same time, on as
    many slices, so that the slices of such a stage are a multiple of b / b_s. Parts of a batch arrive together and
    leave together, which is why nothing waits: a stage takes its latency at b_s, and transfers move the whole batch.

    Under ``device_sharing`` "own" the slices on a device serve one position of one DNN (PPipe's rule); under "shared"
    any stages of any DNNs, as layouts allow (`planner.model.packing`).

    ``card_sharing`` tells how many devices of a stage the planner lets share a network card (`Problem.card_devices`).

    ``latency`` tells which latencies plans rely on: those of the profiles' tables (*nominal*), or bounds of a level
    (`planner.model.Profile.bounded`).

    A plan costs at most ``budget_per_hour``, and what it serves of a DNN at its rate is at least ``min_accuracy``
    (percent) accurate, where these are given.
    """

    objective: Objective = "max_min_throughput"
    max_stages: Positive = 2
    slack_fraction: Annotated[float, Ge(0), Lt(1)] = 0.4
    batch_building_factor: Annotated[float, Ge(0)] = 1.3
    stage_batches: bool = False
    card_sharing: CardSharing = "own"
    device_sharing: DeviceSharing = field(default="own", metadata=LATER)
    latency: Literal["nominal"] | LatencyBound = field(default="nominal", metadata=LATER)
    budget_per_hour: Annotated[float, Gt(0)] | None = field(default=None, metadata=LATER)
    min_accuracy: Annotated[float, Ge(0)] | None = field(default=None, metadata=LATER)

    @property
    def limited(self) -> bool:
        """Whether money or accuracy limit a plan, which only the programme over candidates knows."""
        return self.limits_accuracy or self.budget_per_hour is not None

    @property
    def limits_accuracy(self) -> bool:
        """Whether what is served must be accurate, or as accurate as possible."""
        return self.objective == "most_accurate" or self.min_accuracy is not None

    @property
    def bound(self) -> float | None:
        """The level of the bounds that plans rely on; None where they rely on nominal latencies."""
        return None if isinstance(self.latency, str) else self.latency.bound


@record
class Problem:
    """Everything that determines the best plan.

    ``applications`` are planned end to end as DNNs of the same names (`planned`). ``merged`` says which blocks of
    which DNNs are one copy, so that one pool may serve them all.
    """

    cluster: Cluster
    dnns: tuple[Dnn, ...] = ()
    options: Options = Options()
    applications: tuple[Application, ...] = field(default=(), metadata=LATER)
    merged: tuple[Merged, ...] = field(default=(), metadata=LATER)

    def __str__(self) -> str:
        """Return what there is and what is to be served, a line per DNN and application."""
        rules = self.options
        lines = [f"{len(self.dnns) + len(self.applications)} to serve on {self.cluster}: {rules.objective}"]
        served: tuple[Dnn | Application, ...] = (*self.dnns, *self.applications)
        for one in served:
            rate = "" if one.rate_rps is None else f", {one.rate_rps:g} requests/s"
            ways = (
                f"tasks {', '.join(task.name for task in one.tasks)}"
                if isinstance(one, Application)
                else (f"{', '.join(variant.name for variant in one.variants)} in {len(one.variants[0].blocks)} blocks")
            )
            lines.append(f"{one.name}: SLO {one.slo_us / 1000:g} ms, weight {one.weight:g}{rate}, {ways}")
        return "\n".join(lines)

    def __post_init__(self) -> None:
        """Refuse a problem of nothing, two DNNs or applications of one name, and blocks that cannot be merged."""
        names = [dnn.name for dnn in self.dnns] + [application.name for application in self.applications]
        if not names:
            raise InputError("dnns: expected at least one DNN or application, got none")
        if len(set(names)) != len(names):
            raise InputError(f"dnns: names must differ, got {names}")
        if self.merged and self.options.stage_batches:
            raise InputError("merged: pools of several DNNs run whole batches; leave stage_batches out")
        self.copies  # noqa: B018  # refuses what cannot be merged

    def with_dnns(self, dnns: tuple[Dnn, ...]) -> "Problem":
        """Return the problem of some of its DNNs alone; blocks merged with none of these are no longer merged."""
        names = {dnn.name for dnn in dnns}
        left = [replace(one, members=tuple(m for m in one.members if m.dnn in names)) for one in self.merged]
        return replace(self, dnns=dnns, merged=tuple(one for one in left if len(one.members) > 1))

    @cached_property
    def copies(self) -> Mapping[Variant, tuple[Copy | None, ...]]:
        """Which copy each block of a variant is (`planner.model.merged`), for variants with merged blocks."""
        return copies_of(self.dnns, self.merged)

    def stage_copies(self, dnn: str, variant: str, first: int, last: int) -> tuple[Copy, ...] | None:
        """Return the copies that blocks [first, last) are; None where a block is not merged.

        Stages of equal copies, whoever's they are, may be one pool.
        """
        copies = self.copies.get((dnn, variant), (None,) * last)[first:last]
        return None if None in copies else tuple(copy for copy in copies if copy is not None)

    def dnn(self, name: str) -> Dnn:
        """Return a DNN by name, or an application as the DNN it is planned as; raises InputError if there is none."""
        for dnn in self.dnns:
            if dnn.name == name:
                return dnn
        if any(application.name == name for application in self.applications):
            return self.planned.dnn(name)
        names = [dnn.name for dnn in self.dnns] + [application.name for application in self.applications]
        raise InputError(f"unknown DNN {name!r}; the problem has {names}")

    @cached_property
    def planned(self) -> "Problem":
        """The problem as it is planned; itself where that is what it says.

        Applications are DNNs of their virtual models, and profiles' tables hold the latencies that plans rely on, those
        of merged blocks the largest of their members'.
        Raises InputError where a bound is missing or an application cannot be planned end to end.
        """
        relied_on = self.relied_on
        if not self.applications and not self.merged:
            return relied_on
        dnns = with_largest_latencies(relied_on.dnns, self.copies)
        virtual = tuple(_virtual(application) for application in relied_on.applications)
        return replace(relied_on, dnns=(*dnns, *virtual), applications=())

    @cached_property
    def relied_on(self) -> "Problem":
        """The problem whose profiles' tables hold the latencies that plans rely on; itself where that is so.

        Raises InputError where a bound is missing.
        """
        level = self.options.bound
        if level is None:
            return self
        applications = tuple(
            replace(one, tasks=tuple(_bounded(task, level) for task in one.tasks)) for one in self.applications
        )
        return replace(
            self,
            dnns=tuple(_bounded(dnn, level) for dnn in self.dnns),
            options=replace(self.options, latency="nominal"),
            applications=applications,
        )

    def slack_us(self, dnn: Dnn) -> int:
        """Return the part of the SLO (µs) that is kept free: round(fraction · SLO)."""
        return round(self.options.slack_fraction * dnn.slo_us)

    def card_devices(self, device: str, next_device: str | None) -> int:
        """Return G, how many devices of a stage share a network card, as planned.

        Under ``card_sharing`` "own" these are the devices of a server of the stage's own type, the published formula.
        Under "larger" a stage that sends has as many as a server of its own or of the next stage's type, whichever is
        larger: what PPipe's simulator lets share a card, and ours (`simulator.engine.system`).

        Parameters
        ----------
        next_device
            The type that the next stage runs on; None for the last stage.
        """
        own = self.cluster.device(device).devices_per_server
        if next_device is None or self.options.card_sharing == "own":
            return own
        return max(own, self.cluster.device(next_device).devices_per_server)


def _bounded(served: Served, level: float) -> Served:
    """Return a DNN, or a task of an application, whose variants hold the latencies that plans rely on at a level."""
    return replace(served, variants=tuple(variant.bounded(level) for variant in served.variants))


def _virtual(application: Application) -> Dnn:
    """Return an application as a DNN."""
    models, accuracy = virtual_models(application)
    return Dnn(
        application.name,
        application.slo_us,
        models,
        application.weight,
        application.np_throughput_rps,
        application.rate_rps,
        accuracy,
    )
