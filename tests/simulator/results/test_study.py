"""The published study's figures from a small table with answers worked out by hand."""

import re

import numpy as np
import pandas as pd
import pytest

from simulator.engine import build_system
from simulator.results.study import FIGURES, at_largest_load, brief_names, card_use, class_utilisation, comparison
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
                        | {"planned_rps": 100.0 * (1.25 if dnn == "a" else largest), "card_use": 0.0}
                        | {"devices_H": 5.0, "devices_L": 0.0 if scheduler == "np" else 8.0}
                        | {"utilisation_H": load, "utilisation_L": np.nan if scheduler == "np" else load / 2}
                    )
    for dnn, reactive in (("a", 0.5), ("b", 0.75)):
        for policy, largest in (("reservation", 1.0), ("reactive", reactive)):
            for load in (0.5, 0.75, 1.0):
                lost = 18 if load > largest else 0
                table.append(
                    table[0]
                    | {"study": "ablation", "group": dnn, "dnn": dnn, "policy": policy, "load_factor": load}
                    | {"dropped": lost, "attainment": 1 - lost / 1000}
                )
    return pd.DataFrame(table)


def test_the_largest_load_of_a_group_is_that_of_all_its_requests(rows):
    # At load 1 NP loses 18 of 1000 requests to a and to b; with 2 of b's lost it loses 20 of 2000, 1 %.
    few = rows["scheduler"].eq("np") & rows["dnn"].eq("b") & rows["load_factor"].eq(1.0)
    found = at_largest_load(rows.assign(dropped=rows["dropped"].mask(few, 2)))
    assert found[(found["study"] == "maf19") & (found["scheduler"] == "np")]["load_factor"].tolist() == [1.0] * 4


def test_the_largest_load_per_group(rows):
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
    assert [ax.get_title(loc="right") for ax in figure.axes] == ["HC1: 10 H + 20 L", "HC2: 10 H + 20 L"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["pipelines", "DART-r", "NP"]
    assert figure.get_supxlabel() == "G1: a, b      arrivals: t"
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


def test_names_are_cut_where_they_still_differ():
    assert list(brief_names(["gfl_x101_fpn", "gfl_x50_fpn"]).values()) == ["gfl_x101", "gfl_x50"]
    assert list(brief_names(["fcn-d6_r101_a", "fcn-d6_r101_b"]).values()) == ["fcn-d6_r101_a", "fcn-d6_r101_b"]


def test_cards_are_as_busy_as_the_planned_batches_keep_them(two_stages):
    # Four halves, of which two share a card: two cards. A request takes 100 µs of one; the last stage sends nothing.
    assert card_use(build_system(*two_stages, "first"), [10_000.0]) == pytest.approx(0.5)
    assert card_use(build_system(*two_stages, "second"), [10_000.0]) == 0.0


def test_the_comparison_says_ours_and_theirs_and_that_arrivals_differ(rows):
    text = comparison(rows)
    assert "Ours: synthetic arrivals, simulated" in text
    assert "t (synthetic arrivals)" in text
    assert "measured arrivals" in comparison(rows, "measured")
    # pipelines against DART-r: 1/0.75 and 0.75/0.5; against NP: 1/0.5, and no gain over nothing
    assert "serve more than a baseline by 33.3 % (DART-r, HC1) to 100.0 % (NP, HC1).\n" in text
    # planned for the worse served DNN, b: 1/0.75, 0.75/0.5, 1/0.5
    assert "The plans promise 33.3 % (DART-r, HC1) to 100.0 % (NP, HC1);" in text
    assert "Published: 32.2% to 75.1%" in text
    assert re.search(r"busier than under a baseline by 10.0 points \(DART-r, HC.\) to 40.0 points \(NP, HC1\)", text)
    assert "over 2 DNNs: reservation 1.000, reactive 0.625.\n    Published: reservation 0.91, reactive 0.71." in text
    assert "late at load" not in text


def test_the_comparison_says_why_requests_are_late(rows):
    late = rows.assign(late=np.where(rows["load_factor"] == 1.0, 60, 0))
    late["card_use"] = np.where(late["cluster"] == "HC1", 1.17, 0.9)
    orderly = late[(late["study"] == "maf19") & (late["scheduler"] == "pipelines")].assign(policy="orderly", late=0)
    text = comparison(pd.concat([late, orderly]))
    assert "Of 4 DNNs planned with pipelines, 4 finish more than 5% late at load 1.00:" in text
    assert (
        '(plans with card_sharing = "larger" do not): a on HC1 (cards 117% busy), b on HC1 (cards 117% busy).' in text
    )
    assert "behind busy cards:\n      a on HC2 (cards 90% busy), b on HC2 (cards 90% busy).\n" in text
    # HC1 holds 1.0 without late requests and 0.75 with them, HC2 0.75 either way
    assert "overtake, 0 do, and the mean load factor at 99 % is 0.875 instead of 0.750." in text
