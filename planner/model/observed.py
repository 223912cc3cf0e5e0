"""Observations: runs of models whose blocks were timed, on whatever devices were at hand, most never."""

from itertools import combinations
from math import exp, log, sqrt
from typing import Annotated

from annotated_types import Ge, Gt, Le, MinLen

from planner.model.errors import InputError
from planner.model.profile import MOST_US, Batch, Profile, Provenance
from planner.model.record import record
from planner.model.segments import Share, share_text

AGREE_SPREADS, AGREE_LEAST = 4.0, 0.05
UNKNOWN_SPREAD = 0.03  # of the logarithm, where a run does not say how its timings spread

Time = Annotated[float, Gt(0), Le(MOST_US)]
Spread = Annotated[float, Ge(0)]


@record
class Run:
    """One model at a batch size on a share of a device (`planner.model.segments`), its blocks timed one by one.

    ``latency_us`` has a number per block, None for one that was not timed; ``spread`` is the standard deviation of the
    logarithm of the single timings behind each. ``beside`` names the models that ran on the device at the same time,
    apart from the share's own neighbours. ``chosen`` tells that the run was made because a plan rested on it.
    """

    model: Annotated[str, MinLen(1)]
    device: Annotated[str, MinLen(1)]
    share: Share
    batch: Batch
    latency_us: Annotated[tuple[Time | None, ...], MinLen(1)]
    provenance: Provenance
    spread: tuple[Spread | None, ...] | None = None
    beside: tuple[str, ...] = ()
    chosen: bool = False

    @property
    def place(self) -> tuple[str, str, Share, int, tuple[str, ...]]:
        """What was run where: model, device, share, batch, and the models beside, sorted."""
        return self.model, self.device, self.share, self.batch, tuple(sorted(self.beside))

    def __str__(self) -> str:
        """Name a run in messages."""
        beside = f" beside {', '.join(self.beside)}" if self.beside else ""
        return f"{self.model} on {self.device} {share_text(self.share)}, batch {self.batch}{beside}"


@record
class Observed:
    """Models (profiles whose tables, if any, are estimates) and the runs that were made of them."""

    models: Annotated[tuple[Profile, ...], MinLen(1)]
    runs: tuple[Run, ...] = ()

    def __post_init__(self) -> None:
        """Refuse unknown models and runs that do not fit their model's blocks."""
        blocks = {model.name: len(model.blocks) for model in self.models}
        if len(blocks) != len(self.models):
            raise InputError(f"models: names must differ, got {[model.name for model in self.models]}")
        for number, run in enumerate(self.runs):
            for name in (run.model, *run.beside):
                if name not in blocks:
                    raise InputError(f"runs[{number}]: unknown model {name!r}; expected one of {sorted(blocks)}")
            for what, row in (("latency_us", run.latency_us), ("spread", run.spread)):
                if row is not None and len(row) != blocks[run.model]:
                    raise InputError(
                        f"runs[{number}].{what}: expected {blocks[run.model]} numbers, one per block of {run.model}, "
                        f"got {len(row)}"
                    )
            if all(value is None for value in run.latency_us):
                raise InputError(f"runs[{number}].latency_us: no block was timed; leave the run out or time it")

    def model(self, name: str) -> Profile:
        """Return a model by name; raises InputError if there is none."""
        for profile in self.models:
            if profile.name == name:
                return profile
        raise InputError(f"unknown model {name!r}; the observations hold {[model.name for model in self.models]}")

    def merged(self) -> tuple[Run, ...]:
        """Return the runs with those of one place made one: medians' geometric mean, block by block.

        Raises
        ------
        InputError
            Two timings of a block in one place differ by more than their spreads allow.
        """
        by_place: dict[object, list[Run]] = {}
        for run in self.runs:
            by_place.setdefault(run.place, []).append(run)
        return tuple(runs[0] if len(runs) == 1 else _merged(runs) for runs in by_place.values())


def _merged(runs: list[Run]) -> Run:
    first = runs[0]
    latency_us: list[float | None] = []
    spread: list[float | None] = []
    for block in range(len(first.latency_us)):
        timed = [
            (value, UNKNOWN_SPREAD if run.spread is None or (own := run.spread[block]) is None else own)
            for run in runs
            if (value := run.latency_us[block]) is not None
        ]
        for (value, own), (other, its) in combinations(timed, 2):
            allowed = AGREE_LEAST + AGREE_SPREADS * sqrt(own**2 + its**2)
            if abs(log(other / value)) > allowed:
                raise InputError(
                    f"{first}: block {block}: two timings disagree, {value:g} and {other:g} µs; their spreads "
                    f"allow {exp(allowed) - 1:.0%}: measure it again and keep the right one"
                )
        latency_us.append(exp(sum(log(value) for value, _ in timed) / len(timed)) if timed else None)
        spread.append(max((own for _, own in timed), default=None))
    chosen = any(run.chosen for run in runs)
    return Run(*first.place[:4], tuple(latency_us), first.provenance, tuple(spread), first.beside, chosen)


def runs_of_profile(profile: Profile) -> tuple[Run, ...]:
    """Return the measured tables of a profile as runs; what was estimated is no measurement.

    Latencies of 0 µs, as some published tables have, count 1.
    """
    return tuple(
        Run(
            profile.name,
            table.device,
            table.share,
            batch,
            tuple(float(max(1, value)) for value in row),
            table.provenance,
            None if table.spread is None else table.spread[number],
            table.beside,
        )
        for table in profile.tables
        if table.provenance.kind == "measured"
        for number, (batch, row) in enumerate(zip(table.batches, table.latency_us, strict=True))
    )
