import csv
import os
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from planner.files.parvagpu import read_experiments, read_profiles, read_published_gpus
from planner.model import InputError
from planner.model.check import check
from planner.model.packing import geometries, maximal_layouts
from planner.planning import make_plan

REFERENCE = os.environ.get("POOLPIPE_REFERENCE")
DATA = Path(REFERENCE or "") / "parvagpu"

HEADER = "Mig instance,Batch size,Workload Number,Throughput,Latency\n"


def write(folder: Path, **changes: str) -> Path:
    """Two DNNs: "a" serves 100 requests/s on 1g, or 70 in each of two processes; "b" 250 in batches of 2 on 3g."""
    files = {
        "prof_data/a.csv": HEADER + "1,1,1,100,0.010\n1,1,2,70,0.014\n7,1,1,0,0\n",
        "prof_data/b.csv": HEADER + "3,2,1,250,0.008\n",
        "SLO_req_rate.csv": "210,N/A\n280,500\n",
        "SLO_latency.csv": "40,N/A\n40,40\n",
        "deployment/SLO1.csv": "Num instance,Num GPU,Model\n0,0,a\n0,0,a\n",
        "deployment/SLO2.csv": "Num instance,Num GPU,Model\n0,0,a\n0,1,a\n0,1,b\n",
    } | changes
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_experiments_are_problems(tmp_path: Path) -> None:
    first, second = read_experiments(write(tmp_path), most_gpus=8)
    assert [(dnn.name, dnn.rate_rps) for dnn in first.dnns] == [("a", 210.0)]
    assert [table.share for table in second.dnns[0].variants[0].tables] == ["1g.10gb", "1g.10gb/2"]  # 7g did not fit
    # 18 ms of 40 are for a batch. "a" needs two segments of two processes each, 140 requests/s a segment, and "b" both
    # 3g of a GPU; one 1g has room beside neither.
    assert [make_plan(problem).value for problem in (first, second)] == [1.0, 2.0]
    assert [read_published_gpus(tmp_path, number) for number in (1, 2)] == [1, 2]


def test_a_latency_at_the_limit_is_not_served(tmp_path: Path) -> None:
    # 0.45 · 20 ms are 9 ms: 1 / 111.2 = 8.993 ms is served, 10 ms is not, nor exactly 9 ms.
    profile = HEADER + "1,1,1,{},0.009\n"
    for rps, served in (("111.2", True), ("111.111111111", False), ("100", False)):
        files = {"prof_data/a.csv": profile.format(rps), "SLO_req_rate.csv": "10,N/A\n", "SLO_latency.csv": "20,N/A\n"}
        (problem,) = read_experiments(write(tmp_path, **files), most_gpus=8)
        if served:
            assert make_plan(problem).value == 1.0
        else:
            with pytest.raises(InputError, match="a: no pipeline"):
                make_plan(problem)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("prof_data/a.csv", "Mig instance,Batch size\n1,1\n", "a.csv: expected columns"),
        ("prof_data/a.csv", HEADER + "5,1,1,9,1\n", r"a.csv, line 2: expected a size of \[1, 2, 3, 4, 7\]"),
        ("prof_data/a.csv", HEADER + "1,1,6,9,1\n", "a.csv, line 2: .* 1 to 5 processes"),
        ("prof_data/a.csv", HEADER + "1,1,1,fast,1\n", "a.csv, line 2: expected numbers"),
        ("prof_data/a.csv", HEADER + "1,1\n", "a.csv, line 2: expected 5 cells, got 2"),
        ("SLO_req_rate.csv", "1\n2\n", "SLO_req_rate.csv, line 1: expected 2 cells, one per profile, got 1"),
        ("SLO_req_rate.csv", "1,x\n2,3\n", "SLO_req_rate.csv, line 1: expected numbers or N/A"),
        ("SLO_latency.csv", "1,0\n2,3\n", "SLO_latency.csv, line 1: expected numbers above 0"),
        ("SLO_latency.csv", "1,2\n", "expected as many rows of SLOs as of rates, 2, got 1"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_experiments(write(tmp_path, **{name: text}), most_gpus=8)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="prof_data: expected a CSV file per DNN, got none"):
        read_profiles(tmp_path)
    with pytest.raises(InputError, match=r"SLO7.csv: cannot read it"):
        read_published_gpus(tmp_path, 7)


@pytest.mark.skipif(REFERENCE is None, reason="POOLPIPE_REFERENCE is unset")
def test_published_experiments_take_as_few_gpus_and_no_fewer_are_possible() -> None:
    experiments = read_experiments(DATA, most_gpus=32)
    for number, (problem, gpus) in enumerate(zip(experiments, (2, 3, 5, 7), strict=True), start=1):
        plan = make_plan(problem)
        assert plan.value == plan.bound == gpus == read_published_gpus(DATA, number)
        assert check(problem, plan) == ()
        assert plan.neighbours == {"A100-80GB": "isolated"}


@pytest.mark.skipif(REFERENCE is None, reason="POOLPIPE_REFERENCE is unset")
def test_published_deployments_are_layouts() -> None:
    # By their segments: in SLO2.csv GPU 2 has a 2g at slot 0 and a 1g at slot 1, which overlap, where slot 2 is free.
    (gpu,) = read_experiments(DATA, most_gpus=1)[0].cluster.device_types
    names = dict(zip(("1", "2", "3", "4", "7"), gpu.names, strict=False))
    (geometry,) = geometries(gpu, names.values())
    paths = sorted((DATA / "deployment").glob("*.csv"))
    assert len(paths) == 4
    for path in paths:
        gpus: defaultdict[str, Counter[int | str]] = defaultdict(Counter)
        with path.open(newline="") as stream:
            for row in csv.DictReader(stream):
                gpus[row["Num GPU"]][names[row["Instance size"]]] += 1
        for segments in gpus.values():
            wanted = [segments[kind] for kind in geometry.kinds]
            assert any(
                all(n <= most for n, most in zip(wanted, layout, strict=True)) for layout in maximal_layouts(geometry)
            )
