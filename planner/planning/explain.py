"""Why a problem has no plan, or none that is better: least SLOs, and what one more device would be worth."""

from collections.abc import Mapping
from dataclasses import dataclass

from planner.model import InputError, Problem
from planner.planning.baselines import with_x0
from planner.planning.candidates import Candidate, batch_building_us, enumerate_candidates, fastest_candidate
from planner.planning.relaxation import overloaded, relax
from planner.planning.sizing import Sized, pipeline_of


@dataclass(frozen=True)
class LeastSlo:
    """The least SLO (µs) of a DNN that any pipeline on the cluster meets, and what it is made of."""

    dnn: str
    slo_us: float
    inference_us: int
    transfer_us: float
    batch_building_us: float
    slack_us: float
    stages: str

    def __str__(self) -> str:
        """Return the budget in one line."""
        parts = {
            "inference": self.inference_us,
            "transfer": self.transfer_us,
            "batch building": self.batch_building_us,
            "slack": self.slack_us,
        }
        budget = " + ".join(f"{name} {value / 1000:.2f} ms" for name, value in parts.items() if value)
        return f"{self.slo_us / 1000:.2f} ms = {budget}, on {self.stages}"


@dataclass(frozen=True)
class Explanation:
    """What holds a problem's objective where it is.

    ``bound`` is the linear relaxation's: no plan is better. ``worth[type]`` is the change of that bound per additional
    device of a type, 0 for types that are not scarce; it is the slope at the present counts and holds for small
    changes.
    """

    least_slo: tuple[LeastSlo, ...]
    bound: float
    worth: Mapping[str, float]


def least_slo(problem: Problem, dnn_index: int) -> LeastSlo:
    """Return the least SLO of a DNN that the cluster can meet, whatever the throughput; X0 must be known.

    Raises
    ------
    InputError
        No device of the cluster can run the DNN at all.
    """
    dnn = problem.dnns[dnn_index]
    found = fastest_candidate(problem, dnn_index, dnn.np_throughput_rps or 0.0)
    if found is None:
        raise InputError(_cannot_run(problem, dnn_index))
    candidate, total_us = found
    slo_us = total_us / (1 - problem.options.slack_fraction)
    pipeline = pipeline_of(problem, Sized(candidate, (1,) * len(candidate.devices)))
    stages = ", ".join(
        f"{stage.device}{f' 1/{stage.share}' if stage.share > 1 else ''} "
        f"blocks {stage.first_block}-{stage.last_block - 1}"
        for stage in pipeline.stages
    )
    return LeastSlo(
        dnn.name,
        slo_us,
        pipeline.inference_us,
        pipeline.transfer_us,
        batch_building_us(problem, candidate.batches[0], dnn.np_throughput_rps or 0.0),
        slo_us - total_us,
        f"{stages} at batch {candidate.batches[0]}",
    )


def _cannot_run(problem: Problem, dnn_index: int) -> str:
    dnn = problem.dnns[dnn_index]
    names = [device.name for device in problem.cluster.device_types if device.count]
    profiled = {device for variant in dnn.variants for device in variant.devices}
    if not profiled & set(names):
        return (
            f"{dnn.name} has no latencies for any device of the cluster ({', '.join(names)}); profile or estimate them"
        )
    return (
        f"{dnn.name} does not fit the memory of {', '.join(names)} at any share; "
        "allow more stages, or add a device with more memory"
    )


def unreachable(problem: Problem, dnn_index: int) -> InputError:
    """Return the error that tells why no candidate of a DNN meets its SLO; X0 must be known."""
    dnn = problem.dnns[dnn_index]
    try:
        least = least_slo(problem, dnn_index)
    except InputError as error:
        return error
    stages = problem.options.max_stages
    return InputError(
        f"{dnn.name}: no pipeline of at most {stages} stage{'s' if stages > 1 else ''} meets its SLO of "
        f"{dnn.slo_us / 1000:.2f} ms; the least that this cluster can meet is {least}; "
        "raise the SLO, lower slack_fraction, or add faster devices"
    )


def explain(problem: Problem) -> Explanation:
    """Return the least SLO of every DNN, the relaxation's bound and what one more device of each type is worth.

    Raises
    ------
    InputError
        A DNN cannot run, or meet its SLO, on the cluster, or the rates asked for cannot be served.

    Examples
    --------
    One L4 serves 250 requests/s in batches of 2, and needs 8 ms of the 12 ms that slack leaves of the SLO:

    >>> from planner.model import *
    >>> table = LatencyTable("L4", 1, (1, 2), ((6000,), (8000,)), Provenance("measured", "by hand"))
    >>> profile = Profile("toy", (Block(("a",)),), (), (table,))
    >>> problem = Problem(Cluster((DeviceType("L4", 4),), Network(10)), (Dnn("toy", 20_000, (profile,)),))
    >>> explained = explain(problem)
    >>> print(explained.least_slo[0])
    10.00 ms = inference 6.00 ms + slack 4.00 ms, on L4 blocks 0-0 at batch 1
    >>> explained.bound, dict(explained.worth)
    (1000.0, {'L4': 250.0})
    """
    problem = with_x0(problem)
    least = tuple(least_slo(problem, number) for number in range(len(problem.dnns)))
    candidates: list[Candidate] = []
    for number, dnn in enumerate(problem.dnns):
        found = enumerate_candidates(problem, number, dnn.np_throughput_rps or 0.0)
        if not found:
            raise unreachable(problem, number)
        candidates += found
    relaxation = relax(problem, candidates)
    if relaxation.status == "infeasible":
        raise overloaded(problem, candidates)
    names = [device.name for device in problem.cluster.device_types]
    return Explanation(least, relaxation.bound, dict(zip(names, relaxation.worth.tolist(), strict=True)))
