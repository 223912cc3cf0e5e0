#!/usr/bin/env python
"""Reproduce CoMPI's problems (SoCC 2025) from a data folder: one sub-command per kind of result."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from statistics import fmean
from time import process_time
from typing import Annotated, Any, Literal

import numpy as np
import typer

from planner.cli.app import console, new_app, progress, run
from planner.files import write_text
from planner.model import InputError
from planner.planning.merging import bisection, exact
from planner.planning.merging.deployment import DeployedStage, Deployment, MergeProblem, deploy, device_bytes
from planner.planning.merging.large import deploy_large
from planner.planning.merging.oracles import Budget, History
from planner.planning.merging.recursion import deploy_recursively
from planner.planning.merging.results import Found, Try
from planner.planning.merging.schemes import LayerGroup, MergeModel, Scheme, Sharing, read_schemes, sharing_of
from planner.planning.programme.backends import Limits, TooLate

app = new_app("Reproduce CoMPI's published problems.")

Data = Annotated[Path, typer.Option(help="Folder of the data (profiles/, tiny_cases.json, solve/).")]
Out = Annotated[Path, typer.Option(help="CSV file to write.")]
MostTries = Annotated[int, typer.Option(help="Questions that the search with a proof may ask.")]
Method = Annotated[
    Literal["exact", "recursive"],
    typer.Option(help="The exact programme, or the reference's recursion, as a baseline."),
]

TINY_COLUMNS = ("case", "optimum", "ours", "optimum_all_stages", "ours_all_stages", "reference", "seconds", "reason")
COMPARE_COLUMNS = (
    "instance", "models", "gpus", "budget", "rule_saved", "rule_tries", "ours_saved", "ours_tries", "found_at", "bound",
    "rule_seconds", "ours_seconds", "note",
)  # fmt: skip
LARGE_COLUMNS = ("instance", "models", "gpus", "stages", "bytes", "bound", "gap", "seconds")
SOLVE_COLUMNS = ("case", "printed", "ours", "before_merging", "seconds", "note")
RECURSIVE_COLUMNS = ("case", "reference", "recursive", "optimum_all_stages", "seconds", "note")
OTHER_TIES = 20  # draws among equally good placements before a recursion's plan counts as another one
TIE = "tie"


@app.callback()
def main() -> None:
    """Give every command a name of its own."""


@app.command()
def tiny(
    data: Data,
    out: Out,
    method: Method = "exact",
    every: Annotated[int, typer.Option(help="Take every n-th case; 1 for all.", min=1)] = 1,
) -> None:
    """Deploy the small random cases, with and without the rule that every model has all of its stages."""
    document = read_json(data / "tiny_cases.json")
    groups = read_groups(data / document["profile"])
    cases = [(number, case, problem_of(case, groups)) for number, case in enumerate(document["cases"])][::every]
    if method == "recursive":
        known = ("reference_bytes", "optimum_bytes_all_stages")
        recursive([(str(number), problem, *(case[each] for each in known)) for number, case, problem in cases], out)
        return
    rows: list[dict[str, Any]] = []
    with progress() as bar:
        for number, case, problem in bar.track(cases, description="cases"):
            begin_s = process_time()
            ours, reason = bytes_of(deploy, problem)
            all_stages, reason_all = bytes_of(deploy, replace(problem, all_stages=True))
            rows.append(
                {
                    "case": number,
                    "optimum": case["optimum_bytes"],
                    "ours": ours,
                    "optimum_all_stages": case["optimum_bytes_all_stages"],
                    "ours_all_stages": all_stages,
                    "reference": case["reference_bytes"],
                    "seconds": round(process_time() - begin_s, 4),
                    "reason": reason or reason_all,
                }
            )
    write_rows(out, TINY_COLUMNS, rows)
    pairs = (("optimum", "ours"), ("optimum_all_stages", "ours_all_stages"))
    equal = sum(all(same(row[known], row[found]) for known, found in pairs) for row in rows)
    seconds = sorted(row["seconds"] for row in rows)
    console.print(
        f"{equal} of {len(rows)} cases equal in both columns; CPU time a case: median "
        f"{seconds[len(seconds) // 2]:.3f} s, worst {seconds[-1]:.3f} s"
    )


def recursive(cases: Sequence[tuple[str, MergeProblem, int | None, int | None]], out: Path) -> None:
    """Deploy cases as the reference does, and compare the bytes with its plans' and the least ones (None: no plan)."""
    rows: list[dict[str, Any]] = []
    with progress() as bar:
        for name, problem, reference, optimum in bar.track(cases, description="cases"):
            begin_s = process_time()
            found, reason = bytes_of(deploy_recursively, problem)
            seconds = round(process_time() - begin_s, 4)
            note = "" if same(reference, found) else difference(problem, reference, found, reason)
            rows.append(dict(zip(RECURSIVE_COLUMNS, (name, reference, found, optimum, seconds, note), strict=True)))
            write_rows(out, RECURSIVE_COLUMNS, rows)
    alike = sum(same(row["reference"], row["recursive"]) for row in rows)
    ties = sum(row["note"].startswith(TIE) for row in rows)
    optimal = sum(row["recursive"] is not None and same(row["recursive"], row["optimum_all_stages"]) for row in rows)
    missed = sum(row["recursive"] is None and row["optimum_all_stages"] is not None for row in rows)
    console.print(
        f"{alike} of {len(rows)} cases as the reference, {ties} more with other ones of equally good placements; "
        f"{optimal} optimal, {missed} without a plan though there is one",
        soft_wrap=True,
    )


def difference(problem: MergeProblem, reference: int | None, found: int | None, reason: str) -> str:
    """Return why the recursion's bytes are not the reference's: a tie, or what is known."""
    draws = (np.random.default_rng(seed) for seed in range(OTHER_TIES))
    if any(same(reference, bytes_of(deploy_recursively, problem, ties=draw)[0]) for draw in draws):
        return f"{TIE}: the reference's with other ones of equally good placements"
    if reference is None or found is None:
        return reason or "the reference finds none"
    return f"{found - reference:+} bytes"


@app.command()
def solve(data: Data, out: Out, method: Method = "exact") -> None:
    """Deploy the published examples, and say where the reference's printed bytes are not those of its plan."""
    rows: list[dict[str, Any]] = []
    read = [(path.stem, read_json(path)) for path in sorted((data / "solve").glob("*.json"))]
    cases = [
        (name, case, problem_of(case, read_groups(data / f"profiles/{case['model_type']}.json"))) for name, case in read
    ]
    if method == "recursive":
        optima = [deploy(replace(problem, all_stages=True)).memory_bytes for _, _, problem in cases]
        references = [reference_bytes(case, problem) for _, case, problem in cases]
        names, _, problems = zip(*cases, strict=True)
        recursive([*zip(names, problems, references, optima, strict=True)], out)
        return
    for name, case, problem in cases:
        begin_s = process_time()
        ours = deploy(replace(problem, all_stages=True)).memory_bytes
        before = deploy(replace(problem, sharing=frozenset(), all_stages=True)).memory_bytes
        seconds = process_time() - begin_s
        printed = round(case["total_mem_bytes"])
        note = "" if printed == ours else f"printed {printed}, true optimum {ours}"
        rows.append(dict(zip(SOLVE_COLUMNS, (name, printed, ours, before, round(seconds, 4), note), strict=True)))
        console.print(f"{name}: {ours} bytes{f' ({note})' if note else ''}", soft_wrap=True)
    write_rows(out, SOLVE_COLUMNS, rows)


@app.command()
def search(
    data: Data,
    instance: Annotated[Path, typer.Option(help="Instance: profile, models, gpus, oracle (search_3m2g.json).")],
    proof: Annotated[bool, typer.Option(help="Also search for the best schemes, with a proof.")] = True,
    most_tries: MostTries = 100,
    models: Annotated[
        int | None,
        typer.Option(min=2, help="So many models, the instance's in turn, GPUs and budget in proportion."),
    ] = None,
    time_limit: Annotated[float, typer.Option(min=0.1, help="Seconds for every programme that is solved.")] = 30.0,
    search_limit: Annotated[float, typer.Option(min=1, help="Seconds for the search with a proof.")] = 600.0,
) -> None:
    """Search for schemes by the reference's rule, then for the best ones, and print every try."""
    document = read_json(instance if instance.exists() else data / instance)
    if models is not None:
        document = resized(document, models)
    problem = problem_of(document, read_groups(data / document["profile"]))
    limits = Limits(1e-7, time_limit)
    rule = document["oracle"]
    if rule.get("rule") != "budget":
        raise InputError(f"{instance}: oracle: expected the rule budget, got {rule.get('rule')!r}")
    oracle = Budget(rule["budget"])
    console.print("by the reference's rule: models, groups, bytes saved, answer")
    show_found(problem, bisection.search(problem, oracle, show_try, limits=limits))
    if proof:
        console.print("with schemes as choices of the programme: bytes saved, answer, shared groups")
        history = History(problem.models, oracle)
        show_found(
            problem,
            exact.search(
                problem, history, most_tries=most_tries, limits=limits, time_limit_s=search_limit, report=show_try
            ),
        )


def resized(document: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Return an instance with so many models, the given ones in turn; GPUs and the budget grow in proportion.

    The budget is a share of what a model could spend, (models - 1) times the mergeable groups.
    """
    given = document["models"]
    models = sorted((given[n % len(given)] for n in range(count)), key=lambda model: model["max_stage_num"])
    gpus = [document["gpus"][0]] * ceil(len(document["gpus"]) * count / len(given))
    budget = document["oracle"]["budget"] * (count - 1) // (len(given) - 1)
    return {**document, "models": models, "gpus": gpus, "oracle": {**document["oracle"], "budget": budget}}


@app.command()
def large(
    data: Data,
    out: Out,
    instances: Annotated[int, typer.Option(min=1, help="How many random instances.")] = 3,
    models: Annotated[int, typer.Option(min=3, help="Models, of three architectures of up to 52 groups in turn.")] = 20,
    gpus: Annotated[int, typer.Option(min=1, help="Devices of 16 GB.")] = 16,
    stages: Annotated[int, typer.Option(min=1, help="Stages that a model may have at most.")] = 2,
    time_limit: Annotated[float, typer.Option(min=1, help="Seconds for each.")] = 60.0,
) -> None:
    """Deploy many models of three architectures by counting copies; a row each."""
    kinds = [read_groups(data / f"profiles/{name}_fine.json") for name in ("resnet50", "resnet101", "resnet152")]
    rows = []
    for seed in range(instances):
        problem = large_instance(kinds, models, gpus, stages, seed)
        begin_s = process_time()
        found = deploy_large(problem, limits=Limits(0.01, time_limit))
        seconds = round(process_time() - begin_s, 2)
        numbers = (
            seed,
            models,
            gpus,
            stages,
            found.memory_bytes,
            round(found.bound_bytes),
            round(found.gap, 4),
            seconds,
        )
        rows.append(dict(zip(LARGE_COLUMNS, numbers, strict=True)))
        write_rows(out, LARGE_COLUMNS, rows)
        console.print(f"{seed}: {found.memory_bytes} bytes, gap {found.gap:.2%}, {seconds} s", highlight=False)


def large_instance(
    kinds: Sequence[Sequence[LayerGroup]], models: int, gpus: int, stages: int, seed: int
) -> MergeProblem:
    """Return models of several architectures that ask for 80 % of the devices; those of one share up to some group.

    The first half of each architecture's models shares what follows, too.
    """
    rng = np.random.default_rng(seed)
    mean = rng.uniform(0.2, 1.0, models)
    mean *= 0.8 * gpus / mean.sum()
    made = tuple(
        MergeModel(f"m{n}", tuple(kinds[n % len(kinds)]), int(limit), float(np.ceil(share * more)), float(share))
        for n, (share, limit, more) in enumerate(
            zip(mean, rng.integers(1, stages + 1, models), rng.uniform(1, 1.5, models), strict=True)
        )
    )
    schemes = []
    for first, groups in enumerate(kinds):
        own = tuple(range(first, models, len(kinds)))
        cut = int(rng.integers(len(groups) // 3, len(groups) - 1))
        if len(own) > 1:
            schemes.append(Scheme(own, 0, cut))
        if len(own) > 3:
            schemes.append(Scheme(own[: len(own) // 2], cut, len(groups)))
    return MergeProblem(made, (16_000_000_000,) * gpus, sharing_of(made, schemes))


@app.command()
def compare(
    data: Data,
    out: Out,
    instances: Annotated[int, typer.Option(min=1, help="How many random instances.")] = 50,
    models: Annotated[str, typer.Option(help="Numbers of models that instances have, in turn.")] = "2,3",
    most_tries: MostTries = 200,
    first: Annotated[int, typer.Option(min=0, help="Seed of the first instance.")] = 0,
    time_limit: Annotated[float, typer.Option(min=0.1, help="Seconds for every programme that is solved.")] = 10.0,
    search_limit: Annotated[float, typer.Option(min=1, help="Seconds for every search with a proof.")] = 120.0,
) -> None:
    """Search random instances of the example's form by the reference's rule and with a proof; a row each.

    Rows that OUT has already are kept, so that what was interrupted goes on.
    """
    groups = read_groups(data / "profiles/resnet50.json")
    counts = [int(part) for part in models.split(",")]
    limits = Limits(1e-7, time_limit)
    rows = read_rows(out, COMPARE_COLUMNS)
    known = {int(row["instance"]) for row in rows}
    with progress() as bar:
        for seed in bar.track(range(first, first + instances), description="instances"):
            if seed not in known:
                problem, budget = random_instance(groups, counts[seed % len(counts)], seed)
                rows.append(compared(seed, problem, budget, most_tries, limits, search_limit))
                write_rows(out, COMPARE_COLUMNS, rows)
    searched = [row for row in rows if not row["note"]]
    saved = [(int(row["rule_saved"]), int(row["ours_saved"]), int(row["bound"])) for row in searched]
    asked = [fmean(int(row[name]) for row in searched) for name in ("rule_tries", "found_at", "ours_tries")]
    console.print(
        f"{len(searched)} instances searched, {len(rows) - len(searched)} cannot be deployed: ours saves more in "
        f"{sum(ours > rule for rule, ours, _ in saved)}, less in {sum(ours < rule for rule, ours, _ in saved)}, proven "
        f"in {sum(bound <= ours for _, ours, bound in saved)}; questions on the mean: {asked[0]:.1f} by the rule, ours "
        f"found with {asked[1]:.1f}, ended with {asked[2]:.1f}",
        soft_wrap=True,
    )


def compared(
    seed: int, problem: MergeProblem, budget: int, most_tries: int, limits: Limits, search_limit_s: float
) -> dict[str, Any]:
    """Search by the rule and with a proof; the row has a note where nothing can be deployed, whatever is shared."""
    numbers: list[Any] = [seed, len(problem.models), len(problem.device_bytes), budget]
    oracle = Budget(budget)
    begin_s = process_time()
    try:
        rule = bisection.search(problem, oracle, limits=limits)
    except TooLate:
        raise
    except InputError as reason:
        return dict(zip(COMPARE_COLUMNS, [*numbers, *[""] * 8, str(reason)], strict=True))
    middle_s = process_time()
    history = History(problem.models, oracle)
    ours = exact.search(problem, history, most_tries=most_tries, limits=limits, time_limit_s=search_limit_s)
    end_s = process_time()
    found_at = next(n for n, saved in enumerate(best_so_far(ours)) if saved == ours.saved_bytes)
    numbers += [rule.saved_bytes, len(rule.tries), ours.saved_bytes, len(ours.tries), found_at, ours.bound_bytes]
    numbers += [round(middle_s - begin_s, 2), round(end_s - middle_s, 2), ""]
    return dict(zip(COMPARE_COLUMNS, numbers, strict=True))


def best_so_far(found: Found) -> list[int]:
    """Return the bytes saved by the best that was accepted after 0, 1, ... questions."""
    best = [0]
    for tried in found.tries:
        best.append(max(best[-1], tried.saved_bytes if tried.accepted else 0))
    return best


def random_instance(groups: Sequence[LayerGroup], models: int, seed: int) -> tuple[MergeProblem, int]:
    """Return models of one architecture by stage limits, on devices that hold them, and a budget."""
    rng = np.random.default_rng(seed)
    limits = sorted(rng.integers(1, 3, models).tolist())
    gpus = max(2, models - 1)
    mean = rng.uniform(0.1, 0.9 * gpus / models, models).round(2).tolist()
    made = tuple(
        MergeModel(f"m{number}", tuple(groups), limit, 1, share)
        for number, (limit, share) in enumerate(zip(limits, mean, strict=True))
    )
    return MergeProblem(made, (16_000_000_000,) * gpus), int(rng.integers(2, 4 * models))


def show_try(tried: Try) -> None:
    """Print one try."""
    answer = "accepted" if tried.accepted else "refused"
    if tried.scheme is not None:
        models = ",".join(map(str, tried.scheme.models))
        console.print(f"  {models:12} {tried.scheme.first}-{tried.scheme.last - 1:<4} {tried.saved_bytes:>12} {answer}")
    else:
        console.print(f"  {tried.saved_bytes:>12} {answer:9} {show_sharing(tried.sharing)}", soft_wrap=True)


def show_sharing(sharing: Sharing) -> str:
    """Return sharing in short: models, and the group that they share."""
    sets = sorted(sharing, key=lambda members: (min(members)[1], min(members)))
    return "  ".join(f"{','.join(str(model) for model, _ in sorted(one))}:{min(one)[1]}" for one in sets)


def show_found(problem: MergeProblem, found: Found) -> None:
    """Print what a search found."""
    console.print(f"  {len(found.tries)} tries; shared (models:group): {show_sharing(found.sharing)}", soft_wrap=True)
    for stage in found.deployment.stages:
        gpus = ",".join(map(str, stage.devices))
        console.print(f"  {problem.models[stage.model].name} groups {stage.first}-{stage.last - 1} on GPU {gpus}")
    proven = "" if found.bound_bytes is None else f"; nothing that is not ruled out saves more than {found.bound_bytes}"
    memory = found.deployment.memory_bytes
    console.print(f"  {memory} bytes in use, {found.saved_bytes} saved{proven}", soft_wrap=True)


def bytes_of(method: Callable[..., Deployment], problem: MergeProblem, **options: Any) -> tuple[int | None, str]:
    """Return the memory of the deployment that a method finds, or None and why there is none."""
    try:
        return method(problem, **options).memory_bytes, ""
    except InputError as error:
        return None, str(error)


def reference_bytes(case: Mapping[str, Any], problem: MergeProblem) -> int:
    """Return the true bytes of a published plan, which are not always those printed."""
    places: dict[tuple[int, int], list[int]] = {}
    for device, held in enumerate(case["deployment_of_stage"]):
        for model, stage in held:
            places.setdefault((model, stage), []).append(device)
    stages = []
    for model, lengths in enumerate(case["num_layer_each_stage"]):
        ends = np.cumsum([0, *lengths]).tolist()
        stages += [
            DeployedStage(model, ends[stage], ends[stage + 1], tuple(places.get((model, stage), ())))
            for stage in range(len(lengths))
        ]
    return sum(device_bytes(problem, stages))


def same(known: int | None, found: int | None) -> bool:
    """Compare bytes up to the rounding of the programme that computed the published ones (a few bytes)."""
    return known == found if known is None or found is None else abs(known - found) <= 1e-7 * known


def problem_of(case: Mapping[str, Any], groups: Sequence[LayerGroup]) -> MergeProblem:
    """Return a published case as a problem; all of its models have one architecture."""
    models = tuple(
        MergeModel(f"m{number}", tuple(groups), model["max_stage_num"], model["max_gpu_num"], model["mean_gpu_num"])
        for number, model in enumerate(case["models"])
    )
    return MergeProblem(models, tuple(case["gpus"]), sharing_of(models, read_schemes(case.get("schemes", []))))


def read_groups(path: Path) -> list[LayerGroup]:
    """Read the layer groups of a published profile."""
    return [LayerGroup(row["param_size"], row["latency"], row["join_merge"]) for row in read_json(path)]


def read_json(path: Path) -> Any:
    """Read a document of the data."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}; expected the published data") from None


def read_rows(out: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows that a file has, to go on with them; none where there is no file."""
    if not out.exists():
        return []
    reader = csv.DictReader(out.read_text(encoding="utf-8").splitlines())
    rows: list[dict[str, Any]] = list(reader)
    if tuple(reader.fieldnames or ()) != tuple(columns):
        raise InputError(f"{out}: it has other columns than this command writes; give another file, or delete it")
    return rows


def write_rows(out: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(out, text.getvalue())


if __name__ == "__main__":
    run(app)
