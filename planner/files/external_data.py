"""Weights in files beside a model: found wherever they are named, and checked before anything opens them.

A model may come from anyone, and what it calls its weights may be any path. So each is refused unless it is an ordinary
file in the model's own folder, reached without a link, and long enough for what the model says lies there.
"""

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import onnx
import onnx_ir as ir

from planner.model import InputError

_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class ExternalData:
    """Where the bytes of a tensor lie: ``length`` bytes from ``offset`` on, in an ordinary file."""

    file: Path
    offset: int
    length: int

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes, piece by piece."""
        left = self.length
        with self.file.open("rb") as stream:
            stream.seek(self.offset)
            while left > 0 and (chunk := stream.read(min(left, _CHUNK_BYTES))):
                left -= len(chunk)
                yield chunk


def external_tensors(message: Any) -> Iterator[onnx.TensorProto]:
    """Yield the tensors with external data in any part of a model: bodies of If and Loop, functions, attributes.

    ``message`` is a protocol buffer message of any type, such as ``onnx.ModelProto``.
    """
    if isinstance(message, onnx.TensorProto):
        if message.data_location == onnx.TensorProto.EXTERNAL:
            yield message
        return
    for field, content in message.ListFields():
        if field.message_type is not None:
            for part in [content] if hasattr(content, "ListFields") else content:
                yield from external_tensors(part)


def find_data(tensor: onnx.TensorProto, folder: Path) -> ExternalData:
    """Return where a tensor's bytes lie, for a model in ``folder``; nothing is opened.

    Raises
    ------
    InputError
        They lie outside the folder, behind a link, in no ordinary file, or the file is too short.
    """
    said = {entry.key: entry.value for entry in tensor.external_data}
    location = said.get("location", "")
    what = f"tensor {tensor.name!r}"
    parts = PurePosixPath(location).parts
    outside = ".." in parts or PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor
    if not parts or "\0" in location or outside or "\\" in location:
        raise InputError(
            f"{what}: its external data are said to be in {location!r}; "
            "expected a file in the model's folder, named relative to it"
        )
    file = folder
    for part in parts:
        file /= part
        if file.is_symlink():
            raise InputError(
                f"{what}: its external data are behind the link {file}; put the file itself beside the model"
            )
    if not file.exists():
        raise InputError(f"{what} is missing: its external data file {file} does not exist; put it beside the model")
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{what}: its external data are said to be in {file}, which is no ordinary file")
    return _place(what, file, status.st_size, _needed_bytes(tensor, what), said)


def _place(what: str, file: Path, size: int, needed: int, said: dict[str, str]) -> ExternalData:
    offset, length = said.get("offset", "0") or "0", said.get("length", "") or str(needed)
    if not offset.isdecimal() or not length.isdecimal():
        raise InputError(
            f"{what}: expected offset and length of its external data as integers >= 0, got {offset!r} and {length!r}"
        )
    if int(length) != needed:
        raise InputError(f"{what}: its type and shape take {needed} bytes, its external data are said to have {length}")
    if int(offset) + needed > size:
        raise InputError(
            f"{what}: its external data are said to be {needed} bytes from byte {offset} of {file}, which has {size}; "
            "the file is cut short or another one: get it again"
        )
    return ExternalData(file, int(offset), needed)


def _needed_bytes(tensor: onnx.TensorProto, what: str) -> int:
    try:
        bits = ir.DataType(tensor.data_type).bitwidth
    except (TypeError, ValueError):
        raise InputError(f"{what}: its type {tensor.data_type} cannot lie in an external file") from None
    if min(tensor.dims, default=0) < 0:
        raise InputError(f"{what}: expected sizes >= 0, got shape {list(tensor.dims)}")
    return int(-(-prod(tensor.dims) * bits // 8))


def load_data(tensor: onnx.TensorProto, data: ExternalData) -> None:
    """Put a tensor's bytes into it."""
    tensor.raw_data = b"".join(data.chunks())
    tensor.data_location = onnx.TensorProto.DEFAULT
    tensor.ClearField("external_data")


def point_at(tensor: onnx.TensorProto, file: str, offset: int, length: int) -> None:
    """Let a tensor's bytes lie at a place in a file."""
    tensor.ClearField("external_data")
    for key, value in (("location", file), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
