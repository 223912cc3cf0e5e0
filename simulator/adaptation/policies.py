"""Policies of adaptation, the published ones and what goes beyond, and runs of published applications under them.

*robust*: IPA's programme at a rate that a forecast says is not exceeded with probability 0.9. *steady*: the same with a
cost of a tenth of alpha per change of a task's variant or batch size. *ahead*: the rate that arrives while the plan
will be in use, not exceeded with that probability, and what is left over from before. *by slack*: least accurate
variants beside those planned, and every batch goes to the most accurate one that ends in time.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from planner.planning.applications.ipa import Ipa
from planner.planning.applications.ipa_published import PUBLISHED, Points, PublishedSystem, options_of
from simulator.adaptation.forecasts import PLAN_LIFE, blend, fit_forecast
from simulator.adaptation.forecasts import PUBLISHED as PUBLISHED_SPAN
from simulator.adaptation.ipa import hedged, planner_of, service_of
from simulator.adaptation.loop import SECOND_US, Controller, Decision, Planner
from simulator.adaptation.lstm import trained_lstm
from simulator.adaptation.outcomes import Outcomes, outcomes_of
from simulator.adaptation.predictors import PREDICTORS, Counts, Predictor, oracle
from simulator.adaptation.service import running
from simulator.dispatch.system import Ints


@dataclass(frozen=True)
class Policy:
    """How a run is adapted: what may be chosen, what is foreseen, and what goes beyond the published system.

    ``predictor`` is the name of one, or *bound L* or *life L*, bounds at level L. ``switching`` is in alpha, ``share``
    what accurate variants are planned for where requests go by slack. None of ``margin`` and ``weights`` are the
    published ones.
    """

    name: str
    system: PublishedSystem = "IPA"
    predictor: str = "lstm"
    margin: float | None = None
    weights: float | None = None  # times alpha
    switching: float = 0.0
    share: float | None = None

    @property
    def label(self) -> str:
        """The policy and all that it is run with, as a name of a file."""
        parts = [self.name, self.predictor, self.margin, self.weights, self.switching or None, self.share]
        return "_".join(str(part).replace(" ", "") for part in parts if part is not None)


SYSTEMS: tuple[PublishedSystem, ...] = ("IPA", "FA2-low", "FA2-high", "RIM")
PUBLISHED_POLICIES = tuple(Policy(system, system) for system in SYSTEMS)
OWN_POLICIES = (
    Policy("robust", predictor="bound 0.9", margin=0.0),
    Policy("steady", predictor="bound 0.9", margin=0.0, switching=0.1),
    Policy("ahead", predictor="life 0.9", margin=0.0),
    Policy("by slack", predictor="life 0.99", margin=0.0, share=0.8),
)


@dataclass(frozen=True, eq=False)
class PolicyRun:
    """A run: its figures, and what was decided."""

    outcomes: Outcomes
    decisions: tuple[Decision, ...]

    @property
    def changes(self) -> int:
        """How often a task's variant or batch size changed."""
        settings = [[(s.variant, s.batch) for s in one.configuration] for one in self.decisions]
        return sum(a != b for old, new in pairwise(settings) for a, b in zip(old, new, strict=True))


class Runs:
    """Runs of published applications, with what they share: fitted forecasts, and the answers of planners.

    Parameters
    ----------
    points
        What replicas need for batches.
    history
        Counts per second that forecasts are fitted to.
    """

    def __init__(self, points: Points, history: Counts) -> None:
        self.points, self.history = points, history
        self._fitted: dict[str, Predictor] = {}
        self._planners: dict[tuple[object, ...], Planner] = {}  # they remember their answers

    @property
    def predictors(self) -> dict[str, Predictor]:
        """Every predictor of the largest rate ahead that knows no future."""
        rules = dict(PREDICTORS)
        learned = {"lstm": trained_lstm(), "linear": self.fitted("linear")}
        bounds = {name: self.fitted(name) for name in ("bound 0.5", "bound 0.9")}
        return rules | learned | bounds | {"blend": blend([*rules.values(), *learned.values()])}

    def predictor(self, name: str, load: Counts) -> Predictor:
        """Return a predictor by name; the oracle's future is the load."""
        rules = {**PREDICTORS, "lstm": trained_lstm(), "oracle": oracle(load)}
        if name in rules:
            return rules[name]
        return self.predictors["blend"] if name == "blend" else self.fitted(name)

    def fitted(self, name: str) -> Predictor:
        """Return a forecast of the history: *linear*, *bound L* of the largest rate, *life L* of a plan's life.

        It is fitted when it is first asked, which takes seconds for a history of days.
        """

        def predict(counts: Counts) -> float:
            if name not in self._fitted:
                kind, _, level = name.partition(" ")
                span = PLAN_LIFE if kind == "life" else PUBLISHED_SPAN
                self._fitted[name] = fit_forecast(self.history, float(level) if level else None, span)
            return self._fitted[name](counts)

        return predict

    def run(self, name: str, load: Counts, policy: Policy) -> PolicyRun:
        """Simulate an application, by name, under counts per second and a policy."""
        one = PUBLISHED[name]
        fixed = one.rim_replicas if policy.system == "RIM" else None
        weights = replace(one.weights, accuracy=one.weights.accuracy * (policy.weights or 1.0))
        programme = Ipa(options_of(one, self.points, policy.system), 1.0, one.sla_s, "sum", weights, fixed)
        service = service_of(one, self.points)
        key = name, policy.system, policy.weights, policy.switching
        plan = self._planners.setdefault(key, planner_of(service, programme, policy.switching * one.weights.accuracy))
        if policy.share is not None:
            service = replace(service, placement="by slack", answer_by_s=one.sla_s)
            plan = hedged(service, plan, policy.share)
        margin = one.rate_margin if policy.margin is None else policy.margin
        cheapest = tuple(running(0, 1, count) for count in fixed or (1,) * len(one.tasks))
        first = plan(float(load[0]) * (1 + margin), cheapest) or cheapest
        predictor, clears = self.predictor(policy.predictor, load), policy.predictor.startswith("life")
        controller = Controller(service, predictor, plan, first, margin=margin, clears=clears)
        records = controller.run(arrivals_of(load))
        outcomes = outcomes_of(service, controller.decisions, records, one.sla_s, len(load))
        return PolicyRun(outcomes, tuple(controller.decisions))


def arrivals_of(load: Counts, seed: int = 1) -> Ints:
    """Return arrivals (µs): the counts of every second at uniform times in it, a Poisson process given its counts.

    >>> (arrivals_of(np.array([2.0, 0.0, 1.0])) // SECOND_US).tolist()
    [0, 0, 2]
    """
    seconds = np.repeat(np.arange(len(load)), load.astype(int))
    times_us = seconds * SECOND_US + np.random.default_rng(seed).uniform(0, SECOND_US, len(seconds))
    return np.sort(times_us.astype(np.int64))
