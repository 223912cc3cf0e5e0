import onnx_ir as ir

from planner.cli.profile_model import cut_blocks, profile_model
from planner.profiling import DeviceAtHand, Effort, block_starts, build_architecture, find_device, read_graph


def test_one_call_measures_estimates_and_returns_the_model_to_run():
    pinned = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> small (float[1, 3, 16, 16] x) => (float[1, 3, 16, 16] y)'
        " { a = Relu(x) b = Tanh(a) c = Exp(b) y = Add(c, a) }"
    )
    found = profile_model(
        pinned,
        "small",
        at_hand=[DeviceAtHand("here")],
        estimated=[find_device("V100"), find_device("RaspberryPi5")],
        batches=(1, 3),
        shares=(1, 2),
        blocks=2,
        effort=Effort(min_repeats=2, max_repeats=2),
    )
    keys = [(table.device, table.share, table.provenance.kind) for table in found.profile.tables]
    assert keys == [
        ("V100", 1, "estimated"),
        ("V100", 2, "estimated"),
        ("RaspberryPi5", 1, "estimated"),
        ("RaspberryPi5", 2, "estimated"),
        ("here", 1, "measured"),
    ]
    assert len(found.profile.blocks) == 2
    assert found.model is pinned
    assert str(found.graph.model.graph.inputs[0].shape) == "[batch,3,16,16]"
    assert block_starts(found.graph, found.profile)[0] == 0


def test_ten_blocks_share_the_work_on_every_device():
    devices = [find_device(name) for name in ("V100", "P4", "RaspberryPi4")]
    profile = profile_model(build_architecture("resnet18"), "resnet18", estimated=devices, shares=(1,)).profile
    assert len(profile.blocks) == 10
    for table in profile.tables:
        block_us = table.latency_us[0]
        assert max(block_us) <= 0.4 * sum(block_us)
        assert min(block_us) >= 0.02 * sum(block_us)


def test_blocks_part_no_layers_that_runtimes_fuse_where_other_cuts_are_as_small():
    """ResNet-18 has a rectifier behind nearly every convolution, and cuts of equal size on either side of it."""
    graph = read_graph(build_architecture("resnet18"))
    starts = cut_blocks(graph, [], [find_device("RaspberryPi4")], blocks=10)
    sizes = graph.cut_bytes
    assert len(starts) == 10
    parted = [start for start in starts[1:] if graph.layers[start].operator == "Relu"]
    assert not [start for start in parted if sizes[start] == sizes[start - 1]]  # elsewhere a cut behind it is larger
