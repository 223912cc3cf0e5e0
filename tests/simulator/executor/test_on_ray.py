"""Runs on a Ray cluster of two nodes, both on this machine."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from crossing import execute_cuts, model_of

from planner.model import InputError
from planner.profiling import prepare_model
from simulator.executor import Emulation, Settings, execute, on_ray
from simulator.executor.fleet import Equipment, SliceId
from simulator.executor.measure import measure
from simulator.executor.on_ray import RayFleet, SliceActor

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own, of every kind


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[object]:
    ray = pytest.importorskip("ray", reason="Ray is not installed (pip install poolpipe[ray])")
    from ray.cluster_utils import Cluster

    with (
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder,  # sockets: a short path
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("TMPDIR", folder)  # of this process and of all that Ray starts
        patch.setattr(tempfile, "tempdir", None)
        own = Path(folder) / "ray"  # where Ray's tools look by themselves
        own.mkdir()
        head = {"num_cpus": 1, "resources": {"core": 1}, "temp_dir": str(own)}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        cluster.add_node(num_cpus=1, resources={"core": 1}, temp_dir=str(own))
        ray.init(address=cluster.address, log_to_driver=False)
        yield ray
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(autouse=True)
def nothing_left(two_nodes) -> Iterator[None]:
    """A run leaves no file behind, on no node (all are this machine)."""
    yield
    assert not list(Path(tempfile.gettempdir()).glob("poolpipe-*"))


def test_a_plan_runs_on_two_nodes_and_answers_are_right(two_nodes, make_case) -> None:
    case = make_case(batch=2, slo_us=300_000_000)
    nodes: set[str] = set()

    run = execute(
        case.problem,
        case.plan,
        case.dnn,
        case.models,
        np.arange(100, dtype=np.int64) * 15_000,
        Settings(cluster="ray", verify=True),
        tick=lambda now_us: nodes.update(actor["NodeID"] for actor in _actors(two_nodes)) if not nodes else None,
    )
    assert run.records.finished.all()
    assert run.verdict is not None
    assert (run.verdict.compared, run.verdict.wrong) == (100, 0)
    assert len(nodes) == 2  # one slice a node: each offers one device
    measurement = measure(run)
    assert measurement.little.error < 0.05
    assert all(each.memory_bytes > 0 for each in measurement.slices)
    assert [hop.bytes_per_request >= 64 for hop in measurement.hops] == [True] * 3
    # Clocks were put on one: what a stage makes is not there before the stage began with it.
    for visits in run.records.visits:
        assert (visits.end_us >= visits.start_us).all()
    assert (run.records.visits[1].start_us >= run.records.visits[0].start_us).all()


def test_tensors_of_every_kind_travel_through_the_object_store(two_nodes) -> None:
    model = model_of("the batch in the middle")
    found = execute_cuts(model, prepare_model(model, "m").graph, [2], batch=3, cluster="ray")
    assert found.records.finished.all()
    assert found.verdict is not None
    assert (found.verdict.compared, found.verdict.wrong) == (24, 0)


def test_clocks_that_are_hours_apart_are_put_on_one(two_nodes, make_case, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(batch=1, slo_us=300_000_000)

    def fast_clock() -> type[SliceActor]:
        class FastClock(SliceActor):  # defined here, so that Ray sends it instead of a name that nodes cannot import
            def clock_ns(self) -> int:
                return super().clock_ns() + 3_600_000_000_000

        return FastClock

    monkeypatch.setattr(on_ray, "SliceActor", fast_clock())
    arrivals_us = np.arange(60, dtype=np.int64) * 15_000
    run = execute(case.problem, case.plan, case.dnn, case.models, arrivals_us, Settings(cluster="ray"))
    assert run.records.finished.all()
    for batch in run.journal.batches:
        times_us = [batch.sent_us]
        for visit in batch.visits:
            times_us += [visit.start_us, visit.computed_us]
        assert batch.answered_us is not None
        times_us.append(batch.answered_us)
        # In order but for the error of the estimate, half a round trip: milliseconds, or many where much else runs.
        assert (np.diff(times_us) > -1_000_000).all()


def test_an_actor_that_dies_comes_back(two_nodes, make_case) -> None:
    case = make_case(batch=1, slo_us=300_000_000)
    fleets: list[RayFleet] = []
    killed: list[int] = []

    def make(equipment: Equipment) -> RayFleet:
        fleets.append(RayFleet(equipment))
        return fleets[0]

    def kill(now_us: int) -> None:
        if now_us > 300_000 and not killed:
            killed.append(now_us)
            two_nodes.kill(fleets[0].actor(SliceId(0, 1, 0)), no_restart=True)

    run = execute(
        case.problem,
        case.plan,
        case.dnn,
        case.models,
        np.arange(60, dtype=np.int64) * 15_000,
        Settings(cluster="ray", emulation=Emulation(slowdown={"core": 20})),
        make_fleet=make,
        tick=kill,
    )
    what = [incident.what for incident in run.journal.incidents]
    assert any(text.startswith("down") for text in what)
    assert "up again" in what
    assert run.records.finished.all()


def test_a_cluster_without_the_plans_devices_is_refused(two_nodes, make_case) -> None:
    case = make_case(slices=(2, 1))
    with pytest.raises(InputError, match="offers 2 of resource 'core', the plan needs 3"):
        execute(case.problem, case.plan, case.dnn, case.models, np.zeros(1, np.int64), Settings(cluster="ray"))
    assert not _actors(two_nodes)


def _actors(ray) -> list[dict[str, str]]:
    """Return the actors that are alive."""
    from ray._private.state import actors

    return [{"NodeID": info["Address"]["NodeID"]} for info in actors().values() if info["State"] == "ALIVE"]
