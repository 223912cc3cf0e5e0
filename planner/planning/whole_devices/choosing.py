"""Choosing a plan for every DNN among those known, and making more until a better choice is found.

Where the relaxed choice among plans worth a target (`planner.planning.whole_devices.master`) fits the cluster, a binary
programme picks one per DNN; where it does not, its overload tells how far to lower the target. Which plans are made
for a target is left to the search: here the cheapest at prices a little off and those that cost little more than the
cheapest, in `planner.planning.whole_devices.rounding` those near relaxed rates.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from planner.planning.arrays import Integers
from planner.planning.pipelines.sizing import Sized
from planner.planning.whole_devices import master
from planner.planning.whole_devices.deciding import Deciding
from planner.planning.whole_devices.plan_search import CERTAIN, PERTURBED_LABELS

log = logging.getLogger(__name__)

PRECISION, COARSE = 1e-5, 1e-3  # of targets, relative; at the beginning
FIRST_STEP = 1 / 8  # of a target's distance from the bound: how far the next one is
CHOICE_LIMIT_S = 2.0
NEAR = 0.1, 0.4  # average devices, at least and at most: what plans to choose from cost more than the cheapest
MOST_NEAR = 100_000, 300, 10_000_000  # labels, plans and comparisons of a DNN
OFF = 0.05, 0.1, 0.2  # spread of the logarithm of prices a little off
FITS = 1e-9
MANY_DNNS, MANY_PER_DNN = 10, 40  # DNNs, devices: where plans near the cheapest are tried before targets are decided
FAR = 0.01  # overload that is assumed where a DNN has no plan
CERTIFICATES = 4  # of the bound, at the same prices
CLOSE = 0.05  # of the gap, and at most `COARSE`: how exact the bound is


@dataclass
class Choosing(Deciding):
    """The best choice so far, its value, and the search for better ones."""

    value: float = 0.0
    least: float = 0.0  # what no plan of the cluster is worth less than

    def __post_init__(self) -> None:
        """Nothing is found below what no plan is worth less than; one may be worth just that."""
        super().__post_init__()
        self.least = min((supply.least_value for supply in self.supplies), default=0.0) * (1 - CERTAIN)

    def begin(self, plans: Sequence[list[Sized]], uses: Sequence[Integers]) -> None:
        """Take a plan that is known: the pipelines of every DNN and what they use."""
        values = [sum(sized.throughput_rps for sized in own) for own in plans]
        values = [value / supply.table.weight for value, supply in zip(values, self.supplies, strict=True)]
        for supply, own, use, value in zip(self.supplies, plans, uses, values, strict=True):
            if own:
                supply.add(use, value, tuple(own))
        if min(values) > self.value:
            self.value, self.best = min(values), list(plans)
            self.report()

    def lower_to_prices(self, target: float) -> None:
        """Bring the bound down to the least target that these prices prove out of reach, from one to begin with."""
        for _ in range(CERTIFICATES):
            if self._done:
                return
            near = min(CLOSE * (1 - self.value / self.bound), COARSE)
            spent = sum(self.certified(target, self.price))
            log.debug("target %.9g: costs %.9g", target, spent)
            if spent > 1 + CERTAIN:
                self._prove(target)
            if spent <= 0 or 1 + CERTAIN < spent < 1 + near:
                return
            target = target / spent * (1 + near / 2)
            if target >= self.bound:
                return

    def raise_first(self) -> None:
        """Bring bound and value together as far as the prices to begin with do that in a moment."""
        self.lower_to_prices(self.bound)
        self.climb(self.bound, COARSE)

    def raise_value_near(self) -> None:
        """Raise the value by plans near the cheapest at the prices, until targets just above it fail."""
        target = (self.value + self.bound) / 2
        self._list_near(target)
        self.climb(target)

    def climb(self, target: float, precision: float = PRECISION) -> None:
        """Raise the value by targets that some choice reaches, until just above it none is found.

        The first that fail come down as the relaxed choice is overloaded, and else by steps that double; once there
        is a choice, targets between it and what failed follow.
        """
        failed, step = self.bound, max(FIRST_STEP * (1 - target / self.bound), precision)
        while failed - self.value > precision * self.bound and not self._done:
            self.make_plans(target)
            overload, chosen = self.choose_among(target, CHOICE_LIMIT_S)
            log.debug("%.9g of %.9g: overload %.3g, chosen %s", target, self.bound, overload, chosen)
            if chosen:
                target = min(self.value * (1 + max(-overload, precision)), (self.value + failed) / 2)
                continue
            failed = min(failed, target)
            target *= 1 - max(overload, step)
            step *= 2
            if target <= self.value:
                target = (self.value + failed) / 2

    def make_plans(self, target: float) -> None:
        """Let every DNN know plans worth a target that are cheap at prices a little off."""
        for spread in OFF:
            for supply in self.supplies:
                self.clock.expect_time()
                self.price_of(supply, self.near(self.price, spread), target, label_limit=PERTURBED_LABELS)

    def _list_near(self, target: float) -> None:
        """Let every DNN know plans worth a target that cost little more than its cheapest one."""
        cheapest = [one.price for one in self.priced(self.price, target)]
        least, most = (devices * self._average(self.price) for devices in NEAR)
        near = min(max(1 - sum(cheapest), least), most)
        for supply, price in zip(self.supplies, cheapest, strict=True):
            self.clock.expect_time()
            if price < inf:
                self.all_within(supply, self.price, target, price + near, MOST_NEAR)

    def choose_among(self, target: float, time_limit_s: float) -> tuple[float, bool]:
        """Return the overload of the relaxed choice of known plans worth a target, and whether a choice fits."""
        uses = self.uses(self.usable(target))
        if not all(map(len, uses)):
            return FAR, False
        overload = master.mix(uses, self.capacity, self.clock).overload
        return overload, overload <= FITS and self._reached(target, time_limit_s)

    def _reached(self, target: float, time_limit_s: float) -> bool:
        """Take a choice of known plans worth a target if one fits; tell so."""
        chosen, _ = self.choose(self.usable(target), self.price, time_limit_s)
        if chosen is not None:
            self._take(chosen)
        return chosen is not None

    def _take(self, plans: Sequence[int]) -> None:
        """Make a choice of plans the best one, if it is."""
        value = min(float(supply.value[plan]) for supply, plan in zip(self.supplies, plans, strict=True))
        if value > self.value:
            self.value = value
            self.best = [supply.pipelines(plan) for supply, plan in zip(self.supplies, plans, strict=True)]
            self.report()

    def _prove(self, target: float) -> None:
        if target < self.bound:
            self.bound = max(target, self.value)
            self.report()

    @property
    def many(self) -> bool:
        """Whether DNNs and devices are many."""
        dnns, devices = len(self.supplies), int(self.capacity.counts.sum())
        return self.capacity.of_whole_devices and dnns >= MANY_DNNS and devices > MANY_PER_DNN * dnns

    @property
    def impossible(self) -> bool:
        """Whether it is proven that no plan of the cluster serves all DNNs."""
        return not self.best and self.bound <= self.least

    @property
    def _done(self) -> bool:
        return self.clock.over or self.bound - self.value <= self.gap * self.bound or self.bound <= self.least
