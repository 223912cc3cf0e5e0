"""Baselines: NP, which does not partition, and DART-r, which replicates one small pipeline (PPipe, ATC'25, section 7).

**NP** serves every DNN whole on whole devices: one stage, share 1/1. Otherwise it is the main programme
(`planner.planning.milp`). Its throughput planned without batch building is X0, on which every scheduler's
batch-building time rests. NP optima are not unique, so X0 is made so: among the optima, the one with the largest sum of
throughputs. DNNs that NP cannot serve have X0 = 0, and the others share the cluster without them. A plan has the fewest
devices instead (`planner.planning.canonical`). In four of the 24 published plans a DNN that does not bind has more than
those, by no rule: any number up to all spare devices is optimal.

Deviation: for large problems (`is_large`) X0 is that of NP's relaxation, with fractions of devices and otherwise by the
same rule. Exact NP does not end there in minutes, and whole devices hardly count: the least X0 / weight is 0.4 % above
the exact one at 10 DNNs on 500 devices of 6 types, 0.05 % at 10 on 10,000 of 4.

**NP in closed form**, the variant of the published ablation, for one DNN: on all devices of a type, the largest batch
that meets the SLO, slack and batch building included. It knows no optimum: a smaller batch can be faster.

**DART-r** gives each DNN the devices that NP gave it and an equal share, rounded down, of what NP left over. On two
device types it replicates the best plan of one device of each (at most two stages) as often as the smaller count, and
adds the best one-stage plan of one device on the excess of the larger.

Deviation: with more than two types they are paired by what one device of each serves alone: the fastest with the
slowest, the second fastest with the second slowest, and so on; a type in the middle is on its own. Two types give the
published rule.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf

from planner.model import Dnn, InputError, Plan, Problem
from planner.model.objective import MAXIMISED
from planner.planning import milp, tables
from planner.planning.backends import Limits, solve
from planner.planning.candidates import Candidate, enumerate_candidates
from planner.planning.sizing import Sized, Sizing

DART_STAGES = 2
# Exact NP takes seconds up to so many candidates, and may not end above; for at most two device types, which tables
# (`planner.planning.tables`) narrow, up to the second number.
EXACT_CANDIDATES, EXACT_CANDIDATES_OF_TWO = 64, 128
Allocation = Mapping[str, Mapping[str, int]]  # DNN -> device type -> whole devices


def unpartitioned(problem: Problem) -> Problem:
    """Return the problem whose pipelines plans are NP plans: one stage, whole devices."""
    return _whole_devices(problem, max_stages=1)


def _whole_devices(problem: Problem, max_stages: int) -> Problem:
    types = tuple(replace(device, shares=(1,)) for device in problem.cluster.device_types)
    return replace(
        problem,
        cluster=replace(problem.cluster, device_types=types),
        options=replace(problem.options, max_stages=max_stages),
    )


def with_x0(problem: Problem, backend: str = "highs", limits: Limits | None = None) -> Problem:
    """Return the problem with ``np_throughput_rps``, X0, filled in where it is None.

    X0 is exact where NP has at most 64 candidates (about one per DNN variant and device type), 128 for at most two
    device types, else that of NP's relaxation.

    Examples
    --------
    Two devices that serve 125 requests/s each, for two DNNs:

    >>> from planner.model import *
    >>> table = LatencyTable("L4", 1, (1,), ((8000,),), Provenance("measured", "by hand"))
    >>> profile = Profile("toy", (Block(("a",)),), (), (table,))
    >>> dnns = (Dnn("a", 20_000, (profile,)), Dnn("b", 20_000, (profile,)))
    >>> problem = Problem(Cluster((DeviceType("L4", 2),), Network(10)), dnns)
    >>> [dnn.np_throughput_rps for dnn in with_x0(problem).dnns]
    [125.0, 125.0]
    """
    if all(dnn.np_throughput_rps is not None for dnn in problem.dnns):
        return problem
    whole = unpartitioned(problem)
    found = {number: enumerate_candidates(whole, number, inf) for number in range(len(problem.dnns))}
    served = [number for number, candidates in found.items() if candidates]
    x0_rps = dict.fromkeys(range(len(problem.dnns)), 0.0)
    if served:
        among = replace(
            whole,
            dnns=tuple(_by_rate(whole.dnns[number]) for number in served),
            options=replace(whole.options, objective="max_min_throughput"),
        )
        candidates = [
            replace(candidate, dnn=position) for position, number in enumerate(served) for candidate in found[number]
        ]
        if is_large(among, candidates):
            throughput_rps = _relaxed_largest_sum(among, candidates)
        else:
            sizing = _largest_sum(among, candidates, backend, limits or Limits())
            throughput_rps = [sizing.throughput_rps(position) for position in range(len(served))]
        x0_rps |= dict(zip(served, throughput_rps, strict=True))
    dnns = (
        replace(dnn, np_throughput_rps=x0_rps[number]) if dnn.np_throughput_rps is None else dnn
        for number, dnn in enumerate(problem.dnns)
    )
    return replace(problem, dnns=tuple(dnns))


def is_large(problem: Problem, candidates: Sequence[Candidate]) -> bool:
    """Tell whether exact NP over its candidates may not end in reasonable time."""
    few_types = len(problem.cluster.device_types) <= tables.TYPES
    return len(candidates) > (EXACT_CANDIDATES_OF_TWO if few_types else EXACT_CANDIDATES)


def _by_rate(dnn: Dnn) -> Dnn:
    """Return the DNN with its rate, where it has one, as its share of the load."""
    return dnn if dnn.rate_rps is None else replace(dnn, weight=dnn.rate_rps)


def _largest_sum(problem: Problem, candidates: Sequence[Candidate], backend: str, limits: Limits) -> Sizing:
    """Return, among the optima of the problem's objective, one with the largest sum of throughputs."""
    first = milp.size(problem, candidates, backend, limits)
    formulation = milp.build(problem, candidates)
    milp.keep_objective(formulation, first.value(problem))
    formulation.model.set_objective([(column, 1.0) for column in formulation.throughput], maximise=True)
    start = milp.start_from(formulation, first.pipelines)
    solution, name = solve(formulation.model, backend, limits, start)
    return Sizing(milp.extract(formulation, solution), first.bound, name) if solution.found else first


def _relaxed_largest_sum(problem: Problem, candidates: Sequence[Candidate]) -> list[float]:
    """Return every DNN's throughput in the same optimum, where slices and devices may be fractions."""
    formulation = milp.build(problem, candidates)
    formulation.model.relax_integers()
    first, _ = solve(formulation.model, "highs")
    milp.keep_objective(formulation, first.objective)
    formulation.model.set_objective([(column, 1.0) for column in formulation.throughput], maximise=True)
    second, _ = solve(formulation.model, "highs")
    values = (second if second.found else first).values
    return [float(values[column]) for column in formulation.throughput]


def size_np_closed_form(problem: Problem) -> Sizing:
    """Return NP's plan by the ablation's rule; X0 must be known.

    Raises
    ------
    InputError
        The problem has several DNNs, or an objective other than throughput.
    """
    _expect_throughput(problem, "np in closed form")
    if len(problem.dnns) > 1:
        raise InputError(f"np in closed form plans one DNN, got {len(problem.dnns)}; use another method")
    whole = unpartitioned(problem)
    chosen: dict[int, Candidate] = {}
    for candidate in enumerate_candidates(whole, 0, whole.dnns[0].np_throughput_rps or 0.0, pareto=False):
        known = chosen.get(candidate.devices[0])
        if known is None or candidate.batches > known.batches:
            chosen[candidate.devices[0]] = candidate
    types = problem.cluster.device_types
    pipelines = tuple(Sized(candidate, (types[device].count,)) for device, candidate in sorted(chosen.items()))
    return _certain(problem, pipelines)


def with_closed_form_x0(problem: Problem) -> Problem:
    """Return the problem with X0 by the ablation's rule, its NP without batch building, where it is None."""
    dnn = problem.dnns[0]
    if len(problem.dnns) > 1 or dnn.np_throughput_rps is not None:
        return problem
    unlimited = replace(problem, dnns=(replace(dnn, np_throughput_rps=inf),))
    return replace(problem, dnns=(replace(dnn, np_throughput_rps=size_np_closed_form(unlimited).throughput_rps(0)),))


def size_dart_r(problem: Problem, np_devices: Allocation) -> Sizing:
    """Return DART-r's plan; X0 must be known.

    Parameters
    ----------
    problem
        What to plan.
    np_devices
        The whole devices of each type that NP gave each DNN.
    """
    _expect_throughput(problem, "dart-r")
    whole = _whole_devices(problem, min(DART_STAGES, problem.options.max_stages))
    pipelines: list[Sized] = []
    for number, counts in enumerate(_shares_of_cluster(problem, np_devices)):
        candidates = enumerate_candidates(whole, number, problem.dnns[number].np_throughput_rps or 0.0)
        for first, second in _pairs(candidates, len(counts)):
            pipelines += _replicate(candidates, counts, first, second)
    return _certain(problem, tuple(pipelines))


def devices_of(plan: Plan) -> Allocation:
    """Return the whole devices of each type that a plan gives each DNN."""
    found: dict[str, dict[str, int]] = {}
    for pipeline in plan.pipelines:
        counts = found.setdefault(pipeline.dnn, {})
        for stage in pipeline.stages:
            counts[stage.device] = counts.get(stage.device, 0) + round(stage.devices)
    return found


def _shares_of_cluster(problem: Problem, np_devices: Allocation) -> list[tuple[int, ...]]:
    """Return the devices per type that each DNN has: those that NP gave it, and its share of the others."""
    given = [
        tuple(np_devices.get(dnn.name, {}).get(device.name, 0) for device in problem.cluster.device_types)
        for dnn in problem.dnns
    ]
    taken = [sum(column) for column in zip(*given, strict=True)]
    spare = [
        (device.count - count) // len(problem.dnns)
        for device, count in zip(problem.cluster.device_types, taken, strict=True)
    ]
    return [tuple(count + more for count, more in zip(counts, spare, strict=True)) for counts in given]


def _pairs(candidates: Sequence[Candidate], types: int) -> list[tuple[int, int]]:
    """Pair device types from the two ends of their order by speed; a type left in the middle pairs with itself."""
    order = sorted(range(types), key=lambda device: -_rps(_best(candidates, (device,))))
    return [(order[rank], order[-1 - rank]) for rank in range((types + 1) // 2)]


def _replicate(candidates: Sequence[Candidate], counts: tuple[int, ...], first: int, second: int) -> list[Sized]:
    """Return the best plan of a pair as often as both types allow, and single devices for the rest."""
    alone = {device: _best(candidates, (device,)) for device in {first, second}}
    together = max(
        (_best(candidates, order) for order in ((first, second), (second, first)) if first != second),
        key=_rps,
        default=None,
    )
    pairs = min(counts[first], counts[second]) if _rps(together) > sum(map(_rps, alone.values())) else 0
    found = [Sized(together, (pairs, pairs))] if together is not None and pairs else []
    for device, candidate in alone.items():
        if candidate is not None and counts[device] > pairs:
            found.append(Sized(candidate, (counts[device] - pairs,)))
    return found


def _best(candidates: Sequence[Candidate], devices: tuple[int, ...]) -> Candidate | None:
    """Return the candidate on this sequence of device types that serves the most with a slice per stage."""
    return max((candidate for candidate in candidates if candidate.devices == devices), key=_rps, default=None)


def _rps(candidate: Candidate | None) -> float:
    return 0.0 if candidate is None else min(candidate.slice_rps)


def _expect_throughput(problem: Problem, what: str) -> None:
    if not MAXIMISED[problem.options.objective]:
        raise InputError(
            f"{what} maximises throughput and knows no {problem.options.objective}; use the scheduler pipelines or np"
        )


def _certain(problem: Problem, pipelines: tuple[Sized, ...]) -> Sizing:
    """Return the sizing of a rule, whose outcome is its own bound."""
    sizing = Sizing(pipelines, 0.0, "none")
    return replace(sizing, bound=sizing.value(problem))
