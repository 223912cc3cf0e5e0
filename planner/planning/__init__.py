"""Planning: which pipelines serve which DNN on which devices."""

from planner.planning.answers.changes import slices_started
from planner.planning.answers.explain import Explanation, explain, servable
from planner.planning.api import make_plan
from planner.planning.applications.per_task import plan_per_task
from planner.planning.best_effort import BestEffort, plan_best_effort
from planner.planning.both_ways import BothWays, plan_both_ways
from planner.planning.fronts import Point, accuracy_front, cost_front, energy_front, latency_front
from planner.planning.pipelines.reach import LeastSlo

__all__ = [
    "BestEffort",
    "BothWays",
    "Explanation",
    "LeastSlo",
    "Point",
    "accuracy_front",
    "cost_front",
    "energy_front",
    "explain",
    "latency_front",
    "make_plan",
    "plan_best_effort",
    "plan_both_ways",
    "plan_per_task",
    "servable",
    "slices_started",
]
