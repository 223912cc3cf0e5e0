"""How accurate what a plan serves is: requests go to the most accurate pipelines first, as far as they go."""

from collections.abc import Iterable, Mapping

from planner.model.errors import InputError
from planner.model.plan import Pipeline
from planner.model.problem import Dnn, Problem


def variant_accuracy(dnn: Dnn, variant: str) -> float:
    """Return the accuracy (percent) of a variant; raises InputError where it is unknown."""
    if variant not in dnn.accuracy:
        raise InputError(
            f"accuracy of {dnn.name}/{variant}: missing; objectives and limits of accuracy need it for every variant"
        )
    return dnn.accuracy[variant]


def served_accuracy(rate_rps: float, pipelines: Iterable[tuple[float, float]]) -> float:
    """Return the mean accuracy at a rate, over (accuracy, throughput) of pipelines, the most accurate first.

    >>> served_accuracy(150.0, [(60.0, 100.0), (90.0, 100.0)])
    80.0
    """
    left_rps, total = rate_rps, 0.0
    for accuracy, throughput_rps in sorted(pipelines, reverse=True):
        served = min(left_rps, throughput_rps)
        total += accuracy * served
        left_rps -= served
    return total / rate_rps if rate_rps > 0 else 0.0


def plan_accuracy(problem: Problem, pipelines: Iterable[Pipeline]) -> Mapping[str, float]:
    """Return the accuracy of what is served of every DNN whose variants have one.

    A DNN is served at its rate, or as much as it can be where it has none.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for pipeline in pipelines:
        dnn = problem.dnn(pipeline.dnn)
        if dnn.accuracy:
            entry = variant_accuracy(dnn, pipeline.variant), pipeline.throughput_rps
            found.setdefault(dnn.name, []).append(entry)
    accuracy = {}
    for name, entries in found.items():
        most_rps = sum(rps for _, rps in entries)
        accuracy[name] = served_accuracy(min(problem.dnn(name).rate_rps or most_rps, most_rps), entries)
    return accuracy


def mean_accuracy(rates_rps: Mapping[str, float], accuracy: Mapping[str, float]) -> float:
    """Return the mean over all requests, DNNs counting by their rates: the objective ``most_accurate``.

    >>> mean_accuracy({"a": 10.0, "b": 30.0}, {"a": 60.0, "b": 80.0})
    75.0
    """
    return sum(rate * accuracy.get(name, 0.0) for name, rate in rates_rps.items()) / sum(rates_rps.values())
