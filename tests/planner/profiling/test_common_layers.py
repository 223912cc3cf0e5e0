"""Layers that models have in common, by hand and on the zoo."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from typer.testing import CliRunner

from planner.cli.main import app
from planner.model import InputError
from planner.profiling import ModelGraph, build_model, read_graph
from planner.profiling.common_layers import common_runs


def network(name: str, width: int, seed: int, head: int = 0) -> ModelGraph:
    """Two layers of 2 × 2 from one seed, and a head from another."""
    trunk, top = np.random.default_rng(seed), np.random.default_rng(100 + head)
    return read_graph(
        ir.from_onnx_text(
            f"""<ir_version: 8, opset_import: ["" : 13]> net (float[n, 2] x) => (float[n, {width}] y)
            <float[2, 2] a = {numbers(trunk, 4)}, float[2, 2] b = {numbers(trunk, 4)},
             float[2, {width}] head = {numbers(top, 2 * width)}> {{
            h = MatMul (x, a)  i = Relu (h)  j = MatMul (i, b)  k = Relu (j)  y = MatMul (k, head) }}"""
        ),
        name,
    )


def numbers(rng: np.random.Generator, count: int) -> str:
    return "{" + ", ".join(f"{value:.4f}" for value in rng.standard_normal(count)) + "}"


def test_equal_trunks_are_shared_and_heads_of_other_widths_are_not() -> None:
    runs = common_runs([network("a", 3, seed=1), network("b", 5, seed=1)])
    assert [(dict(run.first), run.layers, run.parameter_bytes, run.equal) for run in runs] == [
        ({"a": 0, "b": 0}, 4, 32, True)
    ]


def test_unlike_weights_are_alike_but_not_equal() -> None:
    runs = common_runs([network("a", 3, seed=1), network("b", 5, seed=2)])
    assert [(run.layers, run.equal) for run in runs] == [(4, False)]


def test_three_models_and_what_two_of_them_share_alone() -> None:
    """All three share the trunk (4 layers of 32 bytes, saved twice); a and c have equal heads of 24 bytes."""
    graphs = [network("a", 3, 1, head=7), network("b", 5, 1, head=7), network("c", 3, 1, head=7)]
    runs = common_runs(graphs)
    assert [(tuple(run.first), run.layers, run.saves_bytes, run.equal) for run in runs] == [
        (("a", "b", "c"), 4, 64, True),
        (("a", "c"), 1, 24, True),
    ]


def test_a_model_and_itself_under_another_name_share_everything() -> None:
    model = build_model("resnet18")
    one, other = read_graph(model, "one"), read_graph(build_model("resnet18"), "other")
    runs = common_runs([one, other])
    assert sum(run.parameter_bytes for run in runs) == one.parameter_bytes()
    assert all(run.equal for run in runs)
    assert sum(run.layers for run in runs) <= len(one.layers)


def test_one_model_or_two_of_one_name_are_refused() -> None:
    graph = network("a", 3, 1)
    for graphs in ([graph], [graph, graph]):
        with pytest.raises(InputError, match="expected two or more models of different names"):
            common_runs(graphs)


def test_the_command_lists_and_writes(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1)):
        ir.save(network(name, 3, seed, head=seed).model, tmp_path / f"{name}.onnx")
    files = [str(tmp_path / f"{name}.onnx") for name in "ab"]
    done = CliRunner().invoke(app, ["merge", "candidates", *files, "--out", str(tmp_path / "rows.csv")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "rows.csv").read_text().splitlines()[0] == "models,first_layers,layers,bytes,saves_bytes,weights"
    assert "equal" in (tmp_path / "rows.csv").read_text()
