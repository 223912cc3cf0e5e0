"""Split models at every cut and compare: the two halves, chained, against the whole.

Without runtime optimisations both sides compute every layer in the same way: outputs must be equal to the bit. With
them onnxruntime fuses layers of one half only with each other, and outputs may differ in their last bits. Both are
tried. A model must first give different answers to different inputs, or equality would say nothing.
"""

import argparse
import csv
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from time import process_time
from typing import get_type_hints

import numpy as np
from rich.table import Table

from planner.cli.app import console, progress
from planner.model import InputError
from planner.profiling import (
    ModelGraph,
    Part,
    build_model,
    extract_parts,
    model_names,
    open_session,
    random_feeds,
    read_graph,
    run_chain,
    run_model,
)

TOLERANCE = 1e-5  # relative, of the output's Euclidean norm


@dataclass(frozen=True)
class Verified:
    """What the cuts of a model gave: how many there are, how many equal to the bit, how many beyond the tolerance.

    ``worst`` is the largest error. ``own`` is how far optimisations move the whole model's own answer: deep networks of
    random weights enlarge the last bit's rounding, and no split can be nearer than the arithmetic itself is.
    """

    model: str
    size: str
    optimised: bool
    cuts: int
    equal: int
    beyond: int
    worst: float
    own: float
    processor_s: float

    @property
    def passed(self) -> bool:
        """Tell whether all are equal to the bit, or optimised as near as the tolerance or the model's own noise."""
        return self.worst <= max(TOLERANCE, self.own) if self.optimised else self.equal == self.cuts


def main() -> None:
    """Check the models named, all by default; the exit status is 1 if a cut fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "models", nargs="*", default=model_names(), help="names as listed by `python -m planner models`"
    )
    parser.add_argument("--only", choices=["plain", "optimised"], help="one of the two ways; default: both")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth cut")
    parser.add_argument(
        "--size", type=int, metavar="PIXELS", help="height and width of images; default: the usual ones"
    )
    parser.add_argument(
        "--out", type=Path, metavar="CSV", help="append the results; what stands there is not run again"
    )
    arguments = parser.parse_args()
    ways = [way == "optimised" for way in ("plain", "optimised") if arguments.only in (None, way)]
    size = str(arguments.size or "usual")
    results = read_results(arguments.out)
    for name in arguments.models:
        done = {found.optimised for found in results if (found.model, found.size) == (name, size)}
        missing = [optimise for optimise in ways if optimise not in done]
        if not missing:
            continue
        graph = read_graph(build_model(name, height=arguments.size, width=arguments.size), name)
        for optimise in missing:
            results.append(verify(graph, size, arguments.every, optimise=optimise))
            append_result(arguments.out, results[-1])
    show(results)
    sys.exit(0 if all(found.passed for found in results) else 1)


def verify(graph: ModelGraph, size: str, every: int, *, optimise: bool) -> Verified:
    """Split a model at its cuts, run the halves one after the other, and compare their answers with the whole's."""
    begin_s = process_time()
    feeds = random_feeds(graph.model, 2, np.random.default_rng(3))
    plain, optimised = (run_model(open_session(graph.model, optimise=on), feeds) for on in (False, True))
    if all(np.allclose(output[0], output[1], rtol=1e-3, atol=0) for output in plain):
        raise InputError(f"{graph.name}: two inputs give the same output: nothing would be proven")
    whole = dict(zip(graph.outputs, optimised if optimise else plain, strict=True))

    def run(part: Part, given: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return run_model(open_session(part.model, optimise=optimise), given)

    errors = []
    cuts = range(1, len(graph.layers), every)
    with progress() as bar:
        for cut in bar.track(cuts, description=f"{graph.name}, optimisations {'on' if optimise else 'off'}"):
            made = run_chain(extract_parts(graph, [0, cut]), run, feeds)
            errors.append(max(_error(made[name], output) for name, output in whole.items()))
    return Verified(
        graph.name,
        size,
        optimise,
        cuts=len(errors),
        equal=sum(error == 0 for error in errors),
        beyond=sum(error > TOLERANCE for error in errors),
        worst=max(errors),
        own=max(_error(a, b) for a, b in zip(optimised, plain, strict=True)),
        processor_s=process_time() - begin_s,
    )


def read_results(path: Path | None) -> list[Verified]:
    """Return the results in a CSV file, none where there is no such file."""
    if path is None or not path.exists():
        return []
    kinds = get_type_hints(Verified) | {"optimised": lambda text: text == "True"}
    with path.open(encoding="utf-8", newline="") as stream:
        return [Verified(**{name: kinds[name](text) for name, text in row.items()}) for row in csv.DictReader(stream)]


def append_result(path: Path | None, found: Verified) -> None:
    """Add a line to a CSV file."""
    if path is None:
        return
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Verified)])
        if new:
            writer.writeheader()
        writer.writerow(asdict(found))


def show(results: list[Verified]) -> None:
    """Print a line per model and way."""
    table = Table(
        "model", "image", "optimised", "cuts", "bit-equal", f"> {TOLERANCE:g}", "worst", "own", "CPU s", box=None
    )
    for found in sorted(results, key=lambda found: (found.model, found.optimised)):
        table.add_row(
            found.model, found.size, "yes" if found.optimised else "no", str(found.cuts), str(found.equal),
            str(found.beyond), f"{found.worst:.1e}", f"{found.own:.1e}", f"{found.processor_s:.0f}",
        )  # fmt: skip
    console.print(table)


def _error(made: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(made - expected) / np.linalg.norm(expected))


if __name__ == "__main__":
    main()
