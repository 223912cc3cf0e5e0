"""Fit the roofline's coefficients to PPipe's published block timings, and print how far estimates are off.

For each device: the error on every model of coefficients fitted to the other models (leave one out), then the
coefficients fitted to all, as they stand in planner/profiling/catalogue.toml.
"""

import argparse
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.table import Table

from planner.cli.app import console
from planner.files import ppipe
from planner.profiling import build_architecture, find_device, read_graph
from planner.profiling.calibration import Sample, align_layers, fit_coefficients, leave_one_out
from planner.profiling.roofline import describe

# published name: (architecture, height, width), the sizes as in the published shapes
MODELS = {
    "googlenet-v3-pytorch": ("inception_v3", 598, 598),
    "wide_resnet101_2": ("wide_resnet101_2", 518, 518),
    "repvgg-b3": ("repvgg_b3", 448, 448),
    "convnext_large": ("convnext_large", 128, 448),
}
DEVICES = ("V100", "T4", "L4", "P4")
SOURCE = "fitted to PPipe's block timings on {device} (ATC'25) of four models, scripts/calibrate_roofline.py"


def main() -> None:
    """Read the timings, report the errors, print the coefficients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder laid out as PPipe's published data")
    parser.add_argument("--toml", action="store_true", help="print the coefficients as TOML")
    arguments = parser.parse_args()
    samples = read_samples(arguments.data)
    table = Table("device", "precision", *MODELS, "all", title="Leave one out: median error, whole model / block")
    total_whole, total_block = [], []
    for name in DEVICES:
        device = find_device(name)
        errors = leave_one_out(device, samples[name])
        whole = np.concatenate([found.whole for found in errors.values()])
        block = np.concatenate([found.block for found in errors.values()])
        total_whole.append(whole)
        total_block.append(block)
        cells = [f"{found.median_whole:.1%} / {found.median_block:.1%}" for found in errors.values()]
        table.add_row(name, device.precision, *cells, _both(whole, block))
    table.add_row("all", "", *[""] * len(MODELS), _both(np.concatenate(total_whole), np.concatenate(total_block)))
    console.print(table)
    if arguments.toml:
        for name in DEVICES:
            source = SOURCE.format(device=name)
            print(f"\n[coefficients.{name}]")
            for key, value in asdict(fit_coefficients(find_device(name), samples[name], source)).items():
                print(f"{key} = {value!r}" if not isinstance(value, str) else f'{key} = "{value}"')


def read_samples(data: Path) -> dict[str, list[Sample]]:
    """Return the published timings per device, with the published blocks found in our graphs."""
    samples: dict[str, list[Sample]] = {name: [] for name in DEVICES}
    for published, (architecture, height, width) in MODELS.items():
        graph = read_graph(build_architecture(architecture, height=height, width=width))
        profile = ppipe.read_profile(data, published, DEVICES)
        nodes = [node for block in profile.blocks for node in block.layers]
        operators = [re.sub(r"_\d+$", "", node.rsplit("/", 1)[-1]) for node in nodes]
        matched, differing = align_layers(operators, graph)
        console.print(f"{published}: {len(matched)} of {len(nodes)} layers align", highlight=False)
        for text in differing:
            console.print(f"  published {text}", highlight=False, markup=False)
        firsts = np.cumsum([0, *(len(block.layers) for block in profile.blocks[:-1])])
        starts = tuple(matched[int(first)] for first in firsts)
        for name in DEVICES:
            tables = tuple(table for table in profile.tables if table.device == name)
            samples[name].append(Sample(architecture, describe(graph), starts, tables))
    return samples


def _both(whole: np.ndarray, block: np.ndarray) -> str:
    return f"{np.median(np.abs(whole)):.1%} / {np.median(np.abs(block)):.1%}"


if __name__ == "__main__":
    main()
