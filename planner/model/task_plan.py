"""Task plans: what serves every task of every application, task by task, and how good that provably is."""

from collections.abc import Mapping
from typing import Annotated, Literal

from annotated_types import Ge, Le, MinLen

from planner.model.cluster import MOST_DEVICES, Count, Positive
from planner.model.plan import Status, Time, relative_gap, worth_text
from planner.model.profile import Batch
from planner.model.record import record
from planner.model.segments import MOST_SHARES

LatencyRule = Literal["worst", "mean"]


@record
class TaskService:
    """Slices that serve a task: a variant on shares 1/``share`` of a device type, in batches of up to ``batch``.

    ``rate_rps`` of the task's requests come here, a slice sustains ``slice_rps``, and a request takes ``latency_us``
    (transfer, batch building and inference).
    """

    application: str
    task: str
    variant: str
    device: str
    share: Positive
    batch: Batch
    slices: Annotated[int, Ge(1), Le(MOST_DEVICES * MOST_SHARES)]
    rate_rps: Time
    slice_rps: Time
    latency_us: Time

    def __str__(self) -> str:
        """Return the service in a line: task, variant, slices, batch, latency, rate."""
        served = f"batch {self.batch}, within {self.latency_us / 1000:.2f} ms, {self.rate_rps:.2f} requests/s"
        return f"{self.task}, {self.variant}: {served}: {self.pool_text}"

    @property
    def pool_text(self) -> str:
        """The slices in words: ``8 × L4``, ``8 × 1/2 L4``."""
        return f"{self.slices} × {self.device}" if self.share == 1 else f"{self.slices} × 1/{self.share} {self.device}"


@record
class TaskFlow:
    """Requests/s of an application that take a choice of variants, one per task."""

    application: str
    variants: Annotated[tuple[str, ...], MinLen(1)]
    rate_rps: Time


@record
class TaskPlan:
    """A queue and slices for every task.

    Attributes
    ----------
    objective, value, bound, status
        As of a `planner.model.plan.Plan`.
    latency_rule, latency_us
        *worst* or *mean*, and the end-to-end latency of every application by it, on its longest way.
    accuracy
        Of every application whose variants have one (percent).
    devices, cost_per_hour
        Whole devices in use per type, and what they cost; None where a price is unknown.
    profile_sha256
        ``"application/task/variant"`` to the digest of the profile that the plan was computed from.
    """

    objective: str
    status: Status
    value: float
    bound: float
    latency_rule: LatencyRule
    services: tuple[TaskService, ...]
    flows: tuple[TaskFlow, ...]
    latency_us: Mapping[str, Time]
    accuracy: Mapping[str, float]
    devices: Mapping[str, Count]
    cost_per_hour: Time | None
    backend: str
    seconds: Time
    gap_asked: Time
    problem_sha256: str
    profile_sha256: Mapping[str, str]
    versions: Mapping[str, str]
    scheduler: Literal["per-task"] = "per-task"

    def __str__(self) -> str:
        """Return what the plan is worth, and what serves each task, a line per service."""
        lines = [f"{self.scheduler}: {worth_text(self.objective, self.value, self.bound, self.status)}"]
        for application, us in self.latency_us.items():
            accuracy = f", {self.accuracy[application]:.2f} % accurate" if application in self.accuracy else ""
            served = (
                f"{self.throughput_rps(application):.2f} requests/s within {us / 1000:.2f} ms ({self.latency_rule})"
            )
            lines.append(f"{application}: {served}{accuracy}")
            lines += [f"  {one}" for one in self.services if one.application == application]
        return "\n".join(lines)

    @property
    def gap(self) -> float:
        """Relative distance of the bound: |bound - value| / |value|; 0 where both are 0."""
        return relative_gap(self.value, self.bound)

    def throughput_rps(self, application: str) -> float:
        """Return the planned throughput of an application (requests/s)."""
        return sum(flow.rate_rps for flow in self.flows_of(application))

    def of(self, application: str, task: str) -> list[TaskService]:
        """Return what serves a task."""
        return [one for one in self.services if (one.application, one.task) == (application, task)]

    def flows_of(self, application: str) -> list[TaskFlow]:
        """Return the choices that an application's requests take."""
        return [one for one in self.flows if one.application == application]
