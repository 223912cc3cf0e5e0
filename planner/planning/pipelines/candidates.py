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

Candidates of a variant with equal devices and shares differ only in the vector (x_s): the Pareto-best are kept; where
memory is the objective, those by (x_s) and what slices hold.

With ``options.stage_batches`` a later stage may run the batch in b / b_s equal parts of b_s at the same time, on as
many slices: L_s and the first term of x_s are then those of b_s, while T_s moves all of b. Parts leave together, so a
stage after it may run whole batches again. The number of slices must be a multiple of b / b_s, so that candidates with
unlike parts do not displace each other.

`planner.planning.pipelines.listing` lists them.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, lcm
from typing import overload

import numpy as np

from planner.model import Problem
from planner.model.segments import Share, kind_of, processes
from planner.planning.arrays import Floats, Integers
from planner.planning.pipelines.listing import ALL, BEST, FASTEST, Listing, listed
from planner.planning.pipelines.terrain import Terrain, terrain


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
    if not (pareto and problem.options.objective == "least_memory"):
        return list(enumerate_pipelines(problem, dnn_index, x0_rps, pareto=pareto))
    alike: defaultdict[tuple[object, ...], list[Candidate]] = defaultdict(list)
    for candidate in enumerate_pipelines(problem, dnn_index, x0_rps, pareto=False):
        alike[candidate.variant, candidate.devices, candidate.shares, candidate.parts].append(candidate)
    return [
        some[number] for some in alike.values() for number in pareto_best(worth(problem, some), np.zeros(len(some)))
    ]


def worth(problem: Problem, candidates: Sequence[Candidate]) -> Floats:
    """Return what makes one of some candidates on equal devices and shares better, ``[candidate, dimension]``.

    That is what slices serve, and, where memory is the objective, how little they hold: the more, the better.
    """
    served = np.array([candidate.slice_rps for candidate in candidates])
    if problem.options.objective != "least_memory":
        return served
    held = np.array([stage_megabytes(problem, candidate) for candidate in candidates])
    return np.concatenate([served, -held], axis=1)


def stage_megabytes(problem: Problem, candidate: Candidate) -> tuple[float, ...]:
    """Return what a slice of each stage of a candidate holds."""
    profile = problem.dnns[candidate.dnn].variants[candidate.variant]
    runs = zip(candidate.batches, candidate.cuts, candidate.cuts[1:], strict=False)
    return tuple(profile.memory_bytes(batch, first, last) / 1e6 for batch, first, last in runs)


def best_of_segments(problem: Problem, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates without those of one stage that another makes needless.

    All are returned where energy, memory or accuracy matter.
    Of candidates of one DNN with one stage each, on the same kind of segment, a segment is best used by the one that
    serves most on it, whatever the number of processes, the batch size, or the variant.
    """
    if problem.options.objective in ("least_energy", "least_memory") or problem.options.limits_accuracy:
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
    best, least_us = None, inf
    for variant in range(len(problem.dnns[dnn_index].variants)):
        ground = terrain(problem, dnn_index, variant, x0_rps, least_us)
        found = listed(ground, FASTEST)
        if len(found.stages):
            needed_us = float(found.latency_us[-1] + ground.building_us[found.part[-1, 0]])
            if needed_us < least_us:
                best, least_us = Pipelines.of(dnn_index, [(variant, ground, found)])[-1], needed_us
    return None if best is None else (best, least_us)


@dataclass(frozen=True)
class Pipelines(Sequence[Candidate]):
    """The candidates of one DNN, kept as arrays ``[candidate, stage]``; each is made when it is asked for.

    ``stages[candidate]`` counts stages, ``cuts[candidate, 0..stages]``; entries beyond are not read. ``place`` indexes
    ``shares``.
    """

    dnn: int
    variant: Integers
    stages: Integers
    cuts: Integers
    device: Integers
    place: Integers
    shares: tuple[Share, ...]
    batch: Integers
    slice_rps: Floats

    @classmethod
    def of(cls, dnn: int, listings: Sequence[tuple[int, Terrain, Listing]]) -> "Pipelines":
        """Join the listings of some variants."""
        count = sum(len(listing.stages) for _, _, listing in listings)
        positions = max(ground.max_stages for _, ground, _ in listings)
        shares = tuple(share for _, ground, _ in listings for share in ground.shares)
        made = cls(
            dnn,
            np.concatenate([np.full(len(listing.stages), variant) for variant, _, listing in listings]),
            np.concatenate([listing.stages for _, _, listing in listings]),
            np.zeros((count, positions + 1), dtype=np.int64),
            np.zeros((count, positions), dtype=np.int64),
            np.zeros((count, positions), dtype=np.int64),
            shares,
            np.ones((count, positions), dtype=np.int64),
            np.ones((count, positions)),
        )
        row, place = 0, 0
        for _, ground, listing in listings:
            rows, most = slice(row, row + len(listing.stages)), ground.max_stages
            row, place = rows.stop, place + len(ground.shares)
            if len(listing.stages) == 0:
                continue
            made.cuts[rows, : most + 1], made.slice_rps[rows, :most] = listing.cuts, listing.slice_rps
            made.device[rows, :most] = ground.device[listing.place]
            made.place[rows, :most] = listing.place + (place - len(ground.shares))
            made.batch[rows, :most] = ground.batches[listing.part]
        return made

    @property
    def share(self) -> Integers:
        """The shares 1/k as numbers k ``[candidate, stage]``, where no segment has a name."""
        numbers: Integers = np.array([int(share) for share in self.shares], dtype=np.int64)[self.place]
        return numbers

    def take(self, rows: Integers) -> "Pipelines":
        """Return some of the candidates."""
        return Pipelines(
            self.dnn,
            self.variant[rows],
            self.stages[rows],
            self.cuts[rows],
            self.device[rows],
            self.place[rows],
            self.shares,
            self.batch[rows],
            self.slice_rps[rows],
        )

    def and_those_of(self, other: "Pipelines") -> "Pipelines":
        """Return these candidates and then those of another list of the same DNN that are not among them."""
        both = Pipelines(
            self.dnn,
            np.concatenate((self.variant, other.variant)),
            np.concatenate((self.stages, other.stages)),
            np.concatenate((self.cuts, other.cuts)),
            np.concatenate((self.device, other.device)),
            np.concatenate((self.place, other.place)),
            self.shares,
            np.concatenate((self.batch, other.batch)),
            np.concatenate((self.slice_rps, other.slice_rps)),
        )
        alike = np.column_stack((both.variant, both.cuts, both.place, both.batch))
        return both.take(np.sort(np.unique(alike, axis=0, return_index=True)[1]))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.stages)

    @overload
    def __getitem__(self, number: int) -> Candidate: ...

    @overload
    def __getitem__(self, number: slice) -> list[Candidate]: ...

    def __getitem__(self, number: int | slice) -> Candidate | list[Candidate]:
        """Return a candidate."""
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        stages = int(self.stages[number])
        shares = tuple(self.shares[place] for place in self.place[number, :stages])
        return Candidate(
            self.dnn,
            int(self.variant[number]),
            tuple(self.cuts[number, : stages + 1].tolist()),
            tuple(self.device[number, :stages].tolist()),
            shares,
            tuple(self.batch[number, :stages].tolist()),
            tuple(self.slice_rps[number, :stages].tolist()),
        )


def enumerate_pipelines(problem: Problem, dnn_index: int, x0_rps: float, *, pareto: bool = True) -> Pipelines:
    """Return the candidates of a DNN as `enumerate_candidates` does, but as arrays."""
    variants = range(len(problem.dnns[dnn_index].variants))
    grounds = [terrain(problem, dnn_index, variant, x0_rps) for variant in variants]
    which = BEST if pareto else ALL
    return Pipelines.of(
        dnn_index, [(variant, ground, listed(ground, which)) for variant, ground in zip(variants, grounds, strict=True)]
    )


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
