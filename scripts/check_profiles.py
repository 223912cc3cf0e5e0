"""Hold measured profiles against new measurements.

Measured anew, one after the other: the whole model in one session, and its blocks. The blocks' sum is held against the
whole, and against the profile, every block of which should be met within the stated spread.
"""

import argparse
from pathlib import Path

import numpy as np
from rich.table import Table

from planner.cli.app import console
from planner.files import load_profile
from planner.profiling import DeviceAtHand, Effort, block_starts, build_model, measure_tables, read_graph


def main() -> None:
    """Measure the models of the profiles named again, print how far they are off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profiles", type=Path, nargs="+", help="profiles of models of the zoo")
    parser.add_argument("--device", required=True, help="the measured device in them, which is this machine")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4], help="batch sizes to measure again")
    parser.add_argument("--cap-s", type=float, default=1.0, help="seconds for one block at one batch size, at most")
    arguments = parser.parse_args()
    effort = Effort(cap_s=arguments.cap_s, clock="cpu")
    device = DeviceAtHand(arguments.device)
    table = Table(
        "model", "batch", "whole (ms)", "sum of blocks (ms)", "off", "profile (ms)", "off", "blocks in spread"
    )
    sums, again = [], []
    for path in arguments.profiles:
        profile = load_profile(path)
        graph = read_graph(build_model(profile.name), profile.name)
        (whole,) = measure_tables(graph, [0], device, arguments.batches, effort)
        (blocks,) = measure_tables(graph, block_starts(graph, profile), device, arguments.batches, effort)
        kept = profile.table(arguments.device, 1)
        for row, batch in enumerate(arguments.batches):
            at = kept.batches.index(batch)
            first = np.array(kept.latency_us[at], float)
            second = np.array(blocks.latency_us[row], float)
            spread = np.array(kept.spread[at] if kept.spread else [0.0] * len(first))
            # Both medians vary: twice the larger deviation of single runs, and the clock's microsecond.
            inside = np.abs(second - first) <= 2 * np.maximum(spread, blocks.spread[row]) * first + 1  # type: ignore[index]
            sums.append(second.sum() / whole.latency_us[row][0] - 1)
            again.append(second.sum() / first.sum() - 1)
            table.add_row(
                profile.name,
                str(batch),
                f"{whole.latency_us[row][0] / 1000:.2f}",
                f"{second.sum() / 1000:.2f}",
                f"{sums[-1]:+.1%}",
                f"{first.sum() / 1000:.2f}",
                f"{again[-1]:+.1%}",
                f"{inside.sum()} of {len(inside)}",
            )
    console.print(table)
    for text, errors in (("sum of blocks over whole", sums), ("measured again", again)):
        worst = max(errors, key=abs)
        console.print(f"{text}: median {np.median(np.abs(errors)):.1%}, worst {worst:+.1%}", highlight=False)


if __name__ == "__main__":
    main()
