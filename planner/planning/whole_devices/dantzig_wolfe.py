"""The main plan of many device types, exactly: a plan per DNN, chosen by Dantzig and Wolfe's decomposition.

A plan of the cluster is a plan P of every DNN d, with a value v_P (throughput / weight) and a use u_P of resources
(`planner.planning.whole_devices.capacity`): whole devices per type, or parts of devices that all DNNs share. For a
target z only plans worth z matter, and whether some choice of them fits the cluster is the question of
`planner.planning.whole_devices.master`; its prices of resources ask
`planner.planning.whole_devices.supply` for the cheapest plan of every DNN, until none is cheaper than those known.

*Bound.* Where the cheapest plans worth z together cost more than the cluster, at any prices, z is out of reach. The
least such z is found by bisection with secant steps; plans and prices carry over from target to target.

*Deciding a target.* Let slack be what the cheapest plans leave of the cluster's price. Every plan of a solution costs
at most the cheapest of its DNN plus that slack, so that all such plans are listed, and a binary programme picks one per
DNN or proves that there is no choice. Where the list is too long, plans at perturbed prices are looked through for a
choice, which proves nothing. Targets begin just below the bound and step down until one is reached; then they bisect.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from planner.planning.arrays import Floats
from planner.planning.whole_devices import master
from planner.planning.whole_devices.choosing import Choosing
from planner.planning.whole_devices.plan_search import (
    CERTAIN,
    ROUNDS,
    SETTLED,
    SMOOTHING,
    SPREADS,
)

log = logging.getLogger(__name__)

STOCK = 0.7  # average devices: the loss up to which items are listed at first
KNOWN_LIMIT_S, CHOICE_LIMIT_S = 1.0, 10.0
PERTURBATIONS = 30
REPAIRS, EFFORTS = 12, 3
TIGHTENED = 3  # targets above one that stays undecided, by lists alone
LISTED_PARTS = 1 / 8, 1.0  # of the steps that listing may take: a choice may be found early
FIRST_FRACTIONS = (0.99, 0.97, 0.94, 0.88, 0.75, 0.5, 0.2, 0.05)  # of the bound
WORTH_PROVING = 0.5  # of the gap: a bound that is lower by more is proven on the way
COARSE = 1e-4  # relative: the first target is so much below the bound


@dataclass(frozen=True)
class Settled:
    """Column generation's end at a target: overload of the known plans, and its bound with prices and costs per DNN."""

    overload: float
    bound: float
    price: Floats
    cost: Floats


@dataclass
class Decomposition(Choosing):
    """The search for the largest target that fits; at its prices the cluster costs 1."""

    def __post_init__(self) -> None:
        """List the items that plans are likely to need."""
        super().__post_init__()
        self.price = self.capacity.normed(self.price)
        for supply in self.supplies:
            self.clock.expect_time()
            budget = min(STOCK, self.most_loss) / self.capacity.counts.sum()
            supply.extend(self.price, budget, self.bound)
            while len(supply.items.row) == 0 and budget < 1:  # all devices cost 1, so that then every item is listed
                budget = min(4 * budget, 1.0)
                supply.extend(self.price, budget, self.bound)
        log.debug("items %s", [len(supply.items.row) for supply in self.supplies])

    def run(self) -> None:
        """Search until value and bound meet, or the time is over."""
        if any(len(supply.items.row) == 0 for supply in self.supplies):
            return
        self._find_first()
        self._lower_bound()
        if self.many and not self._done:
            self.raise_value_near()
        self._raise_value()

    def _find_first(self) -> None:
        """Step down from the bound until plans at a few prices leave a choice that fits."""
        for fraction in FIRST_FRACTIONS:
            target = self.bound * fraction
            if target <= self.value or self._done:
                return
            for spread in (0.0, *SPREADS):
                self.price_at(self.near(self.price, spread), target)
            if self._choose_known(target, KNOWN_LIMIT_S):
                return

    # ---- the bound

    def _lower_bound(self) -> None:
        """Bring the bound down to the least target that the relaxed choice cannot reach."""
        step = max(self.gap, COARSE) / 4
        while not self._done:
            target, price = self._least_out_of_reach(step)
            if target == self.bound or self._certify(target, price):
                return

    def _certify(self, target: float, price: Floats) -> bool:
        """Tell whether prices prove a target out of reach, all items that a plan can hold considered."""
        out_of_reach = sum(self.certified(target, price)) > 1 + CERTAIN
        if out_of_reach:
            self._prove(target)
        return out_of_reach

    def _least_out_of_reach(self, step: float) -> tuple[float, Floats]:
        """Return the least target, to a relative step, that listed items do not reach, and the prices that say so."""
        reached, top, top_price = 0.0, self.bound, self.price
        stride, came_down = 1.0, True
        cost = sum(supply.price(self.price, top, label_limit=self.labels).price for supply in self.supplies)
        # cost is 0 where a DNN's cheapest plans use devices that are not scarce: nothing is said of the target then
        target = top * (min(1 - step, 1 / cost) if cost > 0 else 1 - step) if cost < inf else top / 2
        while top - reached > 2 * step * top and not self._done and top > self.least:
            settled = self.settle(target)
            self.price = settled.price
            down = settled.bound > CERTAIN
            if down:
                top, top_price, distance = target, settled.price, settled.bound
                if self.bound - top > WORTH_PROVING * (self.bound - self.value):
                    self._certify(top, top_price)
            else:
                reached = target
                self._choose_known(target, KNOWN_LIMIT_S)
                distance = max(-settled.overload, 0.0)
            stride = 2 * stride if down == came_down else 1.0  # secants that fall short again and again
            came_down = down
            distance = max(distance, step) * stride
            following = target * (1 - distance if down else 1 + distance)
            lowest = max(reached, self.value)
            if not lowest < following < top:
                following = (lowest + top) / 2
            target = min(max(following, lowest + step * top), top * (1 - step))
        return top, top_price

    def settle(self, target: float) -> Settled:
        """Generate plans worth a target until the relaxed choice is the best, or known to fit or not to fit."""
        best = Settled(inf, -inf, self.price, np.zeros(0))
        asked, idle, overload = self.price, 0, inf
        for _ in range(ROUNDS):
            plans = self.plans
            cost = np.array([one.bound for one in self.priced(asked, target)])
            if cost.sum() - 1 > best.bound:
                best = Settled(overload, float(cost.sum() - 1), asked, cost)
            if best.bound > CERTAIN or self._done:
                break
            uses = self.uses(self.usable(target))
            if not all(map(len, uses)):
                break
            mixed = master.mix(uses, self.capacity, self.clock)
            overload = mixed.overload
            if overload - best.bound <= max(SETTLED, -0.5 * overload):
                break
            if self.plans == plans:
                idle += 1
                if idle == len(SMOOTHING):
                    break
            asked = SMOOTHING[idle] * best.price + (1 - SMOOTHING[idle]) * mixed.price
        log.debug("target %.9g: overload %.3g, at least %.3g, %d plans", target, overload, best.bound, self.plans)
        return Settled(overload, best.bound, best.price, best.cost)

    # ---- the value

    def _raise_value(self) -> None:
        """Decide targets below the bound until value and bound meet."""
        undecided, step, effort = self.bound, max(self.gap, COARSE), 1
        target = self.bound * (1 - step)
        while not self._done:
            settled = self.settle(target)
            self.price = settled.price
            answer = self._decide(target, settled.price, effort)
            log.debug("target %.9g: %s", target, {True: "reached", False: "out of reach", None: "undecided"}[answer])
            if answer is False:
                self._prove(target)
            if answer is not True:
                undecided = min(undecided, target)
                step *= 2
            if answer is None and effort == 1:
                self._tighten(target)
            undecided = min(undecided, self.bound)
            if undecided - self.value <= self.gap * undecided:
                if undecided == self.bound or effort == EFFORTS:
                    return
                undecided, effort, step = self.bound, effort + 1, max(self.gap, COARSE)
            target = undecided * (1 - step)
            if target <= self.value * (1 + self.gap / 2):
                near = undecided - self.value <= 2 * self.gap * undecided
                target = self.value * (1 + self.gap / 2) if near else (self.value + undecided) / 2

    def _tighten(self, undecided: float) -> None:
        """Decide targets between one that stays undecided and the bound by lists alone."""
        for _ in range(TIGHTENED):
            target = (undecided + self.bound) / 2
            if self._done or self.bound - undecided <= self.gap * self.bound:
                return
            self.price = self.settle(target).price
            answer = self._decide_by_lists(target, self.price, LISTED_PARTS[:1])
            log.debug("target %.9g by lists: %s", target, answer)
            if answer is False:
                self._prove(target)
            else:
                undecided = target

    def _decide(self, target: float, price: Floats, effort: int) -> bool | None:
        """Tell whether a plan of the cluster is worth a target; None where that is not found out."""
        answer = self._decide_by_lists(target, price, [part * effort for part in LISTED_PARTS])
        return answer if answer is not None else self._look_for(target, price, effort) or None

    def _decide_by_lists(self, target: float, price: Floats, efforts: Sequence[float]) -> bool | None:
        """Tell whether a plan of the cluster is worth a target, by the plans of every DNN that one can hold."""
        if self._choose_known(target, KNOWN_LIMIT_S):
            return True
        cheapest = self.certified(target, price)
        slack = 1 - sum(cheapest)
        if slack < -CERTAIN:
            return False
        for effort in efforts:
            near, complete = self.list_within(target, price, cheapest, max(slack, 0.0) + CERTAIN, effort)
            chosen, status = self._choose(near, price, CHOICE_LIMIT_S)
            log.debug("%d plans to choose from, complete %s: %s", sum(map(len, near)), complete, status)
            if chosen:
                return True
            if complete:
                return False if status == "infeasible" else None
        return None

    def _look_for(self, target: float, price: Floats, effort: int) -> bool:
        """Look for a choice with plans at perturbed prices, then by repairing the choice of least excess."""
        for spread in SPREADS:
            for _ in range(max(4, PERTURBATIONS // len(self.supplies))):
                self.price_at(self.near(price, spread), target)
            if self._choose_known(target, 2 * KNOWN_LIMIT_S):
                return True
            if self._done:
                return False
        return self._repair(target, price, REPAIRS * effort)

    def _repair(self, target: float, price: Floats, rounds: int) -> bool:
        """Take the known plans of least excess, and price anew where devices are missing, at prices bent that way."""
        bent = price
        for _ in range(rounds):
            if self._done:
                break
            own = self.usable(target)
            uses = self.uses(own)
            weights = np.maximum(bent, 0.05 * bent.max())
            limits = self.clock.at_most(KNOWN_LIMIT_S).remaining()
            found = master.least_excess(uses, self.capacity, weights, limits)
            if found is None:
                return False
            picked, excess = found
            together = sum(use[plan] for use, plan in zip(uses, picked, strict=True))
            if self.capacity.packed(together) is not None:
                self._take([int(plans[at]) for plans, at in zip(own, picked, strict=True)])
                return True
            over = np.where(excess > 0.5, 1, np.sign(np.minimum(together - self.capacity.limit, 0)))
            pull = self._rng.uniform(0.05, 0.6) * over * self._rng.uniform(0.3, 1.0, len(over))
            local = np.maximum(price, 0.02 * price.max()) * np.exp(pull)
            self.price_at(self.capacity.normed(local), target)
            bent = self.near(price, SPREADS[-1])
        return False
