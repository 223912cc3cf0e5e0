"""Deciding whether plans of all DNNs worth a target fit the devices.

Let slack be what the cheapest plans leave of the cluster's price (`planner.planning.whole_devices.master`). Every plan
of a solution costs at most the cheapest of its DNN plus that slack, so that all such plans are listed, first within
parts of the slack, and a binary programme picks one per DNN or proves that there is no choice.

Where the plans of some DNNs are too many to list, but those of another are few, it branches on these: with one of them
chosen, the other DNNs share what it leaves, at prices of their own, at which the slack is mostly a fraction of it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

import numpy as np

from planner.planning.arrays import Floats, Integers
from planner.planning.whole_devices import master
from planner.planning.whole_devices.capacity import Capacity
from planner.planning.whole_devices.plan_search import CERTAIN, ROUNDS, SETTLED, SMOOTHING, PlanSearch
from planner.planning.whole_devices.supply import Supply

log = logging.getLogger(__name__)

CHOICE_LIMIT_S = 10.0
WORTH_BRANCHING = 1.0  # effort
CLOSE = 0.1  # of what the relaxed choice leaves: how exact prices are
BRANCHING_PARTS = 1 / 64, 1 / 8, 1.0  # of the steps, until the plans of some DNN are known
BRANCHES = 30, 400  # plans of a DNN, at most; with all steps
BRANCHING_DNNS = 6  # at most: every level has as many branches again


@dataclass(frozen=True)
class Settled:
    """Column generation's end at a target: overload of the known plans, and its bound with the prices that prove it."""

    overload: float
    bound: float
    price: Floats


@dataclass(frozen=True)
class Decision:
    """Whether a target is reached, None where that is not known, and if so by which plan of every DNN."""

    reached: bool | None
    plans: list[int] = field(default_factory=list)


OUT_OF_REACH, UNDECIDED = Decision(False), Decision(None)


@dataclass
class Proofs:
    """What is known of a target: what plans of DNNs cost at least at some prices, and DNNs that do not fit devices.

    DNNs are named by the ids of their supplies.
    """

    costs: list[tuple[Floats, dict[int, float]]] = field(default_factory=list)
    too_few: list[tuple[set[int], Integers]] = field(default_factory=list)

    def forbid(self, supplies: Sequence[Supply], left: Integers) -> bool:
        """Tell whether plans of some DNNs are known not to fit devices."""
        wanted = {id(supply) for supply in supplies}
        return any(wanted >= dnns and (left <= devices).all() for dnns, devices in self.too_few) or any(
            sum(cost[one] for one in wanted) > float(price @ left) * (1 + CERTAIN)
            for price, cost in self.costs
            if cost.keys() >= wanted
        )


@dataclass
class Deciding(PlanSearch):
    """Column generation at a target, and deciding it."""

    def settle(self, target: float, close: float = 0.5) -> Settled:
        """Generate plans worth a target until the relaxed choice is the best, or known to fit or not to fit.

        Where it fits, it may be better by ``close`` of what it leaves.
        """
        best = Settled(inf, -inf, self.price)
        asked, idle, overload = self.price, 0, inf
        for _ in range(ROUNDS):
            plans = self.plans
            bound = sum(one.bound for one in self.priced(asked, target)) - 1
            if bound > best.bound:
                best = Settled(overload, bound, asked)
            if best.bound > CERTAIN or self.clock.over:
                break
            uses = self.uses(self.usable(target))
            if not all(map(len, uses)):
                break
            mixed = master.mix(uses, self.capacity, self.clock)
            overload = mixed.overload
            if overload - best.bound <= max(SETTLED, -close * overload):
                break
            if self.plans == plans:
                idle += 1
                if idle == len(SMOOTHING):
                    break
            asked = SMOOTHING[idle] * best.price + (1 - SMOOTHING[idle]) * mixed.price
        log.debug("target %.9g: overload %.3g, at least %.3g, %d plans", target, overload, best.bound, self.plans)
        return Settled(overload, best.bound, best.price)

    def decide(self, target: float, price: Floats, effort: float, proofs: Proofs | None = None) -> Decision:
        """Tell whether a choice of plans worth a target fits.

        Parameters
        ----------
        price
            Best those at which the cheapest plans of all DNNs cost most.
        effort
            Multiplies the steps that listing takes.
        proofs
            Of this target.
        """
        cheapest = self.certified(target, price)
        proofs = proofs or Proofs()
        proofs.costs.append((price, {id(supply): cost for supply, cost in zip(self.supplies, cheapest, strict=True)}))
        slack = 1 - sum(cheapest)
        if slack < -CERTAIN:
            return OUT_OF_REACH
        may_branch = effort >= WORTH_BRANCHING and self._may_branch
        for part in BRANCHING_PARTS if may_branch else BRANCHING_PARTS[-1:]:
            for listed in self.near_cheapest(target, price, cheapest, max(slack, 0.0) + CERTAIN, part * effort):
                chosen, status = self.choose(listed.plans, price, CHOICE_LIMIT_S)
                log.debug("%s plans, complete %s: %s", [*map(len, listed.plans)], listed.complete, status)
                if chosen is not None:
                    return Decision(True, chosen)
                if all(listed.complete):
                    return OUT_OF_REACH if status == "infeasible" else UNDECIDED
            few = [len(own) if done else inf for own, done in zip(listed.plans, listed.complete, strict=True)]
            if may_branch and min(few) <= BRANCHES[part == 1]:
                dnn = int(np.argmin(few))
                return self._branch(target, price, dnn, listed.plans[dnn], effort, proofs)
        return UNDECIDED

    @property
    def _may_branch(self) -> bool:
        return 1 < len(self.supplies) <= BRANCHING_DNNS and self.capacity.of_whole_devices

    def choose(self, plans: Sequence[Integers], price: Floats, time_limit_s: float) -> tuple[list[int] | None, str]:
        """Return one of the plans of every DNN that together fit, if any, and the solver's status."""
        if not all(map(len, plans)):
            return None, "infeasible"
        limits = self.clock.at_most(time_limit_s).remaining()
        picked, status = master.choose(self.uses(plans), self.capacity, price, limits)
        return None if picked is None else [int(own[at]) for own, at in zip(plans, picked, strict=True)], status

    def _branch(
        self, target: float, price: Floats, dnn: int, plans: Integers, effort: float, proofs: Proofs
    ) -> Decision:
        """Decide a target with each of the plans of a DNN."""
        own, others = self.supplies[dnn], [*self.supplies[:dnn], *self.supplies[dnn + 1 :]]
        for plan in plans[np.argsort(own.use[plans] @ price, kind="stable")].tolist():
            left = self.capacity.limit - own.use[plan]
            if left.sum() == 0 or proofs.forbid(others, left):
                continue
            capacity = Capacity.of_devices(left.tolist())
            rest = Deciding(others, capacity, capacity.normed(price), self.bound, self.gap, self.clock)
            answer = rest.decide(target, rest.settle(target, CLOSE).price, effort, proofs)
            if answer.reached:
                return Decision(True, [*answer.plans[:dnn], plan, *answer.plans[dnn:]])
            if answer.reached is None:
                return UNDECIDED
            proofs.too_few.append(({id(supply) for supply in others}, left))
        return OUT_OF_REACH
