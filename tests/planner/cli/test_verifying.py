"""The command `verify`: any file, any inputs, and the truth about both."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from typer.testing import CliRunner

from planner.cli.main import app
from planner.files.inputs import load_inputs
from planner.model import InputError

TEXT = (
    '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 4] x, int64[n] i) => (float[n, 4] y)'
    " <float[3, 4] table = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}>"
    " { r = Gather(table, i) a = Add(x, r) b = Tanh(a) y = Softmax(b) }"
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    ir.save(ir.from_onnx_text(TEXT), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


@pytest.fixture
def verify() -> Callable[..., str]:
    def run(*arguments: object) -> str:
        result = CliRunner().invoke(app, ["verify", *map(str, arguments)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return run


def arrays(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"x": rng.standard_normal((count, 4), np.float32), "i": rng.integers(0, 3, count)}


def test_every_cut_of_a_file_is_tried_and_told(verify: Callable[..., str], model: Path, tmp_path: Path) -> None:
    said = verify(model, "--cuts", "all", "--out", tmp_path / "found.csv")
    assert "8 samples (random, seed 0)" in said
    with (tmp_path / "found.csv").open(newline="") as stream:
        plain, optimised = csv.DictReader(stream)
    assert (plain["optimised"], plain["cuts"], plain["bit_equal"], plain["wrong"]) == ("no", "3", "3", "0")
    assert (optimised["optimised"], optimised["wrong"], optimised["inputs"]) == ("yes", "0", "random, seed 0")


def test_the_users_own_inputs_are_used(verify: Callable[..., str], model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    for name, count in (("a", 1), ("b", 3)):
        np.savez(folder / f"{name}.npz", **arrays(count, count))
    assert f"4 samples ({folder})" in verify(model, "--inputs", folder)
    assert "3 samples" in verify(model, "--inputs", folder / "b.npz")
    for name in ("a.npz", "b.npz"):
        (folder / name).unlink()
    for name, array in arrays(5).items():
        np.save(folder / f"{name}.npy", array)
    assert "5 samples" in verify(model, "--inputs", folder)


def test_inputs_that_the_model_cannot_take_are_one_line(
    verify: Callable[..., str], model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **(arrays(2) | {"i": np.array([0, 7])}))
    with pytest.raises(
        InputError, match=r"onnxruntime cannot run a layer \(Gather\) on these inputs: .*idx=7.*--inputs"
    ):
        verify(model, "--inputs", path)
    np.savez(path, **(arrays(2) | {"i": np.arange(3)}))
    with pytest.raises(InputError, match=r"bad.npz: inputs: expected as many requests in each array"):
        verify(model, "--inputs", path)


def test_wrong_options_are_one_line(verify: Callable[..., str], model: Path, tmp_path: Path) -> None:
    for cuts in ("0", "-1", "some"):
        with pytest.raises(InputError, match="--cuts: expected all or a number >= 1"):
            verify(model, f"--cuts={cuts}")
    with pytest.raises(InputError, match="no such file; expected a .npz file or a folder"):
        verify(model, "--inputs", tmp_path / "none.npz")


def test_files_of_inputs_that_hold_something_else_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    np.save(tmp_path / "one.npy", np.zeros(3))
    np.savez(tmp_path / "objects.npz", x=np.array([{}], object))
    empty = tmp_path / "empty"
    empty.mkdir()
    for name in ("text.npz", "one.npy", "objects.npz", "empty"):
        with pytest.raises(InputError, match=name) as found:
            load_inputs(tmp_path / name)
        assert "\n" not in str(found.value)
