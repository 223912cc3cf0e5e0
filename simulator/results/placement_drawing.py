"""Where a plan's slices lie, as a picture: a row per device, a box per segment, coloured by DNN."""

from collections import Counter

from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from planner.model import Plan, Problem
from planner.model.placing import devices_used, locations
from planner.model.segments import kind_of, share_text
from simulator.results.hover import attach
from simulator.results.style import COLOURS, FAINT, HATCHES, INK, new_axes, short

MOST = 60  # devices in one picture
HEIGHT = 0.8
LETTERS = 62  # of a row's width


def drawable(problem: Problem, plan: Plan) -> bool:
    """Tell whether DNNs share devices, and these are few enough for a picture."""
    return problem.options.device_sharing == "shared" and 0 < devices_used(problem, plan).total() <= MOST


def placement_drawing(plan: Plan, problem: Problem, ax: Axes | None = None) -> Axes:
    """Draw the devices in use, of the first `MOST`, with what lies on them; what is empty is grey.

    A box is as wide as its segment's part of the device; it says its DNN, which blocks it runs where the pipeline has
    several stages, and how many processes.
    """
    held: dict[tuple[int, str, int], Counter[tuple[int, int, int]]] = {}  # device -> (slot, pipeline, stage) -> slices
    for one in locations(problem, plan):
        device = problem.cluster.index(one.device), one.device, one.number
        held.setdefault(device, Counter())[one.slot, one.pipeline, one.stage] += 1
    shown = sorted(held.items())[:MOST]
    ax = ax or new_axes(8.2, 0.75 + 0.34 * len(shown))
    names = [dnn.name for dnn in problem.planned.dnns]
    for row, ((_, name, number), segments) in enumerate(shown):
        kind = problem.cluster.device(name)
        ax.add_patch(Rectangle((0, -row), 1, HEIGHT, facecolor="#F2F2F2", edgecolor=FAINT, linewidth=0.6))
        server = number // kind.devices_per_server
        ax.text(-0.01, -row + HEIGHT / 2, f"{name} {number}", ha="right", va="center", fontsize=8, color=INK)
        for (slot, p, s), slices in sorted(segments.items()):
            pipeline, stage = plan.pipelines[p], plan.pipelines[p].stages[s]
            divided = kind.division(kind_of(stage.share))
            left, width = slot / divided.slots, divided.widths[kind_of(stage.share)] / divided.slots
            number_of_dnn = names.index(pipeline.dnn)
            colour, hatch = COLOURS[number_of_dnn % 8], HATCHES[number_of_dnn // 8 % 8]
            box = Rectangle((left, -row), width, HEIGHT, facecolor=colour, edgecolor="white", hatch=hatch, linewidth=1)
            blocks = f" [{stage.first_block}–{stage.last_block - 1}]" if len(pipeline.stages) > 1 else ""
            times = f" × {slices}" if slices > 1 else ""
            label = f"{pipeline.dnn}{blocks}{times}"
            words = f"{label} on {share_text(kind_of(stage.share))} at slot {slot} of {name} {number}, server {server}"
            attach(ax.add_patch(box), [words])
            if width * LETTERS > 4:
                ax.text(
                    left + width / 2, -row + HEIGHT / 2, short(label, max(4, int(width * LETTERS))), fontsize=7.5,
                    ha="center", va="center", color="white" if hatch == "" and colour != "#F0E442" else INK,
                )  # fmt: skip
    handles = [
        Patch(facecolor=COLOURS[i % 8], hatch=HATCHES[i // 8 % 8], edgecolor="white", label=short(name, 30))
        for i, name in enumerate(names)
    ]
    ax.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, frameon=False, fontsize=8,
        borderaxespad=0.2,
    )  # fmt: skip
    ax.set_xlim(-0.005, 1.005)
    ax.set_ylim(-len(shown) + 0.9, 0.9)
    ax.set_axis_off()
    return ax
