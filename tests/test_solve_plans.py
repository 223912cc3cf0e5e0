"""The batch driver: plans and a summary, resumed by hash, failures reported, what is finished kept on Ctrl-C."""

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from planner.files import load_plan, save
from planner.model import Block, Cluster, DeviceType, Dnn, LatencyTable, Network, Problem, Profile, Provenance

SCRIPT = Path(__file__).parent.parent / "scripts" / "solve_plans.py"


def toy(latency_us: int, shares: tuple[int, ...] = (1,), count: int = 4, dnns: int = 1) -> Problem:
    """DNNs of eight blocks on two device types; slow to prove where shares, devices and DNNs are many."""
    devices = tuple(DeviceType(name, count, shares=shares) for name in ("L4", "T4", "P4"))
    tables = tuple(
        LatencyTable(
            device.name,
            share,
            (1, 2),
            tuple(
                tuple(latency_us * batch * share * (3 + (7 * b * (n + 1)) % 5) for b in range(8)) for batch in (1, 2)
            ),
            Provenance("estimated", "by hand"),
        )
        for n, device in enumerate(devices)
        for share in shares
    )
    profile = Profile("toy", tuple(Block((f"b{number}",)) for number in range(8)), (1000,) * 7, tables)
    names = tuple(f"dnn{number}" for number in range(dnns))
    return Problem(
        Cluster(devices, Network(10)), tuple(Dnn(name, 200_000, (profile,), 1 + 0.1 * len(name)) for name in names)
    )


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def summary(out: Path) -> list[dict[str, str]]:
    with (out / "summary.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_batch_is_planned_once(tmp_path: Path) -> None:
    out, problems = tmp_path / "out", [tmp_path / f"{name}.json" for name in ("one", "two", "hopeless")]
    for path, latency_us in zip(problems, (300, 400, 300_000), strict=True):
        save(toy(latency_us), path)
    first = run(*problems, "--out", out, "--jobs", 2)
    assert first.returncode == 1
    assert "hopeless.json: dnn0: no pipeline of at most 2 stages meets its SLO" in first.stderr
    assert "1 failed, 2 optimal" in first.stdout
    rows = {Path(row["problem"]).stem: row for row in summary(out)}
    assert [rows[name]["status"] for name in ("one", "two", "hopeless")] == ["optimal", "optimal", "failed"]
    assert float(rows["one"]["value"]) == pytest.approx(load_plan(out / "one.json").value)
    assert sorted(path.name for path in out.iterdir()) == ["one.json", "summary.csv", "two.json"]

    before = {name: (out / f"{name}.json").read_bytes() for name in ("one", "two")}
    save(replace(toy(400), dnns=(replace(toy(400).dnns[0], slo_us=150_000.0),)), problems[1])
    second = run(*problems[:2], "--out", out)
    assert second.returncode == 0
    assert (out / "one.json").read_bytes() == before["one"]  # seconds and all: not solved again
    assert (out / "two.json").read_bytes() != before["two"]
    assert len(summary(out)) == 2

    assert run(problems[0], "--out", out, "--scheduler", "np").returncode == 0
    assert load_plan(out / "one.json").scheduler == "np"


def test_two_plans_never_share_a_file(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        save(toy(300), tmp_path / folder / "same.json")
    found = run(tmp_path / "a" / "same.json", tmp_path / "b" / "same.json", "--out", tmp_path / "out")
    assert found.returncode == 2
    assert "2 problem files would share it" in found.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals are sent")
def test_ctrl_c_keeps_what_is_finished(tmp_path: Path) -> None:
    save(toy(300), tmp_path / "quick.json")
    save(toy(300, shares=(1, 2, 3, 4), count=40, dnns=6), tmp_path / "long.json")
    out = tmp_path / "out"
    command = [sys.executable, str(SCRIPT), *map(str, (tmp_path / "quick.json", tmp_path / "long.json"))]
    process = subprocess.Popen(
        [*command, "--out", str(out), "--method", "milp", "--gap", "0"],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    deadline = time.monotonic() + 30
    while not (out / "quick.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert [row["status"] for row in summary(out)] == ["optimal"]
    assert sorted(path.name for path in out.iterdir()) == ["quick.json", "summary.csv"]


@pytest.mark.slow
def test_a_ray_cluster_makes_the_same_plans(tmp_path: Path) -> None:
    """On a cluster of this machine's; what is finished is not solved again."""
    pytest.importorskip("ray", reason="ray is not installed: pip install poolpipe[ray]")
    problems = [tmp_path / f"{name}.json" for name in ("one", "two", "hopeless")]
    for path, latency_us in zip(problems, (300, 400, 300_000), strict=True):
        save(toy(latency_us), path)
    here, there = tmp_path / "here", tmp_path / "there"
    assert run(*problems, "--out", here).returncode == 1
    found = run(*problems, "--out", there, "--engine-hosts", "ray")
    assert found.returncode == 1
    assert "hopeless.json: dnn0: no pipeline of at most 2 stages meets its SLO" in found.stderr
    for name in ("one", "two"):
        mine, theirs = (replace(load_plan(out / f"{name}.json"), seconds=0.0) for out in (here, there))
        assert mine == theirs
    before = (there / "one.json").read_bytes()
    assert run(problems[0], "--out", there, "--engine-hosts", "ray").returncode == 0
    assert (there / "one.json").read_bytes() == before
