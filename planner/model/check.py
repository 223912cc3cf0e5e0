"""Check a plan: every constraint of the problem recomputed from the plan alone, without a solver.

For each pipeline of DNN d with stages s on blocks [i_s, j_s) of a variant:

    names        the DNN, the variant, every device type and share exist in the problem
    profile      the plan was computed from the problem and its profiles, by their hashes; X0 is the problem's
    scheduler    NP's pipelines have one stage on whole devices, DART-r's at most two, and what each method is for
    blocks       i_1 = 0, i_(s+1) = j_s, and the last j is the number of blocks
    stages       at most ``max_stages`` stages
    batch        one batch size through all stages; with ``stage_batches`` parts of it, on as many slices each
    inference    L_s = sum of max(1, latency_us[g][k][b][block])
    transfer     T_s = b · t_j + hop latency; 0 after the last stage
    building     B = factor · (b - 1) / X0, with the problem's X0, else the plan's, else one X0 for all pipelines of d
    slack        round(fraction · SLO)
    latency      sum(L_s + T_s) + B + slack <= SLO
    memory       a slice holds its stage's parameters and activations, where the device's memory is known
    capacity     a pool's throughput is n_s · x_s, a pipeline's that of its slowest pool
    pool         stages of one pool have merged blocks, and all else alike; what its pipelines get of it, each over its
                 n_s · x_s, is at most 1 together
    placement    every slice lies on one segment, with the other processes of its stage; the segments of a device are a
                 layout of it, and, where devices are not shared, serve one position of one DNN
    cards        what the slices of a server send and receive at the planned throughput fits its network card, each way
    devices      the devices on which slices lie are devices of the cluster
    neighbours   the grounds on which latencies beside unlike stages stand are those of the cluster's device types
    energy       watts and joules, where the plan states them
    rate         the throughput reaches the rate of d, under the objectives that serve given rates
    objective    it is the problem's; ``value`` is what it makes of throughputs and devices, and is not beyond ``bound``
    status       optimal exactly where the gap is within ``gap_asked``

Latencies, transfers and building times that a plan states may exceed what they must be only within the tolerance, and
so may they fall below it: a plan that claims to be faster than its profile is as wrong as one that is too slow. A
number that is none (NaN) breaks every comparison.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import inf, isclose
from typing import get_args

from planner.model.check_placement import check_placement, unknown_slices
from planner.model.check_pools import check_pools
from planner.model.cluster import DeviceType
from planner.model.digest import digest
from planner.model.dnn import Dnn
from planner.model.errors import InputError
from planner.model.memory import planned_memory_bytes
from planner.model.objective import MAXIMISED, needed_rate_rps, objective_value, plan_cost
from planner.model.placing import devices_used
from planner.model.plan import Pipeline, Plan, Scheduler, Stage
from planner.model.problem import Problem
from planner.model.profile import Profile
from planner.model.segments import processes
from planner.model.served import plan_accuracy, plan_watts, planned_working_watts

PUBLISHED = "published"
PUBLISHED_TOLERANCE = 1e-5  # of a pool's throughput
BUILDING_TOLERANCE = 1e-3  # the ablation's batch-building times are whole microseconds
SCHEDULER_STAGES = {"np": 1, "dart-r": 2}
METHOD_SCHEDULER = {"dynamic": "pipelines", "closed-form": "np", "rule": "dart-r"}  # methods of one scheduler alone
OWN_TOLERANCE = 1e-6  # of a time that a plan of ours states, at least of a microsecond
LATENCY_TOLERANCE_US = 0.01  # the slack of a published solver; measured latencies are whole microseconds


@dataclass(frozen=True)
class Violation:
    """A constraint that a plan breaks, where, and by how much.

    ``amount`` is relative for throughputs and objectives, in µs for latencies, in bytes for memory, else a number of
    things (devices, blocks, stages); 1 where a name is unknown.
    """

    constraint: str
    where: str
    amount: float
    text: str

    def __str__(self) -> str:
        """Return a line for a report."""
        return f"{self.where}: {self.constraint}: {self.text}"


def check(
    problem: Problem, plan: Plan, tolerance: float = 1e-6, *, given: Problem | None = None
) -> tuple[Violation, ...]:
    """Return what a plan breaks, nothing for a sound plan.

    Published plans (``method`` "published") keep the slack of the solver that made them: their pools may be slower than
    n_s · x_s by some millionths, and their pipelines slower than their pools.

    Parameters
    ----------
    tolerance
        By how much throughputs and the objective may be off, relative.
    given
        The problem whose hash the plan states, where X0 was filled in since; by default this one, with or without X0.

    Examples
    --------
    >>> from planner.model import *
    >>> table = LatencyTable("L4", 1, (1,), ((4000, 4000),), Provenance("measured", "by hand"))
    >>> profile = Profile("toy", (Block(("a",)), Block(("b",))), (1_250_000,), (table,))
    >>> problem = Problem(Cluster((DeviceType("L4", 1),), Network(10)), (Dnn("toy", 20_000, (profile,)),))
    >>> stage = Stage(0, 2, "L4", 1, slices=2, batch=1, latency_us=8000, transfer_us=0.0, throughput_rps=250.0)
    >>> pipeline = Pipeline("toy", "toy", 250.0, 0.0, 8000.0, (stage,))
    >>> hashes = digest(problem), {"toy/toy": digest(profile)}
    >>> plan = Plan("np", "max_min_throughput", "optimal", 250.0, 250.0, "milp", "highs", 0.0, *hashes, (pipeline,))
    >>> for violation in check(problem, plan):
    ...     print(violation)
    L4: devices: expected at most 1, got 2
    """
    given, problem = given or problem, problem.planned
    found = [*_unknown_names(problem, plan), *_other_profiles(problem, plan)]
    found += (Violation(*finding) for finding in unknown_slices(plan))
    if found:
        return tuple(found)
    found += [*_other_problem(problem, plan, given), *_scheduler(problem, plan), *_building_rates(problem, plan)]
    broken = False
    for dnn in problem.dnns:
        for number, pipeline in enumerate(plan.of(dnn.name)):
            where = f"{dnn.name}.pipelines[{number}]"
            structure = list(_structure(problem, dnn, pipeline, where))
            found += structure
            broken |= bool(structure)
            if not structure:
                found += _latency(problem, plan, dnn, pipeline, where)
                found += _memory(problem, dnn, pipeline, where)
                found += _capacity(problem, plan, dnn, pipeline, where, tolerance)
    if broken:  # nothing more can be said of stages that are none
        return tuple(found)

    def slice_of(number: int, position: int) -> float:
        pipeline = plan.pipelines[number]
        return slice_rps(problem, problem.dnn(pipeline.dnn), pipeline, position)

    found += (Violation(*finding) for finding in check_pools(problem, plan, tolerance, slice_of))
    found += (Violation(*finding) for finding in check_placement(problem, plan, tolerance))
    found += _objective(problem, plan, tolerance)
    return tuple(found)


def slice_rps(problem: Problem, dnn: Dnn, pipeline: Pipeline, position: int) -> float:
    """Return x_s, what one slice of a stage sustains (requests/s).

    Inference limits it, and so do the transfers from and to its neighbours, for the slices of a server share its
    network card: x_s = min(b / L_s, 1 / (t_in · k · G), 1 / (t_out · k · G)), with G of `Problem.card_devices` and k
    the slices that fill a device.
    """
    profile = dnn.variant(pipeline.variant)
    stage = pipeline.stages[position]
    following = pipeline.stages[position + 1].device if position + 1 < len(pipeline.stages) else None
    fraction = problem.cluster.device(stage.device).fraction(stage.share)
    sharing = float(problem.card_devices(stage.device, following) / fraction)
    limits = [stage.batch / _inference_us(profile, stage)]
    for sender in range(max(0, position - 1), min(position + 1, len(pipeline.stages) - 1)):
        wire_us = _wire_us(problem, profile, pipeline, sender)
        limits.append(1 / (wire_us * sharing) if wire_us > 0 else inf)
    return min(limits) * 1e6


def _unknown_names(problem: Problem, plan: Plan) -> Iterator[Violation]:
    for number, pipeline in enumerate(plan.pipelines):
        where = f"pipelines[{number}]"
        try:
            profile = problem.dnn(pipeline.dnn).variant(pipeline.variant)
            for position, stage in enumerate(pipeline.stages):
                where = f"pipelines[{number}].stages[{position}]"
                device = problem.cluster.device(stage.device)
                _check_share(device, stage)
                profile.table(stage.device, stage.share).block_latency_us(stage.batch)
        except InputError as error:
            yield Violation("names", where, 1, str(error))


def _other_profiles(problem: Problem, plan: Plan) -> Iterator[Violation]:
    for dnn in problem.dnns:
        for variant in dnn.variants:
            name = f"{dnn.name}/{variant.name}"
            planned = plan.profile_sha256.get(name)
            if planned != digest(variant):
                stated = "no hash of it in the plan" if planned is None else f"the plan made with {planned[:12]}"
                yield Violation("profile", name, 1, f"expected the profile {digest(variant)[:12]}, got {stated}")
    known = {f"{dnn.name}/{variant.name}" for dnn in problem.dnns for variant in dnn.variants}
    for name in sorted(set(plan.profile_sha256) - known):
        yield Violation("profile", name, 1, "expected profiles of the problem's only")


def _other_problem(problem: Problem, plan: Plan, given: Problem) -> Iterator[Violation]:
    """Compare the problem's hash, and X0, which it may leave to the planner."""
    without = replace(
        given,
        dnns=tuple(replace(dnn, np_throughput_rps=None) for dnn in given.dnns),
        applications=tuple(replace(one, np_throughput_rps=None) for one in given.applications),
    )
    expected_sha256 = digest(given)
    if plan.problem_sha256 != expected_sha256 and plan.problem_sha256 != digest(without):
        text = f"expected the hash {expected_sha256[:12]} of the problem, got {plan.problem_sha256[:12] or 'none'}"
        yield Violation("problem", "problem_sha256", 1, text)
    names = {dnn.name: dnn.np_throughput_rps for dnn in problem.dnns}
    for name, x0_rps in plan.np_throughput_rps.items():
        expected = names.get(name, 0.0)
        if name not in names or (expected is not None and not isclose(x0_rps, expected, rel_tol=1e-9)):
            text = f"expected {expected} requests/s, got {x0_rps}"
            yield Violation("building", f"np_throughput_rps.{name}", 1, text)
    for name in sorted(names.keys() - plan.np_throughput_rps.keys()) if plan.np_throughput_rps else ():
        yield Violation("building", f"np_throughput_rps.{name}", 1, "expected X0 of every DNN or of none")


def _scheduler(problem: Problem, plan: Plan) -> Iterator[Violation]:
    stages, method = SCHEDULER_STAGES.get(plan.scheduler), plan.method
    if plan.scheduler not in get_args(Scheduler):
        text = f"expected one of {list(get_args(Scheduler))}, got {plan.scheduler!r}"
        yield Violation("scheduler", "scheduler", 1, text)
    own = METHOD_SCHEDULER.get(method, plan.scheduler)
    if own != plan.scheduler or (plan.scheduler == "dart-r" and method not in ("rule", PUBLISHED)):
        yield Violation("scheduler", "method", 1, f"expected a method of {plan.scheduler}, got {method!r}")
    if stages is None:
        return
    shared = problem.options.device_sharing == "shared"
    for number, pipeline in enumerate(plan.pipelines):
        whole = all(problem.cluster.device(stage.device).fraction(stage.share) == 1 for stage in pipeline.stages)
        if len(pipeline.stages) > stages or not (whole or shared):
            got = [stage.place for stage in pipeline.stages]
            text = f"expected at most {stages} stages on whole devices for {plan.scheduler}, got {got}"
            yield Violation("scheduler", f"pipelines[{number}]", 1, text)


def _building_rates(problem: Problem, plan: Plan) -> Iterator[Violation]:
    """Where X0 is stated nowhere, the batch-building times of a DNN must at least have one in common."""
    for dnn in problem.dnns:
        if _x0_rps(plan, dnn) is not None:
            continue
        batches = [pipeline for pipeline in plan.of(dnn.name) if pipeline.batch > 1]
        per_request = [pipeline.batch_building_us / (pipeline.batch - 1) for pipeline in batches]
        if not problem.options.batch_building_factor or not per_request:
            continue
        if not 0 < max(per_request) <= min(per_request) * (1 + BUILDING_TOLERANCE):
            text = f"expected times in proportion to batches, less one, got {per_request} µs per request"
            yield Violation("building", dnn.name, 1, text)


def _x0_rps(plan: Plan, dnn: Dnn) -> float | None:
    return plan.np_throughput_rps.get(dnn.name) if dnn.np_throughput_rps is None else dnn.np_throughput_rps


def _check_share(device: DeviceType, stage: Stage) -> None:
    if stage.share not in device.offers:
        raise InputError(f"share of {device.name}: expected one of {list(device.offers)}, got {stage.share}")


def _structure(problem: Problem, dnn: Dnn, pipeline: Pipeline, where: str) -> Iterator[Violation]:
    """Blocks covered and contiguous, not too many stages, one batch size."""
    blocks = len(dnn.variant(pipeline.variant).blocks)
    expected = 0
    for position, stage in enumerate(pipeline.stages):
        if stage.first_block != expected or stage.last_block <= stage.first_block:
            yield Violation(
                "blocks",
                f"{where}.stages[{position}]",
                abs(stage.first_block - expected) or stage.first_block + 1 - stage.last_block,
                f"expected a range from block {expected}, got [{stage.first_block}, {stage.last_block})",
            )
        expected = stage.last_block
    if expected != blocks:
        yield Violation("blocks", where, abs(blocks - expected), f"expected all {blocks} blocks, got {expected}")
    over = len(pipeline.stages) - problem.options.max_stages
    if over > 0:
        got = len(pipeline.stages)
        yield Violation("stages", where, over, f"expected at most {problem.options.max_stages}, got {got}")
    batches = [stage.batch for stage in pipeline.stages]
    yield from _whole_segments(pipeline, where)
    if problem.options.stage_batches:
        yield from _parts(pipeline, where)
    elif len(set(batches)) > 1:
        yield Violation("batch", where, max(batches) - min(batches), f"expected one size in all stages, got {batches}")


def _whole_segments(pipeline: Pipeline, where: str) -> Iterator[Violation]:
    """Segments are taken whole, one at least, with all the processes that their share says."""
    for position, stage in enumerate(pipeline.stages):
        if stage.slices < 1 or stage.slices % processes(stage.share):
            text = f"expected slices in groups of {processes(stage.share)} on {stage.place}, got {stage.slices}"
            yield Violation("processes", f"{where}.stages[{position}]", stage.slices, text)


def _parts(pipeline: Pipeline, where: str) -> Iterator[Violation]:
    """Parts divide the batch, and the slices of a stage take whole batches at a time."""
    for position, stage in enumerate(pipeline.stages):
        here = f"{where}.stages[{position}]"
        if pipeline.batch % stage.batch:
            text = f"expected a divisor of the batch of {pipeline.batch}, got {stage.batch}"
            yield Violation("batch", here, stage.batch, text)
        elif stage.slices % (pipeline.batch // stage.batch):
            text = f"expected slices in groups of {pipeline.batch // stage.batch}, got {stage.slices}"
            yield Violation("batch", here, stage.slices, text)


def _latency(problem: Problem, plan: Plan, dnn: Dnn, pipeline: Pipeline, where: str) -> Iterator[Violation]:
    """Every part of the latency budget, and their sum."""
    profile = dnn.variant(pipeline.variant)
    slack = problem.slack_us(dnn)
    parts = [("slack", where, float(slack), pipeline.slack_us)]
    for position, stage in enumerate(pipeline.stages):
        here = f"{where}.stages[{position}]"
        parts.append(("inference", here, float(_inference_us(profile, stage)), float(stage.latency_us)))
        parts.append(("transfer", here, _transfer_us(problem, profile, pipeline, position), stage.transfer_us))
    building = _building_us(problem, _x0_rps(plan, dnn), pipeline)
    if building is not None:
        parts.append(("building", where, building, pipeline.batch_building_us))
    for name, here, expected, got in parts:
        allowed_us = LATENCY_TOLERANCE_US if plan.method == PUBLISHED else OWN_TOLERANCE * max(1.0, expected)
        if not abs(got - expected) <= allowed_us:
            yield Violation(name, here, got - expected, f"expected {expected:.6g} µs, got {got:.6g}")
    inside = [expected for name, _, expected, _ in parts if name != "building"]
    total = sum(inside) + (pipeline.batch_building_us if building is None else building)
    if not total <= dnn.slo_us + LATENCY_TOLERANCE_US:
        yield Violation("latency", where, total - dnn.slo_us, f"expected at most {dnn.slo_us:.8g} µs, got {total:.8g}")


def _building_us(problem: Problem, x0_rps: float | None, pipeline: Pipeline) -> float | None:
    """Return B as it must be; None where X0 is not known."""
    if pipeline.batch == 1 or problem.options.batch_building_factor == 0:
        return 0.0
    if x0_rps is None:
        return None
    work = problem.options.batch_building_factor * (pipeline.batch - 1)
    return work / x0_rps * 1e6 if x0_rps > 0 else inf


def _inference_us(profile: Profile, stage: Stage) -> int:
    return profile.stage_latency_us(stage.device, stage.share, stage.batch, stage.first_block, stage.last_block)


def _wire_us(problem: Problem, profile: Profile, pipeline: Pipeline, sender: int) -> float:
    """Return the time per request on the wire from stage ``sender`` to the next."""
    stage, receiver = pipeline.stages[sender], pipeline.stages[sender + 1]
    return problem.cluster.network.wire_us(stage.device, receiver.device, profile.cut_bytes[stage.last_block - 1])


def _transfer_us(problem: Problem, profile: Profile, pipeline: Pipeline, position: int) -> float:
    if position == len(pipeline.stages) - 1:
        return 0.0
    stage, receiver = pipeline.stages[position], pipeline.stages[position + 1]
    hop_us = problem.cluster.network.link(stage.device, receiver.device).hop_latency_us
    return pipeline.batch * _wire_us(problem, profile, pipeline, position) + hop_us


def _memory(problem: Problem, dnn: Dnn, pipeline: Pipeline, where: str) -> Iterator[Violation]:
    profile = dnn.variant(pipeline.variant)
    for position, stage in enumerate(pipeline.stages):
        memory = problem.cluster.device(stage.device).slice_memory_bytes(stage.share)
        needed = profile.memory_bytes(stage.batch, stage.first_block, stage.last_block)
        if needed > memory:
            text = f"expected at most {memory:.0f} bytes on {stage.place}, got {needed}"
            yield Violation("memory", f"{where}.stages[{position}]", needed - memory, text)


def _capacity(
    problem: Problem, plan: Plan, dnn: Dnn, pipeline: Pipeline, where: str, tolerance: float
) -> Iterator[Violation]:
    """Recompute throughputs: a pool is as fast as its slices together, a pipeline as its slowest pool."""
    published = plan.method == PUBLISHED
    capacities = []
    for position, stage in enumerate(pipeline.stages):
        capacity, got = stage.slices * slice_rps(problem, dnn, pipeline, position), stage.throughput_rps
        if stage.pool is not None:
            capacity = min(got, capacity)  # `check_pools` looks at what all of its stages get together
        capacities.append(capacity)
        below = PUBLISHED_TOLERANCE if published else tolerance
        if not capacity * (1 - below) <= got <= capacity * (1 + tolerance):
            text = f"expected a pool of {capacity:.9g} requests/s, got {got:.9g}"
            yield Violation("capacity", f"{where}.stages[{position}]", _excess(got, capacity), text)
    capacity, got = min(capacities), pipeline.throughput_rps
    if not (0.0 if published else capacity * (1 - tolerance)) <= got <= capacity * (1 + tolerance):
        text = f"expected a pipeline of {capacity:.9g} requests/s, got {got:.9g}"
        here = f"{where}.stages[{capacities.index(capacity)}]"
        yield Violation("capacity", here, _excess(got, capacity), text)


def _excess(got: float, expected: float) -> float:
    """Return by how much a number is above another, relative."""
    return got / expected - 1 if expected > 0 else inf


def _objective(problem: Problem, plan: Plan, tolerance: float) -> Iterator[Violation]:
    objective = problem.options.objective
    if plan.objective != objective:
        yield Violation("objective", "objective", 1, f"expected {objective}, got {plan.objective}")
    throughput_rps = {dnn.name: plan.throughput_rps(dnn.name) for dnn in problem.dnns}
    for dnn in problem.dnns:
        needed, got = needed_rate_rps(dnn, objective), throughput_rps[dnn.name]
        if not got >= needed * (1 - tolerance):
            text = f"expected at least {needed:.9g} requests/s, got {got:.9g}"
            yield Violation("rate", dnn.name, 1 - got / needed if needed else inf, text)
    devices = devices_used(problem, plan)
    working = 0.0
    if objective == "least_energy":
        working = planned_working_watts(problem, plan.pipelines)
    accuracy = plan_accuracy(problem, plan.pipelines)
    memory_bytes = planned_memory_bytes(problem, plan.pipelines)
    value = objective_value(problem, throughput_rps, devices, working, accuracy, memory_bytes)
    yield from _accuracy_and_cost(problem, plan, accuracy, devices, tolerance)
    scale = abs(value) or 1.0
    if not abs(plan.value - value) <= tolerance * scale:
        yield Violation(
            "objective", "value", (plan.value - value) / scale, f"expected {value:.9g}, got {plan.value:.9g}"
        )
    over = (plan.value - plan.bound) / scale * (1 if MAXIMISED[objective] else -1)
    if not over <= tolerance:
        limit = "at least" if MAXIMISED[objective] else "at most"
        text = f"expected {limit} the value {plan.value:.9g}, got {plan.bound:.9g}"
        yield Violation("objective", "bound", over, text)
    drawn = plan_watts(problem, plan.pipelines, devices)
    stated = ("watts", plan.watts), ("joules_per_thousand", plan.joules_per_thousand)
    truth: tuple[float | None, float | None] = drawn or (None, None)
    for (name, said), right in zip(stated, truth, strict=True):
        if said is not None and (right is None or not abs(said - right) <= tolerance * (right or 1.0)):
            yield Violation("energy", name, 1, f"expected {right}, got {said}")
    status = "optimal" if plan.gap <= plan.gap_asked else "feasible"
    if plan.status != status:
        text = f"expected {status} at a gap of {plan.gap:.3g}, {plan.gap_asked:.3g} asked for, got {plan.status}"
        yield Violation("status", "status", plan.gap - plan.gap_asked, text)


def _accuracy_and_cost(
    problem: Problem, plan: Plan, accuracy: Mapping[str, float], devices: Mapping[str, int], tolerance: float
) -> Iterator[Violation]:
    """Accuracy and cost are as stated, and within what was asked for."""
    if plan.accuracy and set(plan.accuracy) != set(accuracy):
        yield Violation("accuracy", "accuracy", 1, f"expected that of {sorted(accuracy)}, got {sorted(plan.accuracy)}")
    for name, right in accuracy.items():
        said = plan.accuracy.get(name, right)
        if not abs(said - right) <= tolerance * max(1.0, right):
            yield Violation("accuracy", name, said - right, f"expected {right:.9g} %, got {said:.9g}")
    least = problem.options.min_accuracy
    if least is not None:
        for dnn in problem.dnns:
            if accuracy.get(dnn.name, 0.0) < least - tolerance * max(1.0, least):
                text = f"expected at least {least:.9g} %, got {accuracy.get(dnn.name, 0.0):.9g}"
                yield Violation("accuracy", dnn.name, least - accuracy.get(dnn.name, 0.0), text)
    cost = plan_cost(problem, devices)
    said_cost = plan.cost_per_hour
    if said_cost is not None and (cost is None or not abs(said_cost - cost) <= tolerance * (cost or 1.0)):
        yield Violation("cost", "cost_per_hour", 1, f"expected {cost}, got {said_cost}")
    budget = problem.options.budget_per_hour
    if budget is not None and (cost is None or cost > budget * (1 + tolerance)):
        yield Violation("cost", "budget_per_hour", 1, f"expected at most {budget:.9g} per hour, got {cost}")
