"""The linear relaxation of a plan over candidates: its bound, its prices, and what they rule out.

With fractional slices, n_{c,s} = y_c / x_{c,s}, and fractions of devices, a plan needs one row per DNN and one per
device type (and more where fractions do not say what fits on a device: `planner.planning.programme.pools`):

    maximise (or minimise) the objective of Y, U subject to
    throughput[d]   Y_d <= sum of y_c over the candidates of d                           dual price  pi_d
    devices[g]      sum of y_c · sum over s on g of 1 / (x_{c,s} · k_{c,s}) <= U_g       dual price  lambda_g

Its optimum bounds that of every plan. A pipeline of candidate c with n slices loses

    loss(c, n) = sum over s of lambda_{g,k} · n_s - (pi_d - e_c) · min over s of x_s · n_s  >=  0

where lambda_{g,k} is the price of a slice, lambda_g / k or what its segment's row says, and e_c what a request/s draws
under ``least_energy``, the megabytes that it needs under ``least_memory``, else 0.

A plan is at least the sum of its losses away from the bound (weak duality). So a plan better than a known value W
holds no candidate whose least loss, over all sizes that fit the cluster, exceeds |bound - W|. The sizes worth a look
are those that make some stage exactly full: y = m · x_s with n_t = ceil(y / x_t).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from planner.model import InputError, Problem
from planner.model.packing import most_segments
from planner.model.segments import Kind, Share, kind_of, processes
from planner.planning.arrays import Floats
from planner.planning.pipelines.candidates import Candidate
from planner.planning.programme.backends import Clock, Limits, TooLate, solve
from planner.planning.programme.linear import LinearModel, Status
from planner.planning.programme.objectives import PlanColumns, rate_costs, set_objective
from planner.planning.programme.pools import PoolColumns, add_relaxed_pool, summed

CHUNK = 512  # candidates whose sizes are compared at once; 512 · 3 stages · 300 slices are a few MB
ROUNDING = 1e-9
MOST_SIZES = 5_000  # that are compared one by one


@dataclass(frozen=True)
class Relaxation:
    """The relaxation's optimum; ``worth`` is the change of the objective per additional device of each type.

    ``slice_price`` has the price of a slice per device type (an index) and share in use. ``rates`` holds the throughput
    of every candidate.
    """

    status: Status
    bound: float
    throughput_price: Floats
    device_price: Floats
    slice_price: Mapping[tuple[int, Share], float]
    worth: Floats
    rates: Floats


def relax(problem: Problem, candidates: Sequence[Candidate], clock: Clock | None = None) -> Relaxation:
    """Solve the relaxation over candidates; raises TooLate where a clock is over before that is done."""
    clock = clock or Clock(Limits())
    model = LinearModel()
    types = problem.cluster.device_types
    throughput = [model.add_column(f"throughput[{dnn.name}]") for dnn in problem.dnns]
    used = [model.add_column(f"used[{device.name}]", upper=device.count) for device in types]
    rates: defaultdict[int, list[tuple[int, float]]] = defaultdict(list)
    segments: list[defaultdict[Kind, list[tuple[int, float]]]] = [defaultdict(list) for _ in types]
    rate_columns = []
    for number, candidate in enumerate(candidates):
        clock.expect_time()
        column = model.add_column(f"rate[{problem.dnns[candidate.dnn].name}/{number}]")
        rate_columns.append(column)
        rates[candidate.dnn].append((column, -1.0))
        for device, share, slice_rps in zip(candidate.devices, candidate.shares, candidate.slice_rps, strict=True):
            segments[device][kind_of(share)].append((column, 1 / (slice_rps * processes(share))))
    throughput_rows = [
        model.add_row(f"throughput[{dnn.name}]", [(throughput[index], 1.0), *rates[index]], upper=0.0)
        for index, dnn in enumerate(problem.dnns)
    ]
    pools = [add_relaxed_pool(model, device, segments[index]) for index, device in enumerate(types)]
    device_rows = [
        model.add_row(
            f"devices[{device.name}]", [*summed(t for pool in pools[index] for t in pool.devices), (used[index], -1.0)],
            upper=0.0,
        )
        for index, device in enumerate(types)
    ]  # fmt: skip
    set_objective(model, problem, PlanColumns(throughput, used, rate_columns, candidates))
    solution, _ = solve(model, "highs", clock.remaining())
    if clock.over and solution.status != "optimal":
        raise TooLate
    if not solution.found:
        empty = np.zeros(0)
        return Relaxation(solution.status, solution.bound, empty, empty, {}, empty, empty)
    device_price = abs(solution.row_duals[device_rows])
    return Relaxation(
        solution.status,
        solution.objective,
        abs(solution.row_duals[throughput_rows]),
        device_price,
        _slice_prices(problem, candidates, device_price, pools, abs(solution.row_duals)),
        solution.column_duals[used] + 0.0,  # never -0
        solution.values[rate_columns],
    )


def _slice_prices(
    problem: Problem, candidates: Sequence[Candidate], device_price: Floats, pools: list[list[PoolColumns]],
    row_price: Floats,
) -> dict[tuple[int, Share], float]:  # fmt: skip
    """Return the price of a slice of every share in use: its part of a device's, or what its segment's row says."""
    rows = [{kind: row for one in pool for kind, row in one.rows.items()} for pool in pools]
    prices: dict[tuple[int, Share], float] = {}
    for device, share in {place for one in candidates for place in zip(one.devices, one.shares, strict=True)}:
        if kind_of(share) in rows[device]:
            prices[device, share] = float(row_price[rows[device][kind_of(share)]]) / processes(share)
        else:
            fraction = problem.cluster.device_types[device].fraction(share)
            prices[device, share] = float(device_price[device]) * float(fraction)
    return prices


def most_slices(problem: Problem, candidate: Candidate) -> tuple[int, ...]:
    """Return how many slices of each stage the cluster's devices hold, if nothing else lies on them."""
    types = problem.cluster.device_types
    return tuple(
        types[device].count * most_segments(types[device], kind_of(share)) * processes(share)
        for device, share in zip(candidate.devices, candidate.shares, strict=True)
    )


def unit_losses(problem: Problem, candidates: Sequence[Candidate], relaxation: Relaxation) -> Floats:
    """Return what each candidate loses per unit of the objective that it earns, fractional slices allowed."""
    losses = []
    for candidate, own in zip(candidates, rate_costs(problem, candidates), strict=True):
        places = zip(candidate.devices, candidate.shares, candidate.slice_rps, strict=True)
        cost = own + sum(relaxation.slice_price[device, share] / rps for device, share, rps in places)
        reward = relaxation.throughput_price[candidate.dnn]
        losses.append(cost / reward - 1 if reward > 0 else cost)
    return np.array(losses)


def least_losses(
    problem: Problem, candidates: Sequence[Candidate], relaxation: Relaxation, clock: Clock | None = None
) -> Floats:
    """Return per candidate the least loss over all of its sizes that fit the cluster, infinite where none does."""
    losses = np.full(len(candidates), inf)
    by_stages: defaultdict[int, list[int]] = defaultdict(list)
    for number, candidate in enumerate(candidates):
        by_stages[len(candidate.devices)].append(number)
    for numbers in by_stages.values():
        for begin in range(0, len(numbers), CHUNK):
            if clock is not None:
                clock.expect_time()
            chunk = numbers[begin : begin + CHUNK]
            losses[chunk] = _least_losses(problem, [candidates[number] for number in chunk], relaxation)
    return losses


def affordable(
    problem: Problem, candidates: Sequence[Candidate], relaxation: Relaxation, value: float,
    always: Sequence[Candidate], clock: Clock | None = None,
) -> list[Candidate]:  # fmt: skip
    """Return the candidates that a plan as good as this value can hold, and some others, by rising loss."""
    reach = abs(relaxation.bound - value) + ROUNDING * abs(relaxation.bound)
    wanted = set(always)
    losses = least_losses(problem, candidates, relaxation, clock)
    return [
        candidates[number]
        for number in np.argsort(losses, kind="stable")
        if losses[number] <= reach or candidates[number] in wanted
    ]


def _least_losses(problem: Problem, candidates: list[Candidate], relaxation: Relaxation) -> Floats:
    """Compare all sizes of candidates with equally many stages."""
    slice_rps = np.array([candidate.slice_rps for candidate in candidates])
    limit = np.array([most_slices(problem, candidate) for candidate in candidates])
    slice_price = np.array(
        [[relaxation.slice_price[place] for place in zip(c.devices, c.shares, strict=True)] for c in candidates]
    )
    reward = relaxation.throughput_price[[candidate.dnn for candidate in candidates]] - rate_costs(problem, candidates)
    least = np.full(len(candidates), inf)
    for stage in range(slice_rps.shape[1]):
        rps = slice_rps[:, stage, np.newaxis] * np.arange(1, min(MOST_SIZES, limit[:, stage].max()) + 1)
        slices = np.ceil(rps[:, :, np.newaxis] / slice_rps[:, np.newaxis, :] * (1 - ROUNDING))
        loss = (slices * slice_price[:, np.newaxis, :]).sum(axis=2) - reward[:, np.newaxis] * rps
        loss[(slices > limit[:, np.newaxis, :]).any(axis=2)] = inf
        least = np.minimum(least, loss.min(axis=1, initial=inf))
        if limit[:, stage].max() > MOST_SIZES:  # what larger sizes lose at least, their rounding left out
            excess = (slice_price / slice_rps).sum(axis=1) - reward
            least = np.where(limit[:, stage] > MOST_SIZES, np.minimum(least, np.maximum(excess, 0) * rps[:, -1]), least)
    return least


def too_much(reach: float) -> InputError:
    """Return the error that tells which part of the rates asked for is within reach."""
    return InputError(
        f"the cluster can serve at most {reach:.1%} of the rates asked for; "
        "add devices, raise the SLOs, or ask for less"
    )


def overloaded(problem: Problem, candidates: Sequence[Candidate]) -> InputError:
    """Return the error that tells what is out of reach: the rates asked for, the budget, or the accuracy."""
    free = replace(problem.options, budget_per_hour=None, min_accuracy=None)
    by_rate = replace(
        problem,
        dnns=tuple(replace(dnn, weight=dnn.rate_rps or dnn.weight) for dnn in problem.dnns),
        options=replace(free, objective="max_min_throughput"),
    )
    reach = relax(by_rate, candidates).bound
    if reach < 1:
        return too_much(reach)
    least, budget = problem.options.min_accuracy, problem.options.budget_per_hour
    if least is not None:
        most = relax(replace(problem, options=replace(free, objective="most_accurate")), candidates)
        if most.status == "infeasible" or most.bound < least:
            return InputError(
                f"min_accuracy: {least:g} % is out of reach for the mean of all requests ({most.bound:.6g} % at most) "
                "or for one DNN; ask for less, or add variants or devices"
            )
    cheapest = relax(replace(problem, options=replace(free, objective="least_cost", min_accuracy=least)), candidates)
    return InputError(
        f"budget_per_hour: {budget or 0:g} is below what the cheapest plan costs, at least {cheapest.bound:.6g}; "
        "raise it, or ask for less"
    )
