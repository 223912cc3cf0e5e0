"""NP, which does not partition (PPipe, ATC'25, section 7): one stage, share 1/1, otherwise the main programme.

A plan has the fewest devices (`planner.planning.answers.canonical`). In four of the 24 published plans a DNN that does
not bind has more than those, by no rule: any number up to all spare devices is optimal.

**NP in closed form**, the variant of the published ablation, for one DNN: on all devices of a type, the largest batch
that meets the SLO, slack and batch building included. It knows no optimum: a smaller batch can be faster.
"""

from dataclasses import replace
from math import inf

from planner.model import InputError, Problem
from planner.model.objective import MAXIMISED
from planner.planning.pipelines.candidates import Candidate, enumerate_candidates
from planner.planning.pipelines.sizing import Sized, Sizing


def unpartitioned(problem: Problem) -> Problem:
    """Return the problem whose pipelines plans are NP plans: one stage, whole devices."""
    return whole_devices_only(problem, max_stages=1)


def whole_devices_only(problem: Problem, max_stages: int) -> Problem:
    """Return the problem with shares of 1/1 and at most so many stages."""
    types = tuple(replace(device, shares=(1,)) for device in problem.cluster.device_types)
    return replace(
        problem,
        cluster=replace(problem.cluster, device_types=types),
        options=replace(problem.options, max_stages=max_stages),
    )


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
