"""The device catalogue: datasheet figures, each with its source, and the roofline's coefficients per device."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from math import log
from typing import Any, Literal

from planner.model import DeviceType, InputError

Precision = Literal["fp32", "tf32", "fp16"]


@dataclass(frozen=True)
class Coefficients:
    """What a device reaches of its datasheet, and what a layer costs beside its work.

    Efficiencies are fractions of the peak, by kind of operator: dense convolutions of 3 × 3 and of 1 × 1 with
    stride 1, other dense, grouped and depthwise ones, products, and everything else. They may exceed 1 for 3 × 3,
    of which fast algorithms compute fewer operations than are counted. ``memory_efficiency`` is the fraction of the
    memory bandwidth. ``launch_us`` is the fixed cost of a layer. ``saturation_elements`` is the number of output
    elements at which a layer reaches half of its efficiency: below, a wide device idles. A share 1/k takes
    k^``share_exponent`` times as long while its neighbours are busy too, and its layers saturate k times as early.
    """

    conv3x3_efficiency: float
    conv1x1_efficiency: float
    conv_efficiency: float
    grouped_efficiency: float
    depthwise_efficiency: float
    matmul_efficiency: float
    vector_efficiency: float
    memory_efficiency: float
    launch_us: float
    saturation_elements: float = 0.0
    share_exponent: float = 1.0
    source: str = ""


@dataclass(frozen=True)
class CatalogueDevice:
    """A device's datasheet: peak rates in GFLOP/s, memory bandwidth in GB/s, memory in bytes, watts idle and busy.

    A rate that the device does not have is 0. ``precision`` is what estimates assume that models run in.
    ``sources`` names where each figure comes from. ``mig`` names the MIG profiles of a GPU that has some
    (`planner.model.segments`).
    """

    name: str
    kind: Literal["gpu", "cpu"]
    precision: Precision
    fp32_gflops: float
    tf32_gflops: float
    fp16_gflops: float
    memory_gigabytes_per_s: float
    memory_bytes: int
    shares: tuple[int, ...]
    idle_watts: float
    busy_watts: float
    coefficients: Coefficients
    sources: Mapping[str, str]
    mig: str | None = None

    @property
    def peak_gflops(self) -> float:
        """Peak rate in the assumed precision."""
        return {"fp32": self.fp32_gflops, "tf32": self.tf32_gflops, "fp16": self.fp16_gflops}[self.precision]

    @property
    def features(self) -> tuple[float, float]:
        """Logarithms of the peak rate and of the bandwidth: what completion knows of a device that was not measured."""
        return log(self.peak_gflops), log(self.memory_gigabytes_per_s)

    @property
    def element_bytes(self) -> int:
        """Bytes of a floating-point number in the assumed precision."""
        return 2 if self.precision == "fp16" else 4

    def device_type(self, count: int, devices_per_server: int = 1, *, mig: bool = False) -> DeviceType:
        """Return ``count`` of these devices for a cluster; with ``mig`` they may be divided into MIG segments too."""
        if mig and self.mig is None:
            raise InputError(f"{self.name} has no MIG; leave it out, or take one of {_with_mig()}")
        return DeviceType(
            self.name,
            count,
            self.kind,
            self.shares,
            devices_per_server,
            memory_bytes=self.memory_bytes,
            mig=self.mig if mig else None,
            idle_watts=self.idle_watts,
            busy_watts=self.busy_watts,
        )


@cache
def device_catalogue() -> Mapping[str, CatalogueDevice]:
    """Return all devices by name.

    >>> device_catalogue()["P4"].memory_gigabytes_per_s
    192.0
    """
    text = files("planner.profiling").joinpath("catalogue.toml").read_text(encoding="utf-8")
    document = tomllib.loads(text)
    return {name: _device(name, entry, document["coefficients"]) for name, entry in document["devices"].items()}


def _with_mig() -> list[str]:
    return [name for name, device in device_catalogue().items() if device.mig is not None]


def find_device(name: str) -> CatalogueDevice:
    """Return a device of the catalogue.

    Raises
    ------
    InputError
        The catalogue has no such device.
    """
    if name not in device_catalogue():
        raise InputError(
            f"the catalogue has no device {name!r}; it has {list(device_catalogue())}: use one of them, or measure it "
            "with `python -m planner profile`"
        )
    return device_catalogue()[name]


def _device(name: str, entry: Mapping[str, Any], coefficients: Mapping[str, Any]) -> CatalogueDevice:
    """Return a device; one without coefficients of its own borrows those that its entry names."""
    chosen = {field.name: entry[field.name] for field in fields(CatalogueDevice) if field.name in entry}
    return CatalogueDevice(
        name=name,
        coefficients=Coefficients(**coefficients[entry["coefficients"]]),
        shares=tuple(entry["shares"]),
        **{key: value for key, value in chosen.items() if key not in ("coefficients", "shares")},
    )
