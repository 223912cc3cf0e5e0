"""Hold the Raspberry Pi 4 estimates against what others measured: a split sweep in PyTorch, and two fast runtimes.

The sweep is of MobileNetV2, batch 8, on two Pi-class CPUs. It cuts the network after each of its 19 blocks; the two
parts run as a pipeline, so the slower one sets the throughput. Printed are the published and the estimated throughput,
their ratio, and how well they rank the splits.

The estimates are some fifteen times faster, at every split alike: they are what a runtime with tuned kernels reaches,
and the sweep ran PyTorch's eager mode. The second table tells the two apart: it holds the same estimates against
XNNPACK and ncnn on that board. So the factor is the published software's, not the roofline's. What in it costs how
much (unfused layers, depthwise convolutions without kernels of their own, threads, remote procedure calls between the
devices) the published figures do not tell.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from rich.table import Table

from planner.cli.app import console
from planner.profiling import ModelGraph, build_architecture, estimate_layers, find_device, read_graph

BATCH = 8

# Milliseconds of one image, all four cores at 1.5 GHz, fp32 models. XNNPACK: its README, 64 bits (41 ms with 32 bits).
# ncnn: benchmark/README.md of its repository, early 2022 (issue 3485). No measurement of onnxruntime was found.
MEASURED_MS = {
    ("mobilenet_v2", "XNNPACK"): 46.0,
    ("mobilenet_v2", "ncnn"): 72.6,
    ("alexnet", "ncnn"): 143.5,
    ("resnet18", "ncnn"): 176.2,
    ("resnet50", "ncnn"): 335.3,
    ("vgg16", "ncnn"): 873.7,
}


def main() -> None:
    """Read the sweep, estimate the same splits, print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, help="mobilenetv2_split_sweep.csv")
    parser.add_argument("--device", default="RaspberryPi4", help="device of the catalogue")
    arguments = parser.parse_args()
    with arguments.sweep.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    graph = read_graph(build_architecture("mobilenet_v2", classes=10))
    latencies_s = np.array(estimate_layers(graph, find_device(arguments.device), BATCH, 1)) / 1e6
    macs = np.array([layer.cost.macs for layer in graph.layers], float)
    table = Table("split", "MACs before: published, ours", "images/s: published", "estimated", "ratio", "slower part")
    published, estimated = [], []
    for row in rows:
        at = split_layer(graph, int(row["split_after_block"]))
        first_s, second_s = latencies_s[:at].sum(), latencies_s[at:].sum()
        published.append(float(row["throughput_ips"]))
        estimated.append(BATCH / max(first_s, second_s))
        table.add_row(
            row["split_after_block"],
            f"{row['macs_in_first_part_percent']} %, {macs[:at].sum() / macs.sum():.1%}",
            f"{published[-1]:.2f}",
            f"{estimated[-1]:.1f}",
            f"{estimated[-1] / published[-1]:.1f}",
            "first" if first_s > second_s else "second",
        )
    console.print(table)
    ranks = np.corrcoef(np.argsort(np.argsort(published)), np.argsort(np.argsort(estimated)))[0, 1]
    console.print(
        f"whole network on {arguments.device}, batch {BATCH}: estimated {latencies_s.sum():.2f} s, "
        f"published 2.96 s and 5.5 s; rank correlation of the splits {ranks:.2f}; "
        f"best split: published {1 + int(np.argmax(published))}, estimated {1 + int(np.argmax(estimated))}",
        highlight=False,
        soft_wrap=True,
    )
    giga_macs = BATCH * macs.sum() / 1e9
    peak = find_device(arguments.device).peak_gflops
    for seconds in (2.96, 5.5, latencies_s.sum()):
        reached = giga_macs / seconds
        console.print(f"{seconds:.2f} s: {reached:.2f} GMAC/s, {2 * reached / peak:.0%} of the peak", highlight=False)
    compare_runtimes(arguments.device)


def compare_runtimes(device: str) -> None:
    """Print estimates beside what other runtimes were measured to take."""
    table = Table("model", "runtime", "measured, ms", "estimated, ms", "ratio", title="one image, all cores")
    for (model, runtime), measured_ms in MEASURED_MS.items():
        graph = read_graph(build_architecture(model))
        estimated_ms = sum(estimate_layers(graph, find_device(device), 1, 1)) / 1e3
        table.add_row(model, runtime, f"{measured_ms:.0f}", f"{estimated_ms:.0f}", f"{estimated_ms / measured_ms:.2f}")
    console.print(table)


def split_layer(graph: ModelGraph, block: int) -> int:
    """Return the layer after the last one of a block, counted from 1 (``features.0`` is block 1)."""
    prefix = f"features.{block - 1}"
    return 1 + max(
        index for index, layer in enumerate(graph.layers) if layer.name == prefix or layer.name.startswith(f"{prefix}.")
    )


if __name__ == "__main__":
    main()
