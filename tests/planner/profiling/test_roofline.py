from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from planner.model import InputError
from planner.profiling import (
    CatalogueDevice,
    Coefficients,
    device_catalogue,
    estimate_layers,
    estimate_tables,
    find_device,
    read_graph,
)
from planner.profiling.roofline import fused_layers

# A device whose numbers are easy: 1 GFLOP/s is 1000 operations a µs; 1 GB/s is 1000 bytes a µs.
PLAIN = CatalogueDevice(
    name="plain",
    kind="gpu",
    precision="fp32",
    fp32_gflops=1.0,
    tf32_gflops=0.0,
    fp16_gflops=1.0,
    memory_gigabytes_per_s=1.0,
    memory_bytes=10**9,
    shares=(1, 2),
    idle_watts=1.0,
    busy_watts=2.0,
    coefficients=Coefficients(1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0, launch_us=3.0),
    sources={},
)


@pytest.fixture
def graph():
    """x [n, 10] -> MatMul with w [10, 100] -> Relu (fused) -> Exp, whose input is also an output (not fused)."""
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 10] x) => (float[n, 100] r, float[n, 100] y)'
        " <float[10, 100] w = {0}> { h = MatMul(x, w) r = Relu(h) y = Exp(r) }"
    )
    model.graph.initializers["w"].const_value = ir.tensor(np.zeros((10, 100), np.float32), name="w")
    return read_graph(model)


def test_only_layers_that_nobody_else_reads_are_fused(graph):
    assert fused_layers(graph) == {1}


def test_a_roofline_worked_by_hand(graph):
    # MatMul: 2 * 10 * 100 = 2000 operations at half of 1000 a µs: 4 µs; traffic (10 + 100) * 4 + 4000 bytes:
    # 4.44 µs, the larger; + 3. Relu: fused, reads nothing else: 0.
    # Exp: 4 operations an element: 0.4 µs; traffic 800 bytes: 0.8 µs; + 3.
    assert estimate_layers(graph, PLAIN, 1, 1) == pytest.approx((7.44, 0.0, 3.8))
    # 4 requests on half of it. MatMul: compute 16 µs, traffic 5.76: 2 * 16 + 3. Exp: 2 * 3.2 + 3.
    assert estimate_layers(graph, PLAIN, 4, 2) == pytest.approx((35.0, 0.0, 9.4))


def test_small_layers_do_not_fill_a_wide_device(graph):
    wide = replace(PLAIN, coefficients=replace(PLAIN.coefficients, saturation_elements=300.0))
    # 4 requests have 400 elements of the MatMul: 400 / (400 + 300) of the efficiency, so 16 µs become 28.
    assert estimate_layers(graph, wide, 4, 1)[0] == pytest.approx(31.0)


def test_half_precision_halves_the_traffic(graph):
    half = replace(PLAIN, precision="fp16", fp16_gflops=1000.0)
    assert estimate_layers(graph, half, 1, 1)[0] == pytest.approx(2.22 + 3)


def test_tables_are_marked_as_estimated(graph):
    tables = estimate_tables(graph, [0, 2], [PLAIN], [1, 4], shares=[1, 2, 3])
    assert [(table.device, table.share) for table in tables] == [("plain", 1), ("plain", 2)]
    assert tables[0].provenance.kind == "estimated"
    assert tables[0].latency_us[0] == (7, 4)
    assert tables[1].latency_us[1] == (35, 9)


@pytest.mark.parametrize("name", sorted(device_catalogue()))
def test_every_figure_of_the_catalogue_has_a_source(name):
    device = device_catalogue()[name]
    assert set(device.sources) >= {
        "fp32_gflops",
        "tf32_gflops",
        "fp16_gflops",
        "memory_gigabytes_per_s",
        "memory_bytes",
        "idle_watts",
        "busy_watts",
    }
    assert device.idle_watts < device.busy_watts
    assert ("mig" in device.sources) == (device.mig is not None)
    assert device.coefficients.source


def test_gpus_with_mig_can_be_divided():
    a100, t4 = device_catalogue()["A100"], device_catalogue()["T4"]
    assert a100.device_type(2).names == []
    assert "3g.20gb" in a100.device_type(2, mig=True).names
    with pytest.raises(InputError, match=r"T4 has no MIG; leave it out, or take one of \['A30', 'A100'"):
        t4.device_type(2, mig=True)


def test_the_catalogue_has_the_devices_that_are_promised():
    promised = {"V100", "T4", "L4", "P4", "A10", "A30", "A100", "H100", "H200", "JetsonOrinNano"}
    assert promised | {"RaspberryPi4", "RaspberryPi5", "x86-core"} <= set(device_catalogue())


def test_an_unknown_device_is_refused():
    with pytest.raises(InputError, match="the catalogue has no device 'V200'"):
        find_device("V200")


@pytest.mark.parametrize("name", sorted(device_catalogue()))
def test_more_requests_and_smaller_shares_never_take_less(graph, name):
    device = device_catalogue()[name]
    table = {
        share: [sum(estimate_layers(graph, device, batch, share)) for batch in (1, 2, 4, 8)] for share in device.shares
    }
    assert all(row == sorted(row) for row in table.values())
    assert all(
        table[low][i] <= table[high][i] + 1e-9
        for low in device.shares for high in device.shares if low < high for i in range(4)
    )  # fmt: skip
