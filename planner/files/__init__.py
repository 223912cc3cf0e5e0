"""Reading and writing files; algorithms never do."""

from planner.files.atomic import replacing, write_text
from planner.files.documents import (
    dumps,
    load_any,
    load_cluster,
    load_plan,
    load_problem,
    load_profile,
    save,
    schema_of,
)

__all__ = [
    "dumps",
    "load_any",
    "load_cluster",
    "load_plan",
    "load_problem",
    "load_profile",
    "replacing",
    "save",
    "schema_of",
    "write_text",
]
