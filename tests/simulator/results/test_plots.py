"""What the plots draw: heights, labels, positions; no pictures are compared."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from planner.model import (
    Block,
    Cluster,
    DeviceType,
    Dnn,
    InputError,
    LatencyTable,
    Network,
    Options,
    Pipeline,
    Plan,
    Problem,
    Profile,
    Provenance,
    Stage,
)
from simulator.engine import build_system, simulate
from simulator.results import latencies_us
from simulator.results.placement_drawing import drawable, placement_drawing
from simulator.results.plan_drawing import plan_drawing
from simulator.results.plots import (
    attainment_heat_map,
    attainment_over_load,
    grouped_bars,
    save_figure,
    throughput_tradeoff,
)
from simulator.results.run_plots import latency_distribution, timeline
from simulator.results.style import COLOURS, figure_of

LOADS = np.array([0.25, 0.5, 0.75, 1.0])


def rows(**columns):
    """Two schedulers, two DNNs: np loses 10 points a step from 0.5 on (DNN b 20), pipelines nothing."""
    lost = {"np": {"a": 0.1, "b": 0.2}, "pipelines": {"a": 0.0, "b": 0.0}}
    return pd.DataFrame(
        [
            {"dnn": dnn, "scheduler": scheduler, "load_factor": load, "attainment": 1 - step * max(0, i - 1)} | columns
            for scheduler, by_dnn in lost.items()
            for dnn, step in by_dnn.items()
            for i, load in enumerate(LOADS)
        ]
    )


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_attainment_lines_are_means_with_their_range():
    ax = attainment_over_load(rows())
    assert labels(ax) == ["pipelines", "NP"]
    _, np_line = ax.get_lines()[:2]
    assert np_line.get_xdata() == pytest.approx(LOADS)
    assert np_line.get_ydata() == pytest.approx([1.0, 1.0, 0.85, 0.7])
    low, high = ax.collections[1].get_paths()[0].get_extents().intervaly
    assert (low, high) == pytest.approx((0.6, 1.0))
    assert ax.get_ylim()[0] == pytest.approx(0.6)
    assert ax.get_xlabel().startswith("load factor")
    assert [text.get_text() for text in ax.texts] == ["99%"]


def test_attainment_lines_of_two_clusters_are_told_apart_without_colour():
    ax = attainment_over_load(pd.concat([rows(cluster="x"), rows(cluster="y")]))
    assert labels(ax) == ["x, pipelines", "x, NP", "y, pipelines", "y, NP"]
    looks = [(line.get_marker(), line.get_markerfacecolor()) for line in ax.get_lines()[:4]]
    assert len(set(looks)) == 4


def test_neighbouring_colours_differ_in_grey():
    grey = [float(np.dot(to_rgb(colour), (0.299, 0.587, 0.114))) for colour in COLOURS[:3]]
    assert min(abs(a - b) for a, b in pairwise(grey)) > 0.1


def test_bars_have_the_heights_of_their_means_in_the_order_of_the_rows():
    table = pd.DataFrame(
        {
            "cluster": ["HC2", "HC2", "HC1", "HC1", "HC1"],
            "scheduler": ["np", "pipelines", "np", "np", "pipelines"],
            "load": [0.5, 0.9, 0.4, 0.6, 1.0],
        }
    )
    ax = grouped_bars(table, value="load", group="cluster", bar="scheduler", y="load factor")
    assert [text.get_text() for text in ax.get_xticklabels()] == ["HC2", "HC1"]
    assert labels(ax) == ["pipelines", "NP"]
    assert [bar.get_height() for bar in ax.containers[0]] == pytest.approx([0.9, 1.0])
    assert [bar.get_height() for bar in ax.containers[1]] == pytest.approx([0.5, 0.5])
    assert [text.get_text() for text in ax.texts] == ["0.90", "1.00", "0.50", "0.50"]
    assert ax.containers[0][0].get_hatch() != ax.containers[1][0].get_hatch()


def test_heat_map_has_a_row_per_series_and_dots_where_the_target_is_met():
    ax = attainment_heat_map(rows())
    assert ax.images[0].get_array().shape == (4, 4)
    right, down = ax.get_lines()[0].get_data()
    assert len(right) == 2 + 2 + 4 + 4
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a, pipelines", "a, NP", "b, pipelines", "b, NP"]
    assert ax.images[0].get_clim() == pytest.approx((0.001, 0.4))
    bar = figure_of(ax).axes[1]
    assert [tick.get_text() for tick in bar.get_yticklabels()] == ["99.9%", "99%", "95%", "90%", "80%"]
    assert max(right[down == 1]) == 1  # NP of a holds up to the second load


def test_the_last_percents_of_a_heat_map_are_told_apart():
    shade = attainment_heat_map(rows()).images[0].norm
    shades = [shade(1 - attainment) for attainment in (0.999, 0.99, 0.95, 0.9)]
    assert min(later - earlier for earlier, later in pairwise(shades)) > 0.1


def test_the_axis_says_whose_throughput_load_1_is():
    one = attainment_over_load(rows(reference="best.json"))
    assert one.get_xlabel() == "load factor (offered rate / throughput of best.json)"
    several = attainment_over_load(pd.concat([rows(reference="a.json"), rows(reference="b.json")]))
    assert several.get_xlabel() == "load factor (offered rate / throughput of the reference plan)"


def test_tradeoff_joins_the_front_only():
    plans = pd.DataFrame({"scheduler": "np", "slo_ms": [0, 1, 2, 3, 4], "throughput_rps": [0, 10, 30, 20, 40]})
    ax = throughput_tradeoff(plans, against="slo_ms", x="SLO (ms)")
    front, rest = ax.get_lines()
    assert front.get_xdata().tolist() == [1, 2, 4]
    assert rest.get_xdata().tolist() == [0, 3]


@pytest.fixture(scope="module")
def run(two_stages):
    """Ten requests, 10 ms apart, of the DNN with two stages (24 ms on half a GPU, then 20 ms on a CPU, batch 2)."""
    system = build_system(*two_stages, "first")
    return simulate(system, np.arange(10, dtype=np.int64) * 10_000)


def test_plan_drawing_shows_every_pool_and_transfer(two_stages):
    problem, plan = two_stages
    ax = plan_drawing(plan, problem)
    texts = [text.get_text() for text in ax.texts]
    assert "4 slices of 1/2 GPU\nbatch 2   blocks 0–2   24.0 ms   100%" in texts
    assert "4 whole CPU\nbatch 2   block 3   20.0 ms   83%" in texts  # 333 of the 400 requests/s that the pool sustains
    assert "250 kB" in texts
    assert "0.2 ms" in texts
    assert any(text.startswith("first   SLO 120.0 ms, 333 requests/s") for text in texts)
    assert sum(isinstance(patch, FancyBboxPatch) for patch in ax.patches) == 3
    assert sum(isinstance(patch, FancyArrowPatch) for patch in ax.patches) == 1
    fills = [
        patch.get_height() for patch in ax.patches if isinstance(patch, Rectangle) and patch.get_label() == "_fill"
    ]
    assert fills[1] / fills[0] == pytest.approx(0.83333, rel=1e-3)
    busy = plan_drawing(plan, problem, utilisation={(0, 0): 0.5, (0, 1): 0.25, (1, 0): 1.0})
    assert "4 whole CPU\nbatch 2   block 3   20.0 ms   25%" in [text.get_text() for text in busy.texts]


def test_timeline_draws_a_bar_per_batch_at_its_time(run):
    ax = timeline(run, start_ms=0, end_ms=200)
    first, second = run.visits
    assert len(ax.containers) == len(first.size) + len(second.size) == 10
    left = sorted(bar[0].get_x() for bar in ax.containers)
    assert left == pytest.approx(sorted([*first.start_us / 1000, *second.start_us / 1000]))
    assert sorted({round(bar[0].get_width(), 6) for bar in ax.containers}) == [20.0, 24.0]
    assert [text.get_text() for text in ax.get_yticklabels()][:5] == [
        "pipeline 0, stage 0: 4 × 1/2 GPU  #0",
        *(f"#{number}" for number in (1, 2, 3)),
        "pipeline 0, stage 1: 4 × CPU  #0",
    ]
    few = timeline(run, start_ms=0, end_ms=200, most_slices=1)
    assert [text.get_text()[21:] for text in few.get_yticklabels()] == ["1 of 4 × 1/2 GPU  #0", "1 of 4 × CPU  #0"]
    with pytest.raises(InputError, match="choose another window"):
        timeline(run, start_ms=5000, end_ms=5100)


def test_pictures_of_runs_say_whose_they_are(run):
    rate = len(run) / (run.arrival_us[-1] / 1e6)
    said = f"{run.system.dnn}, {rate:.4g} requests/s offered, SLO 120 ms"
    assert timeline(run, start_ms=0, end_ms=200).get_title(loc="left") == said
    assert latency_distribution(run, warm_up_us=0, of="edge np").get_title(loc="left") == f"edge np: {said}"


def test_latency_parts_add_up_to_the_latencies(run):
    ax = latency_distribution(run, warm_up_us=0)
    assert labels(ax) == ["inference", "transfer", "building", "queueing"]
    top = ax.collections[-1].get_paths()[0].get_extents().ymax
    assert top == pytest.approx(latencies_us(run, 0).max() / 1000)
    assert ax.get_lines()[0].get_ydata()[0] == 120.0  # the SLO


def test_an_slo_far_above_all_latencies_is_written_not_drawn(two_stages):
    problem, plan = two_stages
    far = replace(problem, dnns=tuple(replace(dnn, slo_us=5_000_000.0) for dnn in problem.dnns))
    ax = latency_distribution(simulate(build_system(far, plan, "second"), np.arange(9) * 10_000), warm_up_us=0)
    assert ax.texts[0].get_text() == "SLO 5000 ms ↑"
    assert ax.get_ylim()[1] == pytest.approx(8 * 1.05)  # 8 ms on a whole GPU


def test_shares_are_marked_in_whole_percents():
    ax = attainment_over_load(rows().assign(attainment=0.97))
    assert all(round(100 * tick) == pytest.approx(100 * tick) for tick in ax.get_yticks())


def test_the_legend_of_a_narrow_plan_has_several_rows(two_stages):
    problem, plan = two_stages
    alone = replace(plan, pipelines=plan.pipelines[1:])
    figure = figure_of(plan_drawing(alone, problem))
    figure.canvas.draw()  # a legend wider than the figure would leave no room, which is a warning
    assert figure.axes[0].get_legend().get_window_extent().x1 <= figure.bbox.x1


def test_pictures_are_files_and_equal_ones_are_equal(tmp_path):
    for suffix in ("png", "pdf", "svg"):
        for name in ("a", "b"):
            save_figure(attainment_over_load(rows()), tmp_path / f"{name}.{suffix}")
        assert (tmp_path / f"a.{suffix}").stat().st_size > 3000
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()


def test_nothing_is_drawn_past_the_figure():
    ax = attainment_over_load(rows())
    figure = figure_of(ax)
    figure.canvas.draw()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 > -0.01
    assert box.y0 > -0.01
    assert box.x1 < width + 0.01
    assert box.y1 < height + 0.01


@pytest.mark.parametrize(
    "call",
    [
        lambda: attainment_over_load(pd.DataFrame()),
        lambda: attainment_over_load(rows().drop(columns="attainment")),
        lambda: grouped_bars(rows(), value="none", group="dnn", bar="scheduler", y=""),
    ],
)
def test_tables_without_what_is_drawn_are_refused(call):
    with pytest.raises(InputError, match="cannot draw"):
        call()


def test_traces_that_go_with_the_dnn_are_not_told_apart():
    table = rows().assign(trace=lambda one: "trace of " + one["dnn"])
    assert labels(attainment_over_load(table)) == ["pipelines", "NP"]
    names = [text.get_text() for text in attainment_heat_map(table).get_yticklabels()]
    assert names == ["a, pipelines", "a, NP", "b, pipelines", "b, NP"]


def test_placement_drawing_has_a_row_per_device_and_a_box_per_segment():
    # "a" in two processes on a 2g beside "b" on two 1g; its third 1g lies on a second device.
    a30 = DeviceType("A30", 2, mig="a30-24gb", processes=2)
    dnns, pipelines = [], []
    for name, share, slices in (("a", "2g.12gb/2", 2), ("b", "1g.6gb", 3)):
        table = LatencyTable("A30", share, (1,), ((10_000,),), Provenance("measured", "by hand"))
        dnns.append(Dnn(name, 20_000.0, (Profile(name, (Block(("n",)),), (), (table,)),)))
        stage = Stage(0, 1, "A30", share, slices, 1, 10_000, 0.0, 100.0 * slices)
        pipelines.append(Pipeline(name, name, 100.0 * slices, 0.0, 8000.0, (stage,)))
    problem = Problem(Cluster((a30,), Network(10.0)), tuple(dnns), Options(device_sharing="shared"))
    plan = Plan("pipelines", "max_min_throughput", "optimal", 1, 1, "", "", 0, "", {}, tuple(pipelines))
    assert drawable(problem, plan)
    assert not drawable(replace(problem, options=Options()), plan)
    ax = placement_drawing(plan, problem)
    boxes = [patch.get_bbox().bounds for patch in ax.patches]
    assert [(x, -y, width) for x, y, width, _ in boxes] == [
        (0, 0, 1), (0, 0, 0.25), (0.25, 0, 0.25), (0.5, 0, 0.5), (0, 1, 1), (0, 1, 0.25)
    ]  # fmt: skip
    assert [text.get_text() for text in ax.texts] == ["A30 0", "b", "b", "a × 2", "A30 1", "b"]
