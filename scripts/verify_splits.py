"""Split the models of the zoo at every cut and compare with the whole, as ``planner verify`` does for one model.

Results are appended to a CSV file, and what stands there is not run again.
"""

import argparse
import csv
import sys
from pathlib import Path
from time import process_time

from planner.cli.app import console, progress
from planner.profiling import build_model, model_names, read_graph
from planner.profiling.cuts import BATCH, CutsTried, choose_cuts, try_cuts
from planner.profiling.samples import draw_samples
from planner.profiling.verification import NOISE_SAMPLES, measure_yardstick

COLUMNS = (
    "model", "size", "optimised", "cuts", "bit_equal", "moved", "wrong", "worst", "worst_rms", "noise", "processor_s"
)  # fmt: skip


def main() -> None:
    """Check the models named, all by default; the exit status is 1 if a cut fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=model_names(), help="names as `python -m planner models` lists")
    parser.add_argument("--cuts", type=int, metavar="N", help="so many cuts, evenly spaced; default: all")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="height and width of images; default: the usual one")
    parser.add_argument("--out", type=Path, metavar="CSV", default=Path("out/splits.csv"), help="where results go")
    arguments = parser.parse_args()
    size = str(arguments.size or "usual")
    done = {(row["model"], row["size"]) for row in read(arguments.out)}
    for name in arguments.models:
        if (name, size) not in done:
            append(arguments.out, verify(name, arguments.size, arguments.cuts, size))
    rows = [row for row in read(arguments.out) if row["model"] in arguments.models and row["size"] == size]
    for row in rows:
        console.print(", ".join(f"{key} {value}" for key, value in row.items()), highlight=False, soft_wrap=True)
    sys.exit(1 if any(int(row["wrong"]) for row in rows) else 0)


def verify(name: str, pixels: int | None, count: int | None, size: str) -> list[list[object]]:
    """Return a row without the runtime's optimisations, and one with them."""
    begin_s = process_time()
    model = build_model(name, height=pixels, width=pixels)
    graph = read_graph(model, name)
    samples = draw_samples(graph, NOISE_SAMPLES, 0)
    yardstick = measure_yardstick(model, graph, samples)
    cuts = choose_cuts(graph, count)
    with progress() as bar:
        task = bar.add_task(f"cuts of {name}", total=len(cuts) + 1)
        ways = try_cuts(graph, cuts, samples, yardstick, BATCH, lambda: bar.advance(task))
    taken_s = f"{process_time() - begin_s:.0f}"
    return [[name, size, *figures(way), f"{yardstick.loudest:.2g}", taken_s] for way in ways]


def figures(way: CutsTried) -> list[object]:
    """Return what cuts gave in one way, as columns have it."""
    worst = [f"{each:.2g}" for each in way.worst]
    return [way.optimised, way.cuts, way.equal, way.moved, len(way.wrong), *worst]


def read(path: Path) -> list[dict[str, str]]:
    """Return the results in a CSV file, none where there is no such file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def append(path: Path, rows: list[list[object]]) -> None:
    """Add lines to a CSV file."""
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([list(COLUMNS), *rows] if new else rows)


if __name__ == "__main__":
    main()
