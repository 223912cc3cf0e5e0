import time

import numpy as np
import pytest

from planner.profiling.plausibility import Company, Watch, describe_doubts, doubts


def rounds(*medians_us):
    """Rounds of three runs each."""
    return [np.array([0.99, 1.0, 1.01]) * median_us for median_us in medians_us]


# name: (batch -> rounds of the only block, doubtful batches)
CASES = {
    "in proportion": ({1: rounds(1000, 1010), 8: rounds(8000, 8100)}, []),
    "larger batches cost less per request": ({1: rounds(1000, 1000), 8: rounds(3000, 3000)}, []),
    "caches overflow": ({1: rounds(1000, 1000), 8: rounds(11000, 11000)}, []),
    # MobileNetV2 as profiled on a busy machine: 6 ms and 320 ms
    "far more than in proportion": ({1: rounds(6000, 6000), 8: rounds(320_000, 320_000)}, [8]),
    "a larger batch takes less": ({1: rounds(5000, 5000), 2: rounds(3000, 3000)}, [1]),
    "a neighbour came": ({1: rounds(1000, 1500), 2: rounds(2000, 2000)}, [1]),
    "tens of microseconds say nothing": ({1: rounds(20, 60), 2: rounds(30, 15)}, []),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_doubtful(case):
    times_us, doubtful = CASES[case]
    found = doubts(list(times_us), {batch: [of_block] for batch, of_block in times_us.items()})
    assert [batch for batch, _ in found] == doubtful


def test_doubts_do_not_depend_on_the_unit_of_work():
    """A block twice as long is exactly as doubtful, far above the grain."""
    random = np.random.default_rng(1)
    for _ in range(50):
        times_us = {b: [[np.array([u]) for u in random.uniform(1e4, 1e5, 3)]] for b in (1, 2, 4)}
        doubled = {b: [[2 * one for one in of_block] for of_block in row] for b, row in times_us.items()}
        assert doubts([1, 2, 4], times_us).keys() == doubts([1, 2, 4], doubled).keys()


def test_others_make_the_wall_clock_doubtful_only():
    busy = Company(others=0.7, stolen=0.0)
    assert "wall clock" in describe_doubts({}, 2, busy)
    assert describe_doubts({}, 2) == ""
    assert describe_doubts({(1, 2): "odd"}, 2) == "doubtful: the whole at batch 1 (odd)"
    assert describe_doubts({}, 2, Company(others=0.05, stolen=0.0)) == ""


def test_company_is_what_the_machine_did_without_us(monkeypatch):
    """In 10 s two cores were busy for 12 s, 9 of them ours, and 1 s was stolen."""
    now = iter([(100.0, 50.0, 5.0, 0.0), (110.0, 62.0, 14.0, 1.0)])
    monkeypatch.setattr(Watch, "_now", staticmethod(lambda: next(now)))
    company = Watch().company()
    assert (company.others, company.stolen) == pytest.approx((0.3, 0.1))
    assert company.disturbing


def test_ones_own_work_is_counted():
    """Half a second of this thread's processor time is within what the machine and this process used."""
    before = Watch._now()
    until = time.thread_time() + 0.5
    while time.thread_time() < until:
        pass
    busy_s, own_s = (after - earlier for after, earlier in zip(Watch._now()[1:3], before[1:3], strict=True))
    assert own_s >= 0.45
    assert busy_s >= own_s - 0.1
