"""The published study's figures from a small table with answers worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from simulator.results.study import FIGURES, at_largest_load, class_utilisation, comparison
from simulator.results.style import save_with_numbers

# Largest load that holds, per scheduler: (cluster HC1, HC2)
HOLDS = {"pipelines": (1.0, 0.75), "dart-r": (0.75, 0.5), "np": (0.5, 0.0)}


@pytest.fixture(scope="module")
def rows():
    """Two DNNs on two clusters of 10 high and 20 low devices; 18 of 1000 requests are lost beyond HOLDS."""
    table = []
    for scheduler, holds in HOLDS.items():
        for cluster, largest in zip(("HC1", "HC2"), holds, strict=True):
            for dnn in ("a", "b"):
                for load in (0.5, 0.75, 1.0):
                    lost = 18 if load > largest else 10
                    table.append(
                        {"study": "maf19", "cluster": cluster, "group": "a, b", "dnn": dnn, "scheduler": scheduler}
                        | {"policy": "reservation", "trace": "t", "load_factor": load, "stopped": False}
                        | {"requests": 1000, "dropped": lost, "late": 0, "attainment": 1 - lost / 1000}
                        | {"high": "H", "low": "L", "high_count": 10, "low_count": 20}
                        | {"devices_H": 5.0, "devices_L": 0.0 if scheduler == "np" else 8.0}
                        | {"utilisation_H": load, "utilisation_L": np.nan if scheduler == "np" else load / 2}
                    )
    for dnn, reactive in (("a", 0.5), ("b", 0.75)):
        for policy, largest in (("reservation", 1.0), ("reactive", reactive)):
            for load in (0.5, 0.75, 1.0):
                lost = 18 if load > largest else 0
                table.append(
                    table[0]
                    | {"study": "ablation", "dnn": dnn, "policy": policy, "load_factor": load}
                    | {"dropped": lost, "attainment": 1 - lost / 1000}
                )
    return pd.DataFrame(table)


def test_the_largest_load_per_series(rows):
    found = at_largest_load(rows[rows["study"] == "maf19"]).groupby(["scheduler", "cluster"])["load_factor"].max()
    assert found.to_dict() == {
        (scheduler, cluster): load
        for scheduler, loads in HOLDS.items()
        for cluster, load in zip(("HC1", "HC2"), loads, strict=True)
    }


def test_utilisation_counts_all_devices_of_the_cluster(rows):
    found = class_utilisation(at_largest_load(rows[rows["study"] == "maf19"])).set_index(["scheduler", "cluster"])
    # two DNNs, each 5 of the 10 high devices busy for the load, 8 of the 20 low ones for half of it
    assert found.loc[("pipelines", "HC1"), ["high", "low"]].tolist() == pytest.approx([1.0, 0.4])
    assert found.loc[("dart-r", "HC1"), ["high", "low"]].tolist() == pytest.approx([0.75, 0.3])
    assert found.loc[("np", "HC1"), ["high", "low"]].tolist() == pytest.approx([0.5, 0.0])
    assert found.loc[("np", "HC2"), ["high", "low"]].tolist() == [0.0, 0.0]


def test_figures_have_a_panel_per_cluster_and_a_bar_per_scheduler(rows, tmp_path):
    figure, numbers = FIGURES["fig6"](rows)
    assert [ax.get_title(loc="right") for ax in figure.axes] == ["HC1", "HC2"]
    heights = [[bar.get_height() for bar in container] for container in figure.axes[0].containers]
    assert heights == [[1.0, 1.0], [0.75, 0.75], [0.5, 0.5]]  # the group and the mean, per scheduler
    assert len(numbers) == 6
    figure, numbers = FIGURES["fig7"](rows)
    assert {ax.get_ylim()[0] for ax in figure.axes} == {0.9}
    assert len(numbers) == 2 * 3 * 3
    figure, numbers = FIGURES["fig8"](rows)
    assert [bar.get_height() for bar in figure.axes[1].containers[0]] == pytest.approx([0.4, 0.3])
    figure, numbers = FIGURES["fig10"](rows)
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["reservation", "reactive"]
    assert [bar.get_height() for bar in ax.containers[1]] == pytest.approx([0.5, 0.75, 0.625])
    save_with_numbers(figure, numbers, tmp_path / "fig10-t")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fig10-t.csv", "fig10-t.pdf", "fig10-t.png"]


def test_the_comparison_says_ours_and_theirs_and_that_arrivals_differ(rows):
    text = comparison(rows)
    assert "synthetic arrivals" in text
    # pipelines against DART-r: 1/0.75 and 0.75/0.5; against NP: 1/0.5, and no gain over nothing
    assert "serving throughput gain of pipelines: 33.3% to 100.0% (published: 32.2% to 75.1%)" in text
    assert "low-class utilisation higher by (points): 10.0% to 40.0% (published: 41.1% to 65.5%)" in text
    assert "over 2 DNNs: reservation 1.000, reactive 0.625 (published: reservation 0.91, reactive 0.71)" in text
    assert "finish more than 5 % late" not in text
    late = rows.assign(late=np.where(rows["load_factor"] == 1.0, 60, 0))
    assert "finish more than 5 % late at load 1.00" in comparison(late)
