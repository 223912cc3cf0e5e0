"""What the searches for plans of one DNN are given, and what they return."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.planning.arrays import Floats, Integers


@dataclass(frozen=True)
class Offer:
    """Items of one DNN by rising loss at given prices, and what bounds the plans made of them.

    ``item`` numbers the item in its stock, ``pool`` the pool there; ``use[item, pool]`` in 1/``unit[pool]`` devices
    of ``kind[pool]``, which cost ``price[pool]`` each. ``least`` and ``least_from`` are tables of `cover_bounds`, the
    second one empty where it is not used.
    """

    item: Integers
    pool: Integers
    use: NDArray[np.int32]
    value: Floats
    loss: Floats
    unit: Integers
    price: Floats
    kind: Integers
    value_price: float
    target: float
    least: Floats
    least_from: Floats


@dataclass(frozen=True)
class Cheapest:
    """The cheapest plan's loss and items (none: nothing below the limit), a bound on any plan's loss, labels made."""

    loss: float
    bound: float
    items: Integers
    labels: int


@dataclass(frozen=True)
class Within:
    """All plans within a budget: whether these are all, devices ``[plan, type]``, values, and items of each.

    ``labels`` were made, in as many steps as ``work``.
    """

    complete: bool
    use: Integers
    value: Floats
    items: list[Integers]
    labels: int
    work: int
