"""The pipeline of one DNN that serves a request/s on the cheapest devices, at given prices of device types.

On blocks [i, j), a stage on 1/k of type g with price lambda_g per device costs, at batch b and per request/s,

    lambda_g / (x_s · k) = lambda_g / k · max(L_s / b, t_in · k · G, t_out · k · G)

and takes L_s + T_s of the latency budget (`planner.planning.pipelines.candidates`). Both depend on the neighbours only
through the links to them, and G through the servers of the next stage where these count (``card_sharing``). So types of
equal links, and then of equal servers, form a *class*, one class where all are equal. Then per batch size

1. for every range of blocks and classes of the stage and its neighbours, the Pareto front of (latency, cost) over all
   places (type, share) of the class;
2. a search over ranges and fronts, depth first, for every number of stages: a path is left where even the fastest
   rest misses the SLO, or where the cheapest rest, SLO aside, makes it cost more than the best pipeline known.

The search is exact, which the bound of column generation (`planner.planning.whole_devices.columns`) rests on.
"""

from dataclasses import dataclass
from math import inf

import numpy as np

from planner.compilation import compiled
from planner.model import Problem
from planner.planning.arrays import Floats, Integers
from planner.planning.pipelines.candidates import Candidate
from planner.planning.pipelines.terrain import Terrain, terrain

NO_STAGE = -1


@dataclass(frozen=True)
class Pricer:
    """One variant of a DNN, and what the search for its pipelines rests on, whatever the prices."""

    dnn: int
    variant: int
    terrain: Terrain

    def cheapest(self, device_price: Floats) -> list[tuple[float, Candidate]]:
        """Return the cheapest pipelines with their cost per request/s, one per batch size and number of stages."""
        ground, most = self.terrain, self.terrain.max_stages
        shape = len(ground.batches), most
        cost = np.full(shape, inf)
        cuts = np.zeros((*shape, most + 1), dtype=np.int64)
        places = np.full((*shape, most), NO_STAGE)
        for batch, (size, budget_us) in enumerate(zip(ground.batches.tolist(), ground.budget_us.tolist(), strict=True)):
            _search_batch(
                ground.latency_us[:, batch],
                float(size),
                device_price[ground.device] * ground.fraction * 1e-6,
                ground.card_slices,
                ground.link_class,
                ground.wire_us,
                ground.hop_us,
                budget_us,
                cost[batch],
                cuts[batch],
                places[batch],
            )
        return [
            (float(cost[batch, stages]), self._candidate(batch, cuts[batch, stages], places[batch, stages]))
            for batch in range(len(ground.batches))
            for stages in range(most)
            if cost[batch, stages] < inf
        ]

    def _candidate(self, number: int, cuts: Integers, places: Integers) -> Candidate:
        ground, batch = self.terrain, int(self.terrain.batches[number])
        places = places[places != NO_STAGE]
        cuts = cuts[: len(places) + 1]
        classes = ground.link_class[places]
        slice_rps = []
        after = [*classes[1:], ground.card_slices.shape[1] - 1]
        for stage, place in enumerate(places):
            rps = 1e6 * batch / float(ground.latency_us[place, number, cuts[stage], cuts[stage + 1]])
            for sender in range(max(0, stage - 1), min(stage + 1, len(places) - 1)):
                wire_us = float(ground.wire_us[classes[sender], classes[sender + 1], cuts[sender + 1]])
                if wire_us > 0:
                    rps = min(rps, 1e6 / wire_us / float(ground.card_slices[place, after[stage]]))
            slice_rps.append(rps)
        return Candidate(
            self.dnn,
            self.variant,
            tuple(cuts.tolist()),
            tuple(ground.device[places].tolist()),
            tuple(ground.shares[place] for place in places.tolist()),
            (batch,) * len(places),
            tuple(slice_rps),
        )


def pricers(problem: Problem, dnn_index: int) -> list[Pricer]:
    """Return a pricer per variant of a DNN that some device can run; its X0 must be known."""
    dnn = problem.dnns[dnn_index]
    x0_rps = dnn.np_throughput_rps or 0.0
    found = [
        Pricer(dnn_index, variant, terrain(problem, dnn_index, variant, x0_rps)) for variant in range(len(dnn.variants))
    ]
    return [pricer for pricer in found if len(pricer.terrain.device)]


@compiled
def _search_batch(
    latency_us: Floats,
    size: float,
    price: Floats,
    card_slices: Floats,
    link_class: Integers,
    wire_us: Floats,
    hop_us: Floats,
    budget_us: float,
    best: Floats,
    best_cuts: Integers,
    best_places: Integers,
) -> None:
    """Fill in the cheapest pipeline of each number of stages at one batch size."""
    places, blocks, classes = latency_us.shape[0], latency_us.shape[1] - 1, len(hop_us)
    # Fronts by class before, own class, class after (``classes`` stands for no stage there), first and last block.
    shape = (classes + 1, classes, classes + 1, blocks + 1, blocks + 1)
    length = np.zeros(shape, np.int64)
    time, cost = np.empty((*shape, places)), np.empty((*shape, places))
    place = np.empty((*shape, places), np.int64)
    fastest = np.full(blocks + 1, np.inf)  # time of the blocks from here on
    cheapest = np.full((len(best) + 1, blocks + 1), np.inf)  # cost of the blocks from here on in so many stages
    fastest[blocks], cheapest[0, blocks] = 0.0, 0.0
    for i in range(blocks - 1, -1, -1):
        for j in range(i + 1, blocks + 1):
            for p in range(places):
                inference = latency_us[p, i, j]
                if inference == np.inf:
                    continue
                own = link_class[p]
                for before in range(classes if i == 0 else 0, classes + (i == 0)):
                    for after in range(classes if j == blocks else 0, classes + (j == blocks)):
                        spent, limit = inference, inference / size
                        if i > 0:
                            limit = max(limit, wire_us[before, own, i] * card_slices[p, after])
                        if j < blocks:
                            spent += size * wire_us[own, after, j] + hop_us[own, after]
                            limit = max(limit, wire_us[own, after, j] * card_slices[p, after])
                        key = (before, own, after, i, j)
                        length[key] = _insert(time[key], cost[key], place[key], length[key], spent, price[p] * limit, p)
                        fastest[i] = min(fastest[i], spent + fastest[j])
                        for rest in range(len(best)):
                            cheapest[rest + 1, i] = min(cheapest[rest + 1, i], price[p] * limit + cheapest[rest, j])
    fronts = (length, time, cost, place, fastest, cheapest)
    for stages in range(1, len(best) + 1):
        for first in range(classes):
            best[stages - 1] = _search(
                stages, first, fronts, budget_us, best[stages - 1], best_cuts[stages - 1], best_places[stages - 1]
            )


@compiled
def _insert(time: Floats, cost: Floats, place: Integers, length: int, spent: float, paid: float, where: int) -> int:
    """Put a place into a front, sorted by rising time and falling cost, and return the front's new length."""
    at = 0
    while at < length and (time[at] < spent or (time[at] == spent and cost[at] <= paid)):
        at += 1
    if at > 0 and cost[at - 1] <= paid:
        return length
    end = at
    while end < length and cost[end] >= paid:  # slower and not cheaper
        end += 1
    moved = at + 1 - end
    if moved > 0:
        for entry in range(length - 1, end - 1, -1):
            time[entry + 1], cost[entry + 1], place[entry + 1] = time[entry], cost[entry], place[entry]
    elif moved < 0:
        for entry in range(end, length):
            time[entry + moved], cost[entry + moved], place[entry + moved] = time[entry], cost[entry], place[entry]
    time[at], cost[at], place[at] = spent, paid, where
    return length + moved


@compiled
def _search(
    stages: int,
    first: int,
    fronts: tuple[Integers, Floats, Floats, Integers, Floats, Floats],
    budget_us: float,
    best: float,
    best_cuts: Integers,
    best_places: Integers,
) -> float:
    """Try all pipelines of so many stages, the first of class ``first``; return the least cost known.

    A stack holds, per stage, its range of blocks, its class and its neighbours', its entry of the front, and what the
    stages before it spend and pay. (Recursive functions do not survive numba's cache.)
    """
    length, time, cost, place, fastest, cheapest = fronts
    classes, blocks = length.shape[1], len(fastest) - 1
    cuts, entry = np.zeros(stages + 1, np.int64), np.full(stages, -1)
    before, own, after = np.empty(stages, np.int64), np.empty(stages, np.int64), np.empty(stages, np.int64)
    spent, paid = np.zeros(stages + 1), np.zeros(stages + 1)
    stage = 0
    before[0], own[0] = classes, first
    cuts[1], after[0] = (blocks, classes) if stages == 1 else (1, 0)
    while stage >= 0:
        rest = stages - stage - 1
        i, j = cuts[stage], cuts[stage + 1]
        key = (before[stage], own[stage], after[stage], i, j)
        entry[stage] += 1
        at = entry[stage]
        if at == length[key] or spent[stage] + time[key][at] + fastest[j] > budget_us:
            entry[stage] = -1
            after[stage] += 1
            if after[stage] >= classes:
                after[stage] = 0 if rest else classes
                cuts[stage + 1] += 1
                if cuts[stage + 1] > blocks - rest:
                    stage -= 1
            continue
        total = paid[stage] + cost[key][at]
        if total + cheapest[rest, j] >= best:
            continue
        if rest == 0:
            best = total
            best_cuts[: stages + 1] = cuts
            for number in range(stages):
                chosen = (before[number], own[number], after[number], cuts[number], cuts[number + 1])
                best_places[number] = place[chosen][entry[number]]
            continue
        spent[stage + 1], paid[stage + 1] = spent[stage] + time[key][at], total
        stage += 1
        before[stage], own[stage] = own[stage - 1], after[stage - 1]
        cuts[stage + 1], after[stage] = (blocks, classes) if rest == 1 else (j + 1, 0)
        entry[stage] = -1
    return best
