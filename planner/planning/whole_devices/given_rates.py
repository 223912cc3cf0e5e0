"""Given rates on the cheapest devices: the same decomposition by DNN, at one target.

A plan of DNN d counts if it serves the rate asked for; U_g devices of a type g cost p_g each, their price or 1. Over
the known plans P of all DNNs

    minimise sum of p_g · U_g   subject to   one plan of every DNN,
                                             their use of resources <= what layouts of U_g devices provide,
                                             U_g <= D_g

(`planner.planning.whole_devices.master.cheapest`), whose prices lambda of resources ask for the cheapest plan of every
DNN, of cost c_d(lambda). By weak duality no choice of plans costs less than

    sum over d of c_d(lambda)  -  sum over g of D_g · max(0, mu_g - p_g),     mu_g = max over layouts l of lambda · l

at any prices. Every plan of a choice that costs no more than V has a cost of at most c_d + V less that bound, so that
these are listed, and a binary programme picks. What devices cost in all is a multiple of their common divisor, to which
the bound is raised, and a better choice is cheaper by at least that much.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, gcd, inf, isclose, lcm

import numpy as np

from planner.planning.arrays import Floats, Integers
from planner.planning.pipelines.sizes import sizes_looked_at
from planner.planning.pipelines.sizing import Sized
from planner.planning.programme.backends import Limits, TooLate
from planner.planning.whole_devices import master
from planner.planning.whole_devices.plan_search import CERTAIN, ROUNDS, SETTLED, SMOOTHING, SPREADS, PlanSearch

log = logging.getLogger(__name__)

TARGET = 1.0  # of the rate asked for
SIZE_S, LISTING_SHARE = 1e-7, 0.25  # seconds that a size takes; the share of the time left that a DNN's may take
STOCK = 0.3  # of a DNN's cheapest cost: the loss up to which items are listed at first
PERTURBATIONS = 8
CHOICE_LIMIT_S = 10.0
EFFORTS = 3
WHOLE = 1e-6  # of the common divisor: so close to a multiple is one
FINEST = 10**6  # denominators of prices up to which costs have a common divisor


def divisor(costs: Sequence[float]) -> float:
    """Return the largest number of which all costs are multiples; 0 where there is none to speak of.

    >>> divisor([1.5, 0.6]), divisor([1.0, 1.0])
    (0.3, 1.0)
    """
    exact = [Fraction(cost).limit_denominator(FINEST) for cost in costs if cost > 0]
    if not all(isclose(one, cost, rel_tol=1e-12) for one, cost in zip(exact, filter(None, costs), strict=True)):
        return 0.0
    common = lcm(*(one.denominator for one in exact))
    return gcd(*(int(one * common) for one in exact)) / common


@dataclass
class GivenRates(PlanSearch):
    """The search for the cheapest devices that serve all rates.

    Parameters
    ----------
    device_cost
        Of a device of each group of the capacity.

    ``impossible`` says that no devices of the cluster serve all rates.
    """

    device_cost: Floats = field(default_factory=lambda: np.zeros(0))
    value: float = inf
    impossible: bool = False

    def __post_init__(self) -> None:
        """List the items that plans are likely to need."""
        super().__post_init__()
        self._step = divisor(self.device_cost.tolist())
        self.price = self.capacity.price_of(self.device_cost)
        for supply in self.supplies:
            self.clock.expect_time()
            value_price = supply.value_price(self.price)
            budget = STOCK * value_price + CERTAIN
            many = sizes_looked_at(supply.table, supply.limit, self.price, value_price, budget, TARGET)
            left_s = self.clock.remaining().time_limit_s
            if left_s is not None and many * SIZE_S > LISTING_SHARE * left_s:
                raise TooLate("rates of too many devices for the time given; raise the time limit")
            supply.extend(self.price, budget, TARGET)
            while len(supply.items.row) == 0 and budget <= self.capacity.cost(self.price):
                budget *= 4
                supply.extend(self.price, budget, TARGET)
        self._tolerance *= sum(supply.value_price(self.price) for supply in self.supplies)

    def begin(self, plans: Sequence[list[Sized]], uses: Sequence[Integers]) -> None:
        """Take a plan that is known: the pipelines of a DNN, if any, serve its rate and use so much."""
        for supply, own, use in zip(self.supplies, plans, uses, strict=True):
            if own:
                supply.add(use, TARGET, tuple(own))

    def run(self) -> None:
        """Search until value and bound meet, or the time is over."""
        if any(len(supply.items.row) == 0 for supply in self.supplies):
            self.impossible = True
            return
        self._settle_certified()
        if not all(map(len, self.usable(TARGET))):
            self.impossible = not self.clock.over
            return
        for spread in (0.0, *SPREADS):
            for _ in range(PERTURBATIONS):
                self.price_at(self.near(self.price, spread), TARGET)
            self._choose(self.usable(TARGET))
            if self._done:
                return
        for effort in range(1, EFFORTS + 1):
            while self._improved(effort):
                pass
            if self._done or self.impossible:
                return

    def _settle_certified(self) -> None:
        """Generate plans until the prices of the best bound hold with all items that a cheaper plan can have."""
        while True:
            self.price, claimed = self._settle()
            proven = self._bound(self.certified(TARGET, self.price), self.price)
            self._prove(proven)
            if proven >= claimed - SETTLED * abs(claimed) or self.clock.over:
                return

    def _settle(self) -> tuple[Floats, float]:
        """Generate plans of listed items until the relaxed choice is the cheapest; return the best bound and prices."""
        best, best_price = -inf, self.price
        asked, idle = self.price, 0
        for _ in range(ROUNDS):
            plans = self.plans
            cost = np.array([one.bound for one in self.priced(asked, TARGET)])
            if self._bound(cost, asked) > best:
                best, best_price = self._bound(cost, asked), asked
            uses = self.uses(self.usable(TARGET))
            if self.clock.over or not all(map(len, uses)):
                break
            mixed = master.mix_cheapest(uses, self.capacity, self.device_cost, self.clock)
            if mixed.cost - best <= SETTLED * mixed.cost < inf:
                break
            if self.plans == plans:
                idle += 1
                if idle == len(SMOOTHING):
                    break
            asked = SMOOTHING[idle] * best_price + (1 - SMOOTHING[idle]) * mixed.price
        log.debug("cost at least %.9g, %d plans", best, self.plans)
        return best_price, best

    def _bound(self, cost: Sequence[float] | Floats, price: Floats) -> float:
        """Return what costs of the cheapest plans at some prices prove."""
        dearer = np.maximum(self.capacity.worth(price) - self.device_cost, 0.0)
        return float(sum(cost) - dearer @ self.capacity.counts)

    def _improved(self, effort: int) -> bool:
        """List every plan that a cheaper choice can hold and choose; tell whether there was one."""
        cheapest = self.certified(TARGET, self.price)
        bound = self._bound(cheapest, self.price)
        self._prove(bound)
        if self._done:
            return False
        wanted = self._cheaper if self.value < inf else float(self.device_cost @ self.capacity.counts)
        slack = max(wanted - bound, 0.0) + CERTAIN
        before = self.value
        least, complete = inf, False
        for listed in self.near_cheapest(TARGET, self.price, cheapest, slack, effort):
            least, complete = self._choose(listed.plans) if all(map(len, listed.plans)) else inf, all(listed.complete)
            if self.value < before:
                break
        if complete and before < inf:
            self._prove(min(least, before if self._step else wanted))
        self.impossible = complete and before == least == inf
        return self.value < before and not self._done

    def _choose(self, plans: Sequence[Integers]) -> float:
        """Take the cheapest choice of plans if it is better; return what every choice of them costs at least."""
        limits = self.clock.within(Limits(self.gap, CHOICE_LIMIT_S))
        below = self._cheaper if self.value < inf else inf
        found, status = master.choose_cheapest(self.uses(plans), self.capacity, self.device_cost, below, limits)
        if found.chosen is not None and found.cost < self.value:
            self.value = found.cost
            self.best = [
                supply.pipelines(int(own[at]))
                for supply, own, at in zip(self.supplies, plans, found.chosen, strict=True)
            ]
            self.report()
        return inf if status == "infeasible" else found.bound

    def _prove(self, bound: float) -> None:
        if self._step:
            bound = self._step * ceil(bound / self._step - WHOLE)
        if bound > self.bound:
            self.bound = min(bound, self.value)
            if self.value < inf:
                self.report()

    @property
    def _cheaper(self) -> float:
        """What a better choice costs at most."""
        step = self._step or self.gap * self.value
        return self.value - step * (1 - WHOLE)

    @property
    def _done(self) -> bool:
        return self.clock.over or self.value - self.bound <= self.gap * self.value < inf
