"""ONNX files: the one gate through which models are read; written whole, hashed with their external data.

What a file names is checked before it is opened (`external_data`). Weights in external files stay there until they are
used; small ones and those of attributes are read at once. Weights that are stored as the places of those that are not
zero become ordinary ones, as in onnxruntime.
"""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from planner.files.atomic import replacing
from planner.files.external_data import ExternalData, external_tensors, find_data, load_data, point_at
from planner.model import InputError

READ_AT_ONCE_BYTES = 4096
EXTERNAL_ABOVE_BYTES = 2**31 - 2**24  # a protocol buffer holds 2 GB; the graph itself needs some room


def load_model(path: Path) -> ir.Model:
    """Read a model; its weights in external files stay there until they are used.

    Raises
    ------
    InputError
        The file cannot be read or is not ONNX, an input or output is a map, or its external data are not what they
        should be (`find_data`).
    """
    proto, places = _read(path)
    for value in (*proto.graph.input, *proto.graph.output):
        if _is_map(value.type):
            raise InputError(
                f"{path}: {value.name!r} is a map, which no stage can pass on; export the model with tensors in its "
                "place (scikit-learn's exporter: options={'zipmap': False})"
            )
    initializers = {id(tensor) for graph in _graphs(proto) for tensor in graph.initializer}
    for tensor, data in places:
        if id(tensor) not in initializers or data.length <= READ_AT_ONCE_BYTES:
            load_data(tensor, data)
    for graph in _graphs(proto):
        graph.initializer.extend(_dense(sparse, path) for sparse in graph.sparse_initializer)
        del graph.sparse_initializer[:]
    try:
        with _quiet():
            model = ir.from_proto(proto)
    except Exception as error:  # onnx_ir raises unrelated types on what it cannot make sense of
        raise InputError(f"{path}: not an ONNX model ({_one_line(error)}); expected a .onnx file") from None
    for external in external_weights(model).values():
        external.base_dir = path.parent
    return model


def external_weights(model: ir.Model) -> dict[ir.Value, ir.ExternalTensor]:
    """Return the weights of a model, and of the bodies of its If and Loop nodes, that lie in external files."""
    return {
        value: value.const_value
        for graph in model.graphs()
        for value in graph.initializers.values()
        if isinstance(value.const_value, ir.ExternalTensor)
    }


def save_model(model: ir.Model, path: Path) -> None:
    """Write a model in one step, all its weights with it; above 2 GB they go to ``<path>.data`` beside it.

    Raises
    ------
    InputError
        The folder cannot be written.
    """
    whole = model.clone()
    weights = [value.const_value for graph in whole.graphs() for value in graph.initializers.values()]
    if sum(weight.nbytes for weight in weights if weight is not None) < EXTERNAL_ABOVE_BYTES:
        for value, external in external_weights(whole).items():
            value.const_value = ir.tensor(external.numpy(), dtype=external.dtype, name=external.name)
        with replacing(path) as temporary:
            temporary.write_bytes(ir.to_proto(whole).SerializeToString(deterministic=True))
        return
    data = path.with_name(path.name + ".data")
    with replacing(path) as temporary, replacing(data) as temporary_data:
        # The proto names its data file, so both are written in a folder of their own under their final names.
        folder = temporary.with_name(temporary.name + ".folder")
        folder.mkdir()
        try:
            ir.save(whole, folder / path.name, external_data=data.name)
            (folder / data.name).replace(temporary_data)
            (folder / path.name).replace(temporary)
        finally:
            for left in folder.iterdir():
                left.unlink()
            folder.rmdir()


def copy_model(source: Path, path: Path) -> None:
    """Write a copy of a model file that has the same hash; what it has in external files goes to ``<path>.data``.

    Raises
    ------
    InputError
        The file is no model (`load_model`), or the folder cannot be written.
    """
    proto, places = _read(source)
    if not places:
        with replacing(path) as temporary:
            temporary.write_bytes(source.read_bytes())
        return
    data = path.with_name(path.name + ".data")
    with replacing(path) as temporary, replacing(data) as temporary_data:
        with temporary_data.open("wb") as stream:
            for tensor, place in places:
                offset = stream.tell()
                stream.writelines(place.chunks())
                point_at(tensor, data.name, offset, place.length)
        temporary.write_bytes(proto.SerializeToString(deterministic=True))


def model_sha256(path: Path) -> str:
    """Return the SHA-256 (hex) of a model: of the file, or where it has external data of both contents.

    Then it is that of the model without what it says of files and places in them, followed by the tensors' bytes. So
    it stays the same where data files are renamed or packed in another way, and changes where one bit of them does.

    Raises
    ------
    InputError
        The file is no model (`load_model`).
    """
    proto, places = _read(path)
    found = hashlib.sha256()
    if not places:
        found.update(path.read_bytes())
        return found.hexdigest()
    for tensor, _ in places:
        tensor.ClearField("external_data")
        tensor.ClearField("raw_data")
    found.update(proto.SerializeToString(deterministic=True))
    for _, data in places:
        for chunk in data.chunks():
            found.update(chunk)
    return found.hexdigest()


def _read(path: Path) -> tuple[onnx.ModelProto, list[tuple[onnx.TensorProto, ExternalData]]]:
    """Return a model as its file has it, and where its tensors with external data lie, which were checked."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected an ONNX model")
    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf raises unrelated types on bytes that are no model
        raise InputError(f"{path}: not an ONNX model ({_one_line(error)}); expected a .onnx file") from None
    if not proto.opset_import or proto.ir_version == 0:
        raise InputError(f"{path}: not an ONNX model (it names no operator set); expected a .onnx file")
    try:
        return proto, [(tensor, find_data(tensor, path.parent)) for tensor in external_tensors(proto)]
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _dense(sparse: onnx.SparseTensorProto, path: Path) -> onnx.TensorProto:
    """Return a weight of which the file has what is not zero, and the places of that: flat, or an axis a column."""
    values, places = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    name, shape = sparse.values.name, tuple(sparse.dims)
    if min(shape, default=0) < 0 or prod(shape) * values.itemsize > EXTERNAL_ABOVE_BYTES:
        raise InputError(f"{path}: sparse tensor {name!r}: expected sizes >= 0 and at most 2 GB, got {list(shape)}")
    dense = np.zeros(shape, values.dtype)
    try:
        flat = np.ravel_multi_index(tuple(places.T), shape) if places.ndim > 1 else places
        dense[np.unravel_index(flat, shape)] = values
    except ValueError as error:
        raise InputError(f"{path}: sparse tensor {name!r}: its places are none of {list(shape)} ({error})") from None
    return numpy_helper.from_array(dense, name)


def _is_map(kind: onnx.TypeProto) -> bool:
    """Tell whether a type is a map, or a sequence of them."""
    return kind.HasField("map_type") or (kind.HasField("sequence_type") and _is_map(kind.sequence_type.elem_type))


def _graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """Yield the main graph and the bodies in it."""
    waiting = [proto.graph]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting.extend([attribute.g] if attribute.HasField("g") else attribute.graphs)


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
