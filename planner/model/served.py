"""Which pipelines serve the requests of a DNN, where they could serve more than its rate, and what that is worth.

What a plan draws and how accurate it is are told of the same requests. They go to

    under ``least_energy``    the pipelines of the fewest joules; where ``min_accuracy`` is asked for, the mix of fewest
                              joules that is so accurate
    else                      the most accurate pipelines first, of equally accurate ones those of the fewest joules

as far as these go; where joules or accuracies are unknown they count for nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from planner.model.accuracy import variant_accuracy
from planner.model.dnn import Dnn
from planner.model.energy import idle_and_busy_watts, pipeline_joules, watts_known
from planner.model.plan import Pipeline
from planner.model.problem import GIVEN_RATES, Problem


class Option(NamedTuple):
    """A pipeline as one that requests may go to: joules and accuracy (percent) of each, and how many per second."""

    joules: float
    accuracy: float
    throughput_rps: float


def served_rps(problem: Problem, dnn: Dnn, pipelines: Sequence[Pipeline]) -> tuple[float, ...]:
    """Return what each pipeline of a DNN serves: together its rate where rates are given, else all that they can."""
    options = [
        Option(
            pipeline_joules(problem, one) if watts_known(problem, (stage.device for stage in one.stages)) else 0.0,
            variant_accuracy(dnn, one.variant) if dnn.accuracy else 0.0,
            one.throughput_rps,
        )
        for one in pipelines
    ]
    rate_rps = sum(option.throughput_rps for option in options)
    if problem.options.objective in GIVEN_RATES and dnn.rate_rps is not None:
        rate_rps = min(rate_rps, dnn.rate_rps)
    if problem.options.objective != "least_energy":
        return filled(rate_rps, options, lambda option: (-option.accuracy, option.joules))
    return cheapest_mix(rate_rps, options, problem.options.min_accuracy or 0.0)


def filled(
    rate_rps: float, options: Sequence[Option], order: Callable[[Option], tuple[float, ...]]
) -> tuple[float, ...]:
    """Return what each option serves when a rate goes to the first of an order first.

    >>> filled(150.0, [Option(0.5, 60.0, 100.0), Option(0.2, 90.0, 100.0)], lambda option: (option.joules,))
    (50.0, 100.0)
    """
    served = [0.0] * len(options)
    for number in sorted(range(len(options)), key=lambda number: order(options[number])):
        served[number] = min(rate_rps, options[number].throughput_rps)
        rate_rps -= served[number]
    return tuple(served)


def cheapest_mix(rate_rps: float, options: Sequence[Option], least_accuracy: float) -> tuple[float, ...]:
    """Return what each option serves of a rate, for the fewest joules at which it is so accurate on the mean.

    At a price μ of accuracy the options of least joules - μ · accuracy come first. The dearer accuracy is, the more
    accurate and the less cheap they are; the best mix lies between those just below and just above the price at which
    they are accurate enough (both are best at that price). Where none is, it is the most accurate.

    >>> cheapest_mix(100.0, [Option(0.5, 90.0, 100.0), Option(0.2, 60.0, 100.0)], 75.0)
    (50.0, 50.0)
    """

    def accuracy(served: Sequence[float]) -> float:
        return sum(one.accuracy * rps for one, rps in zip(options, served, strict=True))

    needed = least_accuracy * rate_rps
    cheapest = filled(rate_rps, options, lambda one: (one.joules, -one.accuracy))
    if accuracy(cheapest) >= needed:
        return cheapest
    prices = sorted(
        {
            (one.joules - other.joules) / (one.accuracy - other.accuracy)
            for one in options
            for other in options
            if one.accuracy > other.accuracy and one.joules > other.joules
        }
    )
    between = [0.0, *((low + high) / 2 for low, high in pairwise(prices)), *(2 * price for price in prices[-1:])]

    def at(number: int) -> tuple[float, ...]:
        price = between[number]
        return filled(rate_rps, options, lambda one: (one.joules - price * one.accuracy, -one.accuracy))

    low, high = 0, len(between) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if accuracy(at(middle)) >= needed else (middle + 1, high)
    enough = at(low)
    if low == 0 or accuracy(enough) < needed:
        return enough
    cheaper = at(low - 1)
    part = (needed - accuracy(cheaper)) / (accuracy(enough) - accuracy(cheaper))
    return tuple(less + part * (more - less) for less, more in zip(cheaper, enough, strict=True))


def plan_accuracy(problem: Problem, pipelines: Iterable[Pipeline]) -> Mapping[str, float]:
    """Return the accuracy (percent) of what is served of every DNN whose variants have one."""
    accuracy = {}
    for dnn, own in _by_dnn(problem, pipelines):
        if dnn.accuracy:
            served = served_rps(problem, dnn, own)
            total = sum(variant_accuracy(dnn, one.variant) * rps for one, rps in zip(own, served, strict=True))
            accuracy[dnn.name] = total / sum(served) if sum(served) > 0 else 0.0
    return accuracy


def planned_working_watts(problem: Problem, pipelines: Iterable[Pipeline]) -> float:
    """Return what the work of all DNNs draws at the rates at which they are planned to be served."""
    return sum(watts for watts, _ in _work(problem, pipelines))


def _work(problem: Problem, pipelines: Iterable[Pipeline]) -> list[tuple[float, float]]:
    """Return watts and requests/s of every DNN."""
    work = []
    for dnn, own in _by_dnn(problem, pipelines):
        served = served_rps(problem, dnn, own)
        joules = (pipeline_joules(problem, one) for one in own)
        work.append((sum(each * rps for each, rps in zip(joules, served, strict=True)), sum(served)))
    return work


def _by_dnn(problem: Problem, pipelines: Iterable[Pipeline]) -> list[tuple[Dnn, list[Pipeline]]]:
    found: dict[str, list[Pipeline]] = {}
    for pipeline in pipelines:
        found.setdefault(pipeline.dnn, []).append(pipeline)
    return [(problem.dnn(name), own) for name, own in found.items()]


def plan_watts(
    problem: Problem, pipelines: Sequence[Pipeline], devices: Mapping[str, int]
) -> tuple[float, float] | None:
    """Return what a plan draws (W) and the energy of a thousand requests (J); None where watts are unknown.

    Parameters
    ----------
    devices
        Devices in use by type.
    """
    if not watts_known(problem, devices):
        return None
    work = _work(problem, pipelines)
    idle = sum(idle_and_busy_watts(problem, name)[0] * count for name, count in devices.items())
    watts, total_rps = idle + sum(watts for watts, _ in work), sum(rate for _, rate in work)
    return watts, watts / total_rps * 1000 if total_rps else 0.0
