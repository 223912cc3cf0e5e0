"""Records of networks as files."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from simulator.dispatch.decisions import OPEN
from simulator.engine.network import CENTRAL, Change, Network, Route, Station, Step, servers
from simulator.engine.networks import simulate_network
from simulator.results import network_tables
from simulator.results.network_tables import Variants, write_network_records


@pytest.fixture
def records():
    """Two classes at one server of 10 µs, one goes on to a second of 20; what is older than 30 µs is dropped."""
    stations = (
        Station(CENTRAL, (0,), np.array([[0, 10]]), drop_age_us=30),
        Station(CENTRAL, (1,), np.array([[0, 20]])),
    )
    routes = (Route("long", (Step(0, (1,)), Step(1))), Route("short", (Step(0),)))
    return simulate_network(Network(servers([0, 0]), stations, routes), [np.array([0, 2]), np.array([1, 3, 4])])


@pytest.mark.parametrize("piece", [2, 100])
def test_two_tables_that_belong_together(records, tmp_path, monkeypatch, piece):
    monkeypatch.setattr(network_tables, "PIECE", piece)
    write_network_records(records, tmp_path, ["long", "short"])
    requests, visits = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("requests", "visits"))
    assert requests["class"].tolist() == ["long", "long", "short", "short", "short"]
    assert requests["outcome"].tolist() == ["finished", "finished", "finished", "late", "late"]
    assert requests["done_us"].tolist() == [30, 50, 20, 40, 50]
    last = requests["step1_visit"].dropna().astype(int)
    assert visits.loc[last, "end_us"].tolist() == requests.loc[last.index, "done_us"].tolist() == [30, 50]
    assert visits["visit"].tolist() == list(range(len(visits)))
    assert visits["size"].sum() == requests[["step0_visit", "step1_visit"]].notna().sum().sum()


def test_requests_that_are_open_have_no_end(records, tmp_path):
    still = replace(records, outcome=np.ones_like(records.outcome), done_us=np.full_like(records.done_us, -1))
    write_network_records(still, tmp_path, ["long", "short"])
    assert pd.read_parquet(tmp_path / "requests.parquet")["done_us"].isna().all()


def test_requests_say_which_variants_served_them(tmp_path):
    """At 15 µs the second server, of the better variant, replaces the first: 80 % of 90 and of 100 are right."""
    stations = (Station(CENTRAL, (0, 1), np.array([[0, 10], [0, 10]])), Station(CENTRAL, (2,), np.array([[0, 5]])))
    network = Network(servers([0, 0, 0], on=[True, False, True]), stations, (Route("r", (Step(0, (1,)), Step(1))),))
    records = simulate_network(network, [np.array([0, 20, 90])], changes=[Change(5, 0, (0, 1), 1, 15)])
    open_one = records.outcome.copy()
    open_one[2] = OPEN
    records = replace(records, outcome=open_one, done_us=np.where(open_one == OPEN, -1, records.done_us))
    write_network_records(records, tmp_path, ["r"], Variants([["small", "large"], ["only"]], [[90.0, 100.0], [80.0]]))
    requests = pd.read_parquet(tmp_path / "requests.parquet")
    assert requests["step0_variant"].tolist() == ["small", "large", "large"]
    assert requests["step1_variant"].tolist() == ["only"] * 3
    assert requests["accuracy"].tolist()[:2] == pytest.approx([72.0, 80.0])
    assert requests["accuracy"].isna().tolist() == [False, False, True]
