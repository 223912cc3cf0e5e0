"""NP, which does not partition (PPipe, ATC'25, section 7): one stage, share 1/1, otherwise the main programme.

Where DNNs share devices (``options.device_sharing``) that one stage may run on any segment.

A plan has the fewest devices (`planner.planning.answers.canonical`). In four of the 24 published plans a DNN that does
not bind has more than those, by no rule: any number up to all spare devices is optimal.

**NP in closed form**, the variant of the published ablation, for one DNN: on all devices of a type, the largest batch
that meets the SLO, slack and batch building included. It knows no optimum: a smaller batch can be faster.
"""

from dataclasses import replace
from math import inf

from planner.model import DeviceType, InputError, Problem, Segment
from planner.model.objective import MAXIMISED
from planner.model.packing import usable_shares
from planner.model.segments import processes
from planner.planning.pipelines.candidates import Candidate, enumerate_candidates
from planner.planning.pipelines.sizing import Sized, Sizing


def unpartitioned(problem: Problem) -> Problem:
    """Return the problem whose pipelines plans are NP plans: one stage, on whole devices unless DNNs share them.

    NP knows no pools of several DNNs: nothing is merged.
    """
    problem = replace(problem, merged=())
    if problem.options.device_sharing == "shared":
        return replace(problem, options=replace(problem.options, max_stages=1))
    return whole_devices_only(problem, max_stages=1)


def whole_devices_only(problem: Problem, max_stages: int) -> Problem:
    """Return the problem with whole devices, or segments that fill one, and at most so many stages."""
    types = tuple(_whole(device) for device in problem.cluster.device_types)
    return replace(
        problem,
        cluster=replace(problem.cluster, device_types=types),
        options=replace(problem.options, max_stages=max_stages),
    )


def _whole(device: DeviceType) -> DeviceType:
    usable = [str(share) for share in usable_shares(device) if isinstance(share, str) and processes(share) == 1]
    filling = tuple(Segment(name, 1, (), _memory(device, name)) for name in usable if device.fraction(name) == 1)
    plain = replace(device, shares=(1,), mig=None, cores=None, slots=None, segments=(), layouts=(), processes=1)
    return replace(plain, slots=1, segments=filling) if filling else plain


def _memory(device: DeviceType, name: str) -> int | None:
    memory_bytes = device.segment_memory_bytes(name)
    return None if memory_bytes is None else int(memory_bytes)


def size_np_closed_form(problem: Problem) -> Sizing:
    """Return NP's plan by the ablation's rule; X0 must be known.

    Raises
    ------
    InputError
        The problem has several DNNs, or an objective other than throughput.
    """
    expect_throughput(problem, "np in closed form")
    if len(problem.dnns) > 1:
        raise InputError(f"np in closed form plans one DNN, got {len(problem.dnns)}; use another method")
    whole = unpartitioned(problem)
    chosen: dict[int, Candidate] = {}
    for candidate in enumerate_candidates(whole, 0, whole.dnns[0].np_throughput_rps or 0.0, pareto=False):
        known = chosen.get(candidate.devices[0])
        if known is None or candidate.batches > known.batches:
            chosen[candidate.devices[0]] = candidate
    types = problem.cluster.device_types
    pipelines = tuple(Sized(candidate, (types[device].count,)) for device, candidate in sorted(chosen.items()))
    return certain(problem, pipelines)


def with_closed_form_x0(problem: Problem) -> Problem:
    """Return the problem with X0 by the ablation's rule, its NP without batch building, where it is None."""
    dnn = problem.dnns[0]
    if len(problem.dnns) > 1 or dnn.np_throughput_rps is not None:
        return problem
    unlimited = replace(problem, dnns=(replace(dnn, np_throughput_rps=inf),))
    return replace(problem, dnns=(replace(dnn, np_throughput_rps=size_np_closed_form(unlimited).throughput_rps(0)),))


def expect_throughput(problem: Problem, what: str) -> None:
    """Refuse an objective that serves given rates."""
    if not MAXIMISED[problem.options.objective]:
        raise InputError(
            f"{what} maximises throughput and knows no {problem.options.objective}; use the scheduler pipelines or np"
        )


def certain(problem: Problem, pipelines: tuple[Sized, ...]) -> Sizing:
    """Return the sizing of a rule, whose outcome is its own bound."""
    sizing = Sizing(pipelines, 0.0, "none")
    return replace(sizing, bound=sizing.value(problem))
