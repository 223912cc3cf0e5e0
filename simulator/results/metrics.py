"""What records say, each a pure function of them.

Warm-up rule: requests that arrive before ``warm_up_us`` (1 ms unless told, as in the reference simulator) are left
out everywhere, and the *span* over which rates and utilisations are taken is from then to the last arrival.

Quantiles are nearest-rank: of n sorted values the one with index floor(q · (n - 1)), so that they are values that
occurred.
"""

from math import isfinite, isnan, nan

import numpy as np
from numpy.typing import NDArray

from planner.model import InputError
from simulator.dispatch.decisions import FINISHED, OUTCOMES
from simulator.results.records import Records

WARM_UP_US = 1_000
Floats = dict[str, float]


def require_counted(duration_s: float, warm_up_us: int = WARM_UP_US) -> None:
    """Raise InputError unless a run goes on after its warm-up, whose requests are not counted."""
    if not (duration_s * 1e6 > warm_up_us and isfinite(duration_s)):
        raise InputError(
            f"duration: expected more than the warm-up: requests of its first {warm_up_us / 1e6:g} s are not counted, "
            f"got {duration_s:g} s"
        )


def counted(records: Records, warm_up_us: int = WARM_UP_US) -> NDArray[np.bool_]:
    """Return ``[request]``, whether it arrived at ``warm_up_us`` or later."""
    return records.arrival_us >= warm_up_us


def span_s(records: Records, warm_up_us: int = WARM_UP_US) -> float:
    """Return the seconds from the end of the warm-up to the last arrival; 0 without requests."""
    return max(0.0, (int(records.arrival_us[-1]) - warm_up_us) / 1e6) if len(records) else 0.0


def latencies_us(records: Records, warm_up_us: int = WARM_UP_US) -> NDArray[np.int64]:
    """Return end - arrival (µs) of every finished request, in order of arrival.

    `distribution` and `quantile` of them are the run's percentiles.
    """
    chosen = np.flatnonzero(records.finished & counted(records, warm_up_us))
    return records.end_us()[chosen] - records.arrival_us[chosen]


def late(records: Records, warm_up_us: int = WARM_UP_US) -> int:
    """Count finished requests with latency > SLO."""
    return int((latencies_us(records, warm_up_us) > records.system.slo_us).sum())


def dropped(records: Records, warm_up_us: int = WARM_UP_US) -> int:
    """Count requests that were not finished, whatever the cause."""
    return int((~records.finished & counted(records, warm_up_us)).sum())


def attainment(records: Records, warm_up_us: int = WARM_UP_US) -> float:
    """Return requests finished within the SLO / all requests (a share, 0 to 1; NaN without requests)."""
    requests = int(counted(records, warm_up_us).sum())
    return (requests - dropped(records, warm_up_us) - late(records, warm_up_us)) / requests if requests else nan


def goodput_rps(records: Records, warm_up_us: int = WARM_UP_US) -> float:
    """Return requests finished within the SLO / span (requests/s; NaN for an empty span)."""
    met = int((latencies_us(records, warm_up_us) <= records.system.slo_us).sum())
    span = span_s(records, warm_up_us)
    return met / span if span else nan


def unserved_shares(records: Records, warm_up_us: int = WARM_UP_US) -> Floats:
    """Return per cause the requests not finished because of it / all requests (shares, 0 to 1)."""
    outcome = records.outcome[counted(records, warm_up_us)]
    share = np.bincount(outcome, minlength=len(OUTCOMES)) / max(1, len(outcome))
    return {cause: float(share[code]) for code, cause in enumerate(OUTCOMES) if code != FINISHED}


def quantile(values: NDArray[np.int64], q: float) -> float:
    """Return the nearest-rank quantile: sorted(values)[floor(q · (n - 1))]; NaN of nothing.

    >>> quantile(np.array([40, 10, 30, 20]), 0.5)
    20.0
    """
    return _quantiles(values, q)[0]


def distribution(values: NDArray[np.int64]) -> Floats:
    """Return mean, p50, p95 and p99 in the unit of the values; NaN of nothing.

    >>> distribution(np.arange(101))
    {'mean': 50.0, 'p50': 50.0, 'p95': 95.0, 'p99': 99.0}
    """
    p50, p95, p99 = _quantiles(values, 0.5, 0.95, 0.99)
    return {"mean": float(values.mean()) if len(values) else nan, "p50": p50, "p95": p95, "p99": p99}


def _quantiles(values: NDArray[np.int64], *shares: float) -> list[float]:
    """Return several quantiles at once: a partition each would take most of the time of a run's metrics."""
    if not len(values):
        return [nan] * len(shares)
    ranks = [int(share * (len(values) - 1)) for share in shares]
    return [float(value) for value in np.partition(values, ranks)[ranks]]


def latency_parts_us(records: Records, warm_up_us: int = WARM_UP_US) -> dict[str, NDArray[np.int64]]:
    """Return what the latencies consist of, ``[finished request]`` in µs; the parts add up to `latencies_us`.

    - building: arrival to the sending of its first batch;
    - transfer: size · wire time per request + hop latency, summed over hops, but no more than what passed between the
      stages: real hops may be quicker than the network that was planned for;
    - inference: the time that slices worked on its batches;
    - queueing: all the rest, the waits for slices, network cards, and a batch in front of a later stage.
    """
    chosen = np.flatnonzero(records.finished & counted(records, warm_up_us))
    system = records.system
    transfer, inference = np.zeros((2, len(chosen)), np.int64)
    for s, visits in enumerate(records.visits):
        inference += records.of_requests(s, visits.end_us - visits.start_us, chosen)
        if s + 1 < len(records.visits):
            wire_us, hop_us = system.transfer_us[visits.pipeline, s + 1], system.hop_us[visits.pipeline, s + 1]
            planned_us = records.of_requests(s, visits.size * wire_us + hop_us, chosen)
            sent_us = records.of_requests(s, visits.end_us, chosen)
            arrived_us = records.of_requests(s + 1, records.visits[s + 1].arrive_us, chosen)
            transfer += np.clip(arrived_us - sent_us, 0, planned_us)  # 0 where there was no further stage
    building = records.of_requests(0, records.visits[0].arrive_us, chosen) - records.arrival_us[chosen]
    queueing = latencies_us(records, warm_up_us) - building - transfer - inference
    return {"building": building, "queueing": queueing, "transfer": transfer, "inference": inference}


def utilisation(records: Records, warm_up_us: int = WARM_UP_US) -> Floats:
    """Return per device type: busy time of its slices within the span, each over its share's k, / (devices · span).

    A share, 0 to 1, of the devices that the plan fills; NaN for a type that it does not use.
    """
    system = records.system
    first_us, last_us = warm_up_us, int(records.arrival_us[-1]) if len(records) else warm_up_us
    busy = np.zeros(len(system.device_types))
    for s, visits in enumerate(records.visits):
        inside = np.minimum(visits.end_us, last_us) - np.maximum(visits.start_us, first_us)
        of_pipeline = np.bincount(visits.pipeline, np.maximum(inside, 0), len(system.stages))
        used = system.stages > s
        weighted = of_pipeline[used] / system.share[used, s]
        busy += np.bincount(system.device[used, s], weighted, len(busy))
    capacity = np.array(system.devices) * max(1, last_us - first_us)
    return {name: float(busy[i] / capacity[i]) if capacity[i] else nan for i, name in enumerate(system.device_types)}


def batch_sizes(records: Records, warm_up_us: int = WARM_UP_US) -> Floats:
    """Return sum(sizes) / batches over the batches sent after the warm-up: as met, and as their pipelines planned.

    In requests; NaN without batches.
    """
    first = records.visits[0]
    # An inference that a failure cut short is a batch of no requests.
    sent = (first.size > 0) & (first.arrive_us >= warm_up_us)
    if not sent.any():
        return {"planned": nan, "met": nan}
    planned = records.system.batch[first.pipeline[sent]]
    return {"planned": float(planned.mean()), "met": float(first.size[sent].mean())}


def cost_per_thousand(records: Records, warm_up_us: int = WARM_UP_US) -> float:
    """Return sum(devices · price per hour) · span / 3600 s / requests within SLO · 1000, in the prices' currency.

    NaN where the price of a device type in use is unknown, or nothing was served.
    """
    system = records.system
    used = [(n, price) for n, price in zip(system.devices, system.prices_per_hour, strict=True) if n]
    if any(isnan(price) for _, price in used):
        return nan
    per_second = sum(n * price for n, price in used) / 3600
    goodput = goodput_rps(records, warm_up_us)
    return 1000 * per_second / goodput if goodput > 0 else nan


def accuracy(records: Records, warm_up_us: int = WARM_UP_US) -> float:
    """Return how accurate what was served is on average (percent); NaN if that is unknown of a variant in use."""
    right = records.accuracy()[records.finished & counted(records, warm_up_us)]
    return float(right.mean()) if len(right) else nan


def watts(records: Records, warm_up_us: int = WARM_UP_US) -> float:
    """Return sum(devices · (idle + (busy - idle) · utilisation)), what the plan's devices drew on average (W).

    Devices that the plan fills in part count in part. NaN where the watts of a device type in use are unknown.
    (`planner.model.energy` is the same for a plan.)
    """
    system, total = records.system, 0.0
    busy = utilisation(records, warm_up_us)
    for name, devices, (idle, most) in zip(
        system.device_types, system.devices, system.watts or [(nan, nan)] * len(system.devices), strict=True
    ):
        if devices:
            total += devices * (idle + (most - idle) * busy[name])
    return total


def joules_per_thousand(records: Records, warm_up_us: int = WARM_UP_US) -> float:
    """Return watts / goodput · 1000, the energy of a thousand requests within their SLO (J); NaN where unknown."""
    goodput = goodput_rps(records, warm_up_us)
    return 1000 * watts(records, warm_up_us) / goodput if goodput > 0 else nan


def summary(records: Records, warm_up_us: int = WARM_UP_US) -> Floats:
    """Return all metrics under flat names, one row of a sweep's table."""
    row: Floats = {
        "requests": int(counted(records, warm_up_us).sum()),
        "dropped": dropped(records, warm_up_us),
        "late": late(records, warm_up_us),
        "attainment": attainment(records, warm_up_us),
        "goodput_rps": goodput_rps(records, warm_up_us),
        "cost_per_thousand": cost_per_thousand(records, warm_up_us),
    }
    if not isnan(drawn := watts(records, warm_up_us)):  # known for every device type in use
        row |= {"watts": drawn, "joules_per_thousand": joules_per_thousand(records, warm_up_us)}
    if not isnan(right := accuracy(records, warm_up_us)):
        row["accuracy"] = right
    row |= {f"unserved_{cause}": share for cause, share in unserved_shares(records, warm_up_us).items()}
    row |= {f"latency_{name}_us": x for name, x in distribution(latencies_us(records, warm_up_us)).items()}
    for part, values in latency_parts_us(records, warm_up_us).items():
        row |= {f"{part}_{name}_us": x for name, x in distribution(values).items()}
    row |= {f"utilisation_{device}": share for device, share in utilisation(records, warm_up_us).items()}
    row |= {f"batch_{name}": x for name, x in batch_sizes(records, warm_up_us).items()}
    return row
