"""Planning: which pipelines serve which DNN on which devices."""

from planner.planning.api import make_plan
from planner.planning.changes import slices_started
from planner.planning.explain import Explanation, LeastSlo, explain
from planner.planning.fronts import Point, cost_front, latency_front

__all__ = [
    "Explanation",
    "LeastSlo",
    "Point",
    "cost_front",
    "explain",
    "latency_front",
    "make_plan",
    "slices_started",
]
