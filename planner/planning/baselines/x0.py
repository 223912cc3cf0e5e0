"""X0: a DNN's throughput under NP planned without batch building, on which every batch-building time rests.

NP optima are not unique, so X0 is made so: among the optima, the one with the largest sum of throughputs. DNNs that NP
cannot serve have X0 = 0, and the others share the cluster without them.

It is looked for by a clock that counts work (`planner.planning.programme.backends.clock`): every run finds the same X0,
however busy the machine is, so that plans made with the same time limit can be compared. A wall clock ends the search
only where the machine is several times slower than that work was measured on, and X0 then says so.

Deviation: with more than `RELAXED_PER_DNN` devices per DNN X0 is that of NP's relaxation, with fractions of devices and
otherwise by the same rule; whole devices hardly count there: the least X0 / weight is 0.05 % above the exact one for 10
DNNs on 10,000 devices of 4 types.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf, log2

from planner.model import Dnn, Problem
from planner.model.segments import processes
from planner.planning.baselines.start import better_of, first_plan
from planner.planning.baselines.unpartitioned import unpartitioned
from planner.planning.pipelines.candidates import Candidate, enumerate_candidates
from planner.planning.pipelines.sizing import Report, Sizing
from planner.planning.programme import milp
from planner.planning.programme.backends import Clock, Limits, TooLate, solve
from planner.planning.whole_devices import decomposition, narrowed, tables

# The programme takes a moment up to so many candidates; for at most two device types, which tables
# (`planner.planning.whole_devices.tables`) narrow, up to the second number, and on few devices per DNN. The
# decomposition takes a second or two for more. Where it is not through in its part, as very many plans are alike, the
# programme goes on from its plan up to the third number.
EXACT_CANDIDATES, EXACT_CANDIDATES_OF_TWO, MOST_CANDIDATES = 16, 128, 64
RELAXED_PER_DNN, MANY_PER_DNN = 150, 30
# Seconds of work for the search, the programme after it, and the largest sum among many optima; the shares of a limited
# time that they get at most of it. How much work a time limit allows goes by powers of two, so that limits that differ
# by what it took to read a file give one X0.
SEARCH_S, PROGRAMME_S, SUM_S = 5.0, 10.0, 2.0
SEARCH_SHARE, SUM_SHARE = 0.6, 0.2
WORK_SHARE = 0.3
SUM_GAP = 1e-4


Devices = Mapping[tuple[int, int], int]  # (DNN, device type) -> how many


@dataclass(frozen=True)
class Known:
    """The problem with X0, and how it was found.

    ``devices`` are the whole ones of the plan that has it, None where there is no such plan. ``timed`` says that the
    wall clock ended the search, so that another run may find another X0.
    """

    problem: Problem
    devices: Devices | None = None
    timed: bool = False


def with_x0(problem: Problem, backend: str = "highs", limits: Limits | None = None) -> Problem:
    """Return the problem with ``np_throughput_rps``, X0, filled in where it is None.

    X0 is exact up to 150 devices per DNN, but for the few problems whose search ends at its limit of work; else it is
    that of NP's relaxation.

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
    return find_x0(problem, backend, limits).problem


def find_x0(
    problem: Problem,
    backend: str = "highs",
    limits: Limits | None = None,
    report: Callable[[Devices], object] = lambda devices: None,
    *,
    allowed_s: float | None = None,
) -> Known:
    """Return the problem with X0, and how it was found.

    Parameters
    ----------
    limits
        Of wall time.
    report
        Is told the whole devices of every better plan on the way.
    allowed_s
        The time by which the work goes, about a third of it; by default all of the wall time.
    """
    ground = _ground(problem)
    if ground is None:
        return Known(problem)
    if not ground.served:
        return Known(ground.with_x0([]))
    if ground.is_relaxed:
        return Known(ground.with_x0(_relaxed_largest_sum(ground.among, ground.candidates)))
    own = problem.options.device_sharing == "own"

    def tell(sizing: Sizing) -> None:
        if own:
            report(ground.devices_of(sizing))

    wall = Clock(limits or Limits())
    work = wall.counted(_work_s(wall.given_s if allowed_s is None else allowed_s))
    sizing = _largest_sum(ground.among, ground.candidates, backend, work, tell)
    return Known(ground.with_x0_of(sizing), ground.devices_of(sizing) if own else None, wall.over)


def _work_s(allowed_s: float | None) -> float | None:
    """Return the seconds of work that a time allows for; None: any."""
    return None if allowed_s is None else WORK_SHARE * 2.0 ** round(log2(allowed_s))


def with_quick_x0(problem: Problem) -> Problem:
    """Return the problem with the X0 of the plan to begin with, in a moment."""
    ground = _ground(problem)
    if ground is None:
        return problem
    begin = first_plan(ground.among) if ground.served else None
    return ground.with_x0_of(begin or Sizing((), 0.0, "none"))


@dataclass(frozen=True)
class Ground:
    """NP without batch building, among the DNNs (``served``, by their numbers) that it can serve."""

    problem: Problem
    served: tuple[int, ...]
    among: Problem
    candidates: list[Candidate]

    @property
    def is_relaxed(self) -> bool:
        """Whether X0 is that of the relaxation."""
        many = _devices(self.among) > RELAXED_PER_DNN * len(self.served)
        by_decomposition = self.among.options.device_sharing == "own" and decomposition.admits(self.among)
        return is_large(self.among, self.candidates) and (many or not by_decomposition)

    def with_x0_of(self, sizing: Sizing) -> Problem:
        """Return the problem with the throughputs of a plan as X0."""
        return self.with_x0([sizing.throughput_rps(position) for position in range(len(self.served))])

    def with_x0(self, throughput_rps: Sequence[float]) -> Problem:
        """Return the problem with X0 where it is None: of the DNNs that NP serves as given, else 0."""
        x0_rps = dict(zip(self.served, throughput_rps, strict=True))
        dnns = (
            replace(dnn, np_throughput_rps=x0_rps.get(number, 0.0)) if dnn.np_throughput_rps is None else dnn
            for number, dnn in enumerate(self.problem.dnns)
        )
        return replace(self.problem, dnns=tuple(dnns))

    def devices_of(self, sizing: Sizing) -> Devices:
        """Return the devices that a plan gives each DNN, of every type."""
        found: Counter[tuple[int, int]] = Counter()
        for sized in sizing.pipelines:
            devices = -(-sized.slices[0] // processes(sized.candidate.shares[0]))
            found[self.served[sized.candidate.dnn], sized.candidate.devices[0]] += devices
        return found


def _ground(problem: Problem) -> Ground | None:
    """Return what X0 is found on; None where it is known, or nothing rests on it."""
    if all(dnn.np_throughput_rps is not None for dnn in problem.dnns) or problem.options.batch_building_factor == 0:
        return None
    whole = unpartitioned(problem)
    found = {number: enumerate_candidates(whole, number, inf) for number in range(len(problem.dnns))}
    served = tuple(number for number, candidates in found.items() if candidates)
    if not served:
        return Ground(problem, served, whole, [])
    dnns = tuple(replace(_by_rate(whole.dnns[number]), np_throughput_rps=inf) for number in served)
    options = replace(whole.options, objective="max_min_throughput", budget_per_hour=None, min_accuracy=None)
    candidates = [
        replace(candidate, dnn=position) for position, number in enumerate(served) for candidate in found[number]
    ]
    return Ground(problem, served, replace(whole, dnns=dnns, options=options), candidates)


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


def _largest_sum(
    problem: Problem, candidates: Sequence[Candidate], backend: str, clock: Clock, report: Report
) -> Sizing:
    """Return, among the optima of the problem's objective, one with the largest sum of throughputs."""
    begin = first_plan(problem)
    sum_s = min(SUM_S, clock.part(SUM_SHARE).time_limit_s or SUM_S)
    try:
        first = _optimum(problem, candidates, backend, clock, begin, report)
    except TooLate:
        if begin is None:
            raise
        first = begin
    first = better_of(problem, first, begin) or first
    left = clock.remaining()
    if is_large(problem, candidates):
        left = replace(left, gap=SUM_GAP, time_limit_s=sum_s)
    formulation = milp.build(problem, candidates)
    milp.keep_objective(formulation, first.value(problem))
    formulation.model.set_objective([(column, 1.0) for column in formulation.throughput], maximise=True)
    start = milp.start_from(formulation, first)
    solution, name = solve(formulation.model, backend, left, start)
    return milp.extract(formulation, solution, first.bound, name) if solution.found else first


def _optimum(
    problem: Problem,
    candidates: Sequence[Candidate],
    backend: str,
    clock: Clock,
    begin: Sizing | None,
    report: Report,
) -> Sizing:
    """Return a plan of the most of the least throughput, as far as the work allowed for leads."""
    if not is_large(problem, candidates):
        return narrowed.size(problem, candidates, backend, clock.remaining(), report)
    search = Clock(clock.part(SEARCH_SHARE)).at_most(SEARCH_S)
    first = decomposition.size(problem, search.remaining(), begin=begin, report=report)
    value = first.value(problem)
    if first.bound > value * (1 + search.remaining().gap) and len(candidates) <= MOST_CANDIDATES:
        programme = clock.at_most(PROGRAMME_S)
        with suppress(TooLate):
            first = milp.size(problem, candidates, backend, programme.remaining(), report=report, begin=first)
    return first


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
