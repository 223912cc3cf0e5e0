"""Fit the roofline's coefficients to PPipe's published block timings, or to measured profiles; print how far it is off.

For each device: the error on every model of coefficients fitted to the other models (leave one out), then the
coefficients fitted to all, as they stand in planner/profiling/catalogue.toml.
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.table import Table

from planner.cli.app import console
from planner.files import load_profile, ppipe, write_text
from planner.model import InputError
from planner.profiling import Coefficients, block_starts, build_architecture, find_device, read_graph
from planner.profiling.calibration import Errors, Sample, align_layers, fit_coefficients, leave_one_out
from planner.profiling.roofline import describe

# published name: (architecture, height, width), the sizes as in the published shapes
MODELS = {
    "googlenet-v3-pytorch": ("inception_v3", 598, 598),
    "wide_resnet101_2": ("wide_resnet101_2", 518, 518),
    "repvgg-b3": ("repvgg_b3", 448, 448),
    "convnext_large": ("convnext_large", 128, 448),
}
DEVICES = ("V100", "T4", "L4", "P4")
SOURCE_MEASURED = "fitted to measured profiles of the zoo on one core of {processor} (profiles/zoo), {script}"
SOURCE = "fitted to PPipe's block timings on {device} (ATC'25) of four models, scripts/calibrate_roofline.py"


def main() -> None:
    """Read the timings, report the errors, print the coefficients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder laid out as PPipe's published data")
    parser.add_argument("--profiles", type=Path, nargs="*", default=[], help="measured profiles of models of the zoo")
    parser.add_argument("--measured", default="", help="the device of --profiles to fit to")
    parser.add_argument("--device", default="x86-core", help="the device of the catalogue that --profiles are of")
    parser.add_argument("--processor", default="this machine", help="what --profiles were measured on, for the source")
    parser.add_argument("--toml", action="store_true", help="print the coefficients as TOML")
    parser.add_argument("--write", type=Path, metavar="TOML", help="put the coefficients into this catalogue")
    parser.add_argument("--out", type=Path, help="CSV of the errors: device, model, median_whole, median_block")
    arguments = parser.parse_args()
    samples: dict[str, list[Sample]] = {}
    if arguments.data is not None:
        samples |= read_published(arguments.data)
    if arguments.profiles:
        samples[arguments.device] = [measured_sample(path, arguments.measured) for path in arguments.profiles]
    rows = report(samples)
    if arguments.out is not None:
        lines = ["device,model,median_whole,median_block", *(",".join(map(str, row)) for row in rows)]
        write_text(arguments.out, "\n".join(lines) + "\n")
    if not arguments.toml and arguments.write is None:
        return
    for name, of_device in samples.items():
        source = SOURCE if name in DEVICES else SOURCE_MEASURED
        source = source.format(device=name, processor=arguments.processor, script="scripts/calibrate_roofline.py")
        section = coefficients_toml(name, fit_coefficients(find_device(name), of_device, source))
        if arguments.toml:
            print(f"\n{section}", end="")
        if arguments.write is not None:
            write_text(arguments.write, with_section(arguments.write.read_text(encoding="utf-8"), section))


def report(samples: Mapping[str, Sequence[Sample]]) -> list[tuple[str, str, float, float]]:
    """Print the leave-one-out errors of each device; return them, model by model and together ("all")."""
    table = Table("device", "precision", "model", "whole", "block", title="Leave one out: median absolute errors")
    rows = []
    total = []
    for name, of_device in samples.items():
        device = find_device(name)
        errors = leave_one_out(device, of_device)
        errors["all"] = join(list(errors.values()))
        total.append(errors["all"])
        rows += [(name, model, found.median_whole, found.median_block) for model, found in errors.items()]
        for model, found in errors.items():
            table.add_row(name, device.precision, model, f"{found.median_whole:.1%}", f"{found.median_block:.1%}")
        table.add_section()
    every = join(total)
    table.add_row("all", "", "all", f"{every.median_whole:.1%}", f"{every.median_block:.1%}")
    console.print(table)
    return [*rows, ("all", "all", every.median_whole, every.median_block)]


def join(errors: Sequence[Errors]) -> Errors:
    """Return all errors together."""
    return Errors(np.concatenate([found.whole for found in errors]), np.concatenate([found.block for found in errors]))


def coefficients_toml(name: str, coefficients: Coefficients) -> str:
    """Return coefficients as they stand in the catalogue."""
    lines = [f"[coefficients.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in asdict(coefficients).items())]
    return "".join(f"{line}\n" for line in lines)


def with_section(text: str, section: str) -> str:
    """Return a catalogue with one of its sections in place of the section of the same heading; others keep comments."""
    heading = section.partition("\n")[0]
    before, found, after = text.partition(f"{heading}\n")
    if not found:
        raise InputError(f"the catalogue has no section {heading}; add one for the device first")
    rest = re.search(r"^(?=\n|\[|#)", after, re.MULTILINE)
    return before + section + (after[rest.start() :] if rest else "")


def measured_sample(path: Path, device: str) -> Sample:
    """Return what a profile of a model of the zoo says of one device."""
    profile = load_profile(path)
    graph = read_graph(build_architecture(profile.name))
    tables = tuple(table for table in profile.tables if table.device == device)
    return Sample(profile.name, describe(graph), block_starts(graph, profile), tables)


def read_published(data: Path) -> dict[str, list[Sample]]:
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


if __name__ == "__main__":
    main()
