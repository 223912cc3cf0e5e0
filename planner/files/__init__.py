"""Reading and writing files; algorithms never do."""

from planner.files.atomic import replacing, write_csv, write_text
from planner.files.documents import (
    dumps,
    load_any,
    load_cluster,
    load_observed,
    load_plan,
    load_problem,
    load_profile,
    load_record,
    load_task_plan,
    load_variants,
    save,
    save_variants,
    schema_of,
)
from planner.files.names import file_name, name_of, printable

__all__ = [
    "dumps",
    "file_name",
    "load_any",
    "load_cluster",
    "load_observed",
    "load_plan",
    "load_problem",
    "load_profile",
    "load_record",
    "load_task_plan",
    "load_variants",
    "name_of",
    "printable",
    "replacing",
    "save",
    "save_variants",
    "schema_of",
    "write_csv",
    "write_text",
]
