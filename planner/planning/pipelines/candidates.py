"""Candidates: pipelines with everything fixed but their size (PPipe, ATC'25, section 5).

A candidate of a DNN fixes a variant, the cuts, a device type g and a share 1/k per stage (or a named segment of g), and
the batch size b.
For its stage s on blocks [i, j)

    inference    L_s = sum over the blocks of max(1, latency_us[g][k][b][block])
    transfer     T_s = b · t_j + hop latency to the next stage's servers, with t_j = cut bytes · 8 / bandwidth;
                 0 for the last stage
    one slice    x_s = min(b / L_s, 1 / (t_in · k · G), 1 / (t_out · k · G)), where G is the number of devices whose
                 slices share a network card (`Problem.card_devices`), and k how many of these slices fill a device; an
                 absent transfer does not limit
    building     B = factor · (b - 1) / X0, where X0 is NP's throughput for the DNN

and the candidate is feasible if

    memory       a slice holds its stage's parameters and its activations at b (where the type's memory is known)
    latency      sum(L_s + T_s) + B + slack <= SLO
    devices      its stages fit on the cluster at one slice each; positions do not share a device, unless all do

Candidates of a variant with equal devices and shares differ only in the vector (x_s): the Pareto-best are kept.

With ``options.stage_batches`` a later stage may run the batch in b / b_s equal parts of b_s at the same time, on as
many slices: L_s and the first term of x_s are then those of b_s, while T_s moves all of b. Parts leave together, so a
stage after it may run whole batches again. The number of slices must be a multiple of b / b_s, so that candidates with
unlike parts do not displace each other.

Enumeration goes depth first over sequences of (device type, share); under each sequence all cuts and batch sizes are
rows of arrays. Rows that cannot end within the budget, even at every block's fastest latency, are dropped on the way.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, lcm

import numpy as np

from planner.model import Dnn, Problem, Profile
from planner.model.segments import Share, kind_of, processes
from planner.planning.arrays import Flags, Floats, Integers

LATENCY_TOLERANCE = 1e-12  # of the SLO: rounding of the sums above, far below the microsecond


@dataclass(frozen=True)
class Candidate:
    """A pipeline of one DNN with its cuts, devices, shares and batch sizes chosen; only slices are open.

    Sequences have one entry per stage; stage s runs blocks [cuts[s], cuts[s + 1]) on share ``shares[s]`` of a
    device of type ``devices[s]`` (an index into ``cluster.device_types``) and one of its slices sustains
    ``slice_rps[s]`` requests/s (x_s). ``dnn`` and ``variant`` are indices into the problem.
    """

    dnn: int
    variant: int
    cuts: tuple[int, ...]
    devices: tuple[int, ...]
    shares: tuple[Share, ...]
    batches: tuple[int, ...]
    slice_rps: tuple[float, ...]

    @property
    def parts(self) -> tuple[int, ...]:
        """Parts in which each stage runs a batch, on as many slices at the same time: b / b_s."""
        return tuple(self.batches[0] // batch for batch in self.batches)

    @property
    def groups(self) -> tuple[int, ...]:
        """Numbers of which the slices of each stage are a multiple: its parts, and the processes of a segment."""
        return tuple(lcm(parts, processes(share)) for parts, share in zip(self.parts, self.shares, strict=True))

    def __lt__(self, other: "Candidate") -> bool:
        """Order candidates by their fields; shares 1/k come before named ones."""
        return self._key < other._key

    @property
    def _key(self) -> tuple[object, ...]:
        shares = tuple((isinstance(share, str), share) for share in self.shares)
        return self.dnn, self.variant, self.cuts, self.devices, shares, self.batches, self.slice_rps


def enumerate_candidates(problem: Problem, dnn_index: int, x0_rps: float, *, pareto: bool = True) -> list[Candidate]:
    """Return the candidates of one DNN, none where no pipeline meets its SLO.

    Parameters
    ----------
    problem
        Device types without devices are skipped, as are shares for which a variant has no latencies.
    dnn_index
        Position of the DNN in ``problem.dnns``.
    x0_rps
        NP's throughput X0; 0 allows batches of 1 only, ``math.inf`` leaves batch building out.
    pareto
        Whether only the Pareto-best candidates on equal devices and shares are returned.

    Examples
    --------
    One device type, two blocks of 4 ms, an SLO of 20 ms of which 8 are slack, batches of 1 request:

    >>> from planner.model import *
    >>> table = LatencyTable("L4", 1, (1,), ((4000, 4000),), Provenance("measured", "by hand"))
    >>> profile = Profile("toy", (Block(("a",)), Block(("b",))), (1_250_000,), (table,))
    >>> cluster = Cluster((DeviceType("L4", 2),), Network(bandwidth_gbps=10))
    >>> problem = Problem(cluster, (Dnn("toy", 20_000, (profile,)),))
    >>> for candidate in enumerate_candidates(problem, 0, 0.0):
    ...     print(candidate.cuts, candidate.slice_rps)
    (0, 2) (125.0,)
    (0, 1, 2) (250.0, 250.0)
    """
    dnn = problem.dnns[dnn_index]
    return [
        candidate
        for variant, profile in enumerate(dnn.variants)
        for rows in _sequences(_Search(problem, dnn, profile, x0_rps))
        for candidate in rows.candidates(
            dnn_index, variant, rows.pareto_best() if pareto else np.arange(len(rows.batch))
        )
    ]


def best_of_segments(problem: Problem, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates without those of one stage that another makes needless, but for energy and accuracy.

    Of candidates of one DNN with one stage each, on the same kind of segment, a segment is best used by the one that
    serves most on it, whatever the number of processes, the batch size, or the variant.
    """
    if problem.options.objective == "least_energy" or problem.options.limits_accuracy:
        return list(candidates)

    def segment_rps(candidate: Candidate) -> float:
        return candidate.slice_rps[0] * processes(candidate.shares[0])

    best: dict[tuple[int, int, int | str], Candidate] = {}
    for candidate in candidates:
        key = candidate.dnn, candidate.devices[0], kind_of(candidate.shares[0])
        if len(candidate.devices) == 1 and (key not in best or segment_rps(candidate) > segment_rps(best[key])):
            best[key] = candidate
    kept = set(best.values())
    return [candidate for candidate in candidates if len(candidate.devices) > 1 or candidate in kept]


def fastest_candidate(problem: Problem, dnn_index: int, x0_rps: float) -> tuple[Candidate, float] | None:
    """Return the pipeline of a DNN with the least sum(L_s + T_s) + B, and that time (µs), whatever the SLO.

    None where no pipeline exists: no latencies for any device of the cluster, or no memory that holds the stages.
    """
    best: tuple[Candidate, float] | None = None
    least_us = inf
    for variant, profile in enumerate(problem.dnns[dnn_index].variants):
        search = _Search(problem, problem.dnns[dnn_index], profile, x0_rps)
        search.set_budget_us(least_us)
        for rows in _sequences(search):
            total_us = rows.latency_us + search.building_us[rows.batch]
            row = int(total_us.argmin())
            if total_us[row] < least_us:
                least_us = float(total_us[row])
                search.set_budget_us(least_us)  # from here on only faster ones are looked at
                best = next(rows.candidates(dnn_index, variant, np.array([row]))), least_us
    return best


def batch_building_us(problem: Problem, batch: int, x0_rps: float) -> float:
    """Return B, the time (µs) to build a batch while requests arrive at X0; infinite where X0 is 0 and b > 1."""
    if batch == 1 or problem.options.batch_building_factor == 0:
        return 0.0
    return problem.options.batch_building_factor * (batch - 1) / x0_rps * 1e6 if x0_rps > 0 else inf


def planned_batches(profile: Profile) -> tuple[int, ...]:
    """Return the batch sizes that plans may use: 1, and all that were profiled on any share of any device."""
    return tuple(sorted({1}.union(*(table.batches for table in profile.tables))))


@dataclass(frozen=True)
class Placement:
    """A place where a stage can run: a share of a device of type ``device`` (an index), as arrays over batches.

    ``before_us[batch, block]`` sums the latencies of the blocks before ``block``; ``usable[batch, first, last]``
    tells whether blocks [first, last) have latencies at that batch and fit the slice's memory.
    """

    device: int
    share: Share
    before_us: Integers
    usable: Flags


def placements(problem: Problem, profile: Profile) -> list[Placement]:
    """Return where stages of a profile can run, ordered by device type and share."""
    batches = planned_batches(profile)
    memory_bytes = _stage_memory_bytes(profile, batches)
    found = []
    for index, device in enumerate(problem.cluster.device_types):
        for share in device.offers:
            if device.count == 0 or not profile.has(device.name, share):
                continue
            table = profile.table(device.name, share)
            known = np.array([batch <= table.batches[-1] for batch in batches])
            latency_us = np.zeros((len(batches), len(profile.blocks) + 1), dtype=np.int64)
            for row, batch in enumerate(batches):
                if known[row]:
                    latency_us[row, 1:] = table.block_latency_us(batch)
            fits = memory_bytes <= device.slice_memory_bytes(share)
            found.append(
                Placement(
                    index,
                    share,
                    latency_us.cumsum(axis=1),
                    fits & known[:, np.newaxis, np.newaxis],
                )
            )
    return found


def _stage_memory_bytes(profile: Profile, batches: tuple[int, ...]) -> Floats:
    """Return the bytes [batch, first, last] that a slice of blocks [first, last) holds; infinite if empty."""
    count = len(profile.blocks)
    memory_bytes = np.full((len(batches), count + 1, count + 1), inf)
    for first in range(count):
        for last in range(first + 1, count + 1):
            memory_bytes[:, first, last] = [profile.memory_bytes(batch, first, last) for batch in batches]
    return memory_bytes


class _Search:
    """What stays fixed while the sequences of one variant are searched."""

    def __init__(self, problem: Problem, dnn: Dnn, profile: Profile, x0_rps: float) -> None:
        self.problem = problem
        self.profile = profile
        self.batches = np.array(planned_batches(profile))
        self.placements = placements(problem, profile)
        self.building_us = np.array([batch_building_us(problem, int(batch), x0_rps) for batch in self.batches])
        self.divisors = [
            np.flatnonzero(batch % self.batches[: row + 1] == 0) if problem.options.stage_batches else np.array([row])
            for row, batch in enumerate(self.batches)
        ]
        self.set_budget_us(dnn.slo_us * (1 + LATENCY_TOLERANCE) - problem.slack_us(dnn))
        self.rest_us = self._rest_us()

    def set_budget_us(self, limit_us: float) -> None:
        """Limit sum(L_s + T_s) + B; batches that cannot be built have no time left at all."""
        known = np.isfinite(self.building_us)
        self.budget_us = np.where(known, limit_us - np.where(known, self.building_us, 0.0), -inf)

    @property
    def block_count(self) -> int:
        return len(self.profile.blocks)

    def _rest_us(self) -> Floats:
        """Return the least time [batch, block] that the blocks from ``block`` on take, transfers left out."""
        fastest_us = np.full((len(self.batches), self.block_count), inf)
        for place in self.placements:
            known = place.usable.any(axis=(1, 2))
            latency_us = np.diff(place.before_us, axis=1)
            fastest_us[known] = np.minimum(fastest_us[known], latency_us[known])
        fastest_us = np.array([fastest_us[divisors].min(axis=0) for divisors in self.divisors])
        rest_us = np.zeros((len(self.batches), self.block_count + 1))
        rest_us[:, :-1] = fastest_us[:, ::-1].cumsum(axis=1)[:, ::-1]
        return rest_us

    def wire_us(self, sender: Placement, receiver: Placement) -> tuple[Floats, float]:
        """Return the wire time (µs per request) at every cut, and the hop's latency (µs)."""
        network, types = self.problem.cluster.network, self.problem.cluster.device_types
        names = types[sender.device].name, types[receiver.device].name
        wire_us = [0.0, *(network.wire_us(*names, size) for size in self.profile.cut_bytes), 0.0]
        return np.array(wire_us), network.link(*names).hop_latency_us

    def card_slices(self, place: Placement, following: Placement | None) -> float:
        """Return how many slices of a stage share a network card, given where the next stage is; parts count."""
        types = self.problem.cluster.device_types
        next_name = None if following is None else types[following.device].name
        device = types[place.device]
        return float(self.problem.card_devices(device.name, next_name) / device.fraction(place.share))

    def fits(self, sequence: tuple[Placement, ...]) -> bool:
        """Tell whether the cluster has a device of its own for every position, or one for all where they are shared."""
        if self.problem.options.device_sharing == "shared":
            return True  # no place is on a type without devices
        types = self.problem.cluster.device_types
        needed = Counter(place.device for place in sequence)
        return all(types[device].count >= count for device, count in needed.items())


@dataclass(frozen=True)
class _Rows:
    """Pipelines, whole or begun, on one sequence of placements: a row per choice of batch size and cuts.

    ``cuts[row, 0..stages]``, ``slice_rps[row, 0..stages-1]``; ``latency_us`` is that of the stages so far,
    ``batch`` and ``part[row, 0..stages-1]``, the parts that the stages run it in, are indices into the search's
    batches.
    """

    search: _Search
    sequence: tuple[Placement, ...]
    batch: Integers
    part: Integers
    cuts: Integers
    latency_us: Floats
    slice_rps: Floats

    def select(self, rows: Flags | Integers) -> "_Rows":
        return _Rows(
            self.search,
            self.sequence,
            self.batch[rows],
            self.part[rows],
            self.cuts[rows],
            self.latency_us[rows],
            self.slice_rps[rows],
        )

    def extend(self, place: Placement) -> "_Rows":
        """Return the rows with one more stage, on ``place``, that can still meet the SLO."""
        search = self.search
        row, part = self._with_parts()
        choices = search.block_count - self.cuts[row, -1]
        chosen = np.repeat(np.arange(len(row)), choices)
        offset = np.arange(len(chosen)) - np.repeat(choices.cumsum() - choices, choices)
        row, part = row[chosen], part[chosen]
        batch, first = self.batch[row], self.cuts[row, -1]
        last = first + 1 + offset
        inference_us = place.before_us[part, last] - place.before_us[part, first]
        latency_us = self.latency_us[row] + inference_us
        size = search.batches[batch]
        slice_rps = np.full((len(row), len(self.sequence) + 1), inf)
        with np.errstate(divide="ignore"):  # rows without latencies have 0 here, and go below
            slice_rps[:, -1] = 1e6 * search.batches[part] / inference_us
        if self.sequence:
            wire_us, hop_us = search.wire_us(self.sequence[-1], place)
            latency_us += size * wire_us[first] + hop_us
            slice_rps[:, :-1] = self.slice_rps[row]
            with np.errstate(divide="ignore"):  # an empty transfer limits nothing
                card_rps = 1e6 / wire_us[first]
                received_rps = 1e6 / self._received_us()[row]
            sender_rps = np.minimum(card_rps, received_rps) / search.card_slices(self.sequence[-1], place)
            slice_rps[:, -2] = np.minimum(slice_rps[:, -2], sender_rps)
            slice_rps[:, -1] = np.minimum(slice_rps[:, -1], card_rps / search.card_slices(place, None))
        in_time = latency_us + search.rest_us[batch, last] <= search.budget_us[batch]
        extended = _Rows(
            search,
            (*self.sequence, place),
            batch,
            np.column_stack([self.part[row], part]),
            np.column_stack([self.cuts[row], last]),
            latency_us,
            slice_rps,
        )
        return extended.select(in_time & place.usable[part, first, last])

    def _received_us(self) -> Floats:
        """Return the wire time (µs per request) into the last stage, 0 where it is the first."""
        if len(self.sequence) == 1:
            return np.zeros(len(self.batch))
        wire_us, _ = self.search.wire_us(*self.sequence[-2:])
        return wire_us[self.cuts[:, -2]]

    def _with_parts(self) -> tuple[Integers, Integers]:
        """Return rows and parts in which the next stage can run them: the first stage runs whole batches."""
        rows = np.arange(len(self.batch))
        if not self.sequence:
            return rows, self.batch
        divisors = [self.search.divisors[batch] for batch in self.batch]
        return np.repeat(rows, [len(parts) for parts in divisors]), np.concatenate([rows[:0], *divisors])

    def pareto_best(self) -> Integers:
        """Return the Pareto-best rows among those of equal parts."""
        batches = self.search.batches
        _, kind = np.unique(batches[self.part] * 1.0 / batches[self.batch][:, np.newaxis], axis=0, return_inverse=True)
        best = [
            rows[pareto_best(self.slice_rps[rows], self.latency_us[rows])]
            for rows in (np.flatnonzero(kind.ravel() == number) for number in range(kind.max() + 1))
        ]
        return np.concatenate(best)

    def candidates(self, dnn: int, variant: int, chosen: Integers) -> Iterator[Candidate]:
        """Yield the chosen rows, which are whole pipelines."""
        devices = tuple(place.device for place in self.sequence)
        shares = tuple(place.share for place in self.sequence)
        for row in chosen:
            yield Candidate(
                dnn,
                variant,
                tuple(self.cuts[row].tolist()),
                devices,
                shares,
                tuple(self.search.batches[self.part[row]].tolist()),
                tuple(self.slice_rps[row].tolist()),
            )


def _sequences(search: _Search) -> Iterator[_Rows]:
    """Yield the whole pipelines of every sequence of placements."""
    batch = np.arange(len(search.batches))
    start = np.zeros((len(batch), 1), dtype=np.int64)
    none = np.zeros((len(batch), 0))
    yield from _continue(_Rows(search, (), batch, none.astype(np.int64), start, np.zeros(len(batch)), none))


def _continue(begun: _Rows) -> Iterator[_Rows]:
    """Yield the whole pipelines whose sequences begin with that of ``begun``."""
    search = begun.search
    for place in search.placements:
        if not search.fits((*begun.sequence, place)):
            continue
        rows = begun.extend(place)
        whole = rows.cuts[:, -1] == search.block_count
        if whole.any():
            yield rows.select(whole)
        if not whole.all() and len(rows.sequence) < search.problem.options.max_stages:
            yield from _continue(rows.select(~whole))


def pareto_best(gain: Floats, cost: Floats) -> Integers:
    """Return the rows of ``gain[row, dimension]`` that no other row reaches in every dimension.

    Of equal rows the one with the least ``cost[row]`` stays. The order is by falling total gain.

    >>> import numpy as np
    >>> pareto_best(np.array([[1.0, 3.0], [2.0, 2.0], [1.0, 2.0], [2.0, 2.0]]), np.array([0.0, 5.0, 0.0, 4.0]))
    array([0, 3])
    """
    left = np.lexsort((cost, -gain.sum(axis=1)))
    best = []
    while len(left):
        best.append(left[0])
        left = left[(gain[left] > gain[left[0]]).any(axis=1)]
    return np.array(best, dtype=np.int64)
