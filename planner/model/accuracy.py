"""How accurate variants are, and requests on the mean; `planner.model.served` tells which variants these go to."""

from collections.abc import Mapping

from planner.model.dnn import Dnn
from planner.model.errors import InputError


def variant_accuracy(dnn: Dnn, variant: str) -> float:
    """Return the accuracy (percent) of a variant; raises InputError where it is unknown."""
    if variant not in dnn.accuracy:
        raise InputError(
            f"accuracy of {dnn.name}/{variant}: missing; objectives and limits of accuracy need it for every variant"
        )
    return dnn.accuracy[variant]


def mean_accuracy(rates_rps: Mapping[str, float], accuracy: Mapping[str, float]) -> float:
    """Return the mean over all requests, DNNs counting by their rates: the objective ``most_accurate``.

    >>> mean_accuracy({"a": 10.0, "b": 30.0}, {"a": 60.0, "b": 80.0})
    75.0
    """
    return sum(rate * accuracy.get(name, 0.0) for name, rate in rates_rps.items()) / sum(rates_rps.values())
