"""Accuracies as ranks, which makes tasks of unlike scales comparable (IPA, JSys 2024, section 4.2)."""

from collections.abc import Mapping

from planner.model import InputError


def ranked(accuracies: Mapping[str, float], floor: float = 0.0) -> dict[str, float]:
    """Return each variant's rank by accuracy, from ``floor`` for the worst to 1 for the best; 1 for an only one.

    IPA's floor is 0, with which one task at its worst variant makes every product 0; a floor above it keeps the other
    tasks' accuracies worth something.

    >>> ranked({"small": 45.7, "large": 68.9, "medium": 64.1})
    {'small': 0.0, 'large': 1.0, 'medium': 0.5}
    """
    if not 0 <= floor <= 1:
        raise InputError(f"floor of ranked accuracies: expected a number in [0, 1], got {floor}")
    if len(accuracies) == 1:
        return dict.fromkeys(accuracies, 1.0)
    order = {name: rank for rank, name in enumerate(sorted(accuracies, key=lambda name: accuracies[name]))}
    return {name: floor + (1 - floor) * order[name] / (len(order) - 1) for name in accuracies}
