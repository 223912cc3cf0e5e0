"""Hold measured profiles against new measurements.

Measured anew, in turns, in rounds on new sessions: the whole model in one session, and its blocks. Two statements are
checked. Blocks alone are in sum the whole, to 10 % (the median over models and batch sizes); so far profiles make
them the whole. And a profile measured again agrees within its stated spread: blocks, made the whole, differ by at
most twice the standard deviation of single timings, which the profile states (19 of 20 do).
"""

import argparse
import csv
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from time import perf_counter
from typing import get_type_hints

import numpy as np
from rich.table import Table

from planner.cli.app import console, progress
from planner.files import load_variants
from planner.files.models import load_model
from planner.model import InputError, ModelSettings, Profile
from planner.profiling import (
    DeviceAtHand,
    Effort,
    ModelGraph,
    Part,
    block_starts,
    build_model,
    extract_parts,
    prepare_model,
    random_feeds,
    read_graph,
)
from planner.profiling.profiler import Times, ends_of, in_company, log_spread, time_parts
from planner.profiling.workers import colocated

SUM_TOLERANCE = 0.10
SPREADS = 2
INSIDE = 0.95


@dataclass(frozen=True)
class Checked:
    """One model at one batch size: medians in µs, and how many blocks are met within one and two stated spreads."""

    model: str
    batch: int
    whole_us: float
    sum_us: float
    profile_us: float
    blocks: int
    inside_once: int
    inside: int
    stated_spread: float
    new_spread: float

    @property
    def sum_error(self) -> float:
        """By what fraction the sum of the blocks exceeds the whole."""
        return self.sum_us / self.whole_us - 1

    @property
    def change(self) -> float:
        """By what fraction the whole exceeds the profile's sum."""
        return self.whole_us / self.profile_us - 1


def main() -> None:
    """Measure the models of the profiles again, print how far off they are; exit with 1 if a statement fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profiles", type=Path, nargs="+", help="profiles of models of the zoo, or of --models")
    parser.add_argument(
        "--device", required=True, help="the measured device in them, which is one core of this machine"
    )
    parser.add_argument(
        "--models", type=Path, help="folder of the files that were profiled, as <model>.onnx; else the zoo's are built"
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4], help="batch sizes to measure again")
    parser.add_argument("--cap-s", type=float, default=0.3, help="seconds for one block at one batch size, at most")
    parser.add_argument("--rounds", type=int, default=3, help="rounds on new sessions")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="as the profiles were measured by")
    parser.add_argument(
        "--out", type=Path, metavar="CSV", help="append the results; what stands there is not run again"
    )
    arguments = parser.parse_args()
    begin_s = perf_counter()
    effort = Effort(cap_s=arguments.cap_s, rounds=arguments.rounds, clock=arguments.clock)
    console.print(f"load average {os.getloadavg()[0]:.1f} before, {arguments.clock} clock", highlight=False)
    results = read_results(arguments.out)
    with progress() as bar:
        profiles = [profile for path in arguments.profiles for profile in load_variants(path)]
        task = bar.add_task("checking", total=len(profiles))
        for profile in profiles:
            bar.update(task, description=profile.name)
            done = {found.batch for found in results if found.model == profile.name}
            batches = [batch for batch in arguments.batches if batch not in done]
            if batches:
                found = check(profile, _graph(profile, arguments.models), arguments.device, batches, effort)
                results += found
                append_results(arguments.out, found)
            bar.advance(task)
    show(results)
    console.print(f"{perf_counter() - begin_s:.0f} s, load average {os.getloadavg()[0]:.1f}", highlight=False)
    sys.exit(0 if verdict(results) else 1)


def _graph(profile: Profile, folder: Path | None) -> ModelGraph:
    """Return the model of a profile, read as the profile says: its file in a folder, else that of the zoo."""
    path = None if folder is None else folder / f"{profile.name.partition('@')[0]}.onnx"
    if path is None or not path.exists():
        return read_graph(build_model(profile.name), profile.name)
    return prepare_model(load_model(path), profile.name, profile.settings or ModelSettings(), compare=False).graph


def check(profile: Profile, graph: ModelGraph, device: str, batches: Sequence[int], effort: Effort) -> list[Checked]:
    """Measure a model's blocks and the whole, a round of one after a round of the other, and compare."""
    kept = profile.table(device, 1)
    for batch in batches:
        if batch not in kept.batches:
            raise InputError(f"profile {profile.name} has no batch {batch} on {device}; it has {list(kept.batches)}")
    rng = np.random.default_rng(0)
    feeds = {batch: random_feeds(graph.model, batch, rng) for batch in batches}
    core, one_round = DeviceAtHand(device), effort.of_one_round()

    def timed(parts: Sequence[Part]) -> Times:
        with colocated(1, 1, core.cores, core.provider) as nobody:
            return time_parts(parts, core, 1, feeds, one_round, nobody)

    starts = block_starts(graph, profile)
    ends = ends_of(graph, starts)
    parts, whole = extract_parts(graph, starts), extract_parts(graph, [0])
    measured = [(timed(parts), timed(whole)) for _ in range(effort.rounds)]
    results = []
    for batch in batches:
        blocks_us = [
            np.concatenate([rounds[0] for rounds in of_block])
            for of_block in zip(*(blocks[batch] for blocks, _ in measured), strict=True)
        ]
        whole_us = np.concatenate([of_whole[batch][0][0] for _, of_whole in measured])
        at = kept.batches.index(batch)
        alone_us = np.array([np.median(times) for times in blocks_us])
        first = np.array(kept.latency_us[at], float)
        second = in_company(alone_us, float(np.median(whole_us)), ends)
        stated = np.array(kept.spread[at] if kept.spread else [0.0] * len(first)) * first
        off = np.abs(second - first) - 1  # the clock's and the file's microsecond
        results.append(
            Checked(
                profile.name,
                batch,
                whole_us=float(np.median(whole_us)),
                sum_us=float(alone_us.sum()),
                profile_us=float(first.sum()),
                blocks=len(first),
                inside_once=int((off <= stated).sum()),
                inside=int((off <= SPREADS * stated).sum()),
                stated_spread=float(np.median(stated / first)),
                new_spread=float(np.median([log_spread(times) for times in blocks_us])),
            )
        )
    return results


def verdict(results: Sequence[Checked]) -> bool:
    """Print whether both statements hold, with the figures; return it."""
    sums = np.array([found.sum_error for found in results])
    changes = np.array([found.change for found in results])
    blocks = sum(found.blocks for found in results)
    once, inside = (sum(getattr(found, name) for found in results) for name in ("inside_once", "inside"))
    sums_hold = bool(np.median(np.abs(sums)) <= SUM_TOLERANCE)
    again_holds = inside >= INSIDE * blocks
    for holds, text in (
        (
            sums_hold,
            f"blocks alone are in sum the whole: median {np.median(np.abs(sums)):.1%}, at most {SUM_TOLERANCE:.0%} "
            f"wanted, worst {sums[np.abs(sums).argmax()]:+.1%}",
        ),
        (
            again_holds,
            f"measured again it is the same: {inside} of {blocks} blocks within {SPREADS} stated spreads, {INSIDE:.0%} "
            f"wanted ({once} within one); whole models: median {np.median(np.abs(changes)):.1%}, worst "
            f"{changes[np.abs(changes).argmax()]:+.1%}",
        ),
    ):
        console.print(f"{'pass' if holds else 'FAIL'}: {text}", highlight=False, soft_wrap=True)
    return sums_hold and again_holds


def show(results: Sequence[Checked]) -> None:
    """Print a line per model and batch size: blocks met within 2 (1) stated spreads, median spreads then and now."""
    table = Table("model", "batch", "whole ms", "sum ms", "off", "profile ms", "off", "in 2 (1)", "spread", box=None)
    table.columns[0].overflow = "fold"
    for found in results:
        table.add_row(
            found.model, str(found.batch), f"{found.whole_us / 1000:.2f}", f"{found.sum_us / 1000:.2f}",
            f"{found.sum_error:+.1%}", f"{found.profile_us / 1000:.2f}", f"{found.change:+.1%}",
            f"{found.inside} ({found.inside_once}) of {found.blocks}",
            f"{found.stated_spread:.1%} {found.new_spread:.1%}",
        )  # fmt: skip
    console.print(table)


def read_results(path: Path | None) -> list[Checked]:
    """Return the results in a CSV file, none where there is no such file."""
    if path is None or not path.exists():
        return []
    kinds = get_type_hints(Checked)
    with path.open(encoding="utf-8", newline="") as stream:
        return [Checked(**{name: kinds[name](text) for name, text in row.items()}) for row in csv.DictReader(stream)]


def append_results(path: Path | None, results: Sequence[Checked]) -> None:
    """Add lines to a CSV file."""
    if path is None:
        return
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Checked)])
        if new:
            writer.writeheader()
        writer.writerows(asdict(found) for found in results)


if __name__ == "__main__":
    main()
