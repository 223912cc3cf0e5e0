"""Completion: from a few measured runtimes to all of them, with upper bounds that hold with a stated probability."""

from planner.completion.completion import Completion, fit
from planner.completion.conformal import rows_needed
from planner.completion.observations import Axis, Observations, observe, split

__all__ = ["Axis", "Completion", "Observations", "fit", "observe", "rows_needed", "split"]
