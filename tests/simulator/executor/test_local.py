"""The fleet of this machine without processes: what dockets say when workers go."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from simulator.executor.crates import COMPUTED, END, HEAD, LAST, START, STEP, TELL, TICKET, WORD_BYTES, WORKER
from simulator.executor.fleet import Equipment, SliceId
from simulator.executor.layouts import PipelineModels, StageModel, TensorLayout
from simulator.executor.local import LocalFleet
from simulator.executor.messages import PACKET_BYTES, Work, unpack
from simulator.executor.workers import WorkerTask

FIRST, SECOND, OTHER = SliceId(0, 0, 0), SliceId(0, 1, 0), SliceId(0, 1, 1)


def layout(name: str) -> TensorLayout:
    return TensorLayout(name, "float32", (1,), 4, 0)


@pytest.fixture
def fleet() -> Iterator[LocalFleet]:
    stages = tuple(StageModel(Path(), (layout(a),), (layout(b),)) for a, b in ("xh", "hy"))
    models = PipelineModels(stages, (layout("x"),), ("y",))
    tasks = {at: WorkerTask((stages[at.stage],), "core", 1.0, (), 1, "", (1,)) for at in (FIRST, SECOND, OTHER)}
    made = LocalFleet(Equipment([models], [4], tasks, {"x": np.zeros((2, 1), np.float32)}, 3))
    yield made
    made.close()


def docket(fleet: LocalFleet, batch: int, step: int) -> dict[str, int]:
    at = fleet._trips[batch].crate // WORD_BYTES
    words = fleet._crates.words
    own = at + HEAD + STEP * step
    return {"last": words[at + LAST], "tell": words[at + TELL], "ticket": words[own + TICKET],
            "worker": words[own + WORKER], "start": words[own + START]}  # fmt: skip


def test_a_way_stands_in_the_docket(fleet: LocalFleet) -> None:
    assert fleet.take(0, 0, 0, 3) == 12
    fleet.send(0, 0, [FIRST, OTHER])
    assert docket(fleet, 0, 0) == {"last": 1, "tell": 0, "ticket": 0, "worker": 0, "start": 0}
    assert docket(fleet, 0, 1) == {"last": 1, "tell": 0, "ticket": 0, "worker": 2, "start": 0}
    fleet.take(1, 0, 3, 1)
    fleet.send(1, 0, [FIRST])  # only so far, and then it is to be said
    assert docket(fleet, 1, 0) == {"last": 0, "tell": 1, "ticket": 1, "worker": 0, "start": 0}


def test_what_lies_in_the_inbox_of_a_worker_that_went_is_void_for_the_next_one(fleet: LocalFleet) -> None:
    for batch in (0, 1):
        fleet.take(batch, 0, 0, 1)
        fleet.send(batch, 0, [FIRST, SECOND])
    fleet.dismiss(FIRST)
    assert [docket(fleet, batch, 0)["ticket"] for batch in (0, 1)] == [-1, -1]
    fleet.send(1, 0, [FIRST, SECOND])  # again: the packet of before still finds another ticket
    assert docket(fleet, 1, 0)["ticket"] == docket(fleet, 1, 1)["ticket"] == 2


def test_batches_on_their_way_to_a_worker_that_went_come_back_from_where_they_are(fleet: LocalFleet) -> None:
    fleet.take(0, 0, 0, 1)
    fleet.send(0, 0, [FIRST, SECOND])
    fleet.dismiss(SECOND)
    assert docket(fleet, 0, 0) == {"last": 0, "tell": 1, "ticket": 0, "worker": 0, "start": 0}
    fleet.send(0, 1, [OTHER])
    assert docket(fleet, 0, 1) == {"last": 1, "tell": 0, "ticket": 1, "worker": 2, "start": 0}


def test_what_a_worker_did_before_it_went_goes_on(fleet: LocalFleet) -> None:
    fleet.take(0, 0, 0, 1)
    fleet.send(0, 0, [FIRST, SECOND])
    crate = fleet._trips[0].crate
    for word in (START, COMPUTED, END):  # it has written its outputs, and has not passed them on
        fleet._crates.words[crate // WORD_BYTES + HEAD + word] = 5
    fleet.dismiss(FIRST)
    inbox = fleet._workforce._inboxes[1].exit
    assert unpack(inbox.recv(PACKET_BYTES)) == Work(0, 0, 1, (crate,))
    (done,) = fleet.look()
    assert (done.slice, done.batch, done.handed_on) == (FIRST, 0, True)
