"""Rules of the engine with worker processes and small ONNX models: shared pools, merged stages, chains of tasks."""

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import onnx_ir as ir
import pytest
from onnx import numpy_helper, parser

from planner.model import InputError
from simulator.adaptation.service import ServedTask, Service, Setting, Variant
from simulator.dispatch.decisions import FINISHED, OPEN
from simulator.engine.network import (
    LATEST_START,
    Change,
    Network,
    Route,
    Station,
    Step,
    servers,
)
from simulator.engine.running import Observation
from simulator.executor import Emulation, Settings
from simulator.executor.merged import execute_merged
from simulator.executor.services import execute_service
from simulator.executor.together import execute_together
from simulator.results.records import NetworkRecords

WIDTH = 8
HEAD = '<ir_version: 8, opset_import: ["" : 17]> '


def weights(seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((WIDTH, WIDTH)) / 3).astype(np.float32)


def model_of(text: str, **arrays: np.ndarray) -> ir.Model:
    proto = parser.parse_model(HEAD + text)
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return ir.from_proto(proto)


def trunk_and_head(head: int, trunk: int = 1, prefix: str = "") -> ir.Model:
    """Two layers that all have in common (called otherwise), and a head of its own."""
    names = {key: f"{prefix}{key}" for key in ("h", "k")}
    return model_of(
        f"m (float[n, {WIDTH}] x) => (float[n, {WIDTH}] y) {{ {names['h']} = MatMul(x, t) "
        f"{names['k']} = Tanh({names['h']}) y = MatMul({names['k']}, w) }}",
        t=weights(trunk),
        w=weights(head),
    )


def assert_served(records: NetworkRecords, requests: int) -> None:
    assert len(records.outcome) == requests
    assert (records.outcome == FINISHED).all()
    assert (records.start_us >= records.reach_us).all()
    assert (records.end_us > records.start_us).all()


def merged(max_batch: int = 4) -> Network:
    """A trunk for both models on two servers, and a head of each on a third, all by latest start."""
    latency_us = np.array([[0, *[2_000] * max_batch]])
    lines = {"latest_start_us": 2_000_000, "discard_us": 9_000_000}
    stations = tuple(
        Station(LATEST_START, own, latency_us, max_batch, timeout_us=3_000, epsilon_us=5_000)
        for own in ((0, 1), (2,), (2,))
    )
    routes = tuple(
        Route(name, (Step(0, (1,), **lines), Step(head, (), **lines))) for head, name in ((1, "a"), (2, "b"))
    )
    return Network(servers([0, 0, 0]), stations, routes)


def test_a_merged_trunk_serves_two_models_in_common_batches() -> None:
    models = {"a": trunk_and_head(2), "b": trunk_and_head(3, prefix="other_")}
    arrivals_us = [np.arange(60) * 4_000, np.arange(60) * 4_000 + 500]
    run = execute_merged(
        merged(), models, {"a": [0, 2], "b": [0, 2]}, arrivals_us, Settings(verify=True, oversubscribe=True)
    )
    assert_served(run.records, 120)
    for verdict in run.verdicts.values():
        assert (verdict.compared, verdict.wrong) == (60, 0)
    trunk = np.flatnonzero(run.records.station == 0)
    classes = [set(run.records.request_class[run.records.visit[:, 0] == visit].tolist()) for visit in trunk]
    assert {0, 1} in classes  # requests of both models in one batch


def test_stages_that_differ_are_not_merged() -> None:
    models = {"a": trunk_and_head(2), "b": trunk_and_head(3, trunk=4)}
    with pytest.raises(InputError, match="station 0: stage 0 of b is not stage 0 of a: their layers or weights differ"):
        execute_merged(merged(), models, {"a": [0, 2], "b": [0, 2]}, [np.zeros(1, np.int64)] * 2, Settings())
    with pytest.raises(InputError, match="a: its route has 2 steps, the model is cut into 1 stages"):
        execute_merged(merged(), models, {"a": [0], "b": [0, 2]}, [np.zeros(1, np.int64)] * 2, Settings())
    with pytest.raises(InputError, match="no model is given for 'b'"):
        execute_merged(merged(), {"a": models["a"]}, {"a": [0, 2]}, [np.zeros(1, np.int64)] * 2, Settings())


def tasks() -> tuple[Service, dict[str, ir.Model]]:
    """Two tasks; the first has a variant that is called and computes otherwise."""
    times = {1: 0.002, 2: 0.003}
    find = ServedTask("find", (Variant("small", 60.0, 1, times), Variant("large", 80.0, 1, times)))
    name = ServedTask("name", (Variant("names", 70.0, 1, times),))
    models = {
        "small": trunk_and_head(2),
        "large": model_of(
            f"m (float[n, {WIDTH}] z) => (float[n, {WIDTH}] out) {{ a = MatMul(z, w) b = Relu(a) out = MatMul(b, w) }}",
            w=weights(5),
        ),
        "names": model_of(
            f"m (float[n, {WIDTH}] found) => (float[n, {WIDTH}] y) {{ a = MatMul(found, w) y = Tanh(a) }}",
            w=weights(6),
        ),
    }
    return Service((find, name), timeout_s=0.01, placement="idle first", most_replicas=1), models


def test_variants_change_while_requests_flow_and_every_answer_is_that_of_its_own() -> None:
    service, models = tasks()
    first, second = (Setting(0, 2, 1), Setting(0, 2, 1)), (Setting(1, 2, 1), Setting(0, 2, 1))
    asked: list[Observation] = []

    def adapt(seen: Observation) -> Sequence[Change] | None:
        asked.append(seen)
        if seen.busy[1] > 0 and asked[-2].busy[1] > 0:  # the new replica has come into use: it is enough
            os.kill(os.getpid(), signal.SIGINT)
        return service.changes(first, second, seen.now_us, seen.now_us) if len(asked) == 2 else None

    arrivals_us = np.arange(10_000) * 6_000
    run = execute_service(service, first, models, arrivals_us, Settings(verify=True), adapt=adapt, every_us=300_000)
    stopped_us = run.execution.stopped_us
    assert stopped_us is not None
    came = int((arrivals_us <= stopped_us).sum())
    assert (run.records.outcome[:came] == FINISHED).all()  # nothing is lost by a change, nor by stopping
    assert (run.records.outcome[came:] == OPEN).all()
    verdicts = run.verdicts
    assert set(verdicts) == {("small", "names"), ("large", "names")}
    assert sum(verdict.compared for verdict in verdicts.values()) == came
    assert not any(verdict.wrong for verdict in verdicts.values())
    cold = run.execution.cold_starts[0]
    assert cold.ready_us is not None
    assert 50_000 < cold.ready_us - cold.asked_us < 60_000_000
    own = run.records.station == 0
    assert (run.records.kind[own & (run.records.reach_us < cold.ready_us)] == 0).all()
    assert (run.records.kind[own & (run.records.reach_us > cold.ready_us)] == 1).all()


def test_variants_that_make_other_tensors_are_refused() -> None:
    service, models = tasks()
    models["large"] = model_of(
        f"m (float[n, {WIDTH}] z) => (float[n, 4] out) {{ out = MatMul(z, w) }}", w=weights(5)[:, :4]
    )
    setting = (Setting(0, 1, 1), Setting(0, 1, 1))
    with pytest.raises(InputError, match=r"step 0: kind 1 makes 'out' .*variants of a task must make the same"):
        execute_service(service, setting, models, np.zeros(1, np.int64), Settings())
    models["large"] = models["small"]
    models["names"] = model_of("m (float[n, 3] found) => (float[n, 3] y) { y = Tanh(found) }")
    with pytest.raises(InputError, match=r"step 1: kind 0 reads 'found' .*what comes there is"):
        execute_service(service, setting, models, np.zeros(1, np.int64), Settings())


@pytest.mark.parametrize("policy", ["reservation", "reactive"])
def test_two_dnns_share_a_pool(make_case, policy: str) -> None:
    case = make_case(slices=(2, 1), batch=2, latency_us=4_000, slo_us=3_000_000)
    (tiny,) = case.problem.dnns
    other = replace(tiny, name="other")
    problem = replace(case.problem, dnns=(tiny, other))
    (pipeline,) = case.plan.pipelines
    plan = replace(case.plan, pipelines=(pipeline, replace(pipeline, dnn="other")))
    arrivals_us = {"tiny": np.arange(80) * 5_000, "other": np.arange(80) * 5_000 + 700}
    settings = Settings(policy, verify=True, oversubscribe=True, emulation=Emulation(slowdown={"core": 2}))
    run = execute_together(
        problem, plan, case.models, arrivals_us, settings, pools=[{(0, 0): "shared"}, {(0, 0): "shared"}]
    )
    assert len(run.execution.run.network.servers) == 4  # two in common, and one each
    for name, records in run.records.items():
        assert records.finished.all()
        assert (run.verdicts[name].compared, run.verdicts[name].wrong) == (80, 0)
    # A slice of the common pool serves one batch at a time, of whatever DNN.
    first = [records.visits[0] for records in run.records.values()]
    for w in range(2):
        spans = sorted(
            (start_us, end_us)
            for visits in first
            for start_us, end_us in zip(
                visits.start_us[visits.slice == w].tolist(), visits.end_us[visits.slice == w].tolist(), strict=True
            )
        )
        assert all(before[1] <= after[0] for before, after in pairwise(spans))
