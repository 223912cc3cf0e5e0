"""Split models at every cut and compare: the two halves, chained, against the whole.

Runtime optimisations are off, so that both sides compute every layer in the same way: outputs must be equal to the
bit. A model must first give different answers to different inputs, or equality would say nothing. With optimisations
(--optimise) onnxruntime fuses layers of one half only with each other, and outputs differ in their last bits.
"""

import argparse
import sys
from collections.abc import Mapping
from time import process_time

import numpy as np

from planner.cli.app import console, progress
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


def main() -> None:
    """Check the models named, all by default; the exit status is 1 if a cut fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "models", nargs="*", default=model_names(), help="names as listed by `python -m planner models`"
    )
    parser.add_argument("--optimise", action="store_true", help="with onnxruntime's optimisations")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth cut")
    arguments = parser.parse_args()
    failed = 0
    for name in arguments.models:
        failed += verify(read_graph(build_model(name), name), arguments.every, optimise=arguments.optimise)
    sys.exit(1 if failed else 0)


def verify(graph: ModelGraph, every: int, *, optimise: bool) -> int:
    """Print how many cuts reproduce the whole; return how many do not."""
    begin_s = process_time()
    feeds = random_feeds(graph.model, 2, np.random.default_rng(3))
    whole = dict(zip(graph.outputs, run_model(open_session(graph.model, optimise=optimise), feeds), strict=True))
    if all(np.allclose(output[0], output[1], rtol=1e-3, atol=0) for output in whole.values()):
        console.print(f"{graph.name}: two inputs give the same output: nothing is proven")
        return 1

    def run(part: Part, given: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return run_model(open_session(part.model, optimise=optimise), given)

    errors = []
    cuts = range(1, len(graph.layers), every)
    with progress() as bar:
        for cut in bar.track(cuts, description=graph.name):
            made = run_chain(extract_parts(graph, [0, cut]), run, feeds)
            errors.append(max(float(_error(made[name], output)) for name, output in whole.items()))
    equal = sum(error == 0 for error in errors)
    failing = sum(error > TOLERANCE for error in errors)
    console.print(
        f"{graph.name}: {len(errors)} cuts, {equal} equal to the bit, {failing} beyond {TOLERANCE:g}, "
        f"worst {max(errors):.1e}, {process_time() - begin_s:.0f} s of processor time",
        highlight=False,
        soft_wrap=True,
    )
    return failing


def _error(made: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(made - expected) / np.linalg.norm(expected))


if __name__ == "__main__":
    main()
