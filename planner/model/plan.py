"""Plans: which pipelines serve each DNN, and how good that provably is."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from math import isclose
from typing import Annotated, Literal

from annotated_types import Ge, Le, MinLen

from planner.model.cluster import MOST_DEVICES, Count, Positive
from planner.model.problem import MINIMISED, UNITS
from planner.model.profile import Batch
from planner.model.record import LATER, record
from planner.model.segments import MOST_SHARES, Share, on_device, share_text

Scheduler = Literal["np", "pipelines", "dart-r"]
Status = Literal["optimal", "feasible"]
Time = Annotated[float, Ge(0)]


@record
class Stage:
    """Blocks [first_block, last_block) on a pool of ``slices`` slices, each on a share of a ``device``.

    The share is an integer k, 1/k of a device, or names a segment (`planner.model.segments`).

    ``latency_us`` is the inference time of a batch, ``transfer_us`` the time that its output then takes to
    the next stage (0 for the last one), ``throughput_rps`` what the whole pool sustains.

    Stages that name one ``pool`` are one pool of as many slices, whoever's they are: their blocks are merged
    (`planner.model.merged`), and its batches may hold requests of all of them. ``throughput_rps`` is then the part of
    it that this pipeline's requests get.
    """

    first_block: Count
    last_block: Positive
    device: str
    share: Share
    slices: Annotated[int, Ge(1), Le(MOST_DEVICES * MOST_SHARES)]
    batch: Batch
    latency_us: Count
    transfer_us: Time
    throughput_rps: Time
    pool: Annotated[str, MinLen(1)] | None = field(default=None, metadata=LATER)

    @property
    def place(self) -> str:
        """The device and share in words: ``L4``, ``L4 1/2``, ``A100 3g.40gb``."""
        return on_device(self.device, self.share)

    def __str__(self) -> str:
        """Return the pool and its blocks: ``8 × 1/2 L4 blocks 0–5``."""
        return f"{self.pool_text} {self.blocks_text}"

    @property
    def blocks_text(self) -> str:
        """The blocks in words: ``block 3``, ``blocks 0–5``."""
        first, last = self.first_block, self.last_block - 1
        return f"block {first}" if first == last else f"blocks {first}–{last}"

    @property
    def pool_text(self) -> str:
        """The pool in words, so that slices are not taken for devices: ``8 × L4``, ``8 × 1/2 L4``."""
        share = "" if self.share == 1 else f"{share_text(self.share)} "
        return f"{self.slices} × {share}{self.device}"


@record
class Pipeline:
    """Stages that together cover all blocks of one variant of a DNN.

    A batch's latency budget is ``inference_us + transfer_us + batch_building_us + slack_us <= slo``.
    """

    dnn: str
    variant: str
    throughput_rps: Time
    batch_building_us: Time
    slack_us: Time
    stages: Annotated[tuple[Stage, ...], MinLen(1)]

    def __str__(self) -> str:
        """Return the pipeline in a line: batch, latency with slack, throughput, stages."""
        variant = f"{self.variant}, " if self.variant != self.dnn else ""
        served = f"batch {self.batch}, within {self.latency_us / 1000:.2f} ms, {self.throughput_rps:.2f} requests/s"
        return f"{variant}{served}: {' → '.join(map(str, self.stages))}"

    @property
    def batch(self) -> int:
        """Requests that the frontend sends together: the first stage's batch size."""
        return self.stages[0].batch

    @property
    def inference_us(self) -> int:
        """Inference time over all stages (µs)."""
        return sum(stage.latency_us for stage in self.stages)

    @property
    def transfer_us(self) -> float:
        """Transfer time over all hops (µs)."""
        return sum(stage.transfer_us for stage in self.stages)

    @property
    def latency_us(self) -> float:
        """The whole latency budget in use (µs), slack included."""
        return self.inference_us + self.transfer_us + self.batch_building_us + self.slack_us


@record
class Placed:
    """Slices of a stage that lie alike on consecutive devices.

    On each of ``devices`` devices of the stage's type, from number ``device`` on, a slice lies on the segment that
    begins at each of ``slots``; slices that share a segment as processes name its slot as often as they are. They are
    the stage's slices from ``first_slice`` on, device by device. Device n stands in server n // devices per server.
    The slices of a pool of several stages are placed once, under the first stage that names it.
    """

    pipeline: Count
    stage: Count
    first_slice: Count
    device: Count
    devices: Positive
    slots: Annotated[tuple[Count, ...], MinLen(1)]

    @property
    def slices(self) -> int:
        """How many slices these are."""
        return self.devices * len(self.slots)


@record
class Plan:
    """The pipelines of every DNN, ordered by DNN, with the proof that came with them.

    ``value`` is the objective reached, ``bound`` what no plan can exceed (fall below, when minimising);
    ``status`` is *optimal* when their gap is within ``gap_asked``. ``profile_sha256`` maps ``"dnn/variant"`` to the
    digest of the profile that the plan was computed from; ``np_throughput_rps`` maps a DNN to X0, which its
    batch-building times rest on.

    ``placement`` says on which segment of which device every slice lies; where it is empty
    `planner.model.placing.placement_of` derives it. ``neighbours`` says of every device type with unlike stages on one
    device on what ground their latencies stand (`DeviceType.ground`). ``watts`` is what the devices in use draw at the
    planned rates, ``joules_per_thousand`` the energy of a thousand requests then; None where watts are unknown.
    ``accuracy`` is that of what is served of every DNN whose variants have one (percent), ``cost_per_hour`` what the
    devices in use cost; None where a price is unknown. ``x0_timed`` says that the time given, or Ctrl-C, ended the
    search for X0 before the work was done that such a time allows for: another run may rest on another X0.
    """

    scheduler: Scheduler
    objective: str
    status: Status
    value: float
    bound: float
    method: str
    backend: str
    seconds: Time
    problem_sha256: str
    profile_sha256: Mapping[str, str]
    pipelines: tuple[Pipeline, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    placement: tuple[Placed, ...] = ()
    neighbours: Mapping[str, str] = field(default_factory=dict)
    watts: Time | None = None
    joules_per_thousand: Time | None = None
    accuracy: Mapping[str, float] = field(default_factory=dict, metadata=LATER)
    cost_per_hour: Annotated[float, Ge(0)] | None = field(default=None, metadata=LATER)
    gap_asked: Time = field(default=1e-6, metadata=LATER)
    np_throughput_rps: Mapping[str, Time] = field(default_factory=dict, metadata=LATER)
    x0_timed: bool = field(default=False, metadata=LATER)

    def __str__(self) -> str:
        """Return what the plan is worth, and what serves each DNN, a line per pipeline."""
        lines = [f"{self.scheduler}: {worth_text(self.objective, self.value, self.bound, self.status)}"]
        for dnn in dict.fromkeys(pipeline.dnn for pipeline in self.pipelines):
            accuracy = f", {self.accuracy[dnn]:.2f} % accurate" if dnn in self.accuracy else ""
            lines.append(f"{dnn}: {self.throughput_rps(dnn):.2f} requests/s{accuracy}")
            lines += [f"  {pipeline}" for pipeline in self.of(dnn)]
        return "\n".join(lines)

    @property
    def gap(self) -> float:
        """Relative distance of the bound: |bound - value| / |value|; 0 where both are 0.

        >>> from dataclasses import replace
        >>> plan = Plan("np", "max_min_throughput", "feasible", 100.0, 101.0, "milp", "highs", 0.1, "", {}, ())
        >>> round(plan.gap, 4)
        0.01
        """
        return relative_gap(self.value, self.bound)

    @property
    def homes(self) -> dict[tuple[int, int], tuple[int, int]]:
        """Return (pipeline, stage) of the first stage that names its pool, by (pipeline, stage) of every stage."""
        return homes(self.pipelines)

    def of(self, dnn: str) -> tuple[Pipeline, ...]:
        """Return the pipelines of one DNN, in plan order."""
        return tuple(pipeline for pipeline in self.pipelines if pipeline.dnn == dnn)

    def throughput_rps(self, dnn: str) -> float:
        """Return the planned throughput of one DNN (requests/s)."""
        return sum(pipeline.throughput_rps for pipeline in self.of(dnn))


def worth_text(objective: str, value: float, bound: float, status: Status) -> str:
    """Return what a plan is worth, and how good that provably is.

    >>> worth_text("fewest_devices", 12.0, 11.0, "feasible")
    'objective 12.000 devices, at least 11.000 possible (gap 8.3e-02, feasible)'
    """
    possible = f"at {'least' if objective in MINIMISED else 'most'} {bound:.3f} possible"
    gap = relative_gap(value, bound)
    return f"objective {value:.3f} {UNITS.get(objective, objective)}, {possible} (gap {gap:.1e}, {status})"


def relative_gap(value: float, bound: float) -> float:
    """Return |bound - value| / |value|; 0 where both are 0."""
    if isclose(bound, value, rel_tol=1e-12, abs_tol=1e-12):
        return 0.0
    return abs(bound - value) / abs(value) if value else float("inf")


def homes(pipelines: Sequence[Pipeline]) -> dict[tuple[int, int], tuple[int, int]]:
    """Return, by (pipeline, stage), the first stage that names the same pool; itself where a stage names none."""
    first: dict[str, tuple[int, int]] = {}
    found = {}
    for number, pipeline in enumerate(pipelines):
        for position, stage in enumerate(pipeline.stages):
            here = number, position
            found[here] = here if stage.pool is None else first.setdefault(stage.pool, here)
    return found
