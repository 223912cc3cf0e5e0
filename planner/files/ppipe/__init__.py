"""PPipe's published files (ATC'25): profiles and prepartitions in, plans in and out.

A data folder is laid out as the published one: ``models/block-timing-tf32``, ``models/node-profile-no-const``,
``models/cuts-no-const``, ``models/shapes``, ``models/model_latency_l4_us.csv`` and ``prepartition_mappings``.
"""

from planner.files.ppipe.layers import Layers, list_dnns, read_layers
from planner.files.ppipe.naming import FileName
from planner.files.ppipe.plans import read_plan, read_problem, read_seconds, write_plan
from planner.files.ppipe.profiles import Prepartition, read_prepartition, read_profile

__all__ = [
    "FileName",
    "Layers",
    "Prepartition",
    "list_dnns",
    "read_layers",
    "read_plan",
    "read_prepartition",
    "read_problem",
    "read_profile",
    "read_seconds",
    "write_plan",
]
