"""Classifiers of scikit-learn's digits that share layers: trained again, from ONNX to ONNX."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from sklearn.datasets import load_digits

from planner.files.models import save_model
from planner.model import InputError
from planner.planning.merging.schemes import Sharing
from planner.profiling import ModelGraph, open_session, read_graph, run_model
from planner.profiling.merged_blocks import content
from planner.retraining import (
    Effort,
    Retraining,
    Task,
    accuracy,
    group_starts,
    groups_of,
    retrain,
    train,
    weights_of,
    write_models,
)
from planner.retraining.operators import answer

STARTS = (0, 3, 5)
NETWORK = """<ir_version: 8, opset_import: ["" : 17]> net (float[n, 64] x) => (float[n, {classes}] y) {{
    a = Gemm (x, w1, b1)  b = Relu (a)  c = Identity (b)  d = Gemm (c, w2, b2)  e = Relu (d)  y = Gemm (e, w3, b3) }}"""
EFFORT = Effort(joint_epochs=8)
ALL: Sharing = frozenset({frozenset({(0, 0), (1, 0)}), frozenset({(0, 1), (1, 1)})})


def network(name: str, classes: int, seed: int) -> ModelGraph:
    rng = np.random.default_rng(seed)
    weights = []
    for number, (rows, columns) in enumerate(((64, 48), (48, 32), (32, classes)), 1):
        drawn = rng.standard_normal((rows, columns)) * np.sqrt(2 / rows)
        weights.append(ir.tensor(drawn.astype(np.float32), name=f"w{number}"))
        weights.append(ir.tensor(np.zeros(columns, np.float32), name=f"b{number}"))
    return read_graph(ir.from_onnx_text(NETWORK.format(classes=classes), initializers=weights), name)


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    """Which digit it is, and whether it is odd: each trained by itself."""
    digits = load_digits()
    images = (digits.data / 16).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(images))
    learn, test = order[:1300], order[1300:]
    found = []
    for seed, (name, labels) in enumerate((("digit", digits.target), ("odd", digits.target % 2))):
        labels = labels.astype(np.int64)
        graph = network(name, int(labels.max()) + 1, seed)
        task = Task(graph, STARTS, images[learn], labels[learn], images[test], labels[test], 0.0)
        trained = train(task, 8, seed)
        model = write_models([task], trained.weights)[0]
        found.append(replace(task, graph=read_graph(model, name), min_accuracy=trained.accuracy[0] - 3))
    return found


def test_alone_they_learn(tasks: list[Task]) -> None:
    assert all(task.min_accuracy > 85 for task in tasks)


def test_what_is_shared_is_equal_to_the_byte_and_both_stay_accurate(tasks: list[Task]) -> None:
    oracle = Retraining(tasks, effort=EFFORT)
    assert oracle(ALL)
    found = oracle.result(ALL)
    models = write_models(tasks, found.weights)
    graphs = [read_graph(model, task.graph.name) for model, task in zip(models, tasks, strict=True)]
    trunks = [content(graph, 0, 5).digest for graph in graphs]
    assert trunks[0] == trunks[1] != content(tasks[0].graph, 0, 5).digest
    for task, model, expected in zip(tasks, models, found.accuracy, strict=True):  # as onnxruntime sees it
        logits = run_model(open_session(model), {"x": task.test_inputs})[0]
        right = float((logits.argmax(axis=1) == task.test_labels).mean() * 100)
        assert right == pytest.approx(expected, abs=0.3)
        assert right >= task.min_accuracy - 0.3


def test_equal_seeds_train_equal_weights(tasks: list[Task]) -> None:
    one, other = (retrain(tasks, ALL, seed=5) for _ in range(2))
    for mine, theirs in zip(one.weights, other.weights, strict=True):
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine)


def test_nothing_is_asked_of_models_that_are_good_enough(tasks: list[Task]) -> None:
    found = retrain(tasks, frozenset())
    assert found.accepted
    assert all(np.array_equal(found.weights[0][name], own) for name, own in weights_of(tasks[0].graph).items())
    assert found.accuracy[0] == accuracy(tasks[0], weights_of(tasks[0].graph))


def test_what_cannot_be_reached_is_refused(tasks: list[Task]) -> None:
    perfect = [replace(task, min_accuracy=100.0, inputs=task.inputs[:64], labels=task.labels[:64]) for task in tasks]
    assert not Retraining(perfect)(ALL)


def test_groups_of_equal_structure_are_of_one_kind_and_heads_are_not_merged(tasks: list[Task]) -> None:
    one, other = (groups_of(task.graph, STARTS) for task in tasks)
    assert [group.kind for group in one[:2]] == [group.kind for group in other[:2]]
    assert one[2].kind != other[2].kind
    assert [group.mergeable for group in one] == [True, True, False]
    assert one[0].parameter_bytes == 4 * (64 * 48 + 48)
    assert group_starts(tasks[0].graph) == STARTS


def test_operators_compute_what_onnxruntime_does() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> net (float[n, 1, 8, 8] x) => (float[n, 3] y)
        <int64[2] shape = {0, -1}, float[1] two = {2}> {
        a = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w, b)  n = BatchNormalization (a, s, t, m, v)  r = Relu (n)
        p = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (r)
        q = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (p)
        f = Reshape (q, shape)  g = Gemm <transB = 1, alpha = 0.5> (f, u, c)  h = Tanh (g)  i = Mul (h, two)
        j = Sigmoid (i)  k = Sub (j, h)  l = MatMul (k, z)  y = Softmax (l) }"""
    rng = np.random.default_rng(1)
    shapes = {
        "w": (2, 1, 3, 3),
        "b": (2,),
        "s": (2,),
        "t": (2,),
        "m": (2,),
        "v": (2,),
        "u": (5, 8),
        "c": (5,),
        "z": (5, 3),
    }
    drawn = {name: rng.uniform(0.2, 1.0, shape).astype(np.float32) for name, shape in shapes.items()}
    weights = [ir.tensor(values, name=name) for name, values in drawn.items()]
    graph = read_graph(ir.from_onnx_text(text, initializers=weights), "all")
    x = rng.standard_normal((4, 1, 8, 8)).astype(np.float32)
    expected = run_model(open_session(graph.model), {"x": x})[0]
    assert np.ptp(expected[:, 0]) > 1e-4, "requests differ"
    np.testing.assert_allclose(answer(graph, weights_of(graph), x), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("y = Erf (x)", "layer y: cannot train through operator Erf; expected one of Add"),
        ("y = Flatten <axis = 2> (x)", "cannot train through Flatten with axis = 2; expected 1"),
    ],
)
def test_what_cannot_be_trained_is_named(layers: str, message: str) -> None:
    text = f'<ir_version: 8, opset_import: ["" : 17]> net (float[n, 2, 2] x) => (float[n, m] y) {{ {layers} }}'
    graph = read_graph(ir.from_onnx_text(text), "net")
    with pytest.raises(InputError, match=message):
        answer(graph, {}, np.zeros((1, 2, 2), np.float32))


def test_groups_of_unlike_shapes_are_refused(tasks: list[Task]) -> None:
    with pytest.raises(InputError, match="group 2 of digit and group 2 of odd cannot share: expected weights of equal"):
        retrain(tasks, frozenset({frozenset({(0, 2), (1, 2)})}))


def test_the_command_merges_files(tasks: list[Task], tmp_path: Path, command: Callable[..., Any]) -> None:
    """Two models of 18 and 19 kB on devices of 30 kB: the trunk of both is one copy in the files written."""
    for task in tasks:
        save_model(task.graph.model, tmp_path / f"{task.graph.name}.onnx")
    one = tasks[0]
    arrays = {"inputs": one.inputs, "test_inputs": one.test_inputs}
    for task in tasks:
        arrays |= {f"labels.{task.graph.name}": task.labels, f"test_labels.{task.graph.name}": task.test_labels}
    np.savez(tmp_path / "data.npz", **arrays)  # type: ignore[arg-type]
    files = [tmp_path / f"{task.graph.name}.onnx" for task in tasks]
    options = ["--data", tmp_path / "data.npz", "--memory-mb", "0.03,0.03", "--out", tmp_path / "out", "--lose", 3]
    found = command("planner", "merge", "retrain", *files, *options, "--joint-epochs", 8)
    assert found.status == 0, found.err
    assert "one copy: group 0 of digit, group 0 of odd" in found.out
    graphs = [read_graph(ir.load(tmp_path / "out" / path.name), path.stem) for path in files]
    assert content(graphs[0], 0, 3).digest == content(graphs[1], 0, 3).digest
    assert (tmp_path / "out" / "answers.jsonl").read_text().count("accepted") >= 1
    again = command("planner", "merge", "retrain", *files, *options, "--joint-epochs", 8)
    assert again.out.count("trained again") <= 1, "answers are kept; what was found is trained once more"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        # no devices
        (["--memory-mb", "0"], "--memory-mb: expected numbers above 0 like 1.2,0.7, got '0'"),
        # labels of another length
        (["--memory-mb", "1"], "labels.digit: expected 5 whole numbers, got int64 [4]"),
    ],
)
def test_bad_input_of_the_command(
    tasks: list[Task], tmp_path: Path, command: Callable[..., Any], options: list[str], message: str
) -> None:
    for task in tasks:
        save_model(task.graph.model, tmp_path / f"{task.graph.name}.onnx")
    labels = {f"{part}.{task.graph.name}": np.zeros(5 - (options[1] == "1"), int) for task in tasks
              for part in ("labels", "test_labels")}  # fmt: skip
    np.savez(tmp_path / "data.npz", inputs=np.zeros((5, 64)), test_inputs=np.zeros((5, 64)), **labels)  # type: ignore[arg-type]
    files = [tmp_path / f"{task.graph.name}.onnx" for task in tasks]
    found = command("planner", "merge", "retrain", *files, "--data", tmp_path / "data.npz", "--out", tmp_path, *options)
    assert found.status == 2
    assert message in " ".join(found.err.split())
