"""Plans of many device types, or of devices that DNNs share, exactly: a decomposition by DNN.

1. Every candidate of every DNN is listed (`planner.planning.pipelines.candidates`).
2. The most of the least throughput: the linear relaxation gives a bound and prices
   (`planner.planning.whole_devices.prices`), and `planner.planning.whole_devices.dantzig_wolfe` looks for the best
   choice of a plan for every DNN, from a plan that is known already (NP's, so that no plan is worse), and lowers the
   bound until they meet.
3. Given rates at the least cost, or on the fewest devices: `planner.planning.whole_devices.given_rates`.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from math import lcm

import numpy as np

from planner.model import InputError, Problem
from planner.model.objective import MAXIMISED, needed_rate_rps, price_per_hour
from planner.model.placing import Layouts, Pool
from planner.model.problem import Objective
from planner.planning.arrays import Floats, Integers
from planner.planning.pipelines.candidates import Pipelines, enumerate_pipelines
from planner.planning.pipelines.near_cheapest import near_cheapest
from planner.planning.pipelines.reach import unreachable
from planner.planning.pipelines.sizes import CandidateTable
from planner.planning.pipelines.sizing import Report, Sized, Sizing
from planner.planning.programme.backends import Clock, Limits, TooLate
from planner.planning.programme.milp import WHOLE_DEVICES
from planner.planning.programme.relaxation import too_much
from planner.planning.whole_devices.capacity import Capacity, SharedDevices
from planner.planning.whole_devices.columns import Generated
from planner.planning.whole_devices.dantzig_wolfe import Decomposition
from planner.planning.whole_devices.fractions import by_fractions
from planner.planning.whole_devices.given_rates import GivenRates
from planner.planning.whole_devices.many_devices import ManyDevices
from planner.planning.whole_devices.prices import relaxed
from planner.planning.whole_devices.supply import Lister, Supply

log = logging.getLogger(__name__)


LABELS_OF_MANY, CERTIFYING_LABELS_OF_MANY = 8_000, 40_000  # of searches, where DNNs and devices are many
LISTED_LOSS = 0.4  # average devices: up to which items are listed there
LEAST_PRICE = 1e-4  # of the dearest device
COSTS: tuple[Objective, ...] = ("least_cost", "fewest_devices")


def admits(problem: Problem) -> bool:
    """Tell whether the method applies: the least throughput, or given rates; on own devices or shared ones."""
    options = problem.options
    objective = options.objective == "max_min_throughput" or options.objective in COSTS
    devices = options.device_sharing == "shared" or by_fractions(problem)
    return objective and devices and not options.stage_batches and not options.limited


def size(
    problem: Problem,
    limits: Limits,
    *,
    begin: Sizing | None = None,
    report: Report | None = None,
    generated: Generated | None = None,
    soon: bool = False,
) -> Sizing:
    """Return the best plan found and the bound proven; X0 must be known.

    Parameters
    ----------
    begin
        A plan known already, which the one returned is no worse than.
    report
        Is told every better plan or bound.
    generated
        Columns (`planner.planning.whole_devices.columns`), where candidates are too many to list them all: those are
        listed then of which some size loses little at prices that are asked about.
    soon
        Whether to look for a good plan before good prices are known: where time may not suffice for these.

    Raises
    ------
    InputError
        The problem has another objective, or a DNN no pipeline that meets its SLO.
    TooLate
        The time was up before any plan was known.
    """
    if not admits(problem):
        raise InputError(
            f"method decomposition: expected max_min_throughput, {' or '.join(COSTS)}, one batch size per pipeline, "
            f"device_sharing shared or shares that may be added up, got {problem.options.objective}, "
            f"{problem.options.device_sharing} and {[list(device.offers) for device in problem.cluster.device_types]}; "
            "use milp"
        )
    clock = Clock(limits)
    ground = _ground(problem, clock) if generated is None else _priced_ground(problem, generated, clock)
    search = _search(problem, ground, limits.gap, clock, generated)
    if report is not None:
        search.report = lambda: report(_found(problem, ground, search))
    if begin is not None:
        numbers = range(len(problem.dnns))
        plans = [[one for one in begin.pipelines if one.candidate.dnn == number] for number in numbers]
        search.begin(plans, [ground.use_of(own) for own in plans])
    with suppress(TooLate):
        if soon and isinstance(search, Decomposition):
            search.raise_first()
        search.run()
    if isinstance(search, GivenRates) and not search.best:
        if not search.impossible:
            raise TooLate
        _, reach = relaxed([supply.table for supply in ground.supplies], ground.capacity, Clock(Limits()))
        raise too_much(reach) if reach < 1 else InputError(WHOLE_DEVICES)
    return _found(problem, ground, search)


def _found(problem: Problem, ground: "Ground", search: Decomposition | GivenRates) -> Sizing:
    """Return the best plan and bound so far."""
    pipelines = tuple(sized for own in search.best for sized in own)
    bound = 0.0 if isinstance(search, Decomposition) and search.impossible else search.bound
    found = Sizing(pipelines, bound, "highs", ground.layouts(pipelines)).merged()
    better = max if MAXIMISED[problem.options.objective] else min
    return replace(found, bound=better(found.bound, found.value(problem))) if pipelines else found


@dataclass(frozen=True)
class Ground:
    """What the search stands on: a supply per DNN and the capacity.

    ``use_of`` returns what a DNN's pipelines use, ``layouts`` the layouts of devices on which all of them lie.
    """

    supplies: list[Supply]
    capacity: Capacity
    use_of: Callable[[Sequence[Sized]], Integers]
    layouts: Callable[[Sequence[Sized]], dict[Pool, tuple[Layouts, ...]]]


def _search(
    problem: Problem, ground: Ground, gap: float, clock: Clock, generated: Generated | None
) -> Decomposition | GivenRates:
    supplies, capacity = ground.supplies, ground.capacity
    if generated is not None:
        price = _no_free_devices(generated)
        return ManyDevices(
            supplies,
            capacity,
            price,
            generated.bound,
            gap,
            clock,
            labels=LABELS_OF_MANY,
            certifying_labels=CERTIFYING_LABELS_OF_MANY,
            most_loss=LISTED_LOSS,
        )
    if problem.options.objective == "max_min_throughput":
        price, bound = relaxed([supply.table for supply in supplies], capacity, clock)
        log.info("bound %.9g", bound)
        try:
            return Decomposition(supplies, capacity, price, bound, gap, clock)
        except TooLate:
            raise TooLate(bound=bound) from None
    types = problem.cluster.device_types
    cost = [price_per_hour(problem, one.name) if problem.options.objective == "least_cost" else 1.0 for one in types]
    return GivenRates(supplies, capacity, np.zeros(0), 0.0, gap, clock, device_cost=np.array(cost))


def _ground(problem: Problem, clock: Clock) -> Ground:
    numbers = range(len(problem.dnns))
    weights = [needed_rate_rps(dnn, problem.options.objective) or dnn.weight for dnn in problem.dnns]
    found = [_every_candidate(problem, number, clock) for number in numbers]
    if problem.options.device_sharing == "shared":
        devices = SharedDevices.of(problem)
        limit = devices.capacity.limit
        tables = [CandidateTable.of_shared(own, weights[number], devices.takes) for number, own in enumerate(found)]
        supplies = [Supply(table, limit, np.ones_like(limit)) for table in tables]
        return Ground(supplies, devices.capacity, devices.use_of, lambda pipelines: devices.layouts(problem, pipelines))
    tables = [CandidateTable.of_pipelines(own, weights[number]) for number, own in enumerate(found)]
    return _own_devices(problem, tables, [None] * len(tables))


def _priced_ground(problem: Problem, generated: Generated, clock: Clock) -> Ground:
    """Return supplies that list candidates as prices ask for them, the cheapest at first."""
    price, tables = _no_free_devices(generated), []
    listers = [partial(near_cheapest, own) for own in generated.pricers]
    for dnn, lister in zip(problem.dnns, listers, strict=True):
        clock.expect_time()
        tables.append(CandidateTable.of_pipelines(lister(price, 0.0), dnn.weight))
    return _own_devices(problem, tables, listers)


def _no_free_devices(generated: Generated) -> Floats:
    """Return prices at which not every pipeline on devices that are not scarce loses nothing."""
    price: Floats = np.maximum(generated.device_price, LEAST_PRICE * generated.device_price.max())
    return price


def _own_devices(problem: Problem, tables: Sequence[CandidateTable], listers: Sequence[Lister | None]) -> Ground:
    types = problem.cluster.device_types
    counts = np.array([device.count for device in types], dtype=np.int64)
    units = np.array([lcm(*device.shares) for device in types], dtype=np.int64)

    def use_of(pipelines: Sequence[Sized]) -> Integers:
        used = Sizing(tuple(pipelines), 0.0, "none").devices(problem)
        return np.array([used.get(kind, 0) for kind in range(len(types))], dtype=np.int64)

    supplies = [Supply(table, counts, units, lister) for table, lister in zip(tables, listers, strict=True)]
    return Ground(supplies, Capacity.of_devices(counts), use_of, lambda pipelines: {})


def _every_candidate(problem: Problem, number: int, clock: Clock) -> Pipelines:
    clock.expect_time()
    found = enumerate_pipelines(problem, number, problem.dnns[number].np_throughput_rps or 0.0)
    if len(found) == 0:
        raise unreachable(problem, number)
    return found
