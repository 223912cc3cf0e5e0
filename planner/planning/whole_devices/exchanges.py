"""Plans that fit, found by exchanging one or two DNNs' plans at a time.

From a plan of every DNN drawn by its part in the relaxed choice (`planner.planning.whole_devices.master`), the exchange
is taken that leaves the least excess of resources, relative and added up, until there is none, or no exchange makes it
less. Proves nothing, and takes milliseconds where a binary programme takes seconds.
"""

from collections.abc import Sequence

import numpy as np

from planner.planning.arrays import Floats, Integers
from planner.planning.programme.backends import Clock

RESTARTS = 30
PAIRED = 300  # plans tried in pairs


def exchanged(
    uses: Sequence[Integers], shares: Sequence[Floats], counts: Integers, rng: np.random.Generator, clock: Clock
) -> list[int] | None:
    """Return a plan per DNN, of those that use ``uses[dnn][plan, type]``, that together take no more than ``counts``.

    Parameters
    ----------
    shares
        Of every plan in the relaxed choice.
    clock
        Where it is over, none is found.
    """
    parts = np.concatenate(shares)
    owner = np.repeat(np.arange(len(uses)), [len(own) for own in uses])
    first = np.searchsorted(owner, np.arange(len(uses)))
    use = np.concatenate(uses)
    scale = 1 / np.maximum(counts, 1)
    for attempt in range(RESTARTS):
        drawn = parts * rng.exponential(size=len(parts)) if attempt else parts
        chosen = np.array([begin + int(drawn[owner == dnn].argmax()) for dnn, begin in enumerate(first.tolist())])
        while not clock.over:
            over = use[chosen].sum(axis=0) - counts
            excess = float((np.maximum(over, 0) * scale).sum())
            if excess == 0:
                return [int(plan) for plan in chosen - first]
            change = use - use[chosen[owner]]
            single = (np.maximum(over + change, 0) * scale).sum(axis=1)
            best = int(single.argmin())
            pair: tuple[int, ...] = (best,)
            if single[best] > excess / 2:  # pairs are many, and only worth it where one exchange does not go far
                near = np.argsort(single, kind="stable")[:PAIRED]
                both = (np.maximum(over + change[near, np.newaxis] + change[near], 0) * scale).sum(axis=2)
                both[owner[near, np.newaxis] == owner[near]] = np.inf
                one, other = np.unravel_index(int(both.argmin()), both.shape)
                if both[one, other] < single[best]:
                    pair, single[best] = (int(near[one]), int(near[other])), both[one, other]
            if single[best] >= excess:
                break
            for plan in pair:
                chosen[owner[plan]] = plan
    return None
