"""Mutated copies of every kind of input: a result or one line, never a traceback, soon and in little memory.

``POOLPIPE_FUZZ`` is how many copies of each kind are tried (default: 20), from number ``POOLPIPE_FUZZ_FROM`` on.
"""

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from mutation import TEXTS, as_toml, broken, mutated

from planner.cli.app import run
from planner.cli.main import app as planner
from planner.files import load_problem, save
from planner.planning import plan_per_task
from simulator.cli.main import app as simulator
from simulator.workload import Trace, maf19_text, maf21_text

ROOT = Path(__file__).parents[1]
COPIES, FIRST = int(os.environ.get("POOLPIPE_FUZZ", "20")), int(os.environ.get("POOLPIPE_FUZZ_FROM", "0"))
MOST_S = 10
MOST_BYTES = 1 << 30

FEW = ["--trace", "trace.csv", "--duration", "2", "--replay", "scale", "--out", "out", "--overwrite"]
RUN = ["run", *FEW, "--load", "0.5"]
LISTS = {
    "arrival-us.csv": "arrival_us\n" + "".join(f"{10_000 * i}\n" for i in range(100)),
    "mooncake.jsonl": "".join(json.dumps({"timestamp": 10 * i, "hash_ids": [i]}) + "\n" for i in range(50)),
    "burstgpt.csv": "Timestamp,Model,Request tokens\n" + "".join(f"{i},ChatGPT,1\n" for i in range(50)),
    "azure.csv": "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    + "".join(f"2023-11-16 18:15:{i:02d}.{i}68,1,2\n" for i in range(50)),
}
# Commands whose options get any text, and which of them.
OPTIONS = [
    ([*RUN, "np.json", "--problem", "problem.toml"], "duration load seed policy engine schema unit dnn world"),
    (["sweep", *FEW, "--loads", "50", "--jobs", "1", "np.json", "--problem", "problem.toml"],
     "duration loads seed target jobs reference"),
    (["generate", "gamma", "--out", "out.csv"], "rate duration seed cv"),
    (["generate", "markov-modulated", "--out", "out.csv"], "rates dwell duration"),
    (["generate", "clustered", "--out", "out.csv"], "rate duration size spread"),
    (["generate", "bursts", "--out", "out.csv"], "rate duration size gap"),
    (["generate", "diurnal", "--out", "out.csv"], "rate duration amplitude period"),
    (["generate", "closed-loop", "--out", "out.csv"], "clients response think duration"),
    (["generate", "maf-like", "--out", "out.csv"], "requests applications duration schema"),
    (["trace", "convert", "trace.csv", "--out", "out.csv"], "rate duration window keep busiest app to replay"),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with an input of every kind, which is also where commands run."""
    made, here = tmp_path_factory.mktemp("hostile"), Path.cwd()
    for name in ("np.json", "pipelines.json", "world.toml"):
        shutil.copy(ROOT / "plans" / "edge" / name, made)
    for of in ("edge", "photos"):
        text = (ROOT / "plans" / of / "problem.toml").read_text(encoding="utf-8").replace("../../", f"{ROOT}/")
        (made / f"{of}.toml").write_text(text, encoding="utf-8")
    shutil.copy(made / "edge.toml", made / "problem.toml")
    save(plan_per_task(load_problem(made / "photos.toml")), made / "task.json")
    names = tuple((f"app{i % 3}", f"f{i}") for i in range(5))
    trace = Trace(np.arange(600) * 0.01, (np.arange(600) % 5).astype(np.int32), names, "by hand")
    (made / "trace.csv").write_text(maf21_text(trace), encoding="utf-8")
    for name, text in ({"maf19.csv": maf19_text(trace), "maf21.csv": maf21_text(trace)} | LISTS).items():
        (made / name).write_text(text, encoding="utf-8")
    rows = [f"A,{share},{batch},{block},{batch * share}000" for share in (1, 2) for batch in (1, 2) for block in (0, 1)]
    (made / "times.csv").write_text("\n".join(["device,share,batch,block,latency_us", *rows, ""]))
    (made / "cuts.csv").write_text("block,cut_bytes\n0,1000\n")
    os.chdir(made)
    run_first = [sys.executable, "-m", "simulator", *RUN, "pipelines.json", "--problem", "problem.toml"]
    world = ["--world", "world.toml"]
    for choice in (
        [],
        world,
        [*world, "--policy", "reactive"],
    ):  # compiling takes longer than hostile inputs may
        subprocess.run([*run_first, *choice], check=True, capture_output=True)
    yield made
    os.chdir(here)


def document(path: Path) -> dict:
    text = path.read_text(encoding="utf-8")
    found: dict = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    return found


def copied(source: Path, draw: random.Random) -> str:
    """Write a mutated copy of a document, some with broken bytes on top, and return its name."""
    changed = mutated(document(source), draw)
    text = as_toml(changed) if source.suffix == ".toml" else json.dumps(changed)
    content = text.encode("utf-8", "surrogatepass")
    path = Path(f"copy{source.suffix}")
    path.write_bytes(broken(content, draw) if draw.random() < 0.1 else content)
    return path.name


def a_cluster(draw: random.Random) -> list[list[str]]:
    name = copied(ROOT / "profiles" / "clusters" / "gpu-and-pis.toml", draw)
    problem = document(Path("edge.toml")) | {"cluster": name}
    Path("of.toml").write_text(as_toml(problem), encoding="utf-8")
    return [["planner", "validate", name], ["planner", "validate", "np.json", "--problem", "of.toml"]]


def a_problem(draw: random.Random) -> list[list[str]]:
    name = copied(Path(draw.choice(["edge.toml", "photos.toml"])), draw)
    return [["planner", "validate", name], ["planner", "validate", "np.json", "--problem", name]]


def a_profile(draw: random.Random) -> list[list[str]]:
    name = copied(ROOT / "profiles" / "zoo" / "mobilenet_v2.json", draw)
    problem = document(Path("edge.toml"))
    problem["dnns"][0]["variants"] = [name]
    Path("of.toml").write_text(as_toml(problem), encoding="utf-8")
    return [["planner", "validate", name], ["planner", "validate", "np.json", "--problem", "of.toml"]]


def a_plan(draw: random.Random) -> list[list[str]]:
    name = copied(Path("pipelines.json"), draw)
    simulated = ["simulator", *RUN, name, "--problem", "problem.toml", *draw.choice([[], ["--unchecked"]])]
    return [["planner", "validate", name, "--problem", "problem.toml"], simulated]


def a_task_plan(draw: random.Random) -> list[list[str]]:
    name = copied(Path("task.json"), draw)
    simulated = ["simulator", *RUN, name, "--problem", "photos.toml", *draw.choice([[], ["--unchecked"]])]
    return [["planner", "validate", name, "--problem", "photos.toml"], simulated]


def a_world(draw: random.Random) -> list[list[str]]:
    name = copied(Path("world.toml"), draw)
    policy = draw.choice(["reservation", "reactive"])
    return [["simulator", *RUN, "pipelines.json", "--problem", "problem.toml", "--world", name, "--policy", policy]]


def a_trace(draw: random.Random) -> list[list[str]]:
    source = Path(draw.choice(["maf19.csv", "maf21.csv", *LISTS]))
    content = broken(source.read_bytes(), draw)
    if draw.random() < 0.15:
        content = gzip.compress(content, mtime=0)
        content = broken(content, draw) if draw.random() < 0.7 else content
    path = Path(f"copy{source.suffix}")
    path.write_bytes(content)
    to = draw.choice(["maf21", "maf19", "arrival-us"])
    convert = ["simulator", "trace", "convert", path.name, "--to", to, "--out", "out.csv"]
    return [["simulator", "trace", "info", path.name], convert]


def measurements(draw: random.Random) -> list[list[str]]:
    names = ["times.csv", "cuts.csv"]
    chosen = draw.randrange(2)
    Path("copy.csv").write_bytes(broken(Path(names[chosen]).read_bytes(), draw))
    names[chosen] = "copy.csv"
    return [["planner", "import-profile", names[0], "--cuts", names[1], "--out", "profile.json"]]


def options(draw: random.Random) -> list[list[str]]:
    command, names = draw.choice(OPTIONS)
    chosen = draw.sample(names.split(), draw.choice([1, 2]))
    given = [part for name in chosen for part in (f"--{name}", draw.choice([*TEXTS, "1,2", "5:100:0.0001", "1:2"]))]
    return [["simulator", *command, *given]]


KINDS = [a_cluster, a_problem, a_profile, a_plan, a_task_plan, a_world, a_trace, measurements, options]


@contextmanager
def in_time() -> Iterator[None]:
    """Raise TimeoutError in what takes long."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(MOST_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("number", range(FIRST, FIRST + COPIES))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_hostile_inputs_are_a_result_or_one_line(
    folder: Path,
    kind: Callable[[random.Random], list[list[str]]],
    number: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for package, *arguments in kind(random.Random(f"{kind.__name__} {number}")):
        monkeypatch.setattr(sys, "argv", [package, *arguments])
        before = psutil.Process().memory_info().rss
        with in_time(), pytest.raises(SystemExit) as ended:
            run(planner if package == "planner" else simulator)
        said = capsys.readouterr().err.splitlines()
        if ended.value.code == 0:
            continue
        failed = len(said) == 1 and said[0].startswith(("error: ", "failed: "))
        assert failed, (arguments, ended.value.code, said)
        assert ended.value.code == (2 if said[0].startswith("error: ") else 1), arguments
        assert said[0].isprintable()
        assert len(said[0]) < 1000
        assert "memory of this machine" not in said[0]  # what is asked for is estimated before it is taken
        assert psutil.Process().memory_info().rss - before < MOST_BYTES
