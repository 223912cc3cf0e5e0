"""What is out of reach, and why: least SLOs, and the error for a DNN that no pipeline can serve in time."""

from dataclasses import dataclass

from planner.model import InputError, Problem
from planner.planning.pipelines.candidates import fastest_candidate
from planner.planning.pipelines.sizing import Sized, pipeline_of
from planner.planning.pipelines.terrain import batch_building_us


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
    stages = ", ".join(f"{stage.place} blocks {stage.first_block}-{stage.last_block - 1}" for stage in pipeline.stages)
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
