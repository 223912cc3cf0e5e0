"""Plans that fit, found by exchanging DNNs' plans one by one.

From a plan of every DNN drawn by its part in the relaxed choice (`planner.planning.whole_devices.master`), plans are
exchanged at random for others of the same DNN: always where what the cluster lacks then costs no more, and else the
less likely the more it costs, and the later (simulated annealing: Kirkpatrick, Gelatt and Vecchi, 1983). It ends when
nothing is lacking. Proves nothing, and takes a fraction of a second where a binary programme takes many.
"""

from collections.abc import Sequence

import numpy as np

from planner.compilation import compiled
from planner.planning.arrays import Floats, Integers
from planner.planning.programme.backends import Clock

STARTS = 6
EXCHANGES, MOST_EXCHANGES = 2_000, 3_000_000  # tried from each start: per plan, and in all
EXCHANGE_S = 1e-7  # that one takes, where work is counted
HOT, COLD = 1.0, 0.02  # average devices that may be lacking for an exchange to be as likely as 1/e


def exchanged(
    uses: Sequence[Integers],
    shares: Sequence[Floats],
    counts: Integers,
    price: Floats,
    rng: np.random.Generator,
    clock: Clock,
) -> list[int] | None:
    """Return a plan per DNN, of those that use ``uses[dnn][plan, type]``, that together take no more than ``counts``.

    Parameters
    ----------
    shares
        Of every plan in the relaxed choice.
    price
        Of the device types.
    clock
        Where it is over, none is found.
    """
    first = np.cumsum([0, *map(len, uses)])
    use, parts = np.concatenate(uses), np.concatenate(shares)
    weight = np.maximum(price, 1e-3 * price.max()) * counts.sum() / max(float(price @ counts), 1e-300)
    exchanges = min(EXCHANGES * len(use), MOST_EXCHANGES)
    for start in range(STARTS):
        if clock.over:
            return None
        clock.spend(EXCHANGE_S * exchanges)
        drawn = parts * rng.exponential(size=len(parts)) if start else parts
        chosen = np.array([first[dnn] + int(drawn[first[dnn] : first[dnn + 1]].argmax()) for dnn in range(len(uses))])
        if _exchange(use, first, chosen, counts, weight, int(rng.integers(2**31)), exchanges, HOT, COLD):
            return [int(plan) for plan in chosen - first[:-1]]
    return None


@compiled
def _exchange(
    use: Integers,
    first: Integers,
    chosen: Integers,
    counts: Integers,
    weight: Floats,
    seed: int,
    exchanges: int,
    hot: float,
    cold: float,
) -> bool:
    """Exchange plans until nothing is lacking, and tell whether that was reached."""
    np.random.seed(seed)  # noqa: NPY002  # numba's own generator: fixed by the seed, and none of the caller's
    types, dnns = use.shape[1], len(chosen)
    over = -counts.copy()
    for plan in chosen:
        over += use[plan]
    lacking = 0.0
    for kind in range(types):
        lacking += weight[kind] * max(over[kind], 0)
    for step in range(exchanges):
        if lacking <= 0.0:
            return True
        dnn = np.random.randint(dnns)  # noqa: NPY002
        old = chosen[dnn]
        new = first[dnn] + np.random.randint(first[dnn + 1] - first[dnn])  # noqa: NPY002
        then = 0.0
        for kind in range(types):
            then += weight[kind] * max(over[kind] + use[new, kind] - use[old, kind], 0)
        heat = hot * (cold / hot) ** (step / exchanges)
        if then <= lacking or np.random.random() < np.exp((lacking - then) / heat):  # noqa: NPY002
            over += use[new] - use[old]
            chosen[dnn], lacking = new, then
    return lacking <= 0.0
