"""What options say of the devices that this machine's cores stand for, and the models that are run on them."""

from collections.abc import Sequence
from pathlib import Path
from statistics import geometric_mean

import onnx_ir as ir

from planner.files import file_name
from planner.files.models import load_model, model_sha256
from planner.model import InputError, Profile
from simulator.executor import Emulation
from simulator.executor.devices import require_device_type


def emulation_of(
    cores: list[str] | None,
    slowdown: list[str] | None,
    network: bool,
    types: Sequence[str],
    profiles: Sequence[Profile],
) -> Emulation:
    """Return what the options say of the cluster's device ``types``; raises InputError where they cannot be read.

    A slowdown may be TYPE=DEVICE instead of TYPE=NUMBER, of two devices that all ``profiles`` have.
    """
    widths = {}
    for name, value in _per_type("cores", cores, types, "TYPE=NUMBER").items():
        number = _number(value)
        if number is None or not number.is_integer():
            raise InputError(f"--cores: expected an integer >= 1 for {name}, got {value!r}")
        widths[name] = int(number)
    measured = [name for name in profiles[0].devices if all(profile.has(name, 1) for profile in profiles)]
    expected = f"TYPE=NUMBER or TYPE=DEVICE, with DEVICE one of {', '.join(measured)}"
    factors = {}
    for name, value in _per_type("slowdown", slowdown, types, expected).items():
        factor = _times_as_slow(name, value, profiles) if value in measured else _number(value)
        if factor is None:
            raise InputError(f"--slowdown: expected {expected}; got {f'{name}={value}'!r}")
        factors[name] = factor
    return Emulation(widths, factors, network)


def model_file(folder: Path, variant: str) -> Path:
    """Return the file of a variant; one that has its sizes in its name may have a file without them."""
    own = folder / f"{file_name(variant)}.onnx"
    return own if own.exists() else folder / f"{file_name(variant.partition('@')[0])}.onnx"


def load_profiled(path: Path, profile: Profile) -> ir.Model:
    """Read a model; raises InputError if it is missing or not the one that was profiled."""
    model, found = load_model(path), model_sha256(path)
    if profile.model_sha256 not in (None, found):
        raise InputError(
            f"{path}: is not the model that was profiled (SHA-256 {found[:12]}, profiled "
            f"{str(profile.model_sha256)[:12]}); profile it again, or give the file that was profiled"
        )
    return model


def _times_as_slow(name: str, device: str, profiles: Sequence[Profile]) -> float:
    """Return how many times as long a whole model takes on a device type as on ``device``, to four digits."""
    slower, faster = ([_model_latency_us(profile, each) for profile in profiles] for each in (name, device))
    return float(f"{geometric_mean(slow / fast for slow, fast in zip(slower, faster, strict=True)):.4g}")


def _model_latency_us(profile: Profile, device: str) -> int:
    return profile.stage_latency_us(device, 1, profile.table(device, 1).batches[0], 0, len(profile.blocks))


def _per_type(option: str, given: list[str] | None, types: Sequence[str], expected: str) -> dict[str, str]:
    """Read TYPE=VALUE options.

    >>> _per_type("slowdown", ["pi4=8", "pi5=cpu"], ["pi4", "pi5"], "TYPE=NUMBER")
    {'pi4': '8', 'pi5': 'cpu'}
    """
    found: dict[str, str] = {}
    for text in given or []:
        name, _, value = text.rpartition("=")
        if not name:
            raise InputError(f"--{option}: expected {expected}; got {text!r}")
        require_device_type(name, types)
        if name in found:
            raise InputError(f"--{option}: {name!r} is given twice")
        found[name] = value
    return found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
