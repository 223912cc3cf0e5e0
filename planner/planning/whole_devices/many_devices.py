"""The decomposition where DNNs and devices are many, and candidates are listed as prices ask for them.

The same plans, prices and bounds as in `planner.planning.whole_devices.dantzig_wolfe`, but no target is decided: plans
within the slack are too many to list them all. What is left of the bound is then mostly what whole devices lose at any
prices, so that the relaxation's prices, which are known before, prove most of it:

1. Lower the bound: the least target at which the cheapest plans of all DNNs at these prices cost more than the cluster.
2. Raise the value: plans at these prices and at prices a little off, whose relaxed choice tells how far to go, and
   exchanges (`planner.planning.whole_devices.exchanges`) or a binary programme that pick one per DNN.
3. Generate plans until prices are the best ones between value and bound, and begin again, until nothing gets better.
"""

import logging
from dataclasses import dataclass

from planner.planning.programme.backends import TooLate
from planner.planning.whole_devices import master
from planner.planning.whole_devices.dantzig_wolfe import Decomposition
from planner.planning.whole_devices.exchanges import exchanged
from planner.planning.whole_devices.plan_search import CERTAIN, PERTURBED_LABELS

log = logging.getLogger(__name__)

PRECISION = 1e-5  # of targets, relative
CERTIFICATES = 4  # of the bound, at the same prices
CLOSE = 0.05  # of the gap: how exact the bound is
SPREADS = 0.05, 0.1, 0.2  # of the logarithm of prices at which plans are made
NEAR = 0.1  # average devices: what plans to choose from cost more than the cheapest
MOST_NEAR = 100_000, 300, 10_000_000  # labels, plans and comparisons of a DNN
CHOICE_LIMIT_S = 2.0
FITS = 1e-9
FAR = 0.01  # overload that is assumed where a DNN has no plan
WORTHWHILE = 0.1  # of the gap: what a round must close for another one


@dataclass
class ManyDevices(Decomposition):
    """The search for a large target that fits, and for a bound; at its prices the cluster costs 1."""

    def run(self) -> None:
        """Search until value and bound meet, the time is over, or nothing gets better."""
        gap = 2 * (self.bound - self.value)
        while not self._done and self.bound - self.value < (1 - WORTHWHILE) * gap:
            gap = self.bound - self.value
            self._lower_to_prices()
            self._raise_to_prices()
            if not self._done:
                self.price = self.settle((self.value + self.bound) / 2).price

    def _lower_to_prices(self) -> None:
        """Bring the bound down to the least target that these prices prove out of reach."""
        target = (self.value + self.bound) / 2
        near = CLOSE * (self.bound - self.value) / self.bound
        for _ in range(CERTIFICATES):
            if self._done or target >= self.bound:
                return
            spent = sum(self.certified(target, self.price))
            log.debug("target %.9g: costs %.9g", target, spent)
            if spent > 1 + CERTAIN:
                self._prove(target)
                if spent < 1 + near:
                    return
            target = target / spent * (1 + near / 2)

    def _raise_to_prices(self) -> None:
        """Raise the value until targets just above it fail."""
        failed, target, step = self.bound, (self.value + self.bound) / 2, PRECISION
        self._list_near(target)
        while failed - self.value > PRECISION * self.bound and not self._done:
            overload, chosen = self._fitting(target)
            log.debug("%.9g of %.9g: overload %.3g, chosen %s", target, self.bound, overload, chosen)
            if chosen:
                target = min(self.value * (1 + max(-overload, PRECISION)), (self.value + failed) / 2)
                continue
            if overload > FITS:
                self._make_plans(target)
            failed = min(failed, target)
            target *= 1 - max(overload, step)
            step *= 2
            if target <= self.value:
                target = (self.value + failed) / 2

    def _make_plans(self, target: float) -> None:
        """Let every DNN know plans worth a target that are cheap at prices a little off."""
        for spread in SPREADS:
            for supply in self.supplies:
                self.clock.expect_time()
                supply.price(self.near(self.price, spread), target, label_limit=PERTURBED_LABELS)

    def _list_near(self, target: float) -> None:
        """Let every DNN know plans worth a target that cost little more than its cheapest one."""
        device = 1 / float(self.capacity.counts.sum())
        for supply in self.supplies:
            self.clock.expect_time()
            least = supply.price(self.price, target, label_limit=self.labels).price
            supply.all_within(self.price, target, least + NEAR * device, MOST_NEAR)

    def _fitting(self, target: float) -> tuple[float, bool]:
        """Return the overload of the relaxed choice, and whether a choice was found, if that fits."""
        own = self.usable(target)
        uses = self.uses(own)
        if not all(map(len, uses)):
            return FAR, False
        try:
            mixed = master.mix(uses, self.capacity, self.clock)
        except TooLate:
            return FAR, False
        if mixed.overload > FITS:
            return mixed.overload, False
        picked = exchanged(uses, mixed.parts, self.capacity.counts, mixed.price, self._rng, self.clock)
        if picked is None:
            return mixed.overload, self._choose_known(target, CHOICE_LIMIT_S)
        self._take([int(plans[at]) for plans, at in zip(own, picked, strict=True)])
        return mixed.overload, True
