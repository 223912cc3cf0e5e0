"""Baselines: NP, which does not partition, DART-r, which replicates one small pipeline, and X0, which NP gives."""

from planner.planning.baselines.dart_r import devices_of, size_dart_r
from planner.planning.baselines.start import better_of, first_plan
from planner.planning.baselines.unpartitioned import size_np_closed_form, unpartitioned, with_closed_form_x0
from planner.planning.baselines.x0 import is_large, with_x0

__all__ = [
    "better_of",
    "devices_of",
    "first_plan",
    "is_large",
    "size_dart_r",
    "size_np_closed_form",
    "unpartitioned",
    "with_closed_form_x0",
    "with_x0",
]
