"""The commands `execute` and `pareto`, as a user calls them."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from typer.testing import CliRunner

from planner.cli.app import new_app
from planner.files import save
from planner.model import InputError, Profile
from simulator.cli import executing
from simulator.cli.devices import emulation_of
from simulator.executor import execution, fleet
from simulator.executor.fleet import Equipment
from simulator.executor.local import LocalFleet
from simulator.executor.workers import WorkerTask


@pytest.fixture
def call() -> Callable[..., str]:
    app = new_app("test")
    executing.register(app)

    def invoke(*arguments: str | Path) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return invoke


@pytest.fixture
def files(make_case, tmp_path: Path) -> list[str | Path]:
    """Write a plan, its problem and a trace of 400 requests a second; return the arguments that name them."""
    case = make_case(latency_us=2_000)
    save(case.problem, tmp_path / "problem.json")
    save(case.plan, tmp_path / "plan.json")
    times_us = [i * 2_500 + i % 7 for i in range(1, 1_000)]
    (tmp_path / "trace.csv").write_text("arrival_us\n" + "".join(f"{time_us}\n" for time_us in times_us))
    # The trace is denser than the rates asked for, so that folding could not reach them.
    offered = ["--trace", tmp_path / "trace.csv", "--replay", "scale"]
    # The plan is made by hand for what is executed; its throughputs are not the best that it could state.
    return ["execute", tmp_path / "plan.json", "--unchecked", "--models", case.folder, *offered]


def test_execute_writes_what_a_simulation_writes_and_what_it_measured(call, files, tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = call(
        *files, "--rate", 100, "--duration", 2, "--warm-up", 0.2, "--oversubscribe", "--verify", "--compare",
        "--slowdown", "core=1.5", "--out", out,
    )  # fmt: skip
    assert {path.name for path in out.iterdir()} == {
        "run.json", "plan.json", "problem.json", "summary.csv", "tiny.records.csv", "tiny.slices.csv", "tiny.hops.csv",
        "tiny.incidents.csv", "tiny.execution.json", "tiny.comparison.csv", "tiny.latencies.csv",
        "tiny.comparison.png",
    }  # fmt: skip
    said = json.loads((out / "tiny.execution.json").read_text())
    assert said["emulated"] == "core is this CPU slowed down 1.5 times"
    assert said["verified"]["wrong"] == 0
    assert said["verified"]["compared"] == said["outcomes"]["finished"]
    records = rows_of(out / "tiny.records.csv")
    assert len(records) == said["requests"] == sum(said["outcomes"].values())
    assert "Little's law" in text
    assert "verified" in text


def test_pareto_writes_every_cut_and_measures_the_front(call, make_case, tmp_path: Path) -> None:
    case = make_case()
    profile = tmp_path / "profile.json"
    save(case.problem.dnns[0].variants[0], profile)
    out = tmp_path / "out"
    call(
        "pareto", profile, "--devices", "core,core", "--link", "0,10", "--measure", 1, "--onnx",
        case.folder / "tiny.onnx", "--seconds", 0.05, "--oversubscribe", "--out", out,
    )  # fmt: skip
    rows = rows_of(out / "pareto.csv")
    assert [row["name"] for row in rows] == ["core", "core|1|core", "core|2|core", "core|3|core"]
    assert [bool(row["measured_latency_ms"]) for row in rows].count(True) == 1
    assert (out / "pareto.png").stat().st_size > 10_000
    # A model that was never profiled: every layer is a block, its times are estimated.
    call("pareto", case.folder / "tiny.onnx", "--devices", "RaspberryPi4,T4", "--link", "1,1", "--out", out)
    assert len(rows_of(out / "pareto.csv")) == 2 + 2 * 3


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


BAD = [
    # arguments after the plan, models and trace; what is said
    (["--cores", "core"], "--cores: expected TYPE=NUMBER; got 'core'"),
    (["--cores", "core=1.5"], "--cores: expected an integer"),
    (["--cores", "core=inf"], "--cores: expected an integer"),
    (["--cores", "core=1", "--cores", "core=2"], "--cores: 'core' is given twice"),
    (["--slowdown", "core"], "--slowdown: expected TYPE=NUMBER or TYPE=DEVICE, with DEVICE one of core; got 'core'"),
    (["--slowdown", "core=foo"], "--slowdown: expected TYPE=NUMBER or TYPE=DEVICE, with DEVICE one of core; got"),
    (["--slowdown", "core=2", "--slowdown", "core=3"], "--slowdown: 'core' is given twice"),
    (["--slowdown", "core=inf", "--oversubscribe"], "slowdown of core: expected a finite factor >= 1, got inf"),
    (["--slowdown", "core=nan", "--oversubscribe"], "slowdown of core: expected a finite factor >= 1, got nan"),
    (["--slowdown", "core=0.5", "--oversubscribe"], "slowdown of core: expected a finite factor >= 1, got 0.5"),
    (["--slowdown", "pi4=2"], "unknown device type 'pi4'; the cluster has"),
    (["--slowdown", "pi4=core"], "unknown device type 'pi4'; the cluster has"),
    (["--slowdown", "other=core"], "profile tiny has no latencies for other 1/1"),
    (["--policy", "magic", "--oversubscribe"], "unknown policy 'magic'"),
    (["--warm-up", "2", "--oversubscribe"], "requests of its first 2 s are not counted, got 2 s"),
    (["--cores", "core=64"], "the plan's devices need 128 cores"),
    (["--provider", "None", "--oversubscribe"], "execution provider 'None' is not installed"),
]


def with_pi(case) -> Profile:
    """Return the case's profile with a device on which the four blocks take 1500 µs each, on a core 500 µs."""
    profile = case.problem.dnns[0].variants[0]
    slower = replace(profile.tables[0], device="pi", latency_us=((1_500,) * 4,))
    return replace(profile, tables=(*profile.tables, slower))


def test_a_slowdown_is_a_number_or_what_the_profile_says(make_case) -> None:
    both = with_pi(make_case(latency_us=2_000))
    found = emulation_of(None, ["pi=core", "core=1.5"], False, ["pi", "core"], [both])
    assert found.slowdown == {"pi": 3.0, "core": 1.5}


def test_pareto_slows_a_device_down_as_the_profile_has_it(call, make_case, tmp_path: Path) -> None:
    case = make_case(latency_us=2_000)
    save(with_pi(case), tmp_path / "profile.json")
    call(
        "pareto", tmp_path / "profile.json", "--devices", "pi,core", "--link", "0,10", "--measure", 3, "--onnx",
        case.folder / "tiny.onnx", "--seconds", 0.05, "--oversubscribe", "--slowdown", "pi=core",
        "--out", tmp_path / "out",
    )  # fmt: skip
    measured = {row["name"] for row in rows_of(tmp_path / "out" / "pareto.csv") if row["measured_latency_ms"]}
    assert len(measured) == 3
    assert "core" in measured  # a point without the device that is slowed down


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_a_trial_that_takes_no_time_is_one_line(call, make_case, tmp_path: Path, seconds: str) -> None:
    case = make_case()
    save(case.problem.dnns[0].variants[0], tmp_path / "profile.json")
    with pytest.raises(InputError, match="seconds: expected"):
        call(
            "pareto", tmp_path / "profile.json", "--devices", "core,core", "--link", "0,10", "--measure", 1, "--onnx",
            case.folder / "tiny.onnx", f"--seconds={seconds}", "--oversubscribe", "--out", tmp_path / "out",
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore")  # Ray's own, of every kind
@pytest.mark.parametrize("address", [None, ""])
def test_ray_without_an_address_is_one_line(
    call, files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed (pip install poolpipe[ray])")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match="RAY_ADDRESS is not set; start a cluster with `ray start --head`"):
        call(*files, "--rate", 100, "--duration", 2, "--cluster", "ray", "--out", tmp_path / "out")
    assert not ray.is_initialized()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("arguments", "said"), BAD, ids=[said for _, said in BAD])
def test_bad_options_are_one_line(call, files, tmp_path: Path, arguments: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        call(*files, "--rate", 100, "--duration", 2, *arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_dnns_run_together_by_any_policy(call, files, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--rate", 100, "--duration", 1, "--warm-up", 0, "--oversubscribe", "--verify", "--out", out]
    said = call(*files, *arguments, "--together", "--policy", "reactive")
    assert "verified: 100 answers" in said
    (row,) = csv.DictReader((out / "summary.csv").read_text().splitlines())
    assert (row["dnn"], row["policy"], row["requests"]) == ("tiny", "reactive", "100")
    assert (out / "tiny.records.csv").exists()
    with pytest.raises(InputError, match="unknown policy 'reactive'"):
        call(*files, *arguments, "--policy", "reactive", "--overwrite")
    with pytest.raises(InputError, match="--together: runs on this machine"):
        call(*files, *arguments, "--together", "--emulate-network", "--overwrite")


def test_plans_with_common_pools_run_together_only(call, files, tmp_path: Path) -> None:
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["pipelines"][0]["stages"][0]["pool"] = "trunk"
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    arguments = [*files, "--rate", 50, "--duration", 1, "--warm-up", 0, "--oversubscribe", "--out", tmp_path / "out"]
    with pytest.raises(InputError, match=r"plan\.json: its DNNs share pools; run them --together, without"):
        call(*arguments)
    assert "attainment" in call(*arguments, "--together", "--policy", "latest-start")


def spoilt(spoil: Callable[[WorkerTask], WorkerTask]) -> Callable[[Equipment], LocalFleet]:
    """Return what makes local fleets whose last stages are not what the frontend believes."""

    def make(equipment: Equipment) -> LocalFleet:
        tasks = {slice_id: spoil(task) if slice_id.stage else task for slice_id, task in equipment.tasks.items()}
        return LocalFleet(replace(equipment, tasks=tasks))

    return make


def test_a_run_that_answers_nothing_is_a_failure(call, files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def promise_too_much(task: WorkerTask) -> WorkerTask:
        (part,) = task.parts
        (output,) = part.outputs
        return replace(task, parts=(replace(part, outputs=(replace(output, shape=(1, 17)),)),))

    monkeypatch.setitem(execution.FLEETS, "local", spoilt(promise_too_much))
    with pytest.raises(InputError, match=r"tiny: none of \d+ requests was answered; first of .*its model promised"):
        call(*files, "--rate", 50, "--duration", 1, "--warm-up", 0, "--oversubscribe", "--out", tmp_path / "out")
    assert (tmp_path / "out" / "tiny.incidents.csv").exists()


def test_a_stage_with_other_weights_is_found_out(call, files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def move_weights(task: WorkerTask) -> WorkerTask:
        model = ir.load(task.parts[0].path)
        value = model.graph.initializers["w"]
        assert value.const_value is not None
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.001), name="w")
        ir.save(model, task.parts[0].path)
        return task

    monkeypatch.setitem(execution.FLEETS, "local", spoilt(move_weights))
    arguments = ["--rate", 50, "--duration", 1, "--warm-up", 0, "--oversubscribe", "--out", tmp_path / "out"]
    with pytest.raises(InputError, match=r"(\d+) answers to random inputs of seed 0 .* 0 equal to the bit, \1 wrong"):
        call(*files, *arguments, "--verify")
    said = json.loads((tmp_path / "out" / "tiny.execution.json").read_text())["verified"]
    assert said["wrong"] == said["compared"] > 0
    assert "output 'y' is" in said["reason"]
    assert 1e-4 < said["worst"] < 1e-2
    assert "verified" in call(*files, *arguments, "--verify", "--tolerance", 0.1, "--overwrite")


def test_requests_bring_the_users_own_inputs(call, files, tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    np.savez(inputs / "tiny.npz", x=np.random.default_rng(5).standard_normal((3, 16), np.float32))
    out = tmp_path / "out"
    arguments = ["--rate", 50, "--duration", 1, "--warm-up", 0, "--oversubscribe", "--verify", "--out", out]
    call(*files, *arguments, "--inputs", inputs)
    said = json.loads((out / "tiny.execution.json").read_text())["verified"]
    assert (said["inputs"], said["wrong"]) == (str(inputs), 0)
    assert json.loads((out / "run.json").read_text())["inputs"] == str(inputs)
    np.savez(inputs / "tiny.npz", x=np.zeros((3, 15), np.float32))
    with pytest.raises(InputError, match=r"inputs: 'x' has shape \[3, 15\], expected \[1 · requests, 16\]"):
        call(*files, *arguments, "--inputs", inputs / "tiny.npz", "--overwrite")


def test_models_that_are_missing_changed_or_none_are_one_line(call, files, tmp_path: Path) -> None:
    model = tmp_path / "tiny.onnx"
    content = model.read_bytes()
    graph = ir.load(model)
    graph.producer_name = "another"
    ir.save(graph, model)
    with pytest.raises(InputError, match="is not the model that was profiled"):
        call(*files, "--rate", 100, "--out", tmp_path / "out")
    model.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="tiny.onnx: not an ONNX model"):
        call(*files, "--rate", 100, "--out", tmp_path / "out")
    model.unlink()
    with pytest.raises(InputError, match="tiny.onnx: no such file"):
        call(*files, "--rate", 100, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "link", ["1", "a,b", "-1,1", "0,0", "inf,1", "0,inf", "nan,1", "1e300,1e-300", "3600001,1", "0,1e-7"]
)
def test_a_link_that_is_none_is_one_line(call, make_case, tmp_path: Path, link: str) -> None:
    save(make_case().problem.dnns[0].variants[0], tmp_path / "profile.json")
    with pytest.raises(InputError, match="link: expected"):
        call("pareto", tmp_path / "profile.json", "--devices", "core,core", f"--link={link}", "--out", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=lambda one: str(one))
def test_a_run_that_is_ended_leaves_the_records(files, tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C, as a terminal sends it to the workers too; and the loss of the terminal, as being told to end."""
    out, temporary = tmp_path / "out", tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-m", "simulator", *map(str, files), "--rate", "100", "--duration", "300"]
    process = subprocess.Popen(
        [*command, "--oversubscribe", "--out", str(out)],
        stderr=subprocess.PIPE, text=True, start_new_session=True, env=os.environ | {"TMPDIR": str(temporary)},
    )  # fmt: skip
    try:
        _wait_until_it_serves(process)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid, number)
        _, said = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "what was finished is in" in said or number != signal.SIGINT
    records = rows_of(out / "tiny.records.csv")
    assert 0 < len(records) < 30_000
    assert {row["outcome"] for row in records} <= {"finished", "open", "late", "hopeless"}
    assert not [path for path in temporary.iterdir() if path.is_dir()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGKILL, "did not start: its process ended"), (signal.SIGSTOP, "was not ready after")]
)
def test_a_worker_that_is_stopped_while_it_starts(
    call, files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, said: str
) -> None:
    """It is one line, and nothing is left, neither workers nor results."""
    import psutil

    monkeypatch.setattr(fleet, "READY_WITHIN_S", 3.0 if number == signal.SIGSTOP else 300.0)

    def stop_one() -> None:
        for _ in range(3_000):
            for child in psutil.Process().children():
                if "spawn_main" in " ".join(child.cmdline()):
                    child.send_signal(number)
                    return
            time.sleep(0.01)

    meddler = threading.Thread(target=stop_one)
    meddler.start()
    with pytest.raises(InputError, match=said):
        call(*files, "--rate", 50, "--duration", 3, "--oversubscribe", "--out", tmp_path / "out")
    meddler.join()
    assert not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
    assert not (tmp_path / "out").exists()


def _wait_until_it_serves(process: subprocess.Popen[str]) -> None:
    """Wait for two workers that have opened their stages, and a little longer."""
    import psutil

    for _ in range(3_000):
        workers = [p for p in psutil.Process(process.pid).children() if "spawn_main" in " ".join(p.cmdline())]
        if len(workers) == 2 and all(any("onnxruntime" in m.path for m in p.memory_maps()) for p in workers):
            time.sleep(3.0)
            return
        assert process.poll() is None
        time.sleep(0.1)
    raise AssertionError("the workers did not start within five minutes")
