"""Options that say what a model file leaves open, from command line to profile and back."""

import numpy as np
import onnx_ir as ir
import pytest

from planner.cli.model_files import settings_of
from planner.files import load_profile, load_variants
from planner.model import Constant, InputError, ModelSettings

OPEN = (
    '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 3, h, w] x, float gain) => (float[n, 3, h, w] y)'
    " { a = Relu(x) b = Mul(a, gain) c = Tanh(b) y = Add(c, a) }"
)
MIXING = (
    '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 4] x) => (float[n, 4] y)'
    " { a = Relu(x) [mix] b = Softmax<axis=0>(a) y = Mul(a, b) }"
)
GIVEN = ("--fix", "h=4,w=5", "--constant", "gain=2")
BRIEFLY = ("--device", "here", "--cap-s", "0.01", "--rounds", "1")


@pytest.fixture
def save(tmp_path):
    def write(text: str, name: str = "model.onnx"):
        ir.save(ir.from_onnx_text(text), tmp_path / name)
        return tmp_path / name

    return write


def test_settings_go_into_the_profile(command, save, tmp_path):
    out = tmp_path / "profile.json"
    done = command("planner", "profile", save(OPEN), *GIVEN, *BRIEFLY, "--batches", "1,2", "--out", out)
    assert done.status == 0, done.err
    profile = load_profile(out)
    assert profile.name == "model@h=4,w=5"
    assert profile.settings == ModelSettings({"h": 4, "w": 5}, {"gain": Constant((), (2.0,))})
    # Latencies are added with the same settings only.
    assert command("planner", "estimate", save(OPEN), *GIVEN, "--device", "T4", "--out", out).status == 0
    warm = ("--constant", "gain=3")
    other = command("planner", "estimate", save(OPEN), *GIVEN[:2], *warm, "--device", "L4", "--out", out)
    assert other.status == 2
    assert "read with other settings" in other.err


def test_sizes_of_a_model_are_variants_in_one_file(command, save, tmp_path):
    """Each size keeps its own blocks and tables; a problem that names the file has all of them."""
    out, model = tmp_path / "profile.json", save(OPEN)
    for sizes, device in (("h=4,w=5", "T4"), ("h=8,w=5", "T4"), ("h=4,w=5", "L4")):
        done = command("planner", "estimate", model, "--fix", sizes, *GIVEN[2:], "--device", device, "--out", out)
        assert done.status == 0, done.err
    found = {profile.name: profile for profile in load_variants(out)}
    assert {name: profile.devices for name, profile in found.items()} == {
        "model@h=8,w=5": ("T4",),
        "model@h=4,w=5": ("T4", "L4"),
    }
    assert found["model@h=8,w=5"].cut_bytes[0] == 2 * found["model@h=4,w=5"].cut_bytes[0]
    cluster = '{"device_types": [{"name": "T4", "count": 2}], "network": {"bandwidth_gbps": 10.0}}'
    (tmp_path / "problem.json").write_text(
        f'{{"schema": "problem/1", "cluster": {cluster},'
        ' "dnns": [{"name": "model", "slo_us": 50000, "variants": ["profile.json"]}]}'
    )
    planned = command("planner", "plan", tmp_path / "problem.json", "--out", tmp_path / "plan.json")
    assert planned.status == 0, planned.err
    assert "2 variants: model@h=8,w=5, model@h=4,w=5" in command("planner", "validate", out).out


@pytest.mark.parametrize("verb", ["layers", "validate", "verify"])
def test_every_command_that_reads_a_model_takes_them(command, save, verb):
    assert command("planner", verb, save(OPEN), *GIVEN).status == 0
    refused = command("planner", verb, save(OPEN))
    assert refused.status == 2
    assert "give --fix h=NUMBER,w=NUMBER --constant gain=VALUE" in refused.err
    assert refused.err.count("\n") == 1


def test_a_constant_may_be_a_file(command, save, tmp_path):
    np.save(tmp_path / "gain.npy", np.float32(2))
    done = command("planner", "layers", save(OPEN), *GIVEN[:2], "--constant", f"gain={tmp_path / 'gain.npy'}")
    assert done.status == 0, done.err


def test_a_model_whose_requests_mix_is_profiled_at_batch_1_and_says_why(command, save, tmp_path):
    out = tmp_path / "profile.json"
    done = command("planner", "profile", save(MIXING), *BRIEFLY, "--out", out)
    assert done.status == 0, done.err
    assert "a run takes one request (n=1): node 'mix' (Softmax) mixes requests that share a run" in done.out
    profile = load_profile(out)
    assert profile.tables[0].batches == (1,)
    assert profile.settings == ModelSettings(single=True)
    asked = command("planner", "profile", save(MIXING), *BRIEFLY, "--batches", "1,2", "--out", tmp_path / "other.json")
    assert asked.status == 2
    assert "node 'mix' (Softmax)" in asked.err
    assert not (tmp_path / "other.json").exists()


def test_parts_of_a_file_answer_as_it_does(command, save, tmp_path):
    import onnxruntime

    path = save(MIXING.replace("axis=0", "axis=1"))
    assert command("planner", "split", path, "--at", "mix,3", "--out", tmp_path / "parts").status == 0
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    alive = {"x": x}
    for number in (1, 2, 3):
        session = onnxruntime.InferenceSession(tmp_path / "parts" / f"part{number}.onnx")
        names = [each.name for each in session.get_outputs()]
        feeds = {each.name: alive[each.name] for each in session.get_inputs()}
        alive.update(zip(names, session.run(names, feeds), strict=True))
    (expected,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    np.testing.assert_allclose(alive["y"], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("nothing", "has no layer 'nothing' to cut before"),
        ("1", "expected a name or a number from 2 to 4"),  # before the first layer there is nothing
        ("5", "has no layer '5'"),
        ("3,2", "expected layers in their order"),
        ("4", "cannot cut before layer '4': tensor 's' cannot cross: it is a seq(tensor(float)); the nearest .* is 3"),
    ],
)
def test_places_where_a_model_cannot_be_cut_are_said(command, save, tmp_path, at, message):
    path = save(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 4] x) => (float[n, 8] y)'
        " { a = Relu(x) b = Tanh(x) s = SequenceConstruct(a, b) y = ConcatFromSequence<axis=1>(s) }"
    )
    done = command("planner", "split", path, "--at", at, "--out", tmp_path / "parts")
    assert done.status == 2
    import re

    assert re.search(message.replace("(", r"\(").replace(")", r"\)"), done.err)
    assert not (tmp_path / "parts").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fix": ["h"]}, "--fix: expected NAME=VALUE, got 'h'"),
        ({"fix": ["h=0"]}, "--fix: expected an integer >= 1 for 'h', got '0'"),
        ({"fix": ["h=1", "h=2"]}, "'h' is given twice"),
        ({"constant": ["t=warm"]}, "--constant: expected a number or a .npy file for 't', got 'warm'"),
        ({"constant": ["t=none.npy"]}, "--constant: cannot read none.npy"),
        ({"state": ["next"]}, "--state: expected OUTPUT:INPUT, got 'next'"),
        ({"batch_axis": ["x=-1"]}, "--batch-axis: expected an integer >= 0 for 'x', got '-1'"),
    ],
)
def test_options_that_cannot_be_read_are_one_line(options, message):
    with pytest.raises(InputError) as found:
        settings_of(**options)
    assert message in str(found.value)
    assert "\n" not in str(found.value)


def test_names_may_hold_the_signs_that_options_use():
    settings = settings_of(["input:0:2=8"], ["a=b=1.5"], ["next:0:state"])
    assert settings.sizes == {"input:0:2": 8}
    assert settings.constants == {"a=b": Constant((), (1.5,))}
    assert settings.states == {"next:0": "state"}
