"""What a plan of one DNN costs at least, with whole devices for every pool and slices that may be divided.

Pools (position, type) hold whole devices, and where these are dear their rounding, of all pools together, is most of
what a plan loses. With y_p devices of pool p, and v_c the value that comes from candidate c, whose stage s fills
u_{c,s} devices of pool p(c, s) per unit of value,

    minimise    sum over p of lambda_p · y_p
    subject to  sum over c of v_c  >=  z
                sum over c and its stages s in p of u_{c,s} · v_c  <=  y_p      for every pool p
                v >= 0,  y integer

is what no plan costs less than: a plan has whole slices too. It has few integers, so that it takes milliseconds where
labels (`planner.planning.whole_devices.cheapest_plan`), which bound the rounding of one pool at a time, are too many.
"""

from planner.planning.programme.backends import Limits, solve
from planner.planning.programme.linear import LinearModel
from planner.planning.whole_devices.ends import Ends
from planner.planning.whole_devices.offers import REACHED, Offer

MOST_CANDIDATES = 150  # of which the programme takes 20 ms, and a second of ten times as many
LIMIT_S = 2.0
EXACT = 1e-7  # relative


def least_loss(offer: Offer, ends: Ends) -> float:
    """Return what a plan loses at least; 0 where candidates are too many to tell.

    Parameters
    ----------
    ends
        The candidates of which plans consist, with the offer's pools.
    """
    if not 0 < len(ends.excess) <= MOST_CANDIDATES:
        return 0.0
    model, scale = LinearModel(), float(offer.price.max(initial=0.0)) or 1.0
    devices = [
        model.add_column(f"devices[{pool}]", objective=price / scale, integer=True)
        for pool, price in enumerate(offer.price.tolist())
    ]
    filled: list[list[tuple[int, float]]] = [[(column, -1.0)] for column in devices]
    values = []
    for end, stages in enumerate(ends.stages.tolist()):
        values.append(model.add_column(f"value[{end}]"))
        use: dict[int, float] = {}
        for stage in range(stages):
            pool = int(ends.pool[end, stage])
            per_value = float(ends.slice_use[end, stage]) / float(offer.unit[pool] * ends.value[end, stage])
            use[pool] = use.get(pool, 0.0) + per_value * offer.target
        for pool, amount in use.items():
            filled[pool].append((values[-1], amount))
    for pool, terms in enumerate(filled):
        model.add_row(f"filled[{pool}]", terms, upper=0.0)
    model.add_row("value", [(value, 1.0) for value in values], lower=1.0 - REACHED)
    solution, _ = solve(model, "highs", Limits(gap=EXACT, time_limit_s=LIMIT_S))
    return max(solution.bound * scale * (1 - EXACT) - offer.value_price * offer.target, 0.0)
