"""Cells of profiles, each a block of a model at a batch size on a share of a device; what they have in common.

A cell's log latency is a sum of effects (`planner.completion.gaussian`): of its device, model, block; of what a block
is to a device (which operators suit it); how all of these grow with the batch (log b) and with the share (log k); and
of particular batch sizes and shares, for latencies step where kernels change. Where devices are described (peak rate,
bandwidth), how much a block is of the one or of the other kind. Where every cell has an estimate (a roofline), cells
are times relative to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.completion.gaussian import Component, Effects
from planner.completion.observations import Floats, Ints, standardised
from planner.model import InputError, Profile
from planner.model.observed import Observed, Run
from planner.model.segments import Share

Platform = tuple[str, Share]  # device, share
Place = tuple[str, str, Share, int]  # model, device, share, batch

# What a handful of devices cannot tell of the next: least variances of effects of devices. A device may be e times as
# fast as others (1.0), its batches and shares may pay off quite differently (0.02: by 15 % per doubling), and it may
# suit models and blocks as no other does (0.1, 0.05: by a third and a fifth; tensor cores among GPUs without).
LEAST_VARIANCES = {"device": 1.0, "device · batch": 0.02, "device · share": 0.02, "device × model": 0.1,
                   "device × block": 0.05}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Cells:
    """All cells; ``base`` is the log of their estimates, 0 where there are none.

    ``run`` numbers the cells that are timed together: a model at a batch size on a share of a device. ``share`` is an
    index into ``shares``; ``log_share`` is log k for 1/k of a device, and 0 for named segments, whose effects are their
    own.
    """

    observed: Observed
    devices: tuple[str, ...]
    shares: tuple[Share, ...]
    model: Ints
    block: Ints
    batch: Ints
    device: Ints
    share: Ints
    log_share: Floats
    base: Floats
    run: Ints

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self.model)

    def places(self) -> dict[Place, Ints]:
        """Return the cells of each run by (model, device, share, batch), in the order of the model's blocks."""
        order = np.argsort(self.run, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(self.run[order])) + 1)
        found = {}
        for cells in groups:
            at = cells[0]
            name = self.observed.models[self.model[at]].name
            found[name, self.devices[self.device[at]], self.shares[self.share[at]], int(self.batch[at])] = cells
        return found

    def measured(self, runs: Sequence[Run]) -> tuple[Ints, Floats, Ints]:
        """Return what runs measured: cells, their log times relative to ``base``, and which run each is of."""
        places = self.places()
        cells: list[int] = []
        logs: list[float] = []
        of_run: list[int] = []
        for number, run in enumerate(runs):
            for cell, value in zip(places[run.place[:4]], run.latency_us, strict=True):
                if value is not None:
                    cells.append(int(cell))
                    logs.append(float(np.log(value)) - float(self.base[cell]))
                    of_run.append(number)
        return np.array(cells, np.int64), np.array(logs), np.array(of_run, np.int64)


def cells_of(observed: Observed, batches: Mapping[Platform, Sequence[int]]) -> Cells:
    """Return the cells of all models on platforms, each at its batch sizes."""
    devices = tuple(dict.fromkeys(device for device, _ in batches))
    shares = tuple(dict.fromkeys(share for _, share in batches))
    rows = []
    first_block = np.cumsum([0, *(len(model.blocks) for model in observed.models)])
    runs = 0
    for number, model in enumerate(observed.models):
        for (device, share), sizes in batches.items():
            for batch in sizes:
                for block in range(len(model.blocks)):
                    rows.append(
                        (number, first_block[number] + block, batch, devices.index(device), shares.index(share), runs)
                    )
                runs += 1
    model, block, batch, device, share, run = np.array(rows, np.int64).T
    log_share = np.array([float(np.log(each)) if isinstance(each, int) else 0.0 for each in shares])[share]
    base = np.zeros(len(rows))
    if estimates := _estimates(observed.models, batches):
        base = np.log(np.concatenate(estimates))
    return Cells(observed, devices, shares, model, block, batch, device, share, log_share, base, run)


def _estimates(models: Sequence[Profile], batches: Mapping[Platform, Sequence[int]]) -> list[Floats]:
    """Return the estimates of all cells in their order; nothing where one is missing."""
    found = []
    for model in models:
        for (device, share), sizes in batches.items():
            for batch in sizes:
                if not model.has(device, share) or batch > model.table(device, share).batches[-1]:
                    return []
                found.append(np.array(model.table(device, share).block_latency_us(batch), float))
    return found


def components(cells: Cells, described: Mapping[str, Sequence[float]] | None = None) -> tuple[Component, ...]:
    """Return the effects that make up cells' log times.

    Parameters
    ----------
    described
        Features of every device (the logarithms of its peak rate and bandwidth, say); None leaves them out.
    """
    one = np.ones((len(cells), 1))
    batch, share = np.log2(cells.batch)[:, None] / 2, cells.log_share[:, None]
    nothing = np.zeros(len(cells), np.int64)
    keys = {
        "all": nothing,
        "device": cells.device,
        "model": cells.model,
        "block": cells.block,
        "device × model": _crossed(cells.device, cells.model),
        "device × block": _crossed(cells.device, cells.block),
    }
    found = [Component(name, key, one) for name, key in keys.items() if name != "all"]
    slopes = {"batch": batch, "share": share, "batch · share": batch * share}
    found += [Component(f"{name} · {by}", key, slope) for by, slope in slopes.items() for name, key in keys.items()]
    steps = {
        "block at batch": (cells.block, cells.batch),
        "device at share": (cells.device, cells.share),
        "device at share, batch": (cells.device, cells.share, cells.batch),
        "block on device at share": (cells.block, cells.device, cells.share),
        "block on device at batch": (cells.block, cells.device, cells.batch),
        "model on device at share": (cells.model, cells.device, cells.share),
        "run": (cells.run,),
    }
    found += [Component(name, _crossed(*parts), one) for name, parts in steps.items()]
    if described is not None and len(cells.devices) > 1:
        features = standardised(np.array([described[device] for device in cells.devices], float))[cells.device]
        found += [Component(f"{name} · device features", keys[name], features) for name in ("model", "block")]
    return tuple(found)


def widened(effects: Effects) -> Effects:
    """Return effects whose variances are at least those that a few devices must be thought to have."""
    least = np.array([LEAST_VARIANCES.get(component.name, 0.0) for component in effects.components])
    return replace(effects, variance=np.maximum(effects.variance, least))


def platforms_of(observed: Observed, runs: Sequence[Run], asked: Sequence[str] = ()) -> dict[Platform, tuple[int, ...]]:
    """Return the platforms to complete, with the batch sizes that were measured or estimated on each.

    Parameters
    ----------
    asked
        Devices; none asks for all that have a measurement.

    Raises
    ------
    InputError
        A device has neither a measurement nor an estimate.
    """
    found: dict[Platform, set[int]] = {}
    for run in runs:
        found.setdefault((run.device, run.share), set()).add(run.batch)
    for model in observed.models:
        for table in model.tables:
            if table.device in asked or (table.device, table.share) in found:
                found.setdefault((table.device, table.share), set()).update(table.batches)
    for device in asked:
        if not any(device == known for known, _ in found):
            known = sorted({name for name, _ in found})
            raise InputError(
                f"device {device!r}: has neither a measurement nor an estimate (there are some of {known}); observe a "
                "run on it, or estimate its profiles"
            )
    return {key: tuple(sorted(sizes)) for key, sizes in sorted(found.items(), key=lambda item: _order(item[0]))}


def _order(platform: Platform) -> tuple[str, bool, str]:
    """Sort shares 1/k before named ones."""
    device, share = platform
    return device, isinstance(share, str), str(share)


def platforms_to_learn(
    observed: Observed, runs: Sequence[Run], device: str, *, described: bool
) -> dict[Platform, tuple[int, ...]]:
    """Return the observed platforms, and those of a device to learn about: every share and batch seen on any device.

    Raises
    ------
    InputError
        Nothing is known of the device: no run, no estimate, and it is not described by features.
    """
    try:
        found = platforms_of(observed, runs, [device])
    except InputError:
        if not described:
            raise
        found = platforms_of(observed, runs)
    wanted: dict[Platform, set[int]] = {}
    for (_, share), sizes in found.items():
        wanted.setdefault((device, share), set()).update(sizes)
    return found | {platform: tuple(sorted(sizes)) for platform, sizes in wanted.items()}


def _crossed(*keys: Ints) -> Ints:
    """Return one key for each combination of keys."""
    found = np.zeros(len(keys[0]), np.int64)
    for key in keys:
        found = found * (int(key.max(initial=0)) + 1) + key
    return found
