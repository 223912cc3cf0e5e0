"""Predictions for workers whose times vary as given: the real frontend on a clock that only goes on when it waits."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from simulator.engine import build_system
from simulator.executor import frontend as frontends
from simulator.executor.compare import compare
from simulator.executor.dispatcher import Dispatcher, compile_policy
from simulator.executor.execution import Execution, Settings
from simulator.executor.fleet import Event, Finished, SliceId, Tensors
from simulator.executor.frontend import Frontend
from simulator.executor.hand_over import hand_over
from simulator.executor.journal import to_records
from simulator.executor.links import Links
from simulator.executor.variation import FACTORS, service_factors

REHEARSAL_US = 50_000_000
Draw = Callable[[int], float]  # stage -> service time over the planned one


class Clock:
    """Stands for `time` in the frontend."""

    now_ns = 0

    def monotonic_ns(self) -> int:
        return self.now_ns


class Varying:
    """Workers that serve one batch at a time, first come, first served, in times drawn anew; handing over is free."""

    answers_in_place = True

    def __init__(self, clock: Clock, latency_us: Sequence[int], draw: Draw) -> None:
        self.clock, self.latency_us, self.draw = clock, latency_us, draw
        self.free_ns: dict[SliceId, int] = {}
        self.due: list[Finished] = []

    def take(self, batch: int, pipeline: int, first: int, size: int) -> int:
        return size

    def send(self, batch: int, stage: int, slices: Sequence[SliceId]) -> None:
        at = slices[0]
        start_ns = max(self.clock.now_ns, self.free_ns.get(at, 0))
        end_ns = start_ns + round(self.latency_us[stage] * self.draw(stage)) * 1_000
        self.free_ns[at] = end_ns
        self.due.append(Finished(at, batch, 4, start_ns, end_ns, end_ns, handed_on=False))

    def poll(self, timeout_s: float) -> list[Event]:
        until_ns = self.clock.now_ns + max(0, round(timeout_s * 1e9))
        self.clock.now_ns = min([until_ns, *(event.end_ns for event in self.due)])
        found = [event for event in self.due if event.end_ns <= self.clock.now_ns]
        self.due = [event for event in self.due if event.end_ns > self.clock.now_ns]
        return list(found)

    def look(self) -> list[Event]:
        return []

    def tell_ends(self, wanted: bool) -> None: ...

    def answers(self, batch: int) -> Tensors:
        raise AssertionError

    def release(self, batch: int) -> None: ...

    def dismiss(self, slice_id: SliceId) -> None: ...

    def restart(self, slice_id: SliceId) -> None: ...

    def usage(self) -> dict[SliceId, tuple[float, int]]:
        return {}

    def close(self) -> None: ...


class Nobody:
    """Does not read its answers."""

    reads = False

    def answer(self, first: int, size: int, outputs: Tensors) -> None: ...


@pytest.fixture
def serve(make_case, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Execution]:
    def run(draw: Draw, load: float, seconds: int = 250, **more: object) -> Execution:
        case = make_case(batch=1, latency_us=20_000, slo_us=400_000, bandwidth_gbps=1e6, **more)
        system = build_system(case.problem, case.plan, case.dnn)
        compile_policy(system, "reservation")
        slices = int(system.slices.min())
        gaps_us = np.random.default_rng(0).exponential(10_000 / slices / load, round(seconds * 100 * slices * load))
        arrivals_us = np.cumsum(gaps_us).astype(np.int64)
        clock = Clock()
        monkeypatch.setattr(frontends, "time", clock)
        fleet = Varying(clock, system.latency_us[0, :, 1].tolist(), draw)
        dispatcher = Dispatcher(system, arrivals_us, "reservation", 0)
        frontend = Frontend(system, dispatcher, fleet, Nobody(), Links(None), 1_000)
        frontend.run()
        records = to_records(frontend.journal, system, arrivals_us, dispatcher.fate)
        window_us = (REHEARSAL_US, int(arrivals_us[-1]))
        return Execution(records, frontend.journal, system, Settings(), 0, window_us, False, None, (0, 0), 0.1, "")

    return run


def spread_by(*sigmas: float) -> Draw:
    """Log-normal times of mean 1, with the deviation of each stage's logarithm."""
    rng = np.random.default_rng(1)
    return lambda stage: float(rng.lognormal(-(sigmas[stage] ** 2) / 2, sigmas[stage]))


def now_and_then(stage: int, rng: np.random.Generator = np.random.default_rng(2)) -> float:  # noqa: B008
    """One batch in fifty takes two and a half times as long."""
    return 2.5 if rng.random() < 0.02 else 0.97


@pytest.mark.parametrize(
    ("draw", "load", "slices"),
    [
        (spread_by(0.05, 0.05), 0.5, (1, 1)),
        (spread_by(0.15, 0.15), 0.5, (2, 2)),
        (spread_by(0.05, 0.2), 0.6, (1, 1)),
        (now_and_then, 0.4, (1, 1)),
    ],
    ids=["5 %", "15 %", "unlike", "rare"],
)
def test_latencies_are_foretold_where_times_vary(serve, draw: Draw, load: float, slices: tuple[int, int]) -> None:
    run = serve(draw, load, slices=slices)
    factors = service_factors(run)
    assert len(factors) == FACTORS
    assert np.mean(factors) == pytest.approx(1)
    informed, ignorant = compare(run, hand_over(run), factors=factors), compare(run, hand_over(run))
    assert abs(informed.row("p50 latency").difference) < 0.01
    assert abs(informed.row("p99 latency").difference) < 0.02  # what two runs of so many requests differ by
    assert abs(informed.row("utilisation of pipeline 0 stage 1").difference) < 0.5
    assert max(abs(ignorant.row(f"p{percent} latency").difference) for percent in (50, 99)) > 0.025
