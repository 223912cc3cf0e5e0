"""What a plan is worth under each objective."""

from collections.abc import Mapping
from typing import get_args

from planner.model.accuracy import mean_accuracy
from planner.model.dnn import Dnn
from planner.model.energy import idle_and_busy_watts
from planner.model.errors import InputError
from planner.model.problem import GIVEN_RATES, MINIMISED, Objective, Problem

MAXIMISED: Mapping[Objective, bool] = {name: name not in MINIMISED for name in get_args(Objective)}


def objective_value(
    problem: Problem,
    throughput_rps: Mapping[str, float],
    devices: Mapping[str, int],
    working_watts: float = 0.0,
    accuracy: Mapping[str, float] | None = None,
    memory_bytes: int = 0,
) -> float:
    """Return the objective that given throughputs (per DNN) on given whole devices (per type) amount to.

    ``max_min_throughput`` is the least throughput / weight, ``max_weighted_throughput`` the sum of weight · throughput;
    ``least_cost`` is the price per hour and ``fewest_devices`` the number of the devices in use; ``least_energy`` is
    what these draw idle, and ``working_watts`` (`planner.model.energy`); ``least_memory`` is ``memory_bytes``
    (`planner.model.memory`) in megabytes; ``most_accurate`` is the mean ``accuracy`` (percent) over all requests
    (`planner.model.accuracy`).

    >>> from planner.model import *
    >>> profile = Profile("toy", (Block(("a",)),), (), (LatencyTable("L4", 1, (1,), ((9,),), Provenance("bound", "")),))
    >>> dnns = tuple(Dnn(name, 1000, (profile,), weight) for name, weight in (("a", 1.0), ("b", 2.0)))
    >>> problem = Problem(Cluster((DeviceType("L4", 5),), Network(10)), dnns)
    >>> objective_value(problem, {"a": 100.0, "b": 120.0}, {"L4": 5})
    60.0
    """
    objective = problem.options.objective
    if objective == "max_min_throughput":
        return min(throughput_rps.get(dnn.name, 0.0) / dnn.weight for dnn in problem.dnns)
    if objective == "max_weighted_throughput":
        return sum(dnn.weight * throughput_rps.get(dnn.name, 0.0) for dnn in problem.dnns)
    if objective == "most_accurate":
        return mean_accuracy({dnn.name: dnn.rate_rps or 0.0 for dnn in problem.dnns}, accuracy or {})
    if objective == "fewest_devices":
        return float(sum(devices.values()))
    if objective == "least_memory":
        return memory_bytes / 1e6
    if objective == "least_energy":
        idle = sum(idle_and_busy_watts(problem, name)[0] * count for name, count in devices.items() if count)
        return idle + working_watts
    return sum(price_per_hour(problem, name) * count for name, count in devices.items() if count)


def price_per_hour(problem: Problem, device: str) -> float:
    """Return a device type's price; raises InputError where it has none."""
    price = problem.cluster.device(device).price_per_hour
    if price is None:
        raise InputError(
            f"price_per_hour of {device}: missing; least_cost, budgets and fronts against cost need it for "
            "every device type"
        )
    return price


def plan_cost(problem: Problem, devices: Mapping[str, int]) -> float | None:
    """Return what devices in use (per type) cost per hour; None where a price is unknown."""
    prices = {name: problem.cluster.device(name).price_per_hour for name, count in devices.items() if count}
    if any(price is None for price in prices.values()):
        return None
    return sum((prices[name] or 0.0) * count for name, count in devices.items() if count)


def needed_rate_rps(dnn: Dnn, objective: Objective) -> float:
    """Return the throughput that a plan must give a DNN: its rate where the objective is to serve given rates, else 0.

    Raises
    ------
    InputError
        The objective needs a rate and the DNN has none.
    """
    if objective not in GIVEN_RATES:
        return 0.0
    if dnn.rate_rps is None:
        raise InputError(f"rate_rps of {dnn.name}: missing; the objective {objective} needs it for every DNN")
    return dnn.rate_rps
