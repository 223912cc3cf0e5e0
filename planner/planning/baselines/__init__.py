"""Baselines: NP, DART-r, and X0, which NP gives; plans to begin with."""

from planner.planning.baselines.dart_r import devices_of, size_dart_r
from planner.planning.baselines.start import better_of, first_plan, plans_on_devices
from planner.planning.baselines.unpartitioned import size_np_closed_form, unpartitioned, with_closed_form_x0
from planner.planning.baselines.whole_tasks import better_by_whole_tasks
from planner.planning.baselines.x0 import find_x0, is_large, with_quick_x0, with_x0

__all__ = [
    "better_by_whole_tasks",
    "better_of",
    "devices_of",
    "find_x0",
    "first_plan",
    "is_large",
    "plans_on_devices",
    "size_dart_r",
    "size_np_closed_form",
    "unpartitioned",
    "with_closed_form_x0",
    "with_quick_x0",
    "with_x0",
]
