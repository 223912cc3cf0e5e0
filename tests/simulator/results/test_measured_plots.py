"""Plots of what devices did: that every row is drawn, and where."""

import numpy as np
import pandas as pd
import pytest

from simulator.results.measured_plots import latency_comparison, split_tradeoff


def test_latencies_are_drawn_over_shares_with_the_slo():
    share = np.arange(1, 101) / 100
    rows = pd.DataFrame({"share": share, "predicted_ms": share * 10, "measured_ms": share * 12, "slo_ms": 15.0})
    ax = latency_comparison(rows, title="a run")
    foretold, measured, slo = ax.lines
    assert (foretold.get_label(), measured.get_label()) == ("simulated from the profile", "measured")
    assert np.median(foretold.get_xdata()) == pytest.approx(5.05)
    assert np.median(measured.get_xdata()) == pytest.approx(6.06)
    assert set(slo.get_xdata()) == {15.0}
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("latency (ms)", "share of all requests")


def test_every_way_to_cut_is_drawn_the_front_ringed_and_what_was_measured_crossed():
    points = pd.DataFrame(
        {
            "name": ["A", "B", "A|1|B"],
            "devices": ["A", "B", "A+B"],
            "on_front": [False, True, True],
            "predicted_latency_ms": [10.0, 5.0, 200.0],
            "predicted_throughput_rps": [100.0, 200.0, 250.0],
            "measured_latency_ms": [np.nan, 6.0, np.nan],
            "measured_throughput_rps": [np.nan, 180.0, np.nan],
        }
    )
    ax = split_tradeoff(points)
    drawn = {one.get_label(): np.asarray(one.get_offsets()).tolist() for one in ax.collections}
    assert drawn == {
        "A": [[10.0, 100.0]],
        "B": [[5.0, 200.0]],
        "A then B": [[200.0, 250.0]],
        "front": [[5.0, 200.0], [200.0, 250.0]],
        "measured": [[6.0, 180.0]],
    }
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "linear")
