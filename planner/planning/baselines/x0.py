"""X0: a DNN's throughput under NP planned without batch building, on which every batch-building time rests.

NP optima are not unique, so X0 is made so: among the optima, the one with the largest sum of throughputs. DNNs that NP
cannot serve have X0 = 0, and the others share the cluster without them.

Deviation: with more than `RELAXED_PER_DNN` devices per DNN X0 is that of NP's relaxation, with fractions of devices and
otherwise by the same rule; whole devices hardly count there: the least X0 / weight is 0.05 % above the exact one for 10
DNNs on 10,000 devices of 4 types.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import inf

from planner.model import Dnn, Problem
from planner.planning.baselines.start import better_of, first_plan
from planner.planning.baselines.unpartitioned import unpartitioned
from planner.planning.pipelines.candidates import Candidate, enumerate_candidates
from planner.planning.pipelines.sizing import Sizing
from planner.planning.programme import milp
from planner.planning.programme.backends import Clock, Limits, TooLate, solve
from planner.planning.whole_devices import decomposition, narrowed, tables

# The programme takes seconds up to so many candidates, and may not end above; for at most two device types, which
# tables (`planner.planning.whole_devices.tables`) narrow, up to the second number, and on few devices per DNN. The
# decomposition takes more.
EXACT_CANDIDATES, EXACT_CANDIDATES_OF_TWO = 64, 128
RELAXED_PER_DNN, MANY_PER_DNN = 150, 30
SUM_LIMITS = Limits(gap=1e-4, time_limit_s=10.0)  # for the largest sum of throughputs among many optima


def with_x0(problem: Problem, backend: str = "highs", limits: Limits | None = None) -> Problem:
    """Return the problem with ``np_throughput_rps``, X0, filled in where it is None.

    X0 is exact up to 150 devices per DNN, else that of NP's relaxation.

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
    if all(dnn.np_throughput_rps is not None for dnn in problem.dnns) or problem.options.batch_building_factor == 0:
        return problem  # nothing rests on it
    whole = unpartitioned(problem)
    found = {number: enumerate_candidates(whole, number, inf) for number in range(len(problem.dnns))}
    served = [number for number, candidates in found.items() if candidates]
    x0_rps = dict.fromkeys(range(len(problem.dnns)), 0.0)
    if served:
        among = replace(
            whole,
            dnns=tuple(replace(_by_rate(whole.dnns[number]), np_throughput_rps=inf) for number in served),
            options=replace(whole.options, objective="max_min_throughput", budget_per_hour=None, min_accuracy=None),
        )
        candidates = [
            replace(candidate, dnn=position) for position, number in enumerate(served) for candidate in found[number]
        ]
        many = _devices(among) > RELAXED_PER_DNN * len(served)
        by_decomposition = among.options.device_sharing == "own" and decomposition.admits(among)
        if is_large(among, candidates) and (many or not by_decomposition):
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
    """Tell whether the programme over NP's candidates may not end in reasonable time.

    On more than two types it may not, however few the candidates are, where devices are many.
    """
    if len(problem.cluster.device_types) <= tables.TYPES:
        return len(candidates) > EXACT_CANDIDATES_OF_TWO
    many = _devices(problem) > MANY_PER_DNN * len(problem.dnns)
    return len(candidates) > EXACT_CANDIDATES or (many and len(problem.dnns) > 1)


def _devices(problem: Problem) -> int:
    return sum(device.count for device in problem.cluster.device_types)


def _by_rate(dnn: Dnn) -> Dnn:
    """Return the DNN with its rate, where it has one, as its share of the load."""
    return dnn if dnn.rate_rps is None else replace(dnn, weight=dnn.rate_rps)


def _largest_sum(problem: Problem, candidates: Sequence[Candidate], backend: str, limits: Limits) -> Sizing:
    """Return, among the optima of the problem's objective, one with the largest sum of throughputs."""
    clock = Clock(limits)
    begin = first_plan(problem)
    large = is_large(problem, candidates)
    try:
        if large:
            first = decomposition.size(problem, clock.remaining(), begin=begin)
        else:
            first = narrowed.size(problem, candidates, backend, clock.remaining())
    except TooLate:
        if begin is None:
            raise
        first = begin
    first = better_of(problem, first, begin) or first
    left = clock.within(SUM_LIMITS) if large else clock.remaining()
    formulation = milp.build(problem, candidates)
    milp.keep_objective(formulation, first.value(problem))
    formulation.model.set_objective([(column, 1.0) for column in formulation.throughput], maximise=True)
    start = milp.start_from(formulation, first)
    solution, name = solve(formulation.model, backend, left, start)
    return milp.extract(formulation, solution, first.bound, name) if solution.found else first


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
