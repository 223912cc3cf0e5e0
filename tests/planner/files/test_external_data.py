"""Weights in files beside a model: what they may be, and that they are never lost."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import parser
from typer.testing import CliRunner

from planner.cli.main import app
from planner.files.external_data import external_tensors
from planner.files.models import copy_model, load_model, model_sha256, save_model
from planner.model import InputError
from planner.profiling import open_session, run_model

FLAT = """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 8] x) => (float[n, 8] y)
    <float[8, 8] w = {NUMBERS}> { h = MatMul(x, w) y = Relu(h) }""".replace(
    "NUMBERS", ", ".join(str(i % 7) for i in range(64))
)
IN_A_BODY = """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 8] x) => (float[n, 8] y) <int64 five = {5}> {
    h = Relu(x) s = Size(h) c = Greater(s, five)
    i = If(c) <then_branch = t () => (float[n, 8] a) { w = Constant<value = float[8] {1, 2, 3, 4, 5, 6, 7, 8}>()
        a = Mul(h, w) }, else_branch = e () => (float[n, 8] b) { b = Neg(h) }>
    y = Add(i, h) }"""
IN_A_FUNCTION = """<ir_version: 8, opset_import: ["" : 17, "mine" : 1]> g (float[n, 8] x) => (float[n, 8] y)
    { y = mine.scale(x) } <domain: "mine", opset_import: ["" : 17]> scale (u) => (v)
    { w = Constant<value = float[8] {1, 2, 3, 4, 5, 6, 7, 8}>() v = Mul(u, w) }"""
KINDS = {
    "initializer": FLAT,
    "initializer in a body": IN_A_BODY,
    "attribute in a body": IN_A_BODY,
    "attribute in a function": IN_A_FUNCTION,
}


@pytest.fixture
def model(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return write_external(tmp_path / "model.onnx", request.param)


def write_external(path: Path, kind: str) -> Path:
    """Write a model whose only large tensor lies in ``weights.data``, 32 bytes into it."""
    proto = parser.parse_model(KINDS[kind])
    if kind == "initializer in a body":
        make_initializer(proto)
    (tensor,) = [tensor for tensor in tensors_of(proto) if np.prod(tensor.dims) >= 8]
    content = onnx.numpy_helper.to_array(tensor).tobytes()
    (path.parent / "weights.data").write_bytes(bytes(32) + content + b"more")
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    say(tensor, location="weights.data", offset=32, length=len(content))
    path.write_bytes(proto.SerializeToString())
    return path


def make_initializer(proto: onnx.ModelProto) -> None:
    """Turn the constant of a branch into an initializer of it."""
    (branching,) = [node for node in proto.graph.node if node.op_type == "If"]
    (body,) = [attribute.g for attribute in branching.attribute if attribute.name == "then_branch"]
    constant = body.node[0]
    body.initializer.add().CopyFrom(constant.attribute[0].t)
    body.initializer[0].name = constant.output[0]
    del body.node[0]


def tensors_of(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    graphs = [proto.graph]
    nodes = [node for function in proto.functions for node in function.node]
    tensors = []
    while graphs:
        graph = graphs.pop()
        tensors += graph.initializer
        nodes += graph.node
        graphs += [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return tensors + [each.t for node in nodes for each in node.attribute if each.HasField("t")]


def say(tensor: onnx.TensorProto, **entries: object) -> None:
    del tensor.external_data[:]
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))


def redirect(path: Path, **entries: object) -> None:
    """Let a model's external tensor say something else of its place."""
    proto = onnx.load(path, load_external_data=False)
    (tensor,) = external_tensors(proto)
    say(tensor, **entries)
    path.write_bytes(proto.SerializeToString())


def answer(model: ir.Model) -> np.ndarray:
    (found,) = run_model(open_session(model), {"x": np.arange(16, dtype=np.float32).reshape(2, 8)})
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_with_weights_beside_it_is_exported_whole(tmp_path: Path, kind: str) -> None:
    model = write_external(tmp_path / "model.onnx", kind)
    expected = answer(ir.from_onnx_text(KINDS[kind]))
    np.testing.assert_array_equal(answer(load_model(model)), expected)
    (tmp_path / "saved").mkdir()
    save_model(load_model(model), tmp_path / "saved" / "new.onnx")
    copy_model(model, tmp_path / "copied" / "new.onnx")
    (tmp_path / "weights.data").unlink()
    for folder in ("saved", "copied"):
        np.testing.assert_array_equal(answer(load_model(tmp_path / folder / "new.onnx")), expected)
        onnx.checker.check_model(str(tmp_path / folder / "new.onnx"))


@pytest.mark.parametrize("model", KINDS, indirect=True)
def test_the_hash_is_of_the_content_wherever_it_lies(tmp_path: Path, model: Path) -> None:
    before = model_sha256(model)
    copy_model(model, tmp_path / "copied" / "new.onnx")
    assert model_sha256(tmp_path / "copied" / "new.onnx") == before
    data = bytearray((tmp_path / "weights.data").read_bytes())
    data[31] ^= 1  # before the tensor
    (tmp_path / "weights.data").write_bytes(data)
    assert model_sha256(model) == before
    data[32] ^= 1
    (tmp_path / "weights.data").write_bytes(data)
    assert model_sha256(model) != before


BAD_PLACES = [
    # what the model says of its data; what is said of that
    ({"location": "../secret", "length": 256}, "said to be in '../secret'; expected a file in the model's folder"),
    ({"location": "a/../../secret"}, "said to be in 'a/../../secret'"),
    ({"location": "{folder}/weights.data", "offset": 32}, "weights.data'; expected a file in the model's folder"),
    ({"location": "/dev/zero"}, "said to be in '/dev/zero'"),
    ({"location": "C:\\secret"}, "expected a file in the model's folder"),
    ({"location": "..\\secret"}, "expected a file in the model's folder"),
    ({"location": "."}, "said to be in '.'"),
    ({"location": ""}, "said to be in ''"),
    ({"offset": 32}, "said to be in ''"),
    ({"location": "link.data"}, "behind the link .*link.data; put the file itself beside the model"),
    ({"location": "linked/secret"}, "behind the link .*linked"),
    ({"location": "dangling.data"}, "behind the link"),
    ({"location": "folder"}, "folder, which is no ordinary file"),
    ({"location": "pipe"}, "pipe, which is no ordinary file"),
    ({"location": "none.data"}, "'w' is missing: its external data file .*none.data does not exist"),
    ({"location": "weights.data", "offset": -50}, "as integers >= 0, got '-50'"),
    ({"location": "weights.data", "offset": "x"}, "as integers >= 0, got 'x'"),
    ({"location": "weights.data", "offset": 32, "length": 1e3}, "as integers >= 0"),
    ({"location": "weights.data", "offset": 37, "length": 256}, "256 bytes from byte 37 of .*, which has 292"),
    ({"location": "weights.data", "offset": 32, "length": 128}, "take 256 bytes, its external data .* have 128"),
]


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A folder with a model, and all around it what it must not read."""
    folder = tmp_path / "downloaded"
    (folder / "folder").mkdir(parents=True)
    model = write_external(folder / "model.onnx", "initializer")
    secret = tmp_path / "secret"
    secret.write_bytes(b"#" * 1000)
    (folder / "link.data").symlink_to(secret)
    (folder / "linked").symlink_to(tmp_path)
    (folder / "dangling.data").symlink_to(tmp_path / "nothing")
    os.mkfifo(folder / "pipe")
    return model


@pytest.mark.parametrize(("entries", "said"), BAD_PLACES, ids=[str(entries) for entries, _ in BAD_PLACES])
@pytest.mark.parametrize("read", [load_model, model_sha256, lambda path: copy_model(path, path.parent / "new.onnx")])
def test_data_that_are_not_beside_the_model_are_refused_before_they_are_opened(
    trap: Path, monkeypatch: pytest.MonkeyPatch, entries: dict[str, object], said: str, read: Callable[[Path], object]
) -> None:
    redirect(trap, **{key: str(value).replace("{folder}", str(trap.parent)) for key, value in entries.items()})
    before = sorted(trap.parent.iterdir())
    opened: list[str] = []
    to_open = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, *rest, **more: opened.append(path.name) or to_open(path, *rest, **more)
    )
    with pytest.raises(InputError, match=said) as found:
        read(trap)
    assert "\n" not in str(found.value)
    assert set(opened) <= {"model.onnx"}
    assert sorted(trap.parent.iterdir()) == before


@pytest.mark.parametrize("kind", KINDS)
def test_data_elsewhere_are_found_in_bodies_and_functions_too(tmp_path: Path, kind: str) -> None:
    model = write_external(tmp_path / "model.onnx", kind)
    redirect(model, location="/dev/zero")
    with pytest.raises(InputError, match="said to be in '/dev/zero'"):
        load_model(model)


COMMANDS = [
    ["validate", "{model}"],
    ["layers", "{model}"],
    ["profile", "{model}", "--device", "here", "--out", "{out}"],
    ["estimate", "{model}", "--device", "T4", "--out", "{out}"],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=[each[0] for each in COMMANDS])
def test_every_command_goes_through_the_gate(trap: Path, tmp_path: Path, arguments: list[str]) -> None:
    redirect(trap, location="/dev/zero")
    named = {"{model}": str(trap), "{out}": str(tmp_path / "out.json")}
    result = CliRunner().invoke(app, [named.get(argument, argument) for argument in arguments])
    assert isinstance(result.exception, InputError)
    assert "said to be in '/dev/zero'" in str(result.exception)
    assert not (tmp_path / "out.json").exists()
