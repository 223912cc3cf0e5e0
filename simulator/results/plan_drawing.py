"""A plan as a picture: pools as boxes from left to right, transfers as arrows between them."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch, Rectangle

from planner.files.names import printable
from planner.model import DeviceType, Dnn, Pipeline, Plan, Problem, Stage
from planner.model.segments import share_text
from simulator.results.hover import attach
from simulator.results.style import COLOURS, HATCHES, INK, figure_of, new_axes, short

BOX, GAP, HEIGHT, ROW = 3.0, 1.5, 0.74, 1.0
FILL_SIDE = 0.16  # width of the gauge at a box's left side
CHARACTER = 0.075  # of a title, in the same unit

StageKey = tuple[int, int]  # pipeline (as the plan numbers all of them), stage


def plan_drawing(
    plan: Plan, problem: Problem, ax: Axes | None = None, *, utilisation: Mapping[StageKey, float] | None = None
) -> Axes:
    """Draw a plan: a row per pipeline, grouped by DNN, and a box per stage.

    A box says how many whole devices or slices of which share, batch size, blocks and latency; its colour and hatching
    tell the device type, the gauge at its left side how busy the pool is. Arrows carry the bytes of a batch and the
    time that they take.

    Parameters
    ----------
    utilisation
        (pipeline, stage) -> share of its slices' time in which they work; by default what is planned: the pipeline's
        throughput over what the pool sustains.
    """
    shown = [dnn for dnn in problem.planned.dnns if plan.of(dnn.name)]
    widest = max(len(pipeline.stages) for pipeline in plan.pipelines)
    width, rows = widest * BOX + (widest - 1) * GAP, len(plan.pipelines) + 0.55 * len(shown)
    titles = {dnn.name: _title(plan, dnn) for dnn in shown}
    width = max(width, CHARACTER * max(map(len, titles.values())))
    ax = ax or new_axes(0.95 + 1.02 * width, 0.75 + 0.78 * rows)
    types = [device.name for device in problem.cluster.device_types]
    top = 0.0
    for dnn in shown:
        ax.text(0, -top - 0.06, titles[dnn.name], fontsize=9, fontweight="bold", color=INK, va="center")
        for number, pipeline in enumerate(plan.pipelines):
            if pipeline.dnn != dnn.name:
                continue
            for position, stage in enumerate(pipeline.stages):
                planned = pipeline.throughput_rps / stage.throughput_rps if stage.throughput_rps else 0.0
                busy = planned if utilisation is None else utilisation.get((number, position), 0.0)
                _box(ax, position * (BOX + GAP), -top - ROW, stage, problem.cluster.device_types, busy)
                if position + 1 < len(pipeline.stages):
                    _arrow(ax, position * (BOX + GAP) + BOX, -top - ROW + HEIGHT / 2, problem, pipeline, position)
            top += ROW
        top += 0.55
    kind = "busy" if utilisation is not None else "planned use"
    handles = [
        Patch(facecolor=_tint(COLOURS[i % 8]), edgecolor=COLOURS[i % 8], hatch=HATCHES[i % 8], label=name)
        for i, name in enumerate(types)
    ]
    handles.append(Patch(facecolor=INK, label=f"gauge: {kind}"))
    entry_inches = 0.6 + 0.07 * max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), int(figure_of(ax).get_size_inches()[0] / entry_inches)))
    ax.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, frameon=False, fontsize=8,
        borderaxespad=0.2,
    )  # fmt: skip
    ax.set_xlim(-0.05, width + 0.05)
    ax.set_ylim(-top + 0.45, 0.35)
    ax.set_axis_off()
    return ax


def _title(plan: Plan, dnn: Dnn) -> str:
    served = f"SLO {dnn.slo_us / 1000:.1f} ms, {plan.throughput_rps(dnn.name):.0f} requests/s"
    return f"{short(printable(dnn.name), 48)}   {served}"


def _box(ax: Axes, left: float, bottom: float, stage: Stage, types: Sequence[DeviceType], busy: float) -> None:
    device = next(number for number, one in enumerate(types) if one.name == stage.device)
    filled = float(stage.slices * types[device].fraction(stage.share))
    colour = COLOURS[device % 8]
    box = ax.add_patch(
        FancyBboxPatch(
            (left, bottom), BOX, HEIGHT, boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=_tint(colour), edgecolor=colour, linewidth=1.2,
        )
    )  # fmt: skip
    if HATCHES[device % 8]:
        strip = (left + BOX - 0.22, bottom + 0.06), 0.16, HEIGHT - 0.12
        ax.add_patch(
            Rectangle(*strip, facecolor="white", edgecolor=colour, hatch=HATCHES[device % 8] * 2, linewidth=0.0)
        )
    ax.add_patch(
        Rectangle((left + 0.06, bottom + 0.06), FILL_SIDE, HEIGHT - 0.12, facecolor="white", edgecolor=INK, lw=0.6)
    )
    ax.add_patch(
        Rectangle(
            (left + 0.06, bottom + 0.06), FILL_SIDE, (HEIGHT - 0.12) * min(1.0, busy), facecolor=INK, label="_fill"
        )
    )
    attach(box, [f"{filled:g} devices sustain {stage.throughput_rps:.1f} requests/s, {busy:.1%} used"])
    runs = f"batch {stage.batch}   {stage.blocks_text}   {stage.latency_us / 1000:.1f} ms   {busy:.0%}"
    text = f"{_pool(stage)}\n{runs}"
    ax.text(left + 0.32, bottom + HEIGHT / 2, text, fontsize=8, va="center", color=INK, linespacing=1.35)


def _arrow(ax: Axes, left: float, middle: float, problem: Problem, pipeline: Pipeline, position: int) -> None:
    stage = pipeline.stages[position]
    profile = problem.dnn(pipeline.dnn).variant(pipeline.variant)
    size_bytes = profile.cut_bytes[stage.last_block - 1] * stage.batch
    ax.add_patch(
        FancyArrowPatch(
            (left + 0.06, middle), (left + GAP - 0.06, middle), arrowstyle="-|>", mutation_scale=10, color=INK, lw=1.2
        )
    )
    for text, offset, side in (
        (_bytes(size_bytes), 0.05, "bottom"),
        (f"{stage.transfer_us / 1000:.1f} ms", -0.06, "top"),
    ):
        ax.text(left + GAP / 2, middle + offset, text, fontsize=7.5, ha="center", va=side, color=INK)


def _pool(stage: Stage) -> str:
    """Write a pool so that slices are not taken for devices: ``2 whole L4``, ``8 slices of 1/2 L4``."""
    if stage.share == 1:
        return f"{stage.slices} whole {stage.device}"
    return f"{stage.slices} slice{'s' * (stage.slices > 1)} of {share_text(stage.share)} {stage.device}"


def _bytes(size: float) -> str:
    """Write a size with three digits: 1.25 MB.

    >>> _bytes(1_250_000), _bytes(900)
    ('1.25 MB', '900 B')
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size:.0f} B"


def _tint(colour: str) -> tuple[float, float, float]:
    """Return a colour mixed with four times as much white."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return (0.8 + 0.2 * red, 0.8 + 0.2 * green, 0.8 + 0.2 * blue)
