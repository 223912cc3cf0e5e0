"""What searches for a plan of the cluster have in common: a plan of every DNN at prices of resources.

Every DNN offers its cheapest plan at any prices (`planner.planning.whole_devices.supply`). What depends on these prices
being complete is certified: items are listed again that a cheaper plan could hold. With

    slack   what the best plan of the cluster may cost more than the cheapest plans of all DNNs together

every plan that a better solution can hold costs at most the cheapest of its DNN plus that slack, so that all such plans
can be listed. Column generation swings; it asks at prices between those of the best bound and the master's (Wentges,
1997).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np

from planner.planning.arrays import Floats, Integers
from planner.planning.pipelines.sizing import Sized
from planner.planning.programme.backends import Clock
from planner.planning.whole_devices.capacity import Capacity
from planner.planning.whole_devices.master import least_vectors
from planner.planning.whole_devices.supply import Priced, Supply

SMOOTHING = (0.8, 0.5, 0.2, 0.0)  # weight of the best bound's prices, less after each round without a new plan
ROUNDS = 80
SETTLED = 1e-5  # of the price of all: what is so close is equal, and the cheapest plans of all together are so exact
CERTAIN = 1e-9  # of the price of all: what must be missing before something counts as out of reach
PERTURBED_LABELS = 8_000
WORTH_LISTING_AGAIN = 0.9  # of the slack that a DNN had when it had too many plans or labels
LISTED = 1_200_000, 6_000, 100_000_000  # labels and plans of a DNN, and steps of all together
SMALL = 0.1  # average devices: a slack within which all plans are listed at once
SPREADS = 0.05, 0.3
PRICE_S, STEP_S = 2e-4, 1e-8  # that a search for a DNN's plans takes, and a step of it, where work is counted
SEED = 0


@dataclass(frozen=True)
class Listed:
    """Plans of every DNN to choose from, and whether they are all that a solution can hold."""

    plans: list[Integers]
    complete: list[bool]

    @classmethod
    def nothing(cls, dnns: int) -> "Listed":
        """Return the list of a search that has proven that there is no solution."""
        return cls([np.zeros(0, dtype=np.int64)] * dnns, [True] * dnns)


@dataclass
class PlanSearch:
    """The DNNs' supplies, the cluster's capacity, and the best plan so far.

    Parameters
    ----------
    supplies
        Of every DNN.
    capacity
        Of the cluster.
    price, bound
        Prices of resources, and the bound that they prove.
    gap
        Relative distance of value and bound at which to stop.
    clock
        When to stop in any case.
    report
        Is called whenever there is a better plan or bound.
    labels, certifying_labels
        Of a search for a cheapest plan, and of one that is certified.
    most_loss
        What plans lose at most, in average devices, up to which items are listed; a loss beyond it is not told.
    """

    supplies: Sequence[Supply]
    capacity: Capacity
    price: Floats
    bound: float
    gap: float
    clock: Clock
    report: Callable[[], object] = lambda: None
    labels: int = 40_000
    certifying_labels: int = 300_000
    most_loss: float = inf
    best: list[list[Sized]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Fix what chance decides, and how exact a price is."""
        self._rng = np.random.default_rng(SEED)
        self._tolerance = SETTLED / len(self.supplies)

    def priced(self, price: Floats, target: float) -> list[Priced]:
        """Return what every DNN's cheapest plan worth a target costs."""
        found = []
        for supply in self.supplies:
            self.clock.expect_time()
            found.append(self.price_of(supply, price, target, label_limit=self.labels, tolerance=self._tolerance))
        return found

    def price_of(self, supply: Supply, price: Floats, target: float, **options: Any) -> Priced:
        """Return what a DNN's cheapest plan costs, the work counted."""
        found = supply.price(price, target, **options)
        self.clock.spend(PRICE_S + STEP_S * found.steps)
        return found

    def all_within(
        self, supply: Supply, price: Floats, target: float, budget: float, most: tuple[int, int, int]
    ) -> tuple[bool, int]:
        """Let a DNN know all plans within a budget, the work counted."""
        found = supply.all_within(price, target, budget, self.capacity.limit, most)
        self.clock.spend(PRICE_S + STEP_S * found[1])
        return found

    def certified(self, target: float, price: Floats) -> list[float]:
        """Return bounds on the price of every DNN's cheapest plan, with all items that such a plan can hold."""
        bounds = []
        for supply in self.supplies:
            self.clock.expect_time()
            if len(supply.usable(target)) == 0:
                self.price_of(supply, price, target, label_limit=self.labels)
            known = supply.usable(target)
            dearest = float((supply.use[known] @ price).min()) if len(known) else self.capacity.cost(price)
            while True:
                self._extend(supply, price, dearest - supply.value_price(price) * target + CERTAIN, target)
                most = supply.value_price(price) * target + self._most_loss(price)
                found = self.price_of(
                    supply, price, target, label_limit=self.certifying_labels, tolerance=self._tolerance, below=most
                )
                if found.price <= dearest * (1 + CERTAIN):
                    break
                dearest = found.price
            bounds.append(found.bound)
        return bounds

    def _most_loss(self, price: Floats) -> float:
        return self.most_loss * self._average(price)

    def _extend(self, supply: Supply, price: Floats, budget: float, target: float) -> bool:
        """Let a supply list all items within a budget, or within the most that is listed; tell whether that is all."""
        most = self._most_loss(price)
        supply.extend(price, min(budget, most), target)
        return budget <= most

    def near_cheapest(
        self, target: float, price: Floats, cheapest: Sequence[float], slack: float, effort: float
    ) -> Iterator[Listed]:
        """Find plans of every DNN within parts of the slack, then all of it; return what is known after each part.

        With all of the slack these may be all that a solution can hold. A DNN whose plans are listed may have none on
        the devices that there are that costs as little as was thought, which leaves less slack to the others. Of plans
        that use no less of anything than another of the DNN, none is returned. ``effort`` multiplies the steps.
        """
        labels, plans, steps = LISTED
        left, least = int(effort * steps), list(cheapest)
        cut_off = [inf] * len(self.supplies)  # what each was searched within when it was cut off
        for part in _parts(len(self.supplies)) if slack > SMALL * self._average(price) else [1.0]:
            waiting = list(range(len(self.supplies)))
            while waiting:
                before, steps_before, later = slack, left // len(waiting), []
                for at, number in enumerate(waiting):
                    near, most = part * slack, (labels, plans, left // (len(waiting) - at))
                    if near > WORTH_LISTING_AGAIN * cut_off[number]:
                        later.append(number)
                        continue
                    listed, taken = self._all_within(self.supplies[number], price, target, least[number] + near, most)
                    left -= min(taken, most[2])
                    if not listed:
                        later.append(number)
                        cut_off[number] = inf if taken > most[2] else near  # with more steps it may be worth it again
                        continue
                    dearer = self._dearer(self.supplies[number], price, target, least[number], near)
                    least[number] += dearer
                    slack -= dearer
                    if slack < 0:
                        yield Listed.nothing(len(self.supplies))
                        return
                if slack == before and left // max(len(later), 1) <= steps_before:
                    break
                waiting = later
            for number in later:
                cut_off[number] = min(cut_off[number], part * slack)
            known = [
                self._known_within(supply, target, price, cost + slack)
                for supply, cost in zip(self.supplies, least, strict=True)
            ]
            yield Listed(known, [part == 1 and number not in later for number in range(len(known))])
            if self.clock.over or len(later) == len(self.supplies):
                return

    def _all_within(
        self, supply: Supply, price: Floats, target: float, budget: float, most: tuple[int, int, int]
    ) -> tuple[bool, int]:
        """Let a DNN know all plans within a budget, all items considered; tell whether these are all, and the steps."""
        self.clock.expect_time()
        all_items = self._extend(supply, price, budget - supply.value_price(price) * target, target)
        ended, taken = self.all_within(supply, price, target, budget, most)
        return ended and all_items, taken

    def _dearer(self, supply: Supply, price: Floats, target: float, cost: float, near: float) -> float:
        """Return how much more than was thought a DNN's cheapest plan costs, where all within a budget are known."""
        known = self._known_within(supply, target, price, cost + near)
        if len(known) == 0:
            return near + CERTAIN
        return max(float((supply.use[known] @ price).min()) - cost, 0.0)

    def _known_within(self, supply: Supply, target: float, price: Floats, budget: float) -> Integers:
        """Return known plans worth a target within a budget, on devices that there are, none larger than another."""
        own = supply.usable(target)
        own = own[(supply.use[own] @ price <= budget + CERTAIN) & (supply.use[own] <= self.capacity.limit).all(axis=1)]
        return own[least_vectors(supply.use[own])]

    def _average(self, price: Floats) -> float:
        """Return what devices cost on the average."""
        return self.capacity.cost(price) / float(self.capacity.counts.sum())

    def near(self, price: Floats, spread: float) -> Floats:
        """Return prices perturbed by a factor each, none far below the dearest; the cluster costs what it did."""
        bent = np.maximum(price, 0.02 * price.max()) * np.exp(self._rng.normal(0.0, spread, len(price)))
        return self.capacity.normed(bent) * self.capacity.cost(price)

    def price_at(self, price: Floats, target: float) -> None:
        """Let every DNN know a cheap plan at some prices."""
        for supply in self.supplies:
            if self.clock.over:
                return
            self.price_of(supply, price, target, label_limit=PERTURBED_LABELS)

    def usable(self, target: float) -> list[Integers]:
        """Return the known plans of every DNN that are worth a target, on resources that there are."""
        plans = [supply.usable(target) for supply in self.supplies]
        missing = np.flatnonzero(self.capacity.limit == 0)
        if len(missing) == 0:
            return plans
        return [
            own[(supply.use[np.ix_(own, missing)] == 0).all(axis=1)]
            for supply, own in zip(self.supplies, plans, strict=True)
        ]

    def uses(self, plans: Sequence[Integers]) -> list[Integers]:
        """Return what plans of every DNN use."""
        return [supply.use[own] for supply, own in zip(self.supplies, plans, strict=True)]

    @property
    def plans(self) -> int:
        """How many plans are known."""
        return sum(len(supply.value) for supply in self.supplies)


def _parts(dnns: int) -> list[float]:
    """Return parts of the slack within which plans are listed: in a choice each DNN takes about its own of it.

    >>> _parts(3), _parts(5), _parts(20)
    ([1.0], [0.4, 1.0], [0.1, 0.2, 0.4, 1.0])
    """
    parts, part = [], 2 / dnns
    while part <= 1 / 2:
        parts.append(part)
        part *= 2
    return [*parts, 1.0]
