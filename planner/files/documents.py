"""Native files: JSON (or, for files that people write, TOML) documents of the data model.

A document's first key names its kind and version, ``"schema": "plan/1"``. Reading validates every value
and refuses unknown keys; an error names the file, the path to the value, what was found, what was
expected. A problem file may hold a path, relative to itself, wherever it needs a cluster or a profile; one of
several profiles stands for all of them.
"""

import json
import re
import stat
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import date, time
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from planner.files.atomic import STANDARD_STREAM, write_text
from planner.model import Cluster, InputError, Plan, Problem, Profile, TaskPlan
from planner.model.observed import Observed
from planner.model.variants import Variants

T = TypeVar("T", Cluster, Profile, Variants, Problem, Plan, TaskPlan, Observed)
Document = Cluster | Profile | Variants | Problem | Plan | TaskPlan | Observed
R = TypeVar("R")

KINDS: dict[str, type[Any]] = {
    "cluster": Cluster,
    "profile": Profile,
    "variants": Variants,
    "problem": Problem,
    "plan": Plan,
    "task-plan": TaskPlan,
    "observations": Observed,
}
VERSION = 1


def schema_of(kind: str, cls: type[Any] | None = None) -> dict[str, Any]:
    """Return the JSON Schema of a kind of file, one of `KINDS`."""
    schema = TypeAdapter(cls or KINDS[kind]).json_schema()
    schema["properties"] = {
        "schema": {"const": f"{kind}/{VERSION}", "type": "string"},
        **schema["properties"],
    }
    schema["required"] = ["schema", *schema.get("required", [])]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def dumps(record: Document) -> str:
    """Return the text of a document: the schema first, then sorted keys, number lists on one line.

    >>> from planner.model import DeviceType, Network
    >>> print(dumps(Cluster((DeviceType("L4", 25),), Network(10.0)))[:26])
    {
      "schema": "cluster/1",
    """
    kind = next(name for name, cls in KINDS.items() if isinstance(record, cls))
    body = json.dumps(asdict(record), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    flat = re.sub(
        r"\[[^\[\]{}\"]*\]",
        lambda found: re.sub(r"\s+", " ", found[0]).replace("[ ", "[").replace(" ]", "]"),
        body,
    )
    return f'{{\n  "schema": "{kind}/{VERSION}",' + flat[1:] + "\n"


def save(record: Document, path: Path) -> None:
    """Write a document in one step; raises InputError when the folder cannot be written."""
    write_text(path, dumps(record))


def load_cluster(path: Path) -> Cluster:
    """Read a cluster file (JSON or TOML); raises InputError."""
    return _load(path, Cluster)


def load_profile(path: Path) -> Profile:
    """Read a profile file; raises InputError."""
    return _load(path, Profile)


def load_variants(path: Path) -> tuple[Profile, ...]:
    """Read a file of one profile or of several (`planner.model.variants`); raises InputError."""
    return _variants_in(path, _read(path))


def save_variants(profiles: Sequence[Profile], path: Path) -> None:
    """Write one profile as such, several as variants; raises InputError as `save` does."""
    save(profiles[0] if len(profiles) == 1 else Variants(tuple(profiles)), path)


def _variants_in(path: Path, document: dict[str, Any]) -> tuple[Profile, ...]:
    if document.get("schema") == f"variants/{VERSION}":
        return _validate(path, document, "variants", Variants).profiles
    return (_validate(path, document, "profile", Profile),)


def load_problem(path: Path) -> Problem:
    """Read a problem file (JSON or TOML) and the clusters and profiles that it refers to; raises InputError."""
    return _load(path, Problem)


def load_plan(path: Path) -> Plan:
    """Read a plan file; raises InputError."""
    return _load(path, Plan)


def load_task_plan(path: Path) -> TaskPlan:
    """Read a file of a plan task by task; raises InputError."""
    return _load(path, TaskPlan)


def load_observed(path: Path) -> Observed:
    """Read a file of observations; raises InputError."""
    return _load(path, Observed)


def load_any(path: Path) -> Document:
    """Read whatever the file says it is; raises InputError."""
    document = _read(path)
    kind = str(document.get("schema", "")).partition("/")[0]
    if kind not in KINDS:
        raise InputError(
            f"{path}: schema: expected one of {[f'{name}/{VERSION}' for name in KINDS]}, got {document.get('schema')!r}"
        )
    found: Document = _validate(path, document, kind, KINDS[kind])
    return found


def load_record(path: Path, kind: str, cls: type[R]) -> R:
    """Read a document (JSON or TOML) of a kind that another package defines, as a record; raises InputError."""
    return _validate(path, _read(path), kind, cls)


def _load(path: Path, cls: type[T], *, named_within: bool = False) -> T:
    kind = next(name for name, known in KINDS.items() if known is cls)
    return _validate(path, _read(path, named_within=named_within), kind, cls)


def _read(path: Path, *, named_within: bool = False) -> dict[str, Any]:
    """Read a document; what another one names must be a file, a user may also give a pipe, or - for standard input."""
    try:
        if path == STANDARD_STREAM and not named_within:
            content = sys.stdin.buffer.read()
        else:
            mode = path.stat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or (stat.S_ISFIFO(mode) and not named_within)):
                raise OSError(None, "it is no file")
            content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: no text, or a path that cannot be one
        reason = error.strerror if isinstance(error, OSError) else "not a text file in UTF-8"
        raise InputError(f"{path}: cannot read it ({reason}); expected a JSON or TOML file") from None
    kind = "TOML" if path.suffix.lower() == ".toml" else "JSON"
    try:
        document = tomllib.loads(text) if kind == "TOML" else json.loads(text, object_pairs_hook=_without_duplicates)
    except RecursionError:
        raise InputError(f"{path}: not valid {kind} (nested too deeply)") from None
    except ValueError as error:  # of both libraries; also a number of thousands of digits
        why = "a number of thousands of digits" if "integer string conversion" in str(error) else error
        raise InputError(f"{path}: not valid {kind} ({why})") from None
    if not isinstance(document, dict):
        raise InputError(f"{path}: expected a document with a schema, got a {type(document).__name__}")
    return document


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; raises ValueError where a key stands twice: it is not clear which is meant."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object; remove one")
    return found


def _refuse_dates(value: Any, where: str = "") -> None:
    """Refuse the dates and times that TOML has and JSON has not."""
    if isinstance(value, date | time):
        raise InputError(f"{where.lstrip('.')}: expected a text or a number, got the date or time {value}; quote it")
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        _refuse_dates(part, f"{where}[{key}]" if isinstance(value, list) else f"{where}.{key}")


def _validate(path: Path, document: dict[str, Any], kind: str, cls: type[R]) -> R:
    body = dict(document)
    schema = body.pop("schema", None)
    if schema != f"{kind}/{VERSION}":
        several = kind == "profile" and schema == f"variants/{VERSION}"
        hint = "; it holds several profiles, which a problem can name together" if several else ""
        if kind == "plan" and schema == f"task-plan/{VERSION}":
            hint = "; it is a plan task by task, which `planner validate` and `simulator run` take"
        raise InputError(f'{path}: schema: expected "{kind}/{VERSION}", got {json.dumps(schema)}{hint}')
    if kind == "problem":
        _resolve(path, body)
    try:
        _refuse_dates(document)
        text = json.dumps(body)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply") from None
    try:
        validated: R = TypeAdapter(cls).validate_json(text)
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error)}") from None
    return validated


def _resolve(path: Path, problem: dict[str, Any]) -> None:
    """Put the documents that a problem file refers to by path in their places."""
    if isinstance(problem.get("cluster"), str):
        problem["cluster"] = asdict(_load(path.parent / problem["cluster"], Cluster, named_within=True))
    for where, holder in _holders_of_variants(problem):
        named, holder["variants"] = holder["variants"], []
        for index, variant in enumerate(named):
            if not isinstance(variant, str):
                holder["variants"].append(variant)
                continue
            place = path.parent / variant
            try:
                found = _variants_in(place, _read(place, named_within=True))
            except InputError as error:
                raise InputError(f"{path}: {where}.variants[{index}]: {error}") from None
            holder["variants"] += [asdict(profile) for profile in found]


def _holders_of_variants(problem: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what may name profiles by path, DNNs and the tasks of applications, with where each stands."""
    for number, dnn in _records(problem, "dnns"):
        if isinstance(dnn.get("variants"), list):
            yield f"dnns[{number}]", dnn
    for number, application in _records(problem, "applications"):
        for task_number, task in _records(application, "tasks"):
            if isinstance(task.get("variants"), list):
                yield f"applications[{number}].tasks[{task_number}]", task


def _records(parent: dict[str, Any], key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the tables in a list with their numbers; what is of another kind is told by validation."""
    entries = parent.get(key)
    for number, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict):
            yield number, entry


_WORDS = {"greater_than_equal": "ge", "greater_than": "gt", "less_than_equal": "le", "less_than": "lt"}
_ITEMS = {"too_short": "item", "string_too_short": "character"}
_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def explain(error: ValidationError) -> str:
    """Turn pydantic's first error into ``pipelines[2].stages[0].batch: expected an integer >= 1, got 0``."""
    first, *others = error.errors(include_url=False)
    # A list that lost its bad items is then called too short: that is no error of its own.
    more = sum(other["loc"] != first["loc"][: len(other["loc"])] for other in others)
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    got = json.dumps(first["input"], default=str)
    got = got if len(got) <= 60 else got[:57] + "..."
    kind, context = first["type"], first.get("ctx", {})
    if kind == "value_error":
        text = str(context["error"])
    elif kind == "missing":
        text = "missing; add it"
    elif kind == "unexpected_keyword_argument":
        text = "unknown key; remove it or correct its spelling"
    elif kind in _WORDS:
        bound = context[_WORDS[kind]]
        noun = "an integer" if isinstance(bound, int) and isinstance(first["input"], int) else "a number"
        text = f"expected {noun} {_SIGNS[_WORDS[kind]]} {bound:.16g}, got {got}"
    elif kind in _ITEMS:
        text = f"expected at least {context['min_length']} {_ITEMS[kind]}, got {got}"
    elif kind == "literal_error":
        text = f"expected {context['expected']}, got {got}"
    else:
        text = f"{first['msg'][0].lower()}{first['msg'][1:].replace('input should be', 'expected')}, got {got}"
        text = text.replace("input should be", "expected")
    text += f" (and {more} more)" if more else ""
    return f"{where}: {text}" if where else text
