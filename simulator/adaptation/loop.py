"""The loop: monitor, predict, plan, apply (IPA, JSys 2024, figure 4), as parts that can be swapped.

Every second the monitor notes how many requests came. Every ``interval_s`` the predictor says which rate to plan for,
raised by ``margin``, and the planner answers with a configuration. Where a task needs replicas that it has not, these
load, and ``start_up_s`` later they serve and those not wanted any more drain: they finish what stands in front of them.
What loads nothing (another batch size, fewer replicas) is in force at once. If the planner has no answer (no
configuration serves that rate) the one in use stays, and the decision says so.

**Looking ahead.** What is decided now serves from ``start_up_s`` on, until what is decided next does. With ``clears``
the rate to plan for is what arrives in that life of the plan (`simulator.adaptation.forecasts`, ``PLAN_LIFE``), and
what will be left of what came before, all of it to be served within the life. What is left is that of a fluid with the
capacity of the configurations in use: of all sums of (arrivals - capacity) over seconds that end when the plan begins,
the largest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from planner.model import InputError
from simulator.adaptation.predictors import Predictor
from simulator.adaptation.service import Configuration, Service, loading
from simulator.dispatch.system import Ints
from simulator.engine.network import Change, Conditions
from simulator.engine.networks import Adapt, simulate_network
from simulator.engine.running import Observation
from simulator.results.records import NetworkRecords

SECOND_US = 1_000_000

Planner = Callable[[float, Configuration], Configuration | None]  # rate to plan for, configuration in use


@dataclass(frozen=True)
class Decision:
    """What was decided at a time: the rate that was planned for, and the setting of every task from its ``ready_s`` on.

    ``feasible`` is false where the planner had no answer and the configuration in use stayed.
    """

    at_s: float
    ready_s: tuple[float, ...]
    rate_rps: float
    configuration: Configuration
    feasible: bool = True


def in_force(decisions: Sequence[Decision], seconds: NDArray[np.float64]) -> tuple[list[Configuration], Ints]:
    """Return the configurations that were in force at some times, and which of them was at each.

    >>> from simulator.adaptation.service import running
    >>> small, large = running(0, 1, 1), running(1, 1, 1)
    >>> known = [Decision(0, (0, 0), 1.0, (small, small)), Decision(2, (2, 3), 1.0, (large, large))]
    >>> configurations, which = in_force(known, np.arange(4.0))
    >>> [[setting.variant for setting in configurations[at]] for at in which]
    [[0, 0], [0, 0], [1, 0], [1, 1]]
    """
    ready_s = np.array([one.ready_s for one in decisions])
    since = np.stack([np.searchsorted(of_task, seconds, side="right") - 1 for of_task in ready_s.T], axis=1)
    met, which = np.unique(since, axis=0, return_inverse=True)
    configurations = [tuple(decisions[at].configuration[task] for task, at in enumerate(row)) for row in met.tolist()]
    return configurations, which.ravel().astype(np.int64)


@dataclass
class Controller:
    """The loop's parts and what it decided; `run` simulates it."""

    service: Service
    predictor: Predictor
    planner: Planner
    first: Configuration
    interval_s: int = 10
    start_up_s: float = 8.0
    margin: float = 0.0
    clears: bool = False
    decisions: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse intervals and times that cannot be."""
        self.service.check(self.first)
        if self.interval_s < 1 or self.start_up_s < 0 or not self.margin > -1:
            raise InputError(
                "adaptation: expected an interval of at least 1 s, a start-up of at least 0 s and a margin above -1, "
                f"got {self.interval_s}, {self.start_up_s} and {self.margin}"
            )
        if self.start_up_s > self.interval_s:
            raise InputError(
                f"adaptation: a start-up of {self.start_up_s} s is longer than the interval of {self.interval_s} s, so "
                "that a change would be undone before it is done; decide less often"
            )

    def run(self, arrivals_us: Ints, conditions: Conditions | None = None) -> NetworkRecords:
        """Simulate the service under arrivals, adapting it; the decisions are in ``decisions``."""
        network = self.service.network(self.first)
        return simulate_network(network, [arrivals_us], conditions, adapt=self.callback(), every_us=SECOND_US)

    def callback(self) -> Adapt:
        """Return what adapts the service if it is called every second of a run, simulated or real."""
        self.decisions = [Decision(0.0, (0.0,) * len(self.first), 0.0, self.first)]
        counts: list[int] = []

        def adapt(seen: Observation) -> list[Change] | None:
            counts.append(int(seen.arrived[0]))
            if len(counts) % self.interval_s:
                return None
            return self._decide(np.array(counts, np.float64), seen.now_us)

        return adapt

    def _decide(self, counts: np.ndarray, now_us: int) -> list[Change]:
        in_use = self.decisions[-1].configuration
        rate_rps = self.predictor(counts) * (1 + self.margin)
        if self.clears:
            rate_rps += self._left(counts) / self.interval_s
        found = self.planner(rate_rps, in_use)
        now_s = now_us / SECOND_US
        wanted = in_use if found is None else found
        pairs = zip(in_use, wanted, strict=True)
        ready_s = tuple(now_s + self.start_up_s * any(loading(before, setting)) for before, setting in pairs)
        self.decisions.append(Decision(now_s, ready_s, rate_rps, wanted, found is not None))
        return self.service.changes(in_use, wanted, now_us, [round(each * SECOND_US) for each in ready_s])

    def _left(self, counts: np.ndarray) -> float:
        """Return how many requests will wait when a plan that is decided now begins; those too old wait no longer."""
        seconds = np.arange(float(len(counts) + round(self.start_up_s)))
        lately = counts[-self.interval_s :].mean()
        arriving = np.concatenate([counts, np.full(len(seconds) - len(counts), lately)])
        configurations, which = in_force(self.decisions, seconds)
        capacity_rps = np.array([self.service.capacity_rps(one) for one in configurations])[which]
        sums = np.cumsum(arriving - capacity_rps)
        left = float(sums[-1] - min(0.0, float(sums.min())))
        oldest_s = self.service.drop_age_s
        return left if oldest_s is None else min(left, oldest_s * float(capacity_rps[-1]))
