"""Small problems and plans with answers that can be worked out by hand."""

from collections.abc import Callable

import pytest

from planner.model import (
    Block,
    Cluster,
    DeviceType,
    Dnn,
    LatencyTable,
    Network,
    Options,
    Pipeline,
    Plan,
    Problem,
    Profile,
    Provenance,
    Stage,
    digest,
)

Serving = tuple[Problem, Plan]
BY_HAND = Provenance("estimated", "by hand")


@pytest.fixture(scope="session")
def one_stage() -> Callable[..., Serving]:
    """Return slices of one type that take 10 ms for one request and 15 ms for two: at most n · 2 / 15 ms requests/s."""

    def make(slices: int = 2, first_us: int = 10_000, slo_us: int = 40_000, scheduler: str = "np") -> Serving:
        table = LatencyTable("A", 1, (1, 2), ((first_us,), (first_us + 5_000,)), BY_HAND)
        profile = Profile("net", (Block(("layer",)),), (), (table,))
        cluster = Cluster((DeviceType("A", slices, price_per_hour=1.0),), Network(10.0))
        problem = Problem(cluster, (Dnn("net", float(slo_us), (profile,)),), Options(slack_fraction=0.4))
        rps = slices * 2 / (first_us + 5_000) * 1e6
        stage = Stage(0, 1, "A", 1, slices, 2, first_us + 5_000, 0.0, rps)
        return problem, _plan(problem, (Pipeline("net", "net", rps, 0.0, 0.0, (stage,)),), rps, scheduler)

    return make


@pytest.fixture(scope="session")
def two_stages() -> Serving:
    """Return two DNNs: one on halves of 2 GPUs and then on 4 CPUs, batch 2; the other on 2 whole GPUs, batch 1.

    Both have 4 blocks of 2 ms a request on a whole GPU, twice as slow on a half, five times as slow on a CPU;
    125,000 bytes cross each cut: 0.1 ms a request at 10 Gbit/s.
    """
    tables = tuple(
        LatencyTable(device, share, (1, 2), tuple((batch * 2_000 * slower,) * 4 for batch in (1, 2)), BY_HAND)
        for device, share, slower in (("GPU", 1, 1), ("GPU", 2, 2), ("CPU", 1, 5))
    )
    profile = Profile("net", tuple(Block((f"layer{i}",)) for i in range(4)), (125_000,) * 3, tables)
    cluster = Cluster(
        (DeviceType("GPU", 4, shares=(1, 2), price_per_hour=1.0), DeviceType("CPU", 4, kind="cpu", price_per_hour=0.1)),
        Network(10.0),
    )
    dnns = (Dnn("first", 120_000.0, (profile,)), Dnn("second", 60_000.0, (profile,), weight=2.0))
    problem = Problem(cluster, dnns)
    gpu = Stage(0, 3, "GPU", 2, 4, 2, 24_000, 200.0, 4 * 2 / 0.024)
    cpu = Stage(3, 4, "CPU", 1, 4, 2, 20_000, 0.0, 4 * 2 / 0.020)
    whole = Stage(0, 4, "GPU", 1, 2, 1, 8_000, 0.0, 250.0)
    pipelines = (
        Pipeline("first", "net", 4 * 2 / 0.024, 4_000.0, 48_000.0, (gpu, cpu)),
        Pipeline("second", "net", 250.0, 0.0, 24_000.0, (whole,)),
    )
    return problem, _plan(problem, pipelines, 125.0, "pipelines")


def _plan(problem: Problem, pipelines: tuple[Pipeline, ...], value: float, scheduler: str) -> Plan:
    return Plan(
        scheduler=scheduler,  # type: ignore[arg-type]
        objective="max_min_throughput",
        status="optimal",
        value=value,
        bound=value,
        method="by hand",
        backend="none",
        seconds=0.0,
        problem_sha256=digest(problem),
        profile_sha256={f"{dnn.name}/{v.name}": digest(v) for dnn in problem.dnns for v in dnn.variants},
        pipelines=pipelines,
    )
