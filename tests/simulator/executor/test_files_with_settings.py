"""Files that leave something open, from the profile to answers on real devices that are the file's own."""

import json

import numpy as np
import onnx_ir as ir
import pytest

pytestmark = pytest.mark.slow

HEADER = '<ir_version: 8, opset_import: ["" : 17]> g'

# name -> (text, options): sizes, a constant and a state; a batch that is pinned; requests that mix; a size of the data
FILES = {
    "settings": (
        "(float[n, 3, s] x, float gain, float[2, n, 3] state) => (float[n, 3, s] y, float[2, n, 3] next)"
        " <int64[1] ax={2}> { a = Relu(x) b = Mul(a, gain) m = ReduceMean<axes=[2], keepdims=0>(b)"
        " t = Add(state, m) next = Tanh(t) y = Sin(b) }",
        ("--fix", "s=5", "--constant", "gain=2", "--state", "next:state"),
    ),
    "pinned": (
        "(float[1,4,3] x) => (float[1,4,3] y) <int64[2] t={2,-1}, int64[3] back={1,4,3}>"
        " { h = Relu(x) r = Reshape(h, t) m = ReduceMean<axes=[1],keepdims=1>(r) d = Sub(r, m) y = Reshape(d, back) }",
        (),
    ),
    "mixing": ("(float[n, 4] x) => (float[n, 4] y) { a = Relu(x) s = Softmax<axis=0>(a) y = Mul(s, a) }", ()),
    "found": ("(float[n, 4] x) => (float[n, 4] y, int64[2, k] i) { a = Relu(x) y = Tanh(a) i = NonZero(a) }", ()),
}

PROBLEM = """schema = "problem/1"
[cluster]
network = {bandwidth_gbps = 10.0}
[[cluster.device_types]]
name = "here"
count = 2
kind = "cpu"
[[dnns]]
name = "dnn"
slo_us = 200000.0
variants = ["profile.json"]
"""


@pytest.mark.parametrize("case", FILES)
def test_answers_are_those_of_the_file(command, tmp_path, case):
    text, options = FILES[case]
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "model.onnx"
    ir.save(ir.from_onnx_text(f"{HEADER} {text}"), path)
    (tmp_path / "problem.toml").write_text(PROBLEM)
    times_s = np.random.default_rng(0).uniform(0, 2, 60)
    (tmp_path / "trace.csv").write_text("".join(["arrival_s\n", *(f"{time:.6f}\n" for time in sorted(times_s))]))
    briefly = ("--device", "here", "--cap-s", "0.01", "--rounds", "1", "--clock", "cpu")
    steps = [
        ("planner", "profile", path, *options, *briefly, "--out", tmp_path / "profile.json"),
        ("planner", "plan", tmp_path / "problem.toml", "--out", tmp_path / "plan.json"),
        (
            *("simulator", "execute", tmp_path / "plan.json", "--problem", tmp_path / "problem.toml"),
            *("--models", tmp_path / "models", "--trace", tmp_path / "trace.csv", "--rate", "30", "--duration", "2"),
            *("--warm-up", "0.2", "--verify", "--oversubscribe", "--out", tmp_path / "out"),
        ),
    ]
    for step in steps:
        done = command(*step)
        assert done.status == 0, done.err
    assert " 0 wrong" in done.out
    plan = json.loads((tmp_path / "plan.json").read_text())
    single = case in ("mixing", "found")
    assert all(stage["batch"] == 1 for pipe in plan["pipelines"] for stage in pipe["stages"]) or not single
