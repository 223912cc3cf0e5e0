"""ONNX files: read with one-line errors, written whole, hashed with their external data."""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from planner.files.atomic import replacing
from planner.model import InputError

EXTERNAL_ABOVE_BYTES = 2**31 - 2**24  # a protocol buffer holds 2 GB; the graph itself needs some room


def load_model(path: Path) -> ir.Model:
    """Read a model; weights in external files stay there until they are used.

    Raises
    ------
    InputError
        The file cannot be read, is not ONNX, or its external data are missing.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected an ONNX model")
    try:
        with _quiet():
            model = ir.load(path)
    except Exception as error:  # protobuf and onnx_ir raise unrelated types on bytes that are no model
        raise InputError(f"{path}: not an ONNX model ({_one_line(error)}); expected a .onnx file") from None
    if not model.opset_imports or model.ir_version == 0:
        raise InputError(f"{path}: not an ONNX model (it names no operator set); expected a .onnx file")
    for name, tensor in _external(model).items():
        if not Path(tensor.path).is_file():
            raise InputError(
                f"{path}: initializer {name!r} is missing: its external data file {tensor.path} does not exist; "
                "put it beside the model"
            )
    return model


def save_model(model: ir.Model, path: Path) -> None:
    """Write a model in one step; above 2 GB its weights go to ``<path>.data`` beside it.

    Raises
    ------
    InputError
        The folder cannot be written.
    """
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    if size < EXTERNAL_ABOVE_BYTES:
        with replacing(path) as temporary:
            temporary.write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))
        return
    data = path.with_name(path.name + ".data")
    with replacing(path) as temporary, replacing(data) as temporary_data:
        # The proto names its data file, so both are written in a folder of their own under their final names.
        folder = temporary.with_name(temporary.name + ".folder")
        folder.mkdir()
        try:
            ir.save(model, folder / path.name, external_data=data.name)
            (folder / data.name).replace(temporary_data)
            (folder / path.name).replace(temporary)
        finally:
            for left in folder.iterdir():
                left.unlink()
            folder.rmdir()


def model_sha256(path: Path) -> str:
    """Return the SHA-256 (hex) of a model file, followed by its external data files in order of their names."""
    external = {Path(tensor.path) for tensor in _external(load_model(path)).values()}
    found = hashlib.sha256()
    for part in (path, *sorted(external)):
        with part.open("rb") as stream:
            while chunk := stream.read(2**20):
                found.update(chunk)
    return found.hexdigest()


def _external(model: ir.Model) -> dict[str, ir.ExternalTensor]:
    return {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if isinstance(value.const_value, ir.ExternalTensor)
    }


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 120 else text[:117] + "..."


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep onnx_ir from printing about broken models: readers of the graph say it in one line."""
    logger = logging.getLogger("onnx_ir")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
