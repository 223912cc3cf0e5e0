#!/usr/bin/env python
"""Three small classifiers that share what they can: retrained, merged, planned, simulated, executed, in minutes.

The models are trained on scikit-learn's digits (Alpaydin and Kaynak, UCI, 1998): which digit it is, whether it is odd,
whether it is five or more. A search asks which layer groups may be one copy, an oracle that retrains answers; then a
small edge site whose devices leave little memory is planned with and without merging. Cores of this machine then stand
for the merged plan's devices, and every answer is compared with its own model's. Results go to out/merging/.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.table import Table
from sklearn.datasets import load_digits

from planner.cli.app import console, new_app, run
from planner.files import save
from planner.files.models import save_model
from planner.model import Cluster, Dnn, Network, Options, Plan, Problem
from planner.model.placing import devices_used, locations
from planner.planning import make_plan
from planner.planning.merging import exact
from planner.planning.merging.deployment import MergeProblem
from planner.planning.merging.oracles import History
from planner.planning.merging.results import Try
from planner.planning.merging.schemes import MergeModel, Sharing
from planner.profiling import (
    ModelGraph,
    blank_profile,
    estimate_tables,
    extract_part,
    find_device,
    open_session,
    read_graph,
    run_model,
    with_tables,
)
from planner.profiling.merged_blocks import find_merged, merged_part
from planner.profiling.zoo.builder import NetworkBuilder
from planner.retraining import Effort, Retrained, Retraining, Task, accuracy, groups_of, train, weights_of, write_models
from simulator.engine import build_system, simulate
from simulator.engine.plans import pools_of
from simulator.executor import Settings
from simulator.executor.networks.together import execute_together
from simulator.results import Records
from simulator.results.metrics import attainment, latencies_us
from simulator.results.style import COLOURS, DASHES, FAINT, HATCHES, INK, finish, legend, save_figure
from simulator.workload import assign, fold, read_maf21

ROOT = Path(__file__).parents[1]
TRACE = ROOT / "traces" / "maf-like.maf21.csv.gz"
STARTS = (0, 4, 6, 8)  # layer groups: convolution, two dense layers, head
GROUPS = ("conv 3×3, pool", "dense 512", "dense 128", "head")
WIDTHS = (16, 512, 128)
TRAINED_ON = 1300
EFFORT = Effort(joint_epochs=9)  # 1,300 images are 21 steps an epoch
BATCHES = (1, 2, 4)
EXECUTED_REQUESTS = 100  # of every DNN
EXECUTED_RPS = 40.0
EXECUTED_IMAGES = 20
EXECUTED_SLO_US = 3_000_000.0

app = new_app(__doc__)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that is written.")] = ROOT / "out" / "merging",
    images: Annotated[Path | None, typer.Option(help="Folder for the picture. [default: OUT]")] = None,
    lose: Annotated[float, typer.Option(min=0, help="Points of accuracy that a model may lose.")] = 1.5,
    rate: Annotated[float, typer.Option(min=1, help="Requests/s of every DNN.")] = 1500.0,
    slo: Annotated[float, typer.Option(min=1, help="SLO of every DNN, ms.")] = 10.0,
    load: Annotated[float, typer.Option(help="Share of the rate that is offered.")] = 0.9,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of training before merging.")] = 12,
) -> None:
    """Train, merge, plan, simulate, execute and draw."""
    tasks = [replace(task, min_accuracy=reached - lose) for task, reached in originals(out, epochs)]
    cluster = site()
    found, oracle = search(tasks, cluster, out / "answers.jsonl")
    best = oracle.result(found)
    merged = write(tasks, best, out / "merged")
    problems = {
        "apart": problem_of(cluster, [task.graph for task in tasks], rate, slo),
        "merged": problem_of(cluster, merged, rate, slo, merge=True),
    }
    verify(problems["merged"], merged, tasks)
    plans = {name: planned(name, problem, out) for name, problem in problems.items()}
    show(tasks, best, problems, plans)
    runs = simulated(problems, plans, load)
    executed(problems["merged"], plans["merged"], merged, tasks)
    figure = draw(tasks, found, problems, plans, runs)
    save_figure(figure, (images or out) / "merging.png")
    console.print(f"{(images or out) / 'merging.png'}", highlight=False, soft_wrap=True)


def network(name: str, classes: int, seed: int) -> ModelGraph:
    """Return a classifier of 8 × 8 images with random weights."""
    build = NetworkBuilder(name, (1, 8, 8), seed)
    filters, wide, narrow = WIDTHS
    pooled = build.pool("MaxPool", build.conv_relu(build.input, filters, 3, "conv", padding=1), 2, 2, "pool")
    flat = build.layer("Flatten", [pooled], "flatten", axis=1)
    first = build.relu(build.linear(flat, wide, "dense1", inputs=16 * filters), "dense1.relu")
    second = build.relu(build.linear(first, narrow, "dense2"), "dense2.relu")
    return read_graph(build.finish(build.linear(second, classes, "head")), name)


def originals(out: Path, epochs: int) -> list[tuple[Task, float]]:
    """Train the three models each by itself, write them, and return them with the accuracy that they reach."""
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[:, None]
    labels = {"digit": digits.target, "odd": digits.target % 2, "five-or-more": digits.target // 5}
    order = np.random.default_rng(0).permutation(len(images))
    learn, test = order[:TRAINED_ON], order[TRAINED_ON:]
    found = []
    for seed, (name, classes) in enumerate(labels.items()):
        classes = classes.astype(np.int64)
        graph = network(name, int(classes.max()) + 1, seed)
        data = images[learn], classes[learn], images[test], classes[test]
        task = Task(graph, STARTS, *data, min_accuracy=0.0)
        trained = train(task, epochs, seed)
        model = write_models([task], trained.weights)[0]
        save_model(model, out / "original" / f"{name}.onnx")
        found.append((replace(task, graph=read_graph(model, name)), trained.accuracy[0]))
        console.print(f"trained {name}: {trained.accuracy[0]:.2f} % of {len(test)} test images right", highlight=False)
    return found


def site() -> Cluster:
    """Return a Jetson and Raspberry Pis on which other services leave 1.2 and 0.7 MB to these models."""
    jetson = replace(find_device("JetsonOrinNano").device_type(2), memory_bytes=1_200_000)
    pi = replace(find_device("RaspberryPi4").device_type(6), memory_bytes=700_000)
    return Cluster((jetson, pi), Network(bandwidth_gbps=1.0, hop_latency_us=200.0))


def search(tasks: Sequence[Task], cluster: Cluster, answers: Path) -> tuple[Sharing, Retraining]:
    """Return what saves the most memory of all that retrained models accept."""
    models = [MergeModel(task.graph.name, groups_of(task.graph, STARTS), 2, 1.0, 0.3) for task in tasks]
    memory = tuple(kind.memory_bytes or 0 for kind in cluster.device_types for _ in range(kind.count // 2))
    problem = MergeProblem(tuple(models), memory)

    def tell(sharing: Sharing, retrained: Retrained) -> None:
        reached = ", ".join(f"{percent:.2f} %" for percent in retrained.accuracy)
        console.print(f"  retrained with {in_words(tasks, sharing)}: {reached}", highlight=False, soft_wrap=True)

    def answered(tried: Try) -> None:
        word = "accepted" if tried.accepted else "refused"
        console.print(f"  {word}, {tried.saved_bytes / 1e6:.2f} MB saved", highlight=False)

    oracle = Retraining(tasks, effort=EFFORT, report=tell)
    answers.unlink(missing_ok=True)
    console.print("which groups may be one copy?")
    found = exact.search(problem, History(problem.models, oracle, answers), most_tries=12, report=answered)
    console.print(
        f"shared: {in_words(tasks, found.sharing)}; {found.saved_bytes / 1e6:.2f} MB saved with {len(found.tries)} "
        f"questions, at most {(found.bound_bytes or 0) / 1e6:.2f} MB possible",
        highlight=False,
        soft_wrap=True,
    )
    return found.sharing, oracle


def in_words(tasks: Sequence[Task], sharing: Sharing) -> str:
    """Return what is shared: the group, and by how many or by whom."""
    words = []
    for members in sorted(sharing, key=lambda one: min(one)[::-1]):
        names = [tasks[model].graph.name for model, _ in sorted(members)]
        words.append(f"{GROUPS[min(members)[1]]} by {'all' if len(names) == len(tasks) else ' and '.join(names)}")
    return "; ".join(words) or "nothing"


def write(tasks: Sequence[Task], best: Retrained, folder: Path) -> list[ModelGraph]:
    """Write the merged models, and return them as read."""
    graphs = []
    for task, model in zip(tasks, write_models(tasks, best.weights), strict=True):
        save_model(model, folder / f"{task.graph.name}.onnx")
        graphs.append(read_graph(model, task.graph.name))
    return graphs


def problem_of(
    cluster: Cluster, graphs: Sequence[ModelGraph], rate_rps: float, slo_ms: float, *, merge: bool = False
) -> Problem:
    """Return the problem of serving models on the fewest devices."""
    dnns = []
    for graph in graphs:
        kinds = [find_device(kind.name) for kind in cluster.device_types]
        tables = estimate_tables(graph, STARTS, kinds, BATCHES, (1, 2, 4))
        profile = with_tables(blank_profile(graph, STARTS), tables)
        dnns.append(Dnn(graph.name, slo_ms * 1000, (profile,), rate_rps=rate_rps))
    options = Options(objective="fewest_devices", device_sharing="shared")
    problem = Problem(cluster, tuple(dnns), options)
    return replace(problem, merged=find_merged(problem, {graph.name: graph for graph in graphs})) if merge else problem


def verify(problem: Problem, graphs: Sequence[ModelGraph], tasks: Sequence[Task]) -> None:
    """Run each merged run of blocks as one model for all its members, and compare answers with the whole models'."""
    numbers = {graph.name: number for number, graph in enumerate(graphs)}
    worst = 0.0
    for one in problem.merged:
        ends = (*STARTS, len(graphs[0].layers))
        members = [(graphs[numbers[member.dnn]], member.first_block) for member in one.members]
        part = merged_part([(graph, ends[first], ends[first + one.blocks]) for graph, first in members])
        session = open_session(part.part.model)
        for k, (graph, first) in enumerate(members):
            alive = {graph.inputs[0].name: tasks[numbers[graph.name]].test_inputs[:64]}
            whole = run_model(open_session(graph.model), alive)[0]
            if first:
                before = extract_part(graph, 0, ends[first])
                alive |= dict(zip(before.outputs, run_model(open_session(before.model), alive), strict=True))
            alive |= part.made(k, run_model(session, part.feeds(k, alive)))
            after = extract_part(graph, ends[first + one.blocks], len(graph.layers))
            feeds = {name: alive[name] for name in after.inputs}
            answer = run_model(open_session(after.model), feeds)[0]
            worst = max(worst, float(np.abs(answer - whole).max() / np.abs(whole).max()))
    if worst > 1e-5:
        raise RuntimeError(f"merged blocks answer otherwise than the models: {worst:.1e}")
    console.print(f"merged blocks run once for all answer as every model does (largest difference {worst:.0e})")


def planned(name: str, problem: Problem, out: Path) -> Plan:
    """Plan, and write problem and plan."""
    plan = make_plan(problem, time_limit_s=120.0)
    save(problem, out / name / "problem.json")
    save(plan, out / name / "plan.json")
    return plan


@dataclass(frozen=True)
class Held:
    """What a device holds: bytes by what they are (a DNN, or what DNNs share)."""

    device: str
    parts: Mapping[str, int]


def held(problem: Problem, plan: Plan) -> list[Held]:
    """Return what lies on every device in use: a pool's weights once per slice."""
    found: dict[tuple[str, int], dict[str, int]] = {}
    homes = set(plan.homes.values())
    for one in locations(problem, plan):
        if (one.pipeline, one.stage) in homes:
            pipeline = plan.pipelines[one.pipeline]
            stage = pipeline.stages[one.stage]
            profile = problem.dnn(pipeline.dnn).variant(pipeline.variant)
            parts = found.setdefault((one.device, one.number), {})
            what = "shared" if stage.pool else pipeline.dnn
            held_bytes = sum(block.parameter_bytes for block in profile.blocks[stage.first_block : stage.last_block])
            parts[what] = parts.get(what, 0) + held_bytes
    return [Held(f"{device} {number}", parts) for (device, number), parts in sorted(found.items())]


def show(tasks: Sequence[Task], best: Retrained, problems: Mapping[str, Problem], plans: Mapping[str, Plan]) -> None:
    """Print accuracies before and after, and what the plans use."""
    table = Table("model", "accuracy before, %", "at least", "after, %", box=None, header_style="bold")
    for task, after in zip(tasks, best.accuracy, strict=True):
        before = accuracy(task, weights_of(task.graph))
        table.add_row(task.graph.name, f"{before:.2f}", f"{task.min_accuracy:.2f}", f"{after:.2f}")
    console.print(table)
    for name, plan in plans.items():
        used = devices_used(problems[name], plan)
        weights = sum(sum(one.parts.values()) for one in held(problems[name], plan))
        devices = " + ".join(f"{count} {kind}" for kind, count in used.items())
        console.print(
            f"{name}: {used.total()} devices ({devices}), {weights / 1e6:.2f} MB of weights; at least "
            f"{plan.bound:.3g} devices possible, {plan.seconds:.1f} s",
            highlight=False,
        )


def simulated(
    problems: Mapping[str, Problem], plans: Mapping[str, Plan], load: float
) -> dict[tuple[str, str], list[Records]]:
    """Replay the sample trace against both plans, the merged one by both policies."""
    trace = read_maf21(TRACE)
    found = {}
    for name, policy in (("apart", "reservation"), ("merged", "reservation"), ("merged", "latest-start")):
        problem, plan = problems[name], plans[name]
        names = [dnn.name for dnn in problem.dnns]
        systems = [build_system(problem, plan, dnn) for dnn in names]
        rates = [load * (dnn.rate_rps or 0.0) for dnn in problem.dnns]
        times = [fold(part, rate, 20.0) for part, rate in zip(assign(trace, len(names)), rates, strict=True)]
        records = simulate(systems, times, policy=policy, pools=pools_of(plan, names))
        found[name, policy] = records
        shares = ", ".join(f"{one.system.dnn} {attainment(one):.2%}" for one in records)
        console.print(f"{name}, {policy}: in time at {load:g} of the rate: {shares}", highlight=False, soft_wrap=True)
    return found


def executed(problem: Problem, plan: Plan, graphs: Sequence[ModelGraph], tasks: Sequence[Task]) -> None:
    """Run the merged plan on cores of this machine, test images as requests, and compare answers with every model's.

    The frontend and all workers may have to share a core or two here, so that requests have `EXECUTED_SLO_US`.
    """
    patient = replace(problem, dnns=tuple(replace(dnn, slo_us=EXECUTED_SLO_US) for dnn in problem.dnns))
    models = {graph.name: graph.model for graph in graphs}
    inputs = {
        task.graph.name: [{task.graph.inputs[0].name: image[None]} for image in task.test_inputs[:EXECUTED_IMAGES]]
        for task in tasks
    }
    gap_us = round(1e6 / EXECUTED_RPS)
    arrivals = {
        name: np.arange(EXECUTED_REQUESTS) * gap_us + number * gap_us // len(models)
        for number, name in enumerate(models)
    }
    for policy in ("reservation", "latest-start"):
        settings = Settings(policy, verify=True, oversubscribe=True, inputs="test images")
        run = execute_together(patient, plan, models, arrivals, settings, inputs=inputs)
        for name, records in run.records.items():
            verdict, done = run.verdicts[name], int(records.finished.sum())
            if verdict.wrong or done < len(records):
                raise RuntimeError(f"{name}, {policy}: {done} of {len(records)} requests answered; {verdict}")
            console.print(
                f"executed, {policy}: {name} answered {done} requests as its own model does ({verdict.bit_equal} equal "
                f"to the bit), {np.median(latencies_us(records)) / 1000:.1f} ms in the median",
                highlight=False,
                soft_wrap=True,
            )


def draw(
    tasks: Sequence[Task],
    sharing: Sharing,
    problems: Mapping[str, Problem],
    plans: Mapping[str, Plan],
    runs: Mapping[tuple[str, str], Sequence[Records]],
) -> Figure:
    """Return what was merged, the memory of every device, and latencies, side by side."""
    figure = Figure(figsize=(13.0, 4.2), layout="constrained")
    graph, memory, latency = figure.subplots(1, 3, width_ratios=(1.0, 1.15, 1.25))
    draw_graph(graph, tasks, sharing)
    draw_memory(memory, tasks, {name: held(problems[name], plan) for name, plan in plans.items()})
    draw_latencies(latency, runs)
    return figure


def draw_graph(ax: Axes, tasks: Sequence[Task], sharing: Sharing) -> None:
    """Draw the layer groups of all models, what is one copy as one box."""
    shared = {member: members for members in sharing for member in members}
    drawn = set()
    for model, task in enumerate(tasks):
        for group, label in enumerate(GROUPS):
            members = shared.get((model, group), frozenset({(model, group)}))
            columns = sorted(number for number, _ in members)
            if members not in drawn:
                drawn.add(members)
                colour = FAINT if len(columns) > 1 else COLOURS[model]
                width = columns[-1] - columns[0] + 0.84
                ax.barh(
                    group, width, left=columns[0] - 0.42, height=0.62, color=colour, alpha=0.35, edgecolor=INK,
                    hatch=HATCHES[1] if len(columns) > 1 else None,
                )  # fmt: skip
                ax.text(
                    columns[0] - 0.42 + width / 2, group, label, ha="center", va="center", fontsize=8, color=INK,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.8},
                )  # fmt: skip
            if group:
                ax.annotate(
                    "", (model, group - 0.32), (model, group - 0.68), arrowprops={"arrowstyle": "->", "color": INK}
                )
        ax.text(model, len(GROUPS) - 0.45, task.graph.name, ha="center", fontsize=9, color=INK)
    ax.set_xlim(-0.6, len(tasks) - 0.4)
    ax.set_ylim(-0.6, len(GROUPS) - 0.2)
    ax.set_title("what is one copy (grey)", fontsize=10, loc="left", color=INK)
    ax.set_axis_off()


def draw_memory(ax: Axes, tasks: Sequence[Task], plans: Mapping[str, Sequence[Held]]) -> None:
    """Draw the weights that lie on every device in use, plan by plan."""
    kinds = [*(task.graph.name for task in tasks), "shared"]
    rows = [(plan, one) for plan, found in plans.items() for one in found]
    for number, kind in enumerate(kinds):
        sizes = np.array([one.parts.get(kind, 0) / 1e6 for _, one in rows])
        left = np.array([sum(one.parts.get(other, 0) for other in kinds[:number]) / 1e6 for _, one in rows])
        colour = FAINT if kind == "shared" else COLOURS[number]
        ax.barh(range(len(rows)), sizes, left=left, color=colour, label=kind, hatch=HATCHES[number], edgecolor="white")
    totals = [sum(one.parts.values()) / 1e6 for _, one in rows]
    for row, total in enumerate(totals):
        ax.text(total, row, f" {total:.3f}", va="center", fontsize=8, color=INK)
    ax.set_xlim(0, 1.15 * max(totals))
    ax.set_yticks(range(len(rows)), [f"{plan}: {one.device}" for plan, one in rows])
    ax.invert_yaxis()
    finish(ax, x="weights on the device (MB)")
    legend(ax)


def draw_latencies(ax: Axes, runs: Mapping[tuple[str, str], Sequence[Records]]) -> None:
    """Draw the distribution of latencies per DNN: colours are DNNs, dashes plans and policies."""
    for dash, ((plan, policy), found) in zip(DASHES, runs.items(), strict=False):
        for colour, records in zip(COLOURS, found, strict=False):
            latency_ms: NDArray[np.float64] = np.sort(latencies_us(records)) / 1000
            share = np.arange(1, len(latency_ms) + 1) / len(records)
            ax.plot(latency_ms, share, color=colour, linestyle=dash, linewidth=1.3)
        ax.plot([], [], color=INK, linestyle=dash, label=f"{plan}, {policy}")
    slo_ms = next(iter(runs.values()))[0].system.slo_us / 1000
    ax.axvline(slo_ms, color=FAINT, linewidth=1)
    ax.text(slo_ms, 0.02, " SLO", color=FAINT, fontsize=8)
    ax.set_xscale("log")
    finish(ax, x="latency (ms)", y="share of requests")
    legend(ax)


if __name__ == "__main__":
    run(app)
