"""Choosing a plan for every DNN: what is known so far, and more plans until a better choice is found.

At given prices, plans that cost little more than the cheapest of their DNN are listed, and where the relaxed choice
among all known plans (`planner.planning.whole_devices.master`) fits the cluster, exchanges
(`planner.planning.whole_devices.exchanges`) pick one per DNN. Where it does not fit, its overload tells how far to
lower the target, and plans at prices a little off are made as well.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from planner.planning.arrays import Floats, Integers
from planner.planning.pipelines.sizing import Sized
from planner.planning.programme.backends import TooLate
from planner.planning.whole_devices import master
from planner.planning.whole_devices.exchanges import exchanged
from planner.planning.whole_devices.plan_search import CERTAIN, PERTURBED_LABELS, PlanSearch

log = logging.getLogger(__name__)

PRECISION = 1e-5  # of targets, relative
NEAR = 0.1, 0.4  # average devices, at least and at most: what plans to choose from cost more than the cheapest
MOST_NEAR = 100_000, 300, 10_000_000  # labels, plans and comparisons of a DNN
OFF = 0.05, 0.1, 0.2  # spread of the logarithm of prices a little off
FITS = 1e-9
FEW_DNNS, FEW_PER_DNN = 10, 25  # DNNs, devices: below, a binary programme takes no longer than exchanges
FAR = 0.01  # overload that is assumed where a DNN has no plan


@dataclass
class Choosing(PlanSearch):
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

    def raise_value_near(self) -> None:
        """Raise the value by plans near the cheapest at the prices, until targets just above it fail."""
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
        for spread in OFF:
            for supply in self.supplies:
                self.clock.expect_time()
                self.price_of(supply, self.near(self.price, spread), target, label_limit=PERTURBED_LABELS)

    def _list_near(self, target: float) -> None:
        """Let every DNN know plans worth a target that cost little more than its cheapest one."""
        cheapest = [one.price for one in self.priced(self.price, target)]
        least, most = (devices * self.capacity.cost(self.price) / float(self.capacity.counts.sum()) for devices in NEAR)
        near = min(max(1 - sum(cheapest), least), most)
        for supply, price in zip(self.supplies, cheapest, strict=True):
            self.clock.expect_time()
            if price < inf:
                self.all_within(supply, self.price, target, price + near, MOST_NEAR)

    def _fitting(self, target: float) -> tuple[float, bool]:
        """Return the overload of the relaxed choice, and whether exchanges found a choice."""
        own = self.usable(target)
        uses = self.uses(own)
        if not all(map(len, uses)):
            return FAR, False
        overload, picked = self._exchanged(uses)
        if picked is not None:
            self._take([int(plans[at]) for plans, at in zip(own, picked, strict=True)])
        return overload, picked is not None

    def _choose_known(self, target: float, time_limit_s: float) -> bool:
        chosen, _ = self._choose(self.usable(target), self.price, time_limit_s)
        return chosen

    def _choose(self, plans: Sequence[Integers], price: Floats, time_limit_s: float) -> tuple[bool, str]:
        if not all(map(len, plans)):
            return False, "infeasible"
        uses, status = self.uses(plans), "feasible"
        picked = self._exchanged(uses)[1] if self.exchanges else None
        if picked is None:
            picked, status = master.choose(uses, self.capacity, price, self.clock.at_most(time_limit_s).remaining())
        if picked is not None:
            self._take([int(own[at]) for own, at in zip(plans, picked, strict=True)])
        return picked is not None, status

    def _exchanged(self, uses: Sequence[Integers]) -> tuple[float, list[int] | None]:
        """Return the overload of the relaxed choice, and a choice that exchanges from it lead to, if that is found."""
        try:
            mixed = master.mix(uses, self.capacity, self.clock)
        except TooLate:
            return FAR, None
        if mixed.overload > FITS or not self.capacity.of_whole_devices:
            return mixed.overload, None
        counts = self.capacity.counts
        return mixed.overload, exchanged(uses, mixed.parts, counts, mixed.price, self._rng, self.clock)

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
    def exchanges(self) -> bool:
        """Whether exchanges look for a choice before a binary programme does."""
        dnns, devices = len(self.supplies), int(self.capacity.counts.sum())
        return self.capacity.of_whole_devices and dnns >= FEW_DNNS and devices > FEW_PER_DNN * dnns

    @property
    def impossible(self) -> bool:
        """Whether it is proven that no plan of the cluster serves all DNNs."""
        return not self.best and self.bound <= self.least

    @property
    def _done(self) -> bool:
        return self.clock.over or self.bound - self.value <= self.gap * self.bound or self.bound <= self.least
