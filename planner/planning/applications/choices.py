"""Choices of one variant per task: all of them where they are few, else those that prices ask for.

Plans divide an application's requests over choices r with accuracies a_r. Where there are more choices than can be
listed, a linear programme over some of them, without integers, has prices: delta_{s,v} per request/s of a variant v of
task s, and kappa, what accuracy is worth. A choice that is not listed improves it where

    kappa · a_r - sum over s of delta_{s,v} > the price of serving a request

The best one is found task by task, with one label per partial choice that no other is both as accurate and as cheap as
(label setting); for *sum* and *average* each task decides alone. When none improves any more, the value of the linear
programme bounds what any plan reaches (column generation: Gilmore and Gomory, Operations Research 1961).
"""

from collections.abc import Mapping, Sequence
from itertools import product, zip_longest
from math import prod

from planner.model import Application, Profile
from planner.model.applications import MOST_CHOICES

Choice = tuple[Profile, ...]
Prices = Sequence[Mapping[str, float]]  # per task: variant -> price of a request


def first_choices(application: Application, able: Sequence[Sequence[Profile]]) -> tuple[list[Choice], bool]:
    """Return the choices to begin with, and whether these are all.

    Where they are too many: the least accurate variants of all tasks together, the second least, and so on, so that
    every variant is in one.
    """
    if prod(len(variants) for variants in able) <= MOST_CHOICES or application.accuracies:
        return list(product(*able)), True
    by_accuracy = [
        sorted(variants, key=lambda variant, task=task: task.accuracy.get(variant.name, 0.0))  # type: ignore[misc]
        for task, variants in zip(application.tasks, able, strict=True)
    ]
    ranked = zip_longest(*by_accuracy)
    return [tuple(one or own[-1] for one, own in zip(each, by_accuracy, strict=True)) for each in ranked], False


def best_choice(
    application: Application, able: Sequence[Sequence[Profile]], kappa: float, prices: Prices
) -> tuple[Choice, float]:
    """Return the choice of the largest kappa · accuracy - prices, and that value; ``kappa`` is at least 0.

    Examples
    --------
    The accurate variant is worth 0.5 · (80 - 60) = 10 more, which is less than it costs more:

    >>> from planner.model import *
    >>> table = LatencyTable("L4", 1, (1,), ((9,),), Provenance("bound", ""))
    >>> small, large = (Profile(name, (Block(("a",)),), (), (table,)) for name in ("small", "large"))
    >>> one = Application("a", 1000, (Task("t", (small, large), {"small": 60.0, "large": 80.0}),))
    >>> choice, value = best_choice(one, [(small, large)], 0.5, [{"small": 1.0, "large": 12.0}])
    >>> choice[0].name, value
    ('small', 29.0)
    """
    tasks = len(application.tasks)
    multiplies = application.rule == "multiply"
    scale = 100.0 if multiplies else tasks if application.rule == "average" else 1.0
    labels: list[tuple[float, float, Choice]] = [(100.0 if multiplies else 0.0, 0.0, ())]
    for task, variants, price in zip(application.tasks, able, prices, strict=True):
        grown = []
        for accuracy, paid, choice in labels:
            for variant in variants:
                own = task.accuracy.get(variant.name, 0.0)
                joined = accuracy * own / scale if multiplies else accuracy + own / scale
                grown.append((joined, paid + price[variant.name], (*choice, variant)))
        labels = _undominated(grown) if multiplies else [max(grown, key=lambda label: kappa * label[0] - label[1])]
    accuracy, paid, choice = max(labels, key=lambda label: kappa * label[0] - label[1])
    return choice, kappa * accuracy - paid


def _undominated(labels: list[tuple[float, float, Choice]]) -> list[tuple[float, float, Choice]]:
    """Keep labels than which no other is as accurate and as cheap."""
    kept: list[tuple[float, float, Choice]] = []
    for label in sorted(labels, key=lambda label: (-label[0], label[1])):
        if not kept or label[1] < kept[-1][1]:
            kept.append(label)
    return kept
