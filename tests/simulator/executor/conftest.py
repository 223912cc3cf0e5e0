"""A small model that takes a known time, and plans for it."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from planner.model import (
    Block,
    Cluster,
    DeviceType,
    Dnn,
    LatencyTable,
    Network,
    Options,
    Pipeline,
    Plan,
    Problem,
    Profile,
    Provenance,
    Stage,
)

WIDTH = 16


@dataclass(frozen=True)
class Case:
    """What `execute` takes."""

    problem: Problem
    plan: Plan
    dnn: str
    models: dict[str, ir.Model]
    folder: Path


def save_tiny_model(path: Path) -> None:
    """Four layers; the input is read again by the last one, so that it is alive across every cut."""
    weights = np.random.default_rng(0).standard_normal((WIDTH, WIDTH)).astype(np.float32) / 4
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "a"),
        helper.make_node("Tanh", ["a"], ["b"], "b"),
        helper.make_node("MatMul", ["b", "w"], ["c"], "c"),
        helper.make_node("Add", ["c", "x"], ["y"], "y"),
    ]
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", WIDTH]) for name in "xy")
    graph = helper.make_graph(nodes, "tiny", [x], [y], [numpy_helper.from_array(weights, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def tiny_profile(path: Path, latency_us: int, largest_batch: int = 4) -> Profile:
    """One block per layer, ``latency_us`` in all at any batch."""
    blocks = tuple(Block((name,)) for name in "abcy")
    table = LatencyTable(
        "core", 1, (largest_batch,), ((latency_us // 4,) * len(blocks),), Provenance("estimated", "by hand")
    )
    size = WIDTH * 4
    return Profile("tiny", blocks, (2 * size,) * 3, (table,), hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def make_case(tmp_path: Path) -> Callable[..., Case]:
    """Make a case: ``cuts`` before which layers, slices per stage, one batch size."""

    def make(
        cuts: Sequence[int] = (2,),
        slices: Sequence[int] = (1, 1),
        batch: int = 2,
        *,
        slo_us: int = 1_000_000,
        latency_us: int = 2_000,
        bandwidth_gbps: float = 100.0,
        hop_latency_us: float = 0.0,
    ) -> Case:
        path = tmp_path / "tiny.onnx"
        save_tiny_model(path)
        profile = tiny_profile(path, latency_us)
        network = Network(bandwidth_gbps, hop_latency_us)
        cluster = Cluster((DeviceType("core", sum(slices), "cpu"), DeviceType("other", 1)), network)
        bounds = [0, *cuts, len(profile.blocks)]
        stages = tuple(
            Stage(
                *(first, last, "core", 1, count, batch, profile.stage_latency_us("core", 1, batch, first, last)),
                network.wire_us("core", "core", batch * profile.cut_bytes[last - 1]) + hop_latency_us
                if last < bounds[-1]
                else 0.0,
                1.0,
            )
            for first, last, count in zip(bounds[:-1], bounds[1:], slices, strict=True)
        )
        plan = Plan(
            "pipelines", "max_min_throughput", "optimal", 1.0, 1.0, "by hand", "none", 0.0, "", {},
            (Pipeline("tiny", "tiny", 1.0, 0.0, 0.0, stages),),
        )  # fmt: skip
        return Case(
            Problem(cluster, (Dnn("tiny", slo_us, (profile,)),), Options(slack_fraction=0.0)),
            plan,
            "tiny",
            {"tiny": ir.load(path)},
            tmp_path,
        )

    return make
