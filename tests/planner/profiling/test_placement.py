"""The provider that was asked for is the one that runs, or a refusal, or at least a word."""

from typing import Any

import onnx_ir as ir
import onnxruntime
import pytest

from planner.model import InputError
from planner.profiling import open_session
from planner.profiling.placement import read_placement

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
MODEL = '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 4] x) => (float[n, 4] y) { y = Relu(x) }'


def event(name: str, operator: str, provider: str, us: float, kind: str = "kernel_time") -> dict[str, Any]:
    args = {"op_name": operator, "provider": provider}
    return {"cat": "Node", "name": f"{name}_{kind}", "dur": us, "args": args}


# Two runs of two nodes on a GPU, one on the CPU; the first run is slow.
EVENTS = [
    {"cat": "Session", "name": "model_run", "dur": 5_000},
    event("conv", "Conv", CUDA, 900), event("up", "Resize", CPU, 800), event("add", "Add", CUDA, 50),
    event("conv", "Conv", CUDA, 60), event("up", "Resize", CPU, 20), event("add", "Add", CUDA, 20),
    event("up", "Resize", CPU, 1, "fence_before"),
]  # fmt: skip


def test_nodes_that_run_elsewhere_are_named_with_their_share_of_the_time() -> None:
    found = read_placement(EVENTS, CUDA, "m")
    assert found.elsewhere == (("up", "Resize", CPU),)
    assert (found.nodes, found.share) == (3, pytest.approx(0.2))
    assert str(found) == (
        "1 of 3 nodes (20.0 % of the time) not on CUDAExecutionProvider: up (Resize) on CPUExecutionProvider"
    )
    assert str(read_placement(EVENTS[1:2], CUDA, "m")) == ""


def test_of_many_nodes_three_are_named() -> None:
    events = [event("conv", "Conv", CUDA, 10), *(event(f"r{at}", "Resize", CPU, 1) for at in range(5))]
    assert str(read_placement(events, CUDA, "m")).endswith("r2 (Resize) on CPUExecutionProvider and 2 more")


def test_a_provider_that_runs_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="CUDAExecutionProvider runs no node of m: all of its 1 run on CPU"):
        read_placement([event("up", "Resize", CPU, 1)], CUDA, "m")


def test_a_session_that_fell_back_to_another_provider_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As onnxruntime's CUDA wheel does where CUDA's libraries are not installed: it says CUDA, and runs the CPU."""
    to_open = onnxruntime.InferenceSession

    def without_libraries(*arguments: Any, providers: list[str], **more: Any) -> Any:
        assert providers == [CUDA]
        return to_open(*arguments, providers=[CPU], **more)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", without_libraries)
    with pytest.raises(InputError, match=r"'CUDAExecutionProvider' was asked for, but onnxruntime runs \['CPU"):
        open_session(ir.from_onnx_text(MODEL), provider=CUDA)


def test_a_provider_that_is_not_installed_is_refused() -> None:
    with pytest.raises(InputError, match="'NoneExecutionProvider' is not installed"):
        open_session(ir.from_onnx_text(MODEL), provider="NoneExecutionProvider")
