"""Options that say what this machine's cores stand for, and the models that are run on them."""

from collections.abc import Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Annotated

import onnx_ir as ir
import typer

from planner.files.models import load_model, model_sha256
from planner.model import InputError, Profile
from simulator.executor import Emulation

CoresOption = Annotated[
    list[str] | None, typer.Option(metavar="TYPE=N", help="Cores of a device of this type. [default: 1]")
]
SlowdownOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TYPE=X",
        help="Emulate a device X times as slow as this CPU, or, for TYPE=DEVICE, as the profile has it beside DEVICE.",
    ),
]
OversubscribeOption = Annotated[bool, typer.Option("--oversubscribe", help="Run even if there are too few cores.")]


def emulation_of(
    cores: list[str] | None, slowdown: list[str] | None, network: bool, profiles: Sequence[Profile] = ()
) -> Emulation:
    """Return what TYPE=NUMBER options say; raises InputError where they cannot be read.

    A slowdown may be TYPE=DEVICE instead, of two devices that all ``profiles`` have.
    """
    measured = {device for profile in profiles for device in profile.devices}
    slowdown = [
        _with_number(text, profiles) if text.rpartition("=")[2] in measured else text for text in slowdown or []
    ]
    widths = _per_type("cores", cores)
    for name, number in widths.items():
        if not number.is_integer():
            raise InputError(f"--cores: expected an integer >= 1 for {name}, got {number:g}")
    return Emulation({name: int(number) for name, number in widths.items()}, _per_type("slowdown", slowdown), network)


def load_profiled(path: Path, profile: Profile) -> ir.Model:
    """Read a model; raises InputError if it is missing or not the one that was profiled."""
    model, found = load_model(path), model_sha256(path)
    if profile.model_sha256 not in (None, found):
        raise InputError(
            f"{path}: is not the model that was profiled (SHA-256 {found[:12]}, profiled "
            f"{str(profile.model_sha256)[:12]}); profile it again, or give the file that was profiled"
        )
    return model


def _with_number(text: str, profiles: Sequence[Profile]) -> str:
    """Return TYPE=DEVICE with the number of times that whole devices of the type take longer for a whole model."""
    name, _, device = text.rpartition("=")
    slower, faster = ([_model_latency_us(profile, each) for profile in profiles] for each in (name, device))
    return f"{name}={geometric_mean(slow / fast for slow, fast in zip(slower, faster, strict=True)):.4g}"


def _model_latency_us(profile: Profile, device: str) -> int:
    return profile.stage_latency_us(device, 1, profile.table(device, 1).batches[0], 0, len(profile.blocks))


def _per_type(option: str, given: list[str] | None) -> dict[str, float]:
    """Read TYPE=NUMBER options.

    >>> _per_type("slowdown", ["pi4=8", "pi5=2.5"])
    {'pi4': 8.0, 'pi5': 2.5}
    """
    found = {}
    for text in given or []:
        name, _, value = text.rpartition("=")
        try:
            found[name] = float(value)
        except ValueError:
            name = ""
        if not name:
            raise InputError(f"--{option}: expected TYPE=NUMBER, got {text!r}")
    return found
