"""Rules of the engine with worker processes and small ONNX models: shared pools, merged stages, chains of tasks."""

import os
import signal
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import onnx_ir as ir
import pytest
from onnx import numpy_helper, parser

from planner.model import (
    Cluster,
    DeviceType,
    Dnn,
    InputError,
    LatencyTable,
    Options,
    Pipeline,
    Plan,
    Problem,
    Provenance,
    Stage,
)
from planner.model import Network as NetworkOf
from planner.profiling import blank_profile, prepare_model, with_tables
from simulator.adaptation.service import ServedTask, Service, Variant, running
from simulator.dispatch.decisions import FINISHED, OPEN
from simulator.engine.network import Change
from simulator.engine.running import Observation
from simulator.engine.views import network_records
from simulator.executor import Emulation, Settings
from simulator.executor.networks import staff
from simulator.executor.networks.services import execute_service
from simulator.executor.networks.together import Together, execute_together
from simulator.results.records import Visits

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


def pooled(models: dict[str, ir.Model]) -> tuple[Problem, Plan]:
    """Two DNNs whose first two layers are one pool of two slices; a head each."""
    dnns, pipelines = [], []
    for name, model in models.items():
        graph = prepare_model(model, name).graph
        table = LatencyTable("core", 1, (4,), ((1_000,) * len(graph.layers),), Provenance("estimated", "by hand"))
        dnns.append(Dnn(name, 3_000_000, (with_tables(blank_profile(graph, range(len(graph.layers))), [table]),)))
        stages = (
            Stage(0, 2, "core", 1, 2, 4, 2_000, 0, 1.0, pool="trunk"),
            Stage(2, len(graph.layers), "core", 1, 1, 4, 1_000, 0, 1.0),
        )
        pipelines.append(Pipeline(name, name, 1.0, 0.0, 0.0, stages))
    problem = Problem(Cluster((DeviceType("core", 4, "cpu"),), NetworkOf(100.0)), tuple(dnns), Options())
    plan = Plan("pipelines", "max_min_throughput", "optimal", 1.0, 1.0, "", "none", 0.0, "", {}, tuple(pipelines))
    return problem, plan


def run_pooled(policy: str, models: dict[str, ir.Model], gap_us: int = 4_000) -> Together:
    problem, plan = pooled(models)
    arrivals_us = {name: np.arange(60) * gap_us + 500 * d for d, name in enumerate(models)}
    settings = Settings(policy, verify=True, oversubscribe=True, emulation=Emulation(slowdown={"core": 2}))
    return execute_together(problem, plan, models, arrivals_us, settings)


@pytest.mark.parametrize("policy", ["latest-start", "reservation", "reactive"])
def test_a_merged_trunk_is_one_pool_for_two_models(policy: str) -> None:
    models = {"a": trunk_and_head(2), "b": trunk_and_head(3, prefix="other_")}
    run = run_pooled(policy, models)
    assert len(run.execution.run.network.servers) == 4  # the trunk's two, and one of each head
    for name, records in run.records.items():
        assert records.finished.all()
        assert (run.verdicts[name].compared, run.verdicts[name].wrong) == (60, 0)
    if policy == "latest-start":  # requests of both models in one batch
        records = network_records(run.execution.run.state)
        first = [set(records.request_class[records.visit[:, 0] == v].tolist()) for v in np.unique(records.visit[:, 0])]
        assert {0, 1} in first
    else:  # a slice serves one batch at a time, of whatever model
        assert_one_at_a_time([records.visits[0] for records in run.records.values()])


def test_batches_wait_where_there_are_too_few_crates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staff, "MOST_UNDER_WAY", 1)  # so that there are as many as can be served at once
    run = run_pooled("latest-start", {"a": trunk_and_head(2), "b": trunk_and_head(3)}, gap_us=300)
    assert all(records.finished.all() for records in run.records.values())
    assert not any(verdict.wrong for verdict in run.verdicts.values())


def assert_one_at_a_time(stages: Sequence[Visits]) -> None:
    for w in range(2):
        spans = sorted(
            (start_us, end_us)
            for visits in stages
            for start_us, end_us in zip(
                visits.start_us[visits.slice == w].tolist(), visits.end_us[visits.slice == w].tolist(), strict=True
            )
        )
        assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_pools_of_unlike_blocks_are_refused_where_batches_mix_and_served_apart_where_not() -> None:
    models = {"a": trunk_and_head(2), "b": trunk_and_head(3, trunk=4)}
    with pytest.raises(InputError, match="layers 1 to 2 of a and 1 to 2 of b are not one copy"):
        run_pooled("latest-start", models)
    run = run_pooled("reservation", models)
    assert not any(verdict.wrong for verdict in run.verdicts.values())


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
    first, second = (running(0, 2, 1), running(0, 2, 1)), (running(1, 2, 1), running(0, 2, 1))
    asked: list[Observation] = []

    def adapt(seen: Observation) -> Sequence[Change] | None:
        asked.append(seen)
        if seen.busy[1] > 0 and asked[-2].busy[1] > 0:  # the new replica has come into use: it is enough
            os.kill(os.getpid(), signal.SIGINT)
        return service.changes(first, second, seen.now_us, [seen.now_us] * 2) if len(asked) == 2 else None

    arrivals_us = np.arange(50_000) * 6_000  # longer than a replica takes to load
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
    assert cold.ready_us - cold.asked_us > 50_000
    own = run.records.station == 0
    assert (run.records.kind[own & (run.records.reach_us < cold.ready_us)] == 0).all()
    assert (run.records.kind[own & (run.records.reach_us > cold.ready_us)] == 1).all()


def test_variants_that_make_other_tensors_are_refused() -> None:
    service, models = tasks()
    models["large"] = model_of(
        f"m (float[n, {WIDTH}] z) => (float[n, 4] out) {{ out = MatMul(z, w) }}", w=weights(5)[:, :4]
    )
    setting = (running(0, 1, 1), running(0, 1, 1))
    with pytest.raises(InputError, match=r"step 0: kind 1 makes 'out' .*variants of a task must make the same"):
        execute_service(service, setting, models, np.zeros(1, np.int64), Settings())
    models["large"] = models["small"]
    models["names"] = model_of("m (float[n, 3] found) => (float[n, 3] y) { y = Tanh(found) }")
    with pytest.raises(InputError, match=r"step 1: kind 0 reads 'found' .*what comes there is"):
        execute_service(service, setting, models, np.zeros(1, np.int64), Settings())
