"""The main plan of many device types, exactly: a decomposition by DNN over every candidate.

1. Column generation (`planner.planning.whole_devices.columns`) gives the linear relaxation's bound and prices.
2. Every candidate of every DNN is listed (`planner.planning.pipelines.candidates`).
3. `planner.planning.whole_devices.dantzig_wolfe` looks for the best choice of a plan for every DNN, from a plan that is
   known already (NP's, so that no plan is worse), and lowers the bound until they meet.
"""

import logging
from dataclasses import replace
from math import lcm

import numpy as np

from planner.model import InputError, Problem
from planner.planning.arrays import Floats, Integers
from planner.planning.pipelines.candidates import enumerate_pipelines
from planner.planning.pipelines.pricing import pricers
from planner.planning.pipelines.reach import unreachable
from planner.planning.pipelines.sizes import CandidateTable
from planner.planning.pipelines.sizing import Sized, Sizing
from planner.planning.programme.backends import Clock, Limits
from planner.planning.whole_devices import columns
from planner.planning.whole_devices.dantzig_wolfe import Decomposition, Report
from planner.planning.whole_devices.supply import Supply

log = logging.getLogger(__name__)


def admits(problem: Problem) -> bool:
    """Tell whether the method applies: it maximises the least throughput / weight."""
    return columns.admits(problem) and not problem.options.stage_batches and not problem.options.limited


def size(problem: Problem, limits: Limits, *, begin: Sizing | None = None, report: Report | None = None) -> Sizing:
    """Return the best plan found and the bound proven; X0 must be known.

    Parameters
    ----------
    begin
        A plan known already, which the one returned is no worse than.
    report
        Is told every better value or bound. Ctrl-C ends the search with the best plan so far.

    Raises
    ------
    InputError
        The problem has another objective, or a DNN no pipeline that meets its SLO.
    """
    if not admits(problem):
        raise InputError(
            f"method decomposition: expected max_min_throughput, one batch size per pipeline, "
            f"device_sharing own and shares that may be added up, got {problem.options.objective}, "
            f"{problem.options.device_sharing} and {[list(device.offers) for device in problem.cluster.device_types]}; "
            "use milp"
        )
    clock = Clock(limits)
    priced = [pricers(problem, number) for number in range(len(problem.dnns))]
    generated = columns.generate(problem, priced)
    log.info("%d columns, bound %.9g", len(generated.columns), generated.bound)
    tables = [_every_candidate(problem, number) for number in range(len(problem.dnns))]
    counts = np.array([device.count for device in problem.cluster.device_types], dtype=np.int64)
    units = np.array([lcm(*device.shares) for device in problem.cluster.device_types], dtype=np.int64)
    search = Decomposition(
        [Supply(table, counts, units) for table in tables],
        counts,
        _worthy(generated.device_price, counts),
        generated.bound,
        limits.gap,
        clock,
        report or (lambda value, bound: None),
    )
    try:
        if begin is not None:
            search.begin(_by_dnn(begin, len(problem.dnns)), _uses(problem, begin))
        search.run()
    except KeyboardInterrupt:
        if not search.best:
            raise
        log.info("interrupted; the best plan so far is taken")
    found = Sizing(tuple(sized for own in search.best for sized in own), search.bound, "highs").merged()
    return replace(found, bound=max(found.bound, found.value(problem)))


def _every_candidate(problem: Problem, number: int) -> CandidateTable:
    dnn = problem.dnns[number]
    found = enumerate_pipelines(problem, number, dnn.np_throughput_rps or 0.0)
    if len(found) == 0:
        raise unreachable(problem, number)
    return CandidateTable.of_pipelines(found, dnn.weight)


def _worthy(price: Floats, counts: Integers) -> Floats:
    """Return prices that are not all 0: equal ones where the relaxation names none."""
    return price if price @ counts > 0 else np.ones(len(counts))


def _by_dnn(sizing: Sizing, dnns: int) -> list[list[Sized]]:
    return [[sized for sized in sizing.pipelines if sized.candidate.dnn == number] for number in range(dnns)]


def _uses(problem: Problem, sizing: Sizing) -> list[Integers]:
    """Return the whole devices of each type that every DNN has."""
    found = []
    for own in _by_dnn(sizing, len(problem.dnns)):
        used = replace(sizing, pipelines=tuple(own)).devices(problem)
        found.append(np.array([used.get(kind, 0) for kind in range(len(problem.cluster.device_types))], dtype=np.int64))
    return found
