"""How much longer models take beside others: slowdowns that nobody measured, from those that somebody did.

    log(latency beside K / latency alone) = sum over k in K of (mean + what suffers + what k presses) + noise

of a block of a model at a batch size on a share of a device (a platform): slowdowns beside several are the product of
those beside each. What suffers: effects of the platform, the
model, the block, these on the platform, and how they grow with the batch. What presses: effects of the model k, of k on
the platform, and of k on the model that suffers. All are Gaussian effects (`planner.completion.gaussian`), with the
variances that the measurements make likeliest, so that a pair that never ran together is told by what each did beside
others. Latencies alone are those of `planner.completion.profiles`; where they were measured in the same place they are
taken as they are.

Bounds: every predicted latency times exp(q σ), with σ as in `planner.completion.paths` and q calibrated on the runs
beside others, each left out of the fit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from planner.completion.cells import Place
from planner.completion.conformal import finite_margin
from planner.completion.gaussian import Component, Posterior, fit_effects
from planner.completion.observations import Floats, Ints
from planner.completion.paths import UNKNOWN_SIGMA, Predicted, sum_sigma
from planner.completion.profiles import Predictions, monotone
from planner.model import InputError, LatencyTable, Profile, Provenance
from planner.model.observed import Observed, Run

FITTED_ROWS = 700  # that variances are fitted to; the prediction uses all


@dataclass(frozen=True, eq=False)
class Slowdowns:
    """What runs beside others say of latencies beside ``beside`` everywhere; made by `predict_beside`.

    The posterior is of log slowdowns per model beside.
    ``asked`` are the rows of each place that is told, ``posterior`` what the runs say of all rows, and ``of_run`` which
    run each measured row is of.
    """

    alone: Predictions
    beside: tuple[str, ...]
    runs: tuple[Run, ...]
    of_run: Ints
    posterior: Posterior
    asked: Mapping[Place, Ints]

    def predicted(self, place: Place) -> Predicted:
        """Return the run of a place beside the others, as predicted from all runs."""
        rows = self.asked[place]
        noise = self.posterior.effects.noise * np.eye(len(rows))
        count = len(self.beside)
        return self._beside(
            place, count * self.posterior.mean(rows), count**2 * (self.posterior.covariance(rows) + noise)
        )

    @cached_property
    def left_out(self) -> tuple[Predicted, ...]:
        """Each run beside others, predicted as if it had not been made."""
        found = []
        for number, run in enumerate(self.runs):
            own = np.flatnonzero(self.of_run == number)
            timed = _timed(run) & np.isfinite(self.alone.predicted[run.place[:4]].measured_us)
            (mean, covariance), count = self.posterior.without(own), len(run.beside)
            predicted = self._beside(run.place[:4], count * mean, count**2 * covariance, timed)
            found.append(replace(predicted, measured_us=np.where(timed, _measured(run, 0), np.nan)))
        return tuple(found)

    def margin(self, level: float) -> float:
        """Return q of bounds at a level; raises InputError where too few runs calibrate."""
        scores = [
            float(np.log(np.nansum(run.measured_us) / run.latency_us[np.isfinite(run.measured_us)].sum())) / run.sigma
            for run in self.left_out
        ]
        return max(0.0, finite_margin(np.array(scores), level, "runs beside others"))

    def profiles(self, level: float | None = None) -> tuple[Profile, ...]:
        """Return whole profiles of latencies beside the others, or of their upper bounds at a level.

        What was measured beside just these others stands as it was measured.
        """
        q = 0.0 if level is None else self.margin(level)
        seen = {run.place[:4]: run for run in self.runs if set(run.beside) == set(self.beside)}
        tables: dict[str, list[LatencyTable]] = {model.name: [] for model in self.alone.cells.observed.models}
        by_table: dict[tuple[str, str, object], list[Place]] = {}
        for place in self.asked:
            by_table.setdefault(place[:3], []).append(place)
        text = f"completed by a Gaussian model of {len(self.runs)} runs beside others"
        provenance = Provenance("estimated" if level is None else "bound", text, level=level)
        for own in by_table.values():
            places = sorted(own, key=lambda place: place[3])
            runs = [self.predicted(place) for place in places]
            rows = np.stack([run.latency_us * np.exp(q * run.sigma) for run in runs])
            measured = np.stack([_measured(seen.get(place), rows.shape[1]) for place in places])
            whole = np.ceil(monotone(rows, measured)) if level is not None else np.rint(monotone(rows, measured))
            model, device, share, _ = places[0]
            values = tuple(tuple(max(1, int(value)) for value in row) for row in whole.tolist())
            batches = tuple(place[3] for place in places)
            which = tuple(tuple(row) for row in np.isfinite(measured).tolist())
            table = LatencyTable(device, share, batches, values, provenance, beside=self.beside, measured=which)
            tables[model].append(table)
        return tuple(
            replace(model, tables=tuple(tables[model.name]), bounds=()) for model in self.alone.cells.observed.models
        )

    def _beside(
        self, place: Place, slowdown: Floats, covariance: Floats, timed: NDArray[np.bool_] | None = None
    ) -> Predicted:
        """Return a run alone times slowdowns (logs, of its blocks or of those ``timed``)."""
        alone = self.alone.predicted[place]
        every = np.ones(len(alone.latency_us), bool) if timed is None else timed
        base_us = np.where(np.isfinite(alone.measured_us), alone.measured_us, alone.latency_us)
        own_sigma = 0.0 if np.isfinite(alone.measured_us).all() else alone.sigma
        latency_us, block_sigma = np.full(len(every), np.nan), np.full(len(every), np.nan)
        latency_us[every] = base_us[every] * np.exp(slowdown)
        unknown = np.hypot(UNKNOWN_SIGMA, own_sigma)
        block_sigma[every] = np.hypot(np.sqrt(np.maximum(np.diag(covariance), 0)), unknown)
        sigma = float(np.hypot(sum_sigma(latency_us[every], covariance), unknown))
        return Predicted(place[0], place[1], latency_us, sigma, block_sigma, np.full(len(every), np.nan))


def predict_beside(alone: Predictions, observed: Observed, beside: Sequence[str], seed: int = 0) -> Slowdowns:
    """Fit slowdowns to the runs beside others, and tell those beside some models at all places of ``alone``.

    Raises
    ------
    InputError
        A model is unknown, or no run beside others has its model measured alone in the same place.
    """
    names = {model.name: number for number, model in enumerate(observed.models)}
    for name in beside:
        if name not in names:
            raise InputError(f"beside {name!r}: the observations do not know it; they hold {sorted(names)}")
    solo = {run.place[:4]: run for run in alone.runs}
    runs = tuple(run for run in observed.merged() if run.beside and run.place[:4] in solo)
    if not runs:
        raise InputError(
            "observations: no run beside another model whose model was timed alone in the same place; observe some, "
            "with `--beside` and without"
        )
    places = list(alone.predicted)
    asked = [Run(*place, (None,) * len(alone.predicted[place].latency_us), runs[0].provenance, None, tuple(beside))
             for place in places]  # fmt: skip
    components, of_run = _components((*runs, *asked), observed, names)
    per_model = [
        np.log(_measured(run, 0) / _measured(solo[run.place[:4]], 0)) / len(run.beside) for run in runs
    ]  # NaN where a block was not timed both times
    log_slowdown = np.concatenate(per_model)
    rows = np.flatnonzero(np.isfinite(log_slowdown))
    order = np.random.default_rng(seed).permutation(rows)[:FITTED_ROWS]
    posterior = Posterior(fit_effects(components, order, log_slowdown[order]), rows, log_slowdown[rows])
    first = len(runs)
    told = {place: np.flatnonzero(of_run == first + number) for number, place in enumerate(places)}
    return Slowdowns(alone, tuple(beside), runs, of_run[rows], posterior, told)


def _components(
    runs: Sequence[Run], observed: Observed, names: Mapping[str, int]
) -> tuple[tuple[Component, ...], Ints]:
    """Return the effects on the rows of runs, a row per block, and which run each row is of."""
    blocks = np.array([len(run.latency_us) for run in runs])
    of_run = np.repeat(np.arange(len(runs)), blocks)
    first_block = np.cumsum([0, *(len(model.blocks) for model in observed.models)])
    model = np.array([names[run.model] for run in runs])[of_run]
    block = np.concatenate([first_block[names[run.model]] + np.arange(len(run.latency_us)) for run in runs])
    known = {key: number for number, key in enumerate(dict.fromkeys((run.device, run.share) for run in runs))}
    platform = np.array([known[run.device, run.share] for run in runs])[of_run]
    batch = np.log2([run.batch for run in runs])[of_run][:, None] / 2
    presses = np.zeros((len(runs), len(names)))
    for number, run in enumerate(runs):
        for other in run.beside:
            presses[number, names[other]] += 1 / len(run.beside)
    pressing, one, nothing = presses[of_run], np.ones((len(of_run), 1)), np.zeros(len(of_run), np.int64)
    keys = {"platform": platform, "model": model, "block": block}
    keys |= {f"{name} × platform": keys[name] * len(known) + platform for name in ("model", "block")}
    found = [Component(name, key, one) for name, key in keys.items()]
    found += [Component(f"{name} · batch", keys[name], batch) for name in ("platform", "model", "block")]
    presses_on = {"": nothing, " on platform": platform, " on model": model, " on block": block}
    found += [Component(f"pressing{name}", key, pressing) for name, key in presses_on.items()]
    return (*found, Component("run", of_run, one)), of_run


def _timed(run: Run) -> NDArray[np.bool_]:
    return np.array([value is not None for value in run.latency_us])


def _measured(run: Run | None, blocks: int) -> Floats:
    """Return a run's latencies, NaN for blocks that were not timed; of no run, ``blocks`` times NaN."""
    row: Sequence[float | None] = (None,) * blocks if run is None else run.latency_us
    return np.array([np.nan if value is None else value for value in row])
