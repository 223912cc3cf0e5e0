"""What is printed of problems, profiles and plans can be read: a line for whatever one looks for, no name cut."""

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
    TaskFlow,
    TaskPlan,
    TaskService,
)

LONG = "efficientnet-b8_3rdparty_8xb32-aa-advprop_in1k-on-a-device-that-has-a-long-name-too"


def profile() -> Profile:
    how = Provenance("estimated", "by hand")
    tables = (
        LatencyTable("GPU", 2, (1, 2), ((2000, 3000), (4000, 6000)), how),
        LatencyTable("CPU", 1, (1,), ((9, 1),), how),
    )
    return Profile("net", (Block(("a",)), Block(("b",))), (1000,), tables)


def plan() -> Plan:
    stages = (
        Stage(0, 1, "GPU", 2, 8, 2, 4000, 200.0, 4000.0),
        Stage(1, 2, "CPU", 1, 3, 2, 9000, 0.0, 666.0),
    )
    pipelines = (
        Pipeline("first", "net", 500.0, 1000.0, 5800.0, stages),
        Pipeline("first", "first", 20.0, 0.0, 1000.0, stages[:1]),
        Pipeline(LONG, LONG, 250.0, 0.0, 4000.0, stages[:1]),
    )
    made = Plan("pipelines", "max_min_throughput", "feasible", 250.0, 255.0, "milp", "highs", 1.0, "", {}, pipelines)
    return made


def test_a_plan_says_what_it_is_worth_and_what_serves_whom():
    assert str(plan()).splitlines() == [
        "pipelines: objective 250.000 requests/s per weight, at most 255.000 possible (gap 2.0e-02, feasible)",
        "first: 520.00 requests/s",
        "  net, batch 2, within 20.00 ms, 500.00 requests/s: 8 × 1/2 GPU block 0 → 3 × CPU block 1",
        "  batch 2, within 5.20 ms, 20.00 requests/s: 8 × 1/2 GPU block 0",
        f"{LONG}: 250.00 requests/s",
        "  batch 2, within 8.20 ms, 250.00 requests/s: 8 × 1/2 GPU block 0",
    ]


def test_a_problem_says_what_there_is_and_what_is_served():
    cluster = Cluster((DeviceType("GPU", 4, shares=(1, 2)), DeviceType("CPU", 3)), Network(10.0))
    dnns = Dnn("first", 20_000, (profile(),)), Dnn(LONG, 60_500, (profile(),), weight=2.0, rate_rps=40.0)
    assert str(Problem(cluster, dnns, Options(objective="fewest_devices"))).splitlines() == [
        "2 to serve on 4 GPU + 3 CPU: fewest_devices",
        "first: SLO 20 ms, weight 1, net in 2 blocks",
        f"{LONG}: SLO 60.5 ms, weight 2, 40 requests/s, net in 2 blocks",
    ]


def test_a_profile_says_what_the_whole_model_takes():
    assert str(profile()).splitlines() == [
        "net: 2 blocks",
        "  GPU 1/2, estimated: 5.00 ms at batch 1, 10.00 ms at batch 2",
        "  CPU, estimated: 0.01 ms at batch 1",
    ]


def test_a_plan_task_by_task_says_what_serves_each_task():
    service = TaskService("photos", "find", "yolo", "GPU", 2, 4, 3, 40.0, 20.0, 25_000.0)
    made = TaskPlan(
        objective="most_accurate",
        status="optimal",
        value=56.0,
        bound=56.0,
        latency_rule="worst",
        services=(service,),
        flows=(TaskFlow("photos", ("yolo",), 40.0),),
        latency_us={"photos": 25_000.0},
        accuracy={"photos": 56.0},
        devices={"GPU": 2},
        cost_per_hour=None,
        backend="highs",
        seconds=0.1,
        gap_asked=1e-6,
        problem_sha256="",
        profile_sha256={},
        versions={},
    )
    assert str(made).splitlines() == [
        "per-task: objective 56.000 % accurate, at most 56.000 possible (gap 0.0e+00, optimal)",
        "photos: 40.00 requests/s within 25.00 ms (worst), 56.00 % accurate",
        "  find, yolo: batch 4, within 25.00 ms, 40.00 requests/s: 3 × 1/2 GPU",
    ]
