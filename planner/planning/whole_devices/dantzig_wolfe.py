"""The main plan of many device types, exactly: a plan per DNN, chosen by Dantzig and Wolfe's decomposition.

A plan of the cluster is a plan P of every DNN d, with a value v_P (throughput / weight) and a use u_P of resources
(`planner.planning.whole_devices.capacity`): whole devices per type, or parts of devices that all DNNs share. For a
target z only plans worth z matter, and whether some choice of them fits the cluster is the question of
`planner.planning.whole_devices.master`; its prices of resources ask
`planner.planning.whole_devices.supply` for the cheapest plan of every DNN, until none is cheaper than those known.

*Bound.* Where the cheapest plans worth z together cost more than the cluster, at any prices, z is out of reach. The
least such z is found by bisection with secant steps; plans and prices carry over from target to target.

*Value.* Targets between value and bound are decided (`planner.planning.whole_devices.deciding`), which makes one of
them meet the other.
"""

import logging
from dataclasses import dataclass
from math import inf

from planner.planning.arrays import Floats
from planner.planning.whole_devices.choosing import Choosing
from planner.planning.whole_devices.plan_search import CERTAIN, SPREADS

log = logging.getLogger(__name__)

STOCK = 0.7  # average devices: the loss up to which items are listed at first
KNOWN_LIMIT_S = 1.0
CLOSE = 0.1  # of what the relaxed choice leaves at a target that is decided: prices may be worse by so much
EFFORTS = 1 / 8, 1.0, 3.0  # times the steps that listing may take
NARROW = 1 / 8  # of the gap: undecided targets so near each other, value and bound count as one
FIRST_FRACTIONS = (0.99, 0.97, 0.94, 0.88, 0.75, 0.5, 0.2, 0.05)  # of the bound
WORTH_PROVING = 0.5  # of the gap: a bound that is lower by more is proven on the way
COARSE = 1e-4  # relative: the first target is so much below the bound


@dataclass(frozen=True)
class Undecided:
    """The least and the largest target that are undecided."""

    least: float = inf
    most: float = -inf

    def with_one(self, target: float) -> "Undecided":
        """Return them with one more."""
        return Undecided(min(self.least, target), max(self.most, target))


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
        self._close()

    def _find_first(self) -> None:
        """Step down from the bound until plans at a few prices leave a choice that fits."""
        for fraction in FIRST_FRACTIONS:
            target = self.bound * fraction
            if target <= self.value or self._done:
                return
            for spread in (0.0, *SPREADS):
                self.price_at(self.near(self.price, spread), target)
            if self._reached(target, KNOWN_LIMIT_S):
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
                self._reached(target, KNOWN_LIMIT_S)
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

    # ---- deciding targets

    def _close(self) -> None:
        """Decide targets between value and bound until they meet.

        Beginning just below the bound, then between what is reached and what stays undecided, then above that; what
        stays undecided is tried again with more effort.
        """
        for effort in EFFORTS:
            undecided, step = Undecided(), max(self.gap, COARSE) if effort == EFFORTS[0] else inf
            while not self._done:
                target = self._next_target(undecided, step)
                if target is None:
                    break
                self.price = self.settle(target, CLOSE).price
                if not self._reached(target, KNOWN_LIMIT_S):
                    answer = self.decide(target, self.price, effort)
                    log.debug("target %.9g: reached %s", target, answer.reached)
                    if answer.reached:
                        self._take(answer.plans)
                    elif answer.reached is False:
                        self._prove(target)
                    else:
                        undecided = undecided.with_one(target)
                step *= 2

    def _next_target(self, undecided: "Undecided", step: float) -> float | None:
        """Return the next target, or None where those undecided reach from the value to the bound, near enough."""
        if undecided.least == inf:
            target = self.bound * (1 - step)
            near = self.bound - self.value <= 2 * self.gap * self.bound
            return target if target > self.value else self._raised if near else (self.value + self.bound) / 2
        narrow = max(self.gap * self.bound, NARROW * (self.bound - self.value))
        if undecided.least - self.value > narrow:
            lower = max((self.value + undecided.least) / 2, 2 * undecided.least - self.bound)
            return max(lower, self._raised)
        if self.bound - undecided.most > narrow and step == inf:
            return (undecided.most + self.bound) / 2
        return None

    @property
    def _raised(self) -> float:
        """What is better than the best plan, and no more than that."""
        return self.value * (1 + self.gap / 2)
