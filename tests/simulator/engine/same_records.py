"""Records of two runs are equal, every time of every visit."""

from dataclasses import fields

import numpy as np

from simulator.results.records import NetworkRecords, Records


def assert_same_network(mine: NetworkRecords, theirs: NetworkRecords, what: object) -> None:
    for field in fields(NetworkRecords):
        if field.name != "engine":
            np.testing.assert_array_equal(
                getattr(mine, field.name), getattr(theirs, field.name), f"{what} {field.name}"
            )


def assert_same(mine: Records, theirs: Records, what: object = "") -> None:
    assert len(mine.visits) == len(theirs.visits), str(what)
    np.testing.assert_array_equal(mine.outcome, theirs.outcome, str(what))
    for s in range(len(mine.visits)):
        np.testing.assert_array_equal(mine.visit[s], theirs.visit[s], str(what))
        for column in ("pipeline", "size", "slice", "arrive_us", "start_us", "end_us"):
            left, right = (getattr(one.visits[s], column) for one in (mine, theirs))
            np.testing.assert_array_equal(left, right, f"{what} {s} {column}")
