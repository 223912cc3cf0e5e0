"""The linear relaxation of a plan over candidates: its bound, its prices, and what they rule out.

With fractional slices, n_{c,s} = y_c / x_{c,s}, and fractions of devices, a plan needs one row per DNN and one per
device type:

    maximise (or minimise) the objective of Y, U subject to
    throughput[d]   Y_d <= sum of y_c over the candidates of d                           dual price  pi_d
    devices[g]      sum of y_c · sum over s on g of 1 / (x_{c,s} · k_{c,s}) <= U_g       dual price  lambda_g

Its optimum bounds that of every plan. A pipeline of candidate c with n slices loses

    loss(c, n) = sum over s of lambda_g · n_s / k_s - pi_d · min over s of x_s · n_s  >=  0

and a plan is at least the sum of its losses away from the bound (weak duality). So a plan better than a known value W
holds no candidate whose least loss, over all sizes that fit the cluster, exceeds |bound - W|. The sizes worth a look
are those that make some stage exactly full: y = m · x_s with n_t = ceil(y / x_t).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from planner.model import InputError, Problem
from planner.planning.arrays import Floats
from planner.planning.pipelines.candidates import Candidate
from planner.planning.programme.backends import solve
from planner.planning.programme.linear import LinearModel, Status
from planner.planning.programme.objectives import set_objective

CHUNK = 512  # candidates whose sizes are compared at once; 512 · 3 stages · 300 slices are a few MB
ROUNDING = 1e-9


@dataclass(frozen=True)
class Relaxation:
    """The relaxation's optimum; ``worth`` is the change of the objective per additional device of each type.

    ``rates`` holds the throughput of every candidate.
    """

    status: Status
    bound: float
    throughput_price: Floats
    device_price: Floats
    worth: Floats
    rates: Floats


def relax(problem: Problem, candidates: Sequence[Candidate]) -> Relaxation:
    """Solve the relaxation over candidates."""
    model = LinearModel()
    types = problem.cluster.device_types
    throughput = [model.add_column(f"throughput[{dnn.name}]") for dnn in problem.dnns]
    used = [model.add_column(f"used[{device.name}]", upper=device.count) for device in types]
    rates: defaultdict[int, list[tuple[int, float]]] = defaultdict(list)
    devices: defaultdict[int, list[tuple[int, float]]] = defaultdict(list)
    rate_columns = []
    for number, candidate in enumerate(candidates):
        column = model.add_column(f"rate[{problem.dnns[candidate.dnn].name}/{number}]")
        rate_columns.append(column)
        rates[candidate.dnn].append((column, -1.0))
        for device, use in device_use(candidate).items():
            devices[device].append((column, use))
    throughput_rows = [
        model.add_row(f"throughput[{dnn.name}]", [(throughput[index], 1.0), *rates[index]], upper=0.0)
        for index, dnn in enumerate(problem.dnns)
    ]
    device_rows = [
        model.add_row(f"devices[{device.name}]", [*devices[index], (used[index], -1.0)], upper=0.0)
        for index, device in enumerate(types)
    ]
    set_objective(model, problem, throughput, used)
    solution, _ = solve(model, "highs")
    if not solution.found:
        empty = np.zeros(0)
        return Relaxation(solution.status, solution.bound, empty, empty, empty, empty)
    return Relaxation(
        solution.status,
        solution.objective,
        abs(solution.row_duals[throughput_rows]),
        abs(solution.row_duals[device_rows]),
        solution.column_duals[used] + 0.0,  # never -0
        solution.values[rate_columns],
    )


def device_use(candidate: Candidate) -> dict[int, float]:
    """Return the devices of each type (an index) that a candidate fills per request/s.

    >>> device_use(Candidate(0, 0, (0, 1, 3), (0, 0), (2, 1), (4, 4), (100.0, 50.0)))
    {0: 0.025}
    """
    use: defaultdict[int, float] = defaultdict(float)
    for device, share, slice_rps in zip(candidate.devices, candidate.shares, candidate.slice_rps, strict=True):
        use[device] += 1 / (slice_rps * share)
    return dict(use)


def unit_losses(candidates: Sequence[Candidate], relaxation: Relaxation) -> Floats:
    """Return what each candidate loses per unit of the objective that it earns, fractional slices allowed."""
    losses = []
    for candidate in candidates:
        cost = sum(relaxation.device_price[device] * use for device, use in device_use(candidate).items())
        reward = relaxation.throughput_price[candidate.dnn]
        losses.append(cost / reward - 1 if reward > 0 else cost)
    return np.array(losses)


def least_losses(problem: Problem, candidates: Sequence[Candidate], relaxation: Relaxation) -> Floats:
    """Return per candidate the least loss over all of its sizes that fit the cluster, infinite where none does."""
    losses = np.full(len(candidates), inf)
    counts = np.array([device.count for device in problem.cluster.device_types])
    by_stages: defaultdict[int, list[int]] = defaultdict(list)
    for number, candidate in enumerate(candidates):
        by_stages[len(candidate.devices)].append(number)
    for numbers in by_stages.values():
        for begin in range(0, len(numbers), CHUNK):
            chunk = numbers[begin : begin + CHUNK]
            losses[chunk] = _least_losses([candidates[number] for number in chunk], counts, relaxation)
    return losses


def affordable(
    problem: Problem, candidates: Sequence[Candidate], relaxation: Relaxation, value: float, always: Sequence[Candidate]
) -> list[Candidate]:
    """Return the candidates that a plan as good as this value can hold, and some others, by rising loss."""
    reach = abs(relaxation.bound - value) + ROUNDING * abs(relaxation.bound)
    wanted = set(always)
    losses = least_losses(problem, candidates, relaxation)
    return [
        candidates[number]
        for number in np.argsort(losses, kind="stable")
        if losses[number] <= reach or candidates[number] in wanted
    ]


def _least_losses(candidates: list[Candidate], counts: np.ndarray, relaxation: Relaxation) -> Floats:
    """Compare all sizes of candidates with equally many stages."""
    slice_rps = np.array([candidate.slice_rps for candidate in candidates])
    shares = np.array([candidate.shares for candidate in candidates])
    devices = np.array([candidate.devices for candidate in candidates])
    limit = counts[devices] * shares
    slice_price = relaxation.device_price[devices] / shares
    reward = relaxation.throughput_price[[candidate.dnn for candidate in candidates]]
    least = np.full(len(candidates), inf)
    for stage in range(slice_rps.shape[1]):
        rps = slice_rps[:, stage, np.newaxis] * np.arange(1, limit[:, stage].max() + 1)
        slices = np.ceil(rps[:, :, np.newaxis] / slice_rps[:, np.newaxis, :] * (1 - ROUNDING))
        loss = (slices * slice_price[:, np.newaxis, :]).sum(axis=2) - reward[:, np.newaxis] * rps
        loss[(slices > limit[:, np.newaxis, :]).any(axis=2)] = inf
        least = np.minimum(least, loss.min(axis=1, initial=inf))
    return least


def overloaded(problem: Problem, candidates: Sequence[Candidate]) -> InputError:
    """Return the error that tells how much of the rates asked for the cluster can serve at most."""
    by_rate = replace(
        problem,
        dnns=tuple(replace(dnn, weight=dnn.rate_rps or dnn.weight) for dnn in problem.dnns),
        options=replace(problem.options, objective="max_min_throughput"),
    )
    reach = relax(by_rate, candidates).bound
    return InputError(
        f"the cluster can serve at most {reach:.1%} of the rates asked for; "
        "add devices, raise the SLOs, or ask for less"
    )
