"""The data model: what planners, simulators and executors talk about. Imports nothing else of ours."""

from planner.model.applications import Application, Task
from planner.model.cluster import Cluster, DeviceType, Link, Network
from planner.model.digest import digest
from planner.model.dnn import Dnn
from planner.model.errors import InputError
from planner.model.merged import Merged, MergedMember
from planner.model.plan import Pipeline, Placed, Plan, Stage
from planner.model.problem import LatencyBound, Options, Problem
from planner.model.profile import Block, LatencyTable, Profile, Provenance
from planner.model.segments import Segment
from planner.model.settings import Constant, ModelSettings
from planner.model.task_plan import TaskFlow, TaskPlan, TaskService

__all__ = [
    "Application",
    "Block",
    "Cluster",
    "Constant",
    "DeviceType",
    "Dnn",
    "InputError",
    "LatencyBound",
    "LatencyTable",
    "Link",
    "Merged",
    "MergedMember",
    "ModelSettings",
    "Network",
    "Options",
    "Pipeline",
    "Placed",
    "Plan",
    "Problem",
    "Profile",
    "Provenance",
    "Segment",
    "Stage",
    "Task",
    "TaskFlow",
    "TaskPlan",
    "TaskService",
    "digest",
]
