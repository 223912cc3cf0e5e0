"""What the slices of a plan hold: weights, and activations at their batch size; a pool of several DNNs once."""

from collections.abc import Iterable

from planner.model.plan import Pipeline
from planner.model.problem import Problem


def planned_memory_bytes(problem: Problem, pipelines: Iterable[Pipeline]) -> int:
    """Return the bytes in use on all devices: of every slice, what `Profile.memory_bytes` says of its stage.

    Examples
    --------
    Two slices of 100 bytes of weights, and batches of 4 requests with 5 bytes of activations each:

    >>> from planner.model import *
    >>> table = LatencyTable("L4", 1, (4,), ((8000,),), Provenance("measured", "by hand"))
    >>> profile = Profile("toy", (Block(("a",), 100, 5),), (), (table,))
    >>> problem = Problem(Cluster((DeviceType("L4", 2),), Network(10)), (Dnn("toy", 20_000, (profile,)),))
    >>> stage = Stage(0, 1, "L4", 1, 2, 4, 8000.0, 0.0, 1000.0)
    >>> planned_memory_bytes(problem, [Pipeline("toy", "toy", 1000.0, 0.0, 0.0, (stage,))])
    240
    """
    total = 0
    counted: set[str] = set()
    for pipeline in pipelines:
        profile = problem.dnn(pipeline.dnn).variant(pipeline.variant)
        for stage in pipeline.stages:
            if stage.pool is None or stage.pool not in counted:
                total += stage.slices * profile.memory_bytes(stage.batch, stage.first_block, stage.last_block)
            if stage.pool is not None:
                counted.add(stage.pool)
    return total
