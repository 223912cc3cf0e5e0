"""The decomposition where DNNs and devices are many, and candidates are listed as prices ask for them.

The same plans, prices and bounds as in `planner.planning.whole_devices.dantzig_wolfe`, but no target is decided: plans
within the slack are too many to list them all. What is left of the bound is then mostly what whole devices lose at any
prices, so that the relaxation's prices, which are known before, prove most of it:

1. Lower the bound: the least target at which the cheapest plans of all DNNs at these prices cost more than the cluster.
2. Raise the value by plans near the cheapest at these prices (`planner.planning.whole_devices.choosing`).
3. Generate plans until prices are the best ones between value and bound, and begin again, until nothing gets better.
"""

from dataclasses import dataclass

from planner.planning.whole_devices.dantzig_wolfe import Decomposition

WORTHWHILE = 0.1  # of the gap: what a round must close for another one
NOTHING = 1e-6  # of the first bound: where nothing is found up to there, rounds would go on halving it


@dataclass
class ManyDevices(Decomposition):
    """The search for a large target that fits, and for a bound; at its prices the cluster costs 1."""

    def run(self) -> None:
        """Search until value and bound meet, the time is over, or nothing gets better."""
        gap, nothing = 2 * (self.bound - self.value), NOTHING * self.bound
        while not self._done and self.bound > nothing and self.bound - self.value < (1 - WORTHWHILE) * gap:
            gap = self.bound - self.value
            self.lower_to_prices((self.value + self.bound) / 2)
            self.raise_value_near()
            if not self._done:
                self.price = self.settle((self.value + self.bound) / 2).price
