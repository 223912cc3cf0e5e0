"""Blocks that are one copy: found in models, extracted once, and equal in their answers to every original."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from planner.model import Cluster, DeviceType, Dnn, InputError, LatencyTable, Network, Problem, Provenance
from planner.profiling import ModelGraph, blank_profile, extract_part, open_session, read_graph, run_model
from planner.profiling.merged_blocks import content, find_merged, merged_part


def classifier(name: str, width: int, prefix: str = "", trunk: float = 1.0, skip: bool = False) -> ModelGraph:
    """Two layers of trunk, a head of ``width``; with ``skip`` the head reads the first layer's output, too."""
    rng = np.random.default_rng(width)
    head = ", ".join(f"{value:.3f}" for value in rng.standard_normal(2 * width))
    middle = "k = Add (j, h)" if skip else "k = Identity (j)"
    text = f"""<ir_version: 8, opset_import: ["" : 13]> net (float[n, 2] x) => (float[n, {width}] y)
        <float[2, 2] a = {{{trunk}, 2, 3, 4}}, float[2, {width}] head = {{{head}}}> {{
        h = MatMul (x, a)  j = Relu (h)  {middle}  z = MatMul (k, head)  y = Softmax (z) }}"""
    for tensor in ("h", "j", "a"):
        text = text.replace(f" {tensor} ", f" {prefix}{tensor} ").replace(f"({tensor},", f"({prefix}{tensor},")
        text = text.replace(f" {tensor})", f" {prefix}{tensor})").replace(f"({tensor})", f"({prefix}{tensor})")
    return read_graph(ir.from_onnx_text(text), name)


def problem_of(*graphs: ModelGraph) -> Problem:
    """Two blocks each: the trunk's two layers, and the rest."""
    dnns = []
    for graph in graphs:
        profile = blank_profile(graph, [0, 2])
        table = LatencyTable("Pi", 1, (1,), ((5, 5),), Provenance("measured", "by hand"))
        dnns.append(Dnn(graph.name, 1000, (replace(profile, tables=(table,)),)))
    return Problem(Cluster((DeviceType("Pi", 1),), Network(1)), tuple(dnns))


def test_equal_trunks_are_found_whatever_their_names() -> None:
    graphs = {graph.name: graph for graph in (classifier("a", 2), classifier("b", 3, "other_"), classifier("c", 4))}
    problem = problem_of(*graphs.values())
    found = find_merged(problem, graphs)
    assert [(one.blocks, [(m.dnn, m.first_block) for m in one.members]) for one in found] == [
        (1, [("a", 0), ("b", 0), ("c", 0)])
    ]
    assert replace(problem, merged=found).stage_copies("b", "b", 0, 1) == ((0, 0),)


def test_unlike_weights_are_no_copy() -> None:
    graphs = {graph.name: graph for graph in (classifier("a", 2), classifier("b", 3, trunk=1.5))}
    assert find_merged(problem_of(*graphs.values()), graphs) == ()
    with pytest.raises(InputError, match="layers 1 to 2 of a and 1 to 2 of b are not one copy"):
        merged_part([(graph, 0, 2) for graph in graphs.values()])


def test_a_merged_part_answers_as_every_original() -> None:
    """One model's head reads the trunk's first tensor, too: the part makes it for all."""
    graphs = [classifier("a", 2), classifier("b", 3, "other_", skip=True)]
    merged = merged_part([(graph, 0, 2) for graph in graphs])
    assert merged.part.outputs == ("h", "j")
    session = open_session(merged.part.model)
    x = np.array([[1, -2], [3, 4]], np.float32)
    for number, graph in enumerate(graphs):
        alive = {"x": x}
        alive |= merged.made(number, run_model(session, merged.feeds(number, alive)))
        head = extract_part(graph, 2, len(graph.layers))
        answer = run_model(open_session(head.model), {name: alive[name] for name in head.inputs})[0]
        expected = run_model(open_session(graph.model), {"x": x})[0]
        assert not np.allclose(expected[0], expected[1]), "requests differ"
        np.testing.assert_allclose(answer, expected, rtol=1e-6)


def test_content_tells_wiring_apart() -> None:
    text = """<ir_version: 8, opset_import: ["" : 13]> net (float[n, 2] x) => (float[n, 2] y) {
        a = Relu (x)  b = Abs (x)  y = Sub (a, b) }"""
    one, other = (read_graph(ir.from_onnx_text(t), "net") for t in (text, text.replace("(a, b)", "(b, a)")))
    assert content(one, 0, 3).digest != content(other, 0, 3).digest
