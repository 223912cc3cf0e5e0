"""What requests wait for in every stage: a row per DNN and stage, with the pools that serve it.

CoMPI (SoCC 2025) reports these times of its server per model and *sequence*, a merged stage with those that follow on
the same device without a hop; a stage of a plan is such a sequence. Of every finished request served there, in µs,

    before      from its arrival until it reached the stage
    waiting     until its batch there was complete
    queueing    until a slice began with the batch
    inference   of the batch
    transfer    to the next stage: size · wire time + hop latency, no more than what passed
    after       until it was answered, transfer included

so that before + waiting + queueing + inference + after is its latency. *discarded* counts requests given up in front of
the stage, *failed* those lost there with a slice that failed.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.dispatch.decisions import FINISHED, LOST, OPEN
from simulator.results.metrics import WARM_UP_US, counted, quantile
from simulator.results.records import Records

Times = NDArray[np.int64]
SHARES = {"p25": 0.25, "p50": 0.5, "p95": 0.95, "p99": 0.99}


def sequence_rows(
    records: Records, pools: Mapping[tuple[int, int], Hashable] | None = None, warm_up_us: int = WARM_UP_US
) -> list[dict[str, Any]]:
    """Return a row per stage position of a DNN: counts, and mean and quantiles of its times.

    Parameters
    ----------
    pools
        Names of pools that serve other DNNs, too, by (pipeline, stage).
    """
    rows = []
    chosen = counted(records, warm_up_us)
    visited = np.array([visit >= 0 for visit in records.visit])
    reached = np.minimum(visited.sum(axis=0), len(visited) - 1)  # by those that did not finish
    unfinished = chosen & (records.outcome != FINISHED) & (records.outcome != OPEN)
    for stage in range(len(visited)):
        here = unfinished & (reached == stage)
        times = stage_times_us(records, stage, warm_up_us)
        row: dict[str, Any] = {
            "dnn": records.system.dnn,
            "stage": stage,
            "pools": _names(pools or {}, stage),
            "requests": len(times["inference"]),
            "discarded": int((here & (records.outcome != LOST)).sum()),
            "failed": int((here & (records.outcome == LOST)).sum()),
        }
        for part, values in times.items():
            row[f"{part}_mean_us"] = float(values.mean()) if len(values) else float("nan")
            row |= {f"{part}_{name}_us": quantile(values, share) for name, share in SHARES.items()}
        rows.append(row)
    return rows


def _names(pools: Mapping[tuple[int, int], Hashable], stage: int) -> str:
    return ", ".join(dict.fromkeys(str(name) for (_, position), name in sorted(pools.items()) if position == stage))


def stage_times_us(records: Records, stage: int, warm_up_us: int = WARM_UP_US) -> dict[str, Times]:
    """Return the times of a stage, ``[finished request that it served]`` in order of arrival."""
    served = np.zeros(len(records), np.bool_)
    served[records.visit[stage] >= 0] = (
        records.visits[stage].slice[records.visit[stage][records.visit[stage] >= 0]] >= 0
    )
    chosen = np.flatnonzero(records.finished & served & counted(records, warm_up_us))

    def of(position: int, name: str) -> Times:
        return records.of_requests(position, getattr(records.visits[position], name), chosen)

    arrived_us, answered_us = records.arrival_us[chosen], records.end_us()[chosen]
    joined_us, start_us, end_us = of(stage, "arrive_us"), of(stage, "start_us"), of(stage, "end_us")
    reached_us = arrived_us
    if stage:
        reached_us = of(stage - 1, "end_us") + _transfer_us(records, stage - 1, chosen)
    transfer_us = _transfer_us(records, stage, chosen) if stage + 1 < len(records.visits) else np.zeros_like(end_us)
    return {
        "before": reached_us - arrived_us,
        "waiting": joined_us - reached_us,
        "queueing": start_us - joined_us,
        "inference": end_us - start_us,
        "transfer": transfer_us,
        "after": answered_us - end_us,
    }


def _transfer_us(records: Records, stage: int, chosen: Times) -> Times:
    """Return what the hop after a stage took, at most what passed until the next one was reached."""
    system, visits = records.system, records.visits[stage]
    wire_us, hop_us = system.transfer_us[visits.pipeline, stage + 1], system.hop_us[visits.pipeline, stage + 1]
    planned_us = records.of_requests(stage, visits.size * wire_us + hop_us, chosen)
    left_us = records.of_requests(stage, visits.end_us, chosen)
    passed_us = records.of_requests(stage + 1, records.visits[stage + 1].arrive_us, chosen) - left_us
    taken_us: Times = np.clip(passed_us, 0, planned_us)
    return taken_us


def sequence_tables(
    found: Sequence[Records], pools: Sequence[Mapping[tuple[int, int], Hashable]] | None, warm_up_us: int = WARM_UP_US
) -> list[dict[str, Any]]:
    """Return the rows of all DNNs of a run."""
    return [
        row
        for number, records in enumerate(found)
        for row in sequence_rows(records, pools[number] if pools else None, warm_up_us)
    ]
