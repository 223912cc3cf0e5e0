"""Measure the architectures of the zoo on this machine and estimate them on others: what profiles/zoo holds.

Lightest first. Every model is measured on one core; the lighter ones also on two cores, as one worker of two threads
and as two workers of one thread side by side, whose interference is in the number. A model whose profile is there
already is left alone, so that an interrupted run goes on with the model at which it stopped.
"""

import argparse
import os
from pathlib import Path
from time import perf_counter

from planner.cli.app import console
from planner.cli.profiling import estimate, profile
from planner.profiling.zoo import ARCHITECTURES

ESTIMATED = "V100,T4,L4,P4,RaspberryPi4,RaspberryPi5"
LIGHT_MACS = 6e9  # up to here models are measured on two cores as well


def main() -> None:
    """Measure and estimate the models named, all by default."""
    names = sorted(ARCHITECTURES, key=lambda name: ARCHITECTURES[name].macs)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=names, help="names as listed by `python -m planner models`")
    parser.add_argument("--out", type=Path, required=True, help="folder for the profiles")
    parser.add_argument("--core", required=True, help="what one core of this machine is called")
    parser.add_argument("--pair", required=True, help="what two cores of this machine are called")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu where others use the machine")
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds on new sessions; the heavier models get one fewer"
    )
    parser.add_argument("--cap-s", type=float, default=0.2, help="seconds for one block at one batch size, at most")
    arguments = parser.parse_args()
    for name in arguments.models:
        light = ARCHITECTURES[name].macs <= LIGHT_MACS
        options = {"rounds": max(1, arguments.rounds - (not light)), "cap_s": arguments.cap_s}
        out, part = arguments.out / f"{name}.json", arguments.out / f"{name}.part.json"
        if out.exists():
            continue
        begin_s = perf_counter()
        part.unlink(missing_ok=True)
        profile(name, arguments.core, part, clock=arguments.clock, balance=ESTIMATED, **options)
        if light and len(os.sched_getaffinity(0)) > 1:
            profile(name, arguments.pair, part, cores=2, shares="1,2", **options)
        estimate(name, ESTIMATED, part)
        part.replace(out)
        console.print(f"{name}: {perf_counter() - begin_s:.0f} s\n", highlight=False)


if __name__ == "__main__":
    main()
