import multiprocessing
import time
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import psutil
import pytest

from planner.model import InputError
from planner.profiling import (
    DeviceAtHand,
    Effort,
    blank_profile,
    block_starts,
    build_architecture,
    extract_part,
    measure_layers,
    measure_tables,
    open_session,
    random_feeds,
    read_graph,
    with_tables,
)
from planner.profiling.timing import time_runs
from planner.profiling.workers import colocated

BRIEF = Effort(warm_up=1, min_repeats=3, max_repeats=3)


@pytest.fixture(scope="module")
def graph():
    return read_graph(
        ir.from_onnx_text(
            '<ir_version: 8, opset_import: ["" : 17]> small (float[n, 3, 64, 64] x) => (float[n, 3, 64, 64] y)'
            " { a = Relu(x) b = Tanh(a) c = Exp(b) y = Add(c, a) }"
        )
    )


def test_tables_have_a_row_per_batch_and_say_where_they_come_from(graph):
    ticks = []
    device = DeviceAtHand("here", cores=1, shares=(1,))
    (table,) = measure_tables(graph, [0, 2], device, [1, 4], BRIEF, ticks.append)
    assert (table.device, table.share, table.batches) == ("here", 1, (1, 4))
    assert all(len(row) == 2 and min(row) >= 1 for row in table.latency_us)
    assert sum(table.latency_us[1]) > sum(table.latency_us[0])  # four times the work
    assert table.provenance.kind == "measured"
    assert table.provenance.repeats == 3
    assert "onnxruntime" in table.provenance.runtime
    assert len(ticks) == 4


def test_shares_get_tables_of_their_own(graph):
    tables = measure_tables(graph, [0], DeviceAtHand("here", cores=1, shares=(1, 2)), [16], BRIEF)
    assert [table.share for table in tables] == [1, 2]
    assert "2 worker(s)" in tables[1].provenance.method


def test_neighbours_work_while_a_block_is_timed_and_rest_afterwards(graph):
    part = extract_part(graph, 0, 4).model
    feeds = random_feeds(part, 4, np.random.default_rng(0))

    def spent_s():
        return sum(sum(child.cpu_times()[:2]) for child in psutil.Process().children(recursive=True))

    with colocated(2, threads=1, cores=1, provider="CPUExecutionProvider") as neighbours:
        neighbours.load(part)
        with neighbours.busy(feeds):
            before_s = spent_s()
            deadline = time.monotonic() + 20
            while spent_s() < before_s + 0.1 and time.monotonic() < deadline:
                time.sleep(0.05)
            assert spent_s() >= before_s + 0.1
        resting_s = spent_s()
        time.sleep(0.3)
        assert spent_s() < resting_s + 0.1
    assert not multiprocessing.active_children()


def test_processor_time_tells_nothing_of_many_threads(graph):
    with pytest.raises(InputError, match="processor time tells the latency of one thread"):
        measure_tables(graph, [0], DeviceAtHand("here", shares=(1, 2)), [1], Effort(clock="cpu"))


def test_layers_are_timed_one_by_one(graph):
    times = measure_layers(graph, DeviceAtHand("here"), batch=8, repeats=5)
    assert len(times.latency_us) == 4
    assert min(times.latency_us) > 0
    assert times.latency_us[1] > times.latency_us[0]  # a hyperbolic tangent costs more than a maximum
    assert times.overhead > -1
    assert times.between < 1


def test_the_time_of_fused_layers_stands_with_one_of_them():
    layers = read_graph(build_architecture("resnet18", height=64, width=64))
    times = measure_layers(layers, DeviceAtHand("here"), repeats=3).latency_us
    convolutions = [at for at, layer in enumerate(layers.layers) if layer.operator == "Conv"]
    assert 0 < sum(time_us > 0 for time_us in times) < len(times)
    for at in convolutions:  # its own kernel, or that of the rectifier or sum behind it
        assert max(times[at : at + 4]) > 0


def test_runs_stop_at_the_cap():
    assert len(time_runs(lambda: None, Effort(min_repeats=2, max_repeats=50, cap_s=0.0, width=0.0))) == 2


def test_a_profile_finds_its_blocks_in_the_model_again(graph):
    profile = blank_profile(graph, [0, 2, 3])
    assert block_starts(graph, profile) == (0, 2, 3)
    # a (12288 floats) and b at the first cut, a and c at the second
    assert profile.cut_bytes == (2 * 49152, 2 * 49152)
    assert profile.blocks[0].layers == tuple(layer.name for layer in graph.layers[:2])


def test_a_profile_of_another_model_is_refused(graph):
    profile = blank_profile(graph, [0, 2])
    other = replace(profile, blocks=(profile.blocks[0], replace(profile.blocks[1], layers=("c",))))
    with pytest.raises(InputError, match="of another model"):
        block_starts(graph, other)


def test_measuring_again_replaces_a_table(graph):
    tables = measure_tables(graph, [0], DeviceAtHand("here"), [1], BRIEF)
    profile = with_tables(with_tables(blank_profile(graph, [0]), tables), tables)
    assert len(profile.tables) == 1


def test_more_cores_than_there_are_is_refused(graph):
    with pytest.raises(InputError, match="is to have 4096 cores; this machine offers"):
        measure_tables(graph, [0], DeviceAtHand("here", cores=4096), [1], BRIEF)


def test_a_missing_execution_provider_is_refused(graph):
    with pytest.raises(InputError, match="execution provider 'TpuExecutionProvider' is not installed"):
        open_session(graph.model, provider="TpuExecutionProvider")


def test_an_operator_that_onnxruntime_lacks_is_refused():
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17, "mine" : 1]> g (float[n, 4] x) => (float[n, 4] y) { y = mine.Odd(x) }'
    )
    with pytest.raises(InputError, match="onnxruntime cannot run 'g'"):
        open_session(model)
