"""Planning: which pipelines serve which DNN on which devices."""

from planner.planning.api import make_plan
from planner.planning.explain import Explanation, LeastSlo, explain

__all__ = ["Explanation", "LeastSlo", "explain", "make_plan"]
