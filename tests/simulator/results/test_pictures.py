"""Pictures against small ones that a person has looked at, in tests/data/figures.

Drawn anew by ``POOLPIPE_DRAW_BASELINES=1 pytest tests/simulator/results/test_pictures.py``; look at what changed.
Texts and legends are left out and axes stand at fixed places, for versions of matplotlib draw letters differently, by
more than a bar that is a tenth too low; texts are tested in `test_plots`.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text

from simulator.engine import build_system, simulate
from simulator.results.plan_drawing import plan_drawing
from simulator.results.plots import attainment_heat_map, attainment_over_load, grouped_bars, throughput_tradeoff
from simulator.results.run_plots import latency_distribution, timeline
from simulator.results.style import figure_of

BASELINES = Path(__file__).parents[2] / "data" / "figures"
DPI = 60
TOLERANCE = 10.0  # root mean square of a pixel's difference, 0 to 255

SWEEP = pd.DataFrame(
    {"dnn": dnn, "scheduler": scheduler, "load_factor": load, "attainment": 1 - max(0.0, load - holds) * slope}
    for scheduler, holds in (("np", 0.5), ("dart-r", 0.7), ("pipelines", 0.9))
    for dnn, slope in (("one", 0.4), ("two", 0.8))
    for load in np.arange(0.1, 1.05, 0.1)
)


@pytest.fixture(scope="module")
def pictures(two_stages) -> dict[str, Axes]:
    problem, plan = two_stages
    run = simulate(build_system(problem, plan, "first"), np.arange(60, dtype=np.int64) * 2_900)
    plans = pd.DataFrame({"scheduler": "np", "slo_ms": [1, 2, 3, 4], "throughput_rps": [1000, 3000, 2000, 4000]})
    loads = SWEEP[SWEEP["attainment"] >= 0.9]
    return {
        "attainment": attainment_over_load(SWEEP),
        "bars": grouped_bars(loads, value="load_factor", group="dnn", bar="scheduler", y="load factor at 90 %"),
        "heat_map": attainment_heat_map(SWEEP),
        "latency": latency_distribution(run, warm_up_us=0),
        "plan": plan_drawing(plan, problem),
        "timeline": timeline(run, start_ms=0, end_ms=200),
        "tradeoff": throughput_tradeoff(plans, against="slo_ms", x="SLO (ms)"),
    }


NAMES = ("attainment", "bars", "heat_map", "latency", "plan", "timeline", "tradeoff")


def drawn(ax: Axes, path: Path) -> Path:
    figure = figure_of(ax)
    figure.set_layout_engine("none")
    for number, panel in enumerate(figure.axes):  # the second is a colour bar
        panel.set_position((0.03, 0.05, 0.87, 0.9) if number == 0 else (0.92, 0.05, 0.03, 0.9))
        if legend := panel.get_legend():
            legend.remove()
    for text in figure.findobj(Text):
        text.set_visible(False)
    figure.savefig(path, dpi=DPI)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_as_they_were_looked_at(pictures, name, tmp_path):
    if os.environ.get("POOLPIPE_DRAW_BASELINES"):
        BASELINES.mkdir(parents=True, exist_ok=True)
        drawn(pictures[name], BASELINES / f"{name}.png")
    found = drawn(pictures[name], tmp_path / f"{name}.png")
    assert compare_images(str(BASELINES / f"{name}.png"), str(found), TOLERANCE) is None


def test_the_tolerance_sees_a_bar_that_is_a_tenth_lower(tmp_path):
    loads = SWEEP[SWEEP["attainment"] >= 0.9].copy()
    loads.loc[loads["scheduler"] == "pipelines", "load_factor"] *= 0.9
    ax = grouped_bars(loads, value="load_factor", group="dnn", bar="scheduler", y="load factor at 90 %")
    found = drawn(ax, tmp_path / "bars.png")
    assert compare_images(str(BASELINES / "bars.png"), str(found), TOLERANCE) is not None


def test_they_are_small():
    assert sum(path.stat().st_size for path in BASELINES.glob("*.png")) < 200_000
    assert {path.stem for path in BASELINES.glob("*.png")} == set(NAMES)
