"""Whole tasks: plans of applications whose pipelines are cut between tasks only.

Their programme is small, as every task is one block. It holds every plan task by task that is a pipeline as well (one
configuration per task, in one batch size), so that end to end is no worse than these from the start on.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from planner.model import Application, Block, InputError, Problem, Profile
from planner.model.applications import choice_name
from planner.planning.pipelines.candidates import enumerate_candidates
from planner.planning.pipelines.sizing import Report, Sizing
from planner.planning.pipelines.terrain import planned_batches
from planner.planning.programme import milp
from planner.planning.programme.backends import Clock, Limits

log = logging.getLogger(__name__)

Seams = tuple[int, ...]  # the blocks at which tasks begin, and the end
SHARE, SECONDS = 0.4, 4.0  # of a limited time: this share, but no more than that


def better_by_whole_tasks(
    problem: Problem, applications: Sequence[Application], backend: str, clock: Clock, offer: Report
) -> None:
    """Offer the plan of whole tasks, to begin with.

    Where time is not limited, or there are no applications, none is made: all plans are compared anyway.
    """
    limit_s = clock.remaining().time_limit_s
    if limit_s is None or not applications:
        return
    try:
        limits = clock.at_most(min(SHARE * limit_s, SECONDS)).remaining()
        offer(size_whole_tasks(problem, applications, backend, limits))
    except InputError as error:
        log.info("no plan of whole tasks: %s", error)


def size_whole_tasks(problem: Problem, applications: Sequence[Application], backend: str, limits: Limits) -> Sizing:
    """Return the best plan whose stages are whole tasks; models of one task are not cut. X0 must be known.

    Parameters
    ----------
    problem
        As it is planned (`Problem.planned`): its applications are DNNs of virtual models.
    applications
        What these were made of.

    Raises
    ------
    InputError
        No such plan serves all, or none was found in the time given.

    Examples
    --------
    Two tasks of two blocks; one device of each type is fast at one task only:

    >>> from planner.model import *
    >>> def model(name: str, **us: int) -> Profile:
    ...     known = Provenance("measured", "by hand")
    ...     tables = tuple(LatencyTable(device, 1, (1,), ((each, each),), known) for device, each in us.items())
    ...     return Profile(name, (Block(("a",)), Block(("b",))), (10,), tables, input_bytes=10)
    >>> tasks = Task("find", (model("find", A=1000, B=9000),)), Task("name", (model("name", A=9000, B=1000),))
    >>> application = Application("photos", 90_000, tasks, rate_rps=400.0, np_throughput_rps=400.0)
    >>> cluster = Cluster((DeviceType("A", 1), DeviceType("B", 1)), Network(10))
    >>> problem = Problem(cluster, (), Options("fewest_devices"), (application,))
    >>> size_whole_tasks(problem.planned, (application,), "highs", Limits()).candidates[0].cuts
    (0, 2, 4)
    """
    seams = [_seams_of(dnn.name, dnn.variants, applications) for dnn in problem.dnns]
    dnns = tuple(
        replace(dnn, variants=tuple(_joined(*pair) for pair in zip(dnn.variants, own, strict=True)))
        for dnn, own in zip(problem.dnns, seams, strict=True)
    )
    coarse = replace(problem, dnns=dnns, merged=())
    candidates = [
        candidate
        for number, dnn in enumerate(coarse.dnns)
        for candidate in enumerate_candidates(coarse, number, dnn.np_throughput_rps or 0.0)
    ]
    found = milp.size(coarse, candidates, backend, limits)
    pipelines = tuple(
        replace(sized, candidate=replace(one, cuts=tuple(seams[one.dnn][one.variant][cut] for cut in one.cuts)))
        for sized in found.pipelines
        for one in [sized.candidate]
    )
    return replace(found, pipelines=pipelines)


def _seams_of(name: str, variants: Sequence[Profile], applications: Sequence[Application]) -> list[Seams]:
    """Return where the tasks of each variant of a DNN begin, and its end."""
    known: Mapping[str, Seams] = {
        choice_name(choice): (0, *accumulate(len(profile.blocks) for profile in choice))
        for one in applications
        if one.name == name
        for choice in one.choices()
    }
    return [known.get(variant.name, (0, len(variant.blocks))) for variant in variants]


def _joined(profile: Profile, seams: Seams) -> Profile:
    """Return a profile with a block per task, and the same latencies and memory at every batch size of plans."""
    parts = [profile.blocks[first:last] for first, last in pairwise(seams)]
    blocks = tuple(
        Block(
            tuple(layer for block in part for layer in block.layers),
            sum(block.parameter_bytes for block in part),
            max(block.activation_bytes for block in part),
        )
        for part in parts
    )
    tables = []
    for table in profile.tables:
        batches = tuple(batch for batch in planned_batches(profile) if batch <= table.batches[-1])
        rows = [table.block_latency_us(batch) for batch in batches]
        sums = tuple(tuple(sum(row[first:last]) for first, last in pairwise(seams)) for row in rows)
        tables.append(replace(table, batches=batches, latency_us=sums, spread=None, peak_memory_bytes=None))
    cut_bytes = tuple(profile.cut_bytes[seam - 1] for seam in seams[1:-1])
    return replace(profile, blocks=blocks, cut_bytes=cut_bytes, tables=tuple(tables), bounds=())
