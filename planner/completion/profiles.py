"""Whole profiles from observed runs: what was measured as measured, the rest estimated, everything bounded.

`predict_profiles` fits the Gaussian model of `planner.completion.cells` to what was measured alone; `Predictions` then
gives profiles (`profiles`), profiles of bounds (`bounded`), and what to measure next (`suggest`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from planner.completion.cells import Cells, Place, Platform, cells_of, components, platforms_of, widened
from planner.completion.conformal import finite_margin, require_rows
from planner.completion.gaussian import Posterior, fit_effects, next_measurements, reduced
from planner.completion.observations import Floats, Ints
from planner.completion.paths import Predicted, block_scores, path_scores, sigmas
from planner.model import InputError, LatencyTable, Profile, Provenance
from planner.model.observed import Observed, Run

FITTED_CELLS = 700  # that variances are fitted to; the prediction uses all
Kind = Literal["path", "block"]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What observed runs say of all cells."""

    cells: Cells
    runs: tuple[Run, ...]
    posterior: Posterior
    of_run: Ints

    @cached_property
    def left_out(self) -> dict[Place, Predicted]:
        """Each measured run, predicted as if it had not been measured."""
        found = {}
        for number, run in enumerate(self.runs):
            own = np.flatnonzero(self.of_run == number)
            mean, covariance = self.posterior.without(own)
            rows = self.posterior.rows[own]
            found[run.place[:4]] = _predicted(run, np.exp(mean + self.cells.base[rows]), covariance, _blocks_timed(run))
        return found

    @cached_property
    def predicted(self) -> dict[Place, Predicted]:
        """Every run, measured or not, as predicted from all measurements."""
        measured = {run.place[:4]: run for run in self.runs}
        found = {}
        places, noise = self.cells.places(), self.posterior.effects.noise
        moments = self.posterior.of_groups(list(places.values()))
        for (place, cells), (mean, covariance) in zip(places.items(), moments, strict=True):
            run = measured.get(place) or Run(*place, (None,) * len(cells), Provenance("estimated", "none"))
            latency_us = np.exp(mean + self.cells.base[cells])
            found[place] = _predicted(
                run, latency_us, covariance + noise * np.eye(len(cells)), np.ones(len(cells), bool)
            )
        return found

    def profiles(self) -> tuple[Profile, ...]:
        """Return whole profiles: measured latencies where there are, predicted ones elsewhere, monotone in batch."""
        return self._tables(lambda run: run.latency_us, "estimated", None, "")

    def calibrating(self, *, chosen: bool = False) -> list[Predicted]:
        """Return the runs that calibrate bounds, every block of which was timed, left out one by one; see `margin`."""
        runs = [run for run in self.runs if (run.chosen or not chosen) and None not in run.latency_us]
        return [self.left_out[run.place[:4]] for run in runs]

    def margin(self, level: float, kind: Kind = "path", *, chosen: bool = False) -> float:
        """Return q of bounds at a level, calibrated on measured runs that were left out one by one.

        Parameters
        ----------
        chosen
            Calibrate on those runs alone that were made because plans rested on them, whose errors are those of what
            planners choose (`planner.completion.plans`).

        Raises
        ------
        InputError
            Too few runs calibrate.
        """
        runs = self.calibrating(chosen=chosen)
        what = "observed runs that plans chose" if chosen else "observed runs"
        if any(None in run.latency_us for run in self.runs):
            what += ", every block timed"
        require_rows(len(runs), level, what)  # scores of one run are no independent rows
        scores = path_scores(runs) if kind == "path" else block_scores(runs)
        return max(0.0, finite_margin(scores, level, "complete runs"))

    def bounded(
        self, level: float, kind: Kind = "path", margin: float | None = None, *, chosen: bool = False
    ) -> tuple[Profile, ...]:
        """Return profiles of upper bounds, of sums of blocks (*path*) or of each block (*block*).

        Parameters
        ----------
        margin
            q in place of `margin`'s, for bounds calibrated on what other plans chose (`planner.completion.paths`).
        chosen
            See `margin`.
        """
        q = self.margin(level, kind, chosen=chosen) if margin is None else margin
        if not isfinite(q):
            raise InputError(f"margin: expected a finite number of sigmas, got {q}; calibrate it on more plans")
        calibrated = "calibrated on stages of plans"
        if margin is None:
            runs = self.calibrating(chosen=chosen)
            calibrated = f"calibrated on {len(runs)} runs{' that plans chose' if chosen else ''}"

        def bound(run: Predicted) -> Floats:
            spread = run.sigma if kind == "path" else run.block_sigma
            return np.asarray(run.latency_us * np.exp(q * spread))

        return self._tables(bound, "bound", level, f"{kind}-wise, {calibrated}")

    def suggest(self, device: str, budget: int) -> list[tuple[Place, float]]:
        """Return which runs on a device to time next, with the typical error (a fraction) that is left after each.

        The error is the root mean square of the log latencies of the device's cells. No measurement is needed to
        choose; those made already count.
        """
        places = {place: cells for place, cells in self.cells.places().items() if place[1] == device}
        if not places:
            raise InputError(f"device {device!r}: nothing observed or estimated; there is {list(self.cells.devices)}")
        done = {run.place[:4] for run in self.runs if None not in run.latency_us}
        every = np.concatenate(list(places.values()))
        position = {int(cell): at for at, cell in enumerate(every)}
        open_places = [place for place in places if place not in done]
        candidates = [np.array([position[int(cell)] for cell in places[place]]) for place in open_places]
        left, noise = self.posterior.covariance(every), self.posterior.effects.noise
        found = []
        for number in next_measurements(left, candidates, noise, budget):
            left = reduced(left, candidates[number], noise)
            found.append((open_places[number], float(np.sqrt(np.mean(np.maximum(np.diag(left), 0))))))
        return found

    def _tables(
        self,
        latencies: Callable[[Predicted], Floats],
        kind: Literal["estimated", "bound"],
        level: float | None,
        how: str,
    ) -> tuple[Profile, ...]:
        observed = self.cells.observed
        by_table: dict[tuple[str, Platform], dict[int, Predicted]] = {}
        for (model, device, share, batch), run in self.predicted.items():
            by_table.setdefault((model, (device, share)), {})[batch] = run
        tables: dict[str, list[LatencyTable]] = {model.name: [] for model in observed.models}
        for (model, (device, share)), runs in by_table.items():
            batches = tuple(sorted(runs))
            rows = np.stack([latencies(runs[batch]) for batch in batches])
            measured = np.stack([runs[batch].measured_us for batch in batches])
            known = np.isfinite(measured)
            rows = monotone(rows, measured)
            whole = np.ceil(rows) if kind == "bound" else np.rint(rows)
            text = f"completed by a Gaussian model of {len(self.runs)} runs{', ' + how if how else ''}; "
            text += f"{int(known.sum())} of {rows.size} measured"
            provenance = Provenance(kind, text, level=level)
            values = tuple(tuple(max(1, int(value)) for value in row) for row in whole.tolist())
            which = tuple(tuple(row) for row in known.tolist())
            tables[model].append(LatencyTable(device, share, batches, values, provenance, measured=which))
        return tuple(replace(model, tables=tuple(tables[model.name])) for model in observed.models)


def predict_profiles(
    observed: Observed,
    devices: Sequence[str] = (),
    described: Mapping[str, Sequence[float]] | None = None,
    batches: Mapping[Platform, Sequence[int]] | None = None,
    seed: int = 0,
) -> Predictions:
    """Fit the Gaussian model to the runs that were made alone.

    Parameters
    ----------
    devices
        To complete; default: all that have a measurement.
    described
        Features of every device (see `planner.completion.cells.components`).
    batches
        Platforms and their batch sizes; default: those that were measured or estimated.
    seed
        Of the choice of cells to which variances are fitted.

    Raises
    ------
    InputError
        Nothing was measured, runs of one place disagree, or a device has neither a measurement nor an estimate.
    """
    runs = tuple(run for run in observed.merged() if not run.beside)
    if not runs:
        raise InputError("observations: no run was made alone; observe some with `python -m planner observe`")
    if batches is None:
        batches = platforms_of(observed, runs, devices)
    cells = cells_of(observed, batches)
    rows, logs, of_run = cells.measured(runs)
    order = np.random.default_rng(seed).permutation(len(runs))
    fitted = np.flatnonzero(np.isin(of_run, order[: _runs_within(of_run, order, FITTED_CELLS)]))
    effects = widened(fit_effects(components(cells, described), rows[fitted], logs[fitted]))
    return Predictions(cells, runs, Posterior(effects, rows, logs), of_run)


def monotone(rows: Floats, measured: Floats) -> Floats:
    """Return latencies ``[batch, block]`` that do not fall with the batch, where possible those that were measured.

    What was predicted gives way to what was measured (NaN elsewhere) at larger and at smaller batches.

    >>> nan = np.nan
    >>> monotone(np.array([[9.0], [3.0], [8.0], [7.0]]), np.array([[nan], [nan], [5.0], [nan]])).ravel().tolist()
    [5.0, 5.0, 5.0, 7.0]
    """
    known = np.isfinite(measured)
    most = np.minimum.accumulate(np.where(known, measured, np.inf)[::-1], axis=0)[::-1]
    found: Floats = np.where(known, measured, np.minimum(rows, most))
    return np.asarray(np.maximum.accumulate(found, axis=0))


def _runs_within(of_run: Ints, order: Ints, most: int) -> int:
    """Return how many runs, in an order, hold at most so many cells; at least one."""
    sizes = np.bincount(of_run)[order]
    return max(1, int(np.searchsorted(np.cumsum(sizes), most, side="right")))


def _blocks_timed(run: Run) -> NDArray[np.bool_]:
    return np.array([value is not None for value in run.latency_us])


def _predicted(run: Run, latency_us: Floats, covariance: Floats, given: NDArray[np.bool_]) -> Predicted:
    """Return a run as predicted; ``given`` tells for which blocks ``latency_us`` stands."""
    every = np.full(len(run.latency_us), np.nan)
    sigma = np.full(len(run.latency_us), np.nan)
    whole, sigma[given] = sigmas(latency_us, covariance)
    every[given] = latency_us
    measured = np.array([np.nan if value is None else value for value in run.latency_us])
    return Predicted(run.model, run.device, every, whole, sigma, measured)
