import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from planner.profiling import build_architecture, estimate_layers, find_device, read_graph

REFERENCE = os.environ.get("POOLPIPE_REFERENCE")
SCRIPTS = Path(__file__).parents[3] / "scripts"

needs_reference = pytest.mark.skipif(REFERENCE is None, reason="POOLPIPE_REFERENCE is not set")


@needs_reference
@pytest.mark.slow
def test_estimates_of_models_left_out_are_near_the_published_timings(tmp_path):
    data, out = Path(str(REFERENCE)) / "ppipe", tmp_path / "errors.csv"
    command = [sys.executable, SCRIPTS / "calibrate_roofline.py", "--data", data, "--out", out]
    subprocess.run(command, check=True, capture_output=True)
    with out.open() as stream:
        errors = {(row["device"], row["model"]): row for row in csv.DictReader(stream)}
    assert len(errors) == 4 * 5 + 1
    assert float(errors["all", "all"]["median_whole"]) <= 0.20
    assert float(errors["all", "all"]["median_block"]) <= 0.35
    assert all(float(errors[device, "all"]["median_whole"]) <= 0.25 for device in ("V100", "T4", "L4", "P4"))


@needs_reference
def test_estimates_rank_the_splits_of_a_published_sweep_on_pi_class_devices():
    """PyTorch on the sweep's devices is some fifteen times slower than estimated, at every split alike."""
    with (Path(str(REFERENCE)) / "paretopipe" / "mobilenetv2_split_sweep.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    graph = read_graph(build_architecture("mobilenet_v2", classes=10))
    names = [layer.name for layer in graph.layers]
    latencies_s = np.array(estimate_layers(graph, find_device("RaspberryPi4"), 8, 1)) / 1e6
    ends = [
        1 + max(at for at, name in enumerate(names) if f"{name}.".startswith(f"features.{block}."))
        for block in range(19)
    ]
    estimated = np.array([8 / max(latencies_s[:end].sum(), latencies_s[end:].sum()) for end in ends])
    published = np.array([float(row["throughput_ips"]) for row in rows])
    assert np.argmax(estimated) == np.argmax(published) == 9
    ratio = estimated / published
    assert ratio.max() / ratio.min() < 1.5
    macs = np.array([layer.cost.macs for layer in graph.layers], float)
    shares = [100 * macs[:end].sum() / macs.sum() for end in ends]
    np.testing.assert_allclose(shares, [float(row["macs_in_first_part_percent"]) for row in rows], atol=0.06)
