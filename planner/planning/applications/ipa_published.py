"""The five applications that IPA was published with (JSys 2024, section 5): variants, limits, systems.

Accuracies (percent) and base cores of the variants, SLAs, largest batches, limits of age, margins, the fixed replicas
of RIM and the fixed variants of FA2-high are as published.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from planner.model import (
    Application,
    Block,
    Cluster,
    DeviceType,
    InputError,
    LatencyTable,
    Network,
    Options,
    Problem,
    Profile,
    Provenance,
    Task,
)
from planner.planning.applications.accuracy import ranked
from planner.planning.applications.ipa import Option, Weights

# What a replica needs for a batch: (variant, cores) -> batch -> latency (s), throughput (requests/s).
Points = Mapping[tuple[str, int], Mapping[int, tuple[float, float]]]

LEVELS = (1, 2, 4, 8, 16)  # cores of a replica
SERVER_CORES = 16

PublishedSystem = Literal["IPA", "FA2-low", "FA2-high", "RIM"]
PUBLISHED_SYSTEMS: tuple[PublishedSystem, ...] = get_args(PublishedSystem)

# Accuracy (percent) and base cores of each variant.
DETECT = {"yolov5n": (45.7, 1), "yolov5s": (56.8, 1), "yolov5m": (64.1, 2), "yolov5l": (67.3, 4), "yolov5x": (68.9, 8)}
CLASSIFY = {
    "resnet18": (69.75, 1), "resnet34": (73.31, 1), "resnet50": (76.13, 1), "resnet101": (77.37, 1),
    "resnet152": (78.31, 2),
}  # fmt: skip
SPEECH = {"s2t-small": (58.72, 1), "s2t-medium": (64.88, 2), "s2t-large": (66.74, 4)}
ANSWER = {"xlm-roberta": (77.14, 1), "roberta": (82.91, 1)}
SENTIMENT = {"distilbert": (79.63, 1), "bert": (79.9, 1), "roberta": (83.03, 1), "distilbert-sst2": (91.1, 1)}
SUMMARISE = {
    "xsum-1-1": (32.26, 1), "xsum-12-1": (33.37, 2), "xsum-6-6": (35.73, 4), "xsum-12-3": (36.39, 8),
    "xsum-9-6": (36.61, 8), "xsum-12-6": (36.99, 16),
}  # fmt: skip
LANGUAGE = {"xlm-li": (99.59, 1)}
TRANSLATE = {"opus-fr": (33.1, 4), "opus-tc-big": (34.4, 8)}


@dataclass(frozen=True)
class Published:
    """An application as published.

    Attributes
    ----------
    tasks
        A mapping per task: variant -> accuracy (percent) and base cores, by accuracy.
    sla_s, batch_cap, drop_age_s
        End-to-end SLA, largest batch, age at which requests are dropped.
    latency_margin, throughput_margin, rate_margin
        What planning adds to latencies, throughputs and the predicted rate, as shares.
    rim_replicas, high
        Replicas per task of RIM, variants of FA2-high.
    weights
        Of the objective.
    """

    tasks: tuple[Mapping[str, tuple[float, int]], ...]
    sla_s: float
    batch_cap: int
    drop_age_s: float
    latency_margin: float
    throughput_margin: float
    rate_margin: float
    rim_replicas: tuple[int, ...]
    high: tuple[str, ...]
    weights: Weights


PUBLISHED = {
    "video": Published(
        (DETECT, CLASSIFY), 4.62 + 2.27, 8, 10, 0, 0, 0, (3, 3), ("yolov5s", "resnet101"), Weights(2, 1)
    ),
    "audio-qa": Published(
        (SPEECH, ANSWER), 8.34 + 0.89, 1, 20, 1, -0.5, 0.2, (20, 5), ("s2t-medium", "roberta"), Weights(10, 0.5)
    ),
    "audio-sent": Published(
        (SPEECH, SENTIMENT), 8.34 + 1.08, 1, 20, 1, -0.5, 0.2, (20, 5), ("s2t-medium", "distilbert-sst2"),
        Weights(10, 0.5),
    ),
    "sum-qa": Published(
        (SUMMARISE, ANSWER), 2.52 + 1.32, 1, 5, 0, -0.5, 0, (12, 8), ("xsum-12-6", "roberta"), Weights(10, 0.5)
    ),
    "nlp": Published(
        (LANGUAGE, TRANSLATE, SUMMARISE), 0.97 + 12.76 + 3.87, 1, 20, 0, -0.5, 0, (4, 15, 8),
        ("xlm-li", "opus-tc-big", "xsum-6-6"), Weights(10, 0.5),
    ),
}  # fmt: skip


def options_of(one: Published, points: Points, system: PublishedSystem = "IPA") -> tuple[tuple[Option, ...], ...]:
    """Return what each task may run under a system on base cores, accuracies as ranks, margins included.

    Raises
    ------
    InputError
        There are no points of a variant on its base cores.
    """
    options = []
    for number, task in enumerate(one.tasks):
        ranks = ranked({name: accuracy for name, (accuracy, _) in task.items()})
        allowed = {"FA2-low": [min(task, key=lambda name: task[name][0])], "FA2-high": [one.high[number]]}
        own: list[Option] = []
        for name in allowed.get(system, list(task)):
            cores = task[name][1]
            if (name, cores) not in points:
                raise InputError(f"no profile points of {name} on {cores} cores; measure or estimate them")
            for batch, (latency_s, rps) in sorted(points[name, cores].items()):
                if batch <= one.batch_cap:
                    latency_s, rps = latency_s * (1 + one.latency_margin), rps * (1 + one.throughput_margin)
                    own.append(Option(name, ranks[name], cores, batch, latency_s, rps))
        options.append(tuple(own))
    return tuple(options)


def on_servers(one: Published, points: Points, rate_rps: float, options: Options, servers: int = 400) -> Problem:
    """Return an application on servers of 16 cores, each replica on a share of one; a core costs 1 per hour."""
    tasks = []
    for number, task in enumerate(one.tasks):
        variants = []
        for name in task:
            tables = []
            for cores in LEVELS:
                known = sorted((batch, rps) for batch, (_, rps) in points.get((name, cores), {}).items())
                known = [(batch, rps) for batch, rps in known if batch <= one.batch_cap]
                rows = tuple((round(1e6 * batch / (rps * (1 + one.throughput_margin))),) for batch, rps in known)
                if rows:
                    sizes = tuple(batch for batch, _ in known)
                    tables.append(
                        LatencyTable("server", SERVER_CORES // cores, sizes, rows, Provenance("estimated", "study"))
                    )
            variants.append(Profile(name, (Block((name,)),), (), tuple(tables), input_bytes=100_000))
        accuracy = {name: percent for name, (percent, _) in task.items()}
        tasks.append(Task(f"task {number}", tuple(variants), accuracy))
    application = Application(
        "application", one.sla_s * 1e6, tuple(tasks), rate_rps=rate_rps, np_throughput_rps=rate_rps
    )
    server = DeviceType("server", servers, "cpu", LEVELS, price_per_hour=float(SERVER_CORES))
    return Problem(Cluster((server,), Network(10)), (), options, (application,))
