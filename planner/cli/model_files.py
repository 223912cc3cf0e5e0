"""How commands read a model: from a file with what it leaves open, or built by name."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.app import about, console
from planner.files import printable
from planner.model import Constant, InputError, ModelSettings

if TYPE_CHECKING:
    import onnx_ir as ir

    from planner.profiling import ModelGraph, Prepared

LARGEST_CONSTANT = 65_536  # elements; profiles hold constants as text

ModelArgument = Annotated[str, typer.Argument(help="An .onnx file, or the name of a model (see `models`).")]
FixOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE,...",
        help="Numbers for symbolic dimensions, by name or as INPUT:AXIS: height=320,width=320 or x:2=48.",
    ),
]
ConstantOption = Annotated[
    list[str] | None,
    typer.Option(metavar="INPUT=VALUE", help="An input that all requests share: a number, or a .npy file."),
]
StateOption = Annotated[
    list[str] | None,
    typer.Option(metavar="OUTPUT:INPUT", help="An output that the caller brings back as an input of the next call."),
]
BatchAxisOption = Annotated[
    list[str] | None,
    typer.Option(metavar="INPUT=AXIS", help="The axis of an input along which requests lie, where it is not clear."),
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of the random weights of a model given by name.")]


@dataclass(frozen=True, eq=False)
class ModelFile:
    """A model that a command was given: its graph and settings, and the hash of its file.

    ``given`` is the model as its file has it. For one built by name the hash is of what `models export` writes.
    """

    given: "ir.Model"
    prepared: "Prepared"
    sha256: str

    @property
    def graph(self) -> "ModelGraph":
        """The model's layers and cuts."""
        return self.prepared.graph

    @property
    def settings(self) -> ModelSettings | None:
        """How the file was read, None for the usual way."""
        return None if self.prepared.settings == ModelSettings() else self.prepared.settings

    def batches(self, asked: tuple[int, ...] | None, usual: tuple[int, ...] = (1, 2, 4, 8)) -> tuple[int, ...]:
        """Return the batch sizes to profile; raises InputError if larger ones are asked for than the model takes."""
        if not self.prepared.single:
            return asked or usual
        if asked and asked != (1,):
            raise InputError(f"--batches: a run takes one request: {self.prepared.reason}; ask for --batches 1")
        return (1,)


def settings_of(
    fix: Iterable[str] | None = None,
    constant: Iterable[str] | None = None,
    state: Iterable[str] | None = None,
    batch_axis: Iterable[str] | None = None,
) -> ModelSettings:
    """Return what the options say; raises InputError where they cannot be read.

    >>> settings_of(["height=320,width=240"], state=["stateN:state"]).sizes
    {'height': 320, 'width': 240}
    """
    sizes = [part for text in fix or () for part in text.split(",") if part.strip()]
    return ModelSettings(
        {name: _integer(value, "fix", name, 1) for name, value in _pairs(sizes, "fix", "NAME=VALUE", "=").items()},
        {name: _constant(value, name) for name, value in _pairs(constant, "constant", "INPUT=VALUE", "=").items()},
        _pairs(state, "state", "OUTPUT:INPUT", ":"),
        {
            name: _integer(value, "batch-axis", name, 0)
            for name, value in _pairs(batch_axis, "batch-axis", "INPUT=AXIS", "=").items()
        },
    )


def _pairs(texts: Iterable[str] | None, option: str, expected: str, sign: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts or ():
        name, _, value = (part.strip() for part in text.rpartition(sign))
        if not name or not value:
            raise InputError(f"--{option}: expected {expected}, got {text!r}")
        if name in found:
            raise InputError(f"--{option}: {name!r} is given twice")
        found[name] = value
    return found


def _integer(text: str, option: str, name: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise InputError(f"--{option}: expected an integer >= {least} for {name!r}, got {text!r}")
    return int(text)


def _constant(text: str, name: str) -> Constant:
    """Read a number, or the numbers of a .npy file."""
    import numpy as np

    if not text.endswith(".npy"):
        try:
            return Constant((), (float(text),))
        except ValueError:
            raise InputError(f"--constant: expected a number or a .npy file for {name!r}, got {text!r}") from None
    try:
        numbers = np.load(text, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--constant: cannot read {text} ({str(error).splitlines()[0]}); expected a .npy file"
        ) from None
    if not isinstance(numbers, np.ndarray) or numbers.dtype.kind not in "fiub":
        raise InputError(f"--constant: {text} holds no numbers; expected an array of numbers")
    if numbers.size > LARGEST_CONSTANT:
        raise InputError(
            f"--constant: {text} holds {numbers.size} numbers, a profile at most {LARGEST_CONSTANT}; "
            "make it an initializer of the model"
        )
    return Constant(numbers.shape, tuple(float(number) for number in numbers.ravel()))


def profile_name(stem: str, settings: ModelSettings) -> str:
    """Return a profile's name: its sizes are told where the file leaves them open.

    >>> profile_name("bert", ModelSettings(sizes={"seq": 128}))
    'bert@seq=128'
    """
    sizes = ",".join(f"{name}={size}" for name, size in settings.sizes.items())
    return f"{stem}@{sizes}" if sizes else stem


def read_model(text: str, settings: ModelSettings, seed: int = 0) -> ModelFile:
    """Read a model file, or build a model by its name.

    The hash is of the file that was given, not of what was made of it: executors read that one, and do the same to it.

    Raises
    ------
    InputError
        There is no such file or model, it cannot be prepared, or settings are given for a model built by name.
    """
    import onnx_ir as ir

    from planner.files.models import load_model, model_sha256
    from planner.profiling import Prepared, build_model, prepare_model, read_graph

    path = Path(text)
    if path.suffix != ".onnx" and not path.exists():
        if settings != ModelSettings():
            raise InputError(
                f"{text}: is built by name and leaves nothing open; --fix and the like are for .onnx files"
            )
        model = build_model(text, seed)
        sha256 = hashlib.sha256(ir.to_proto(model).SerializeToString(deterministic=True)).hexdigest()
        return ModelFile(model, Prepared(read_graph(model, text), settings), sha256)
    given = load_model(path)
    with about(path):
        prepared = prepare_model(given, profile_name(path.stem, settings), settings)
    if prepared.reason:
        sizes = f" ({', '.join(f'{name}=1' for name in prepared.assumed)})" if prepared.assumed else ""
        console.print(
            printable(f"{path}: a run takes one request{sizes}: {prepared.reason}"), highlight=False, soft_wrap=True
        )
    elif prepared.freed:
        console.print(
            printable(f"{path} pins its batch; it was freed, and answers as the file does"),
            highlight=False,
            soft_wrap=True,
        )
    return ModelFile(given, prepared, model_sha256(path))
