from dataclasses import replace

import numpy as np
import pytest

from planner.model import LatencyTable, Provenance
from planner.profiling import build_architecture, find_device, read_graph
from planner.profiling.calibration import (
    PRIORS,
    Sample,
    align_layers,
    estimation_errors,
    fit_coefficients,
    leave_one_out,
)
from planner.profiling.roofline import describe, estimate_workload


def made_sample(name, device, factor=1.0):
    """A sample whose latencies are the device's own estimates, times a factor."""
    graph = read_graph(build_architecture(name, height=128, width=128))
    workload = describe(graph)
    starts = tuple(range(0, len(graph.layers), len(graph.layers) // 5))
    tables = []
    for share in (1, 2):
        rows = [np.add.reduceat(estimate_workload(workload, device, batch, share), list(starts)) for batch in (1, 2, 8)]
        latencies_us = tuple(tuple(round(value * factor) for value in row) for row in rows)
        tables.append(LatencyTable(device.name, share, (1, 2, 8), latencies_us, Provenance("measured", "made")))
    return Sample(name, workload, starts, tuple(tables))


@pytest.fixture(scope="module")
def device():
    return find_device("P4")


def test_made_latencies_are_found_again(device):
    """Timings made by P4's coefficients, shown to a device that starts at the priors."""
    samples = [made_sample(name, device) for name in ("resnet18", "mobilenet_v2", "repvgg_b3")]
    fitted = replace(device, coefficients=fit_coefficients(device, samples, "made"))
    errors = estimation_errors(fitted, samples)
    assert errors.median_whole < 0.05
    assert errors.median_block < 0.1
    prior = replace(device.coefficients, **{name: value for name, (value, _) in PRIORS.items()})
    assert estimation_errors(replace(device, coefficients=prior), samples).median_whole > errors.median_whole


def test_what_no_sample_shows_stays_at_its_prior(device):
    fitted = fit_coefficients(device, [made_sample("repvgg_b3", device)], "made")
    assert fitted.grouped_efficiency == pytest.approx(PRIORS["grouped_efficiency"][0], rel=1e-3)
    assert fitted.depthwise_efficiency == pytest.approx(PRIORS["depthwise_efficiency"][0], rel=1e-3)


def test_a_model_is_judged_by_coefficients_that_never_saw_it(device):
    """One of two models runs three times slower than it should: fitted to the other, it is off by two thirds."""
    errors = leave_one_out(device, [made_sample("resnet18", device), made_sample("resnet50", device, factor=3.0)])
    assert np.median(errors["resnet50"].whole) == pytest.approx(-2 / 3, abs=0.1)
    assert np.median(errors["resnet18"].whole) > 1.0


def test_layers_align_by_operator_and_order():
    graph = read_graph(build_architecture("repvgg_b3", height=64, width=64))
    published = [layer.operator for layer in graph.layers]
    at = published.index("Flatten")
    published[at : at + 1] = ["Shape", "Gather", "Reshape"]
    matched, differing = align_layers(published, graph)
    assert matched[0] == 0
    assert matched[at + 3] == at + 1
    assert differing == ["['Shape', 'Gather', 'Reshape'] against ['Flatten']"]
