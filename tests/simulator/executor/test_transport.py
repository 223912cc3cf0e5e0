import errno
import os
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import pytest

from planner.model import InputError
from simulator.executor.crates import END, HEAD, STEP, TICKET, Crates
from simulator.executor.layouts import TensorLayout
from simulator.executor.messages import MOST_CRATES, PACKET_BYTES, Done, Failed, Ready, Work, pack, unpack
from simulator.executor.transport import Segment, read, write

ROWS = TensorLayout("x", "float32", (1, 3), 12, 0)
FLAG = TensorLayout("flag", "bool", (2,), 2, None)


def test_tensors_are_read_in_place_through_another_handle() -> None:
    segment = Segment(200)
    rows, flag = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([True, False])
    write(segment.memory, 0, ROWS, 2, rows)
    write(segment.memory, 64, FLAG, 2, flag)
    attached = SharedMemory(segment.name)
    np.testing.assert_array_equal(read(attached, 0, ROWS, 2), rows)
    np.testing.assert_array_equal(read(attached, 64, FLAG, 2), flag)
    read(segment.memory, 0, ROWS, 2)[...] = 7
    assert (read(attached, 0, ROWS, 2) == 7).all()
    attached.close()
    segment.close()


@pytest.mark.parametrize(
    "tensor",
    [np.zeros((3, 3), np.float32), np.zeros((2, 3), np.float64), np.zeros(6, np.float32)],
    ids=["rows", "type", "shape"],
)
def test_a_tensor_that_is_not_as_its_model_promised_is_refused(tensor: np.ndarray) -> None:
    segment = Segment(64)
    with pytest.raises(ValueError, match=r"tensor 'x' is .*, its model promised float32 \[2, 3\]"):
        write(segment.memory, 0, ROWS, 2, tensor)
    segment.close()


def test_tensors_whose_size_depends_on_the_data_carry_their_shape() -> None:
    found = TensorLayout("found", "int64", (2, 1), 16, 0, room_bytes=64)
    segment = Segment(400)
    for count in (0, 1, 4):
        tensor = np.arange(2 * count).reshape(2, count)
        write(segment.memory, 64, found, 1, tensor)
        np.testing.assert_array_equal(read(segment.memory, 64, found, 1), tensor)
    with pytest.raises(ValueError, match="of which 64 bytes were set aside"):
        write(segment.memory, 64, found, 1, np.zeros((2, 5), np.int64))
    segment.close()


MESSAGES = [
    Work(3, 2, 1, (640, 0, 128)),
    Work(0, 0, 0, ()),
    Work(0, 0, 0, tuple(range(MOST_CRATES))),
    Ready(1, 4321),
    Done(0, 1 << 40),
    Failed(2, -1, "no such file: «modèle»"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_arrive_as_they_were_sent(message: Work | Ready | Done | Failed) -> None:
    packet = pack(message)
    assert len(packet) <= PACKET_BYTES
    assert unpack(packet) == message
    assert type(unpack(packet)) is type(message)


def test_crates_come_back_and_never_twice() -> None:
    crates = Crates(count=2, steps=3, nbytes=1)
    first, second = crates.take(0, 1, 0), crates.take(1, 4, 2)
    assert {first, second} == {64, 320}  # after a line, a docket of 5 + 3 · 5 words takes 192 bytes, what it holds 64
    crates.direct(first, 1, ticket=9, workers=[5, 6], tell=False)
    assert [crates.words[first // 8 + HEAD + STEP * step + TICKET] for step in range(3)] == [0, 9, 9]
    crates.words[first // 8 + HEAD + STEP + END] = 77
    assert (crates.has_ended(first, 1), crates.has_ended(first, 2)) == (True, False)
    crates.direct(first, 1, ticket=9, workers=[7], tell=True)  # again, elsewhere
    assert not crates.has_ended(first, 1)
    crates.give_back(first)
    # A packet that is on its way still finds another ticket.
    assert {crates.words[first // 8 + HEAD + STEP * step + TICKET] for step in range(3)} == {-1}
    with pytest.raises(AssertionError, match="twice"):
        crates.give_back(first)
    crates.close()


def test_a_name_that_is_taken_is_left_alone() -> None:
    theirs = Segment(8)
    theirs.memory.buf[0] = 42
    names = iter([theirs.name, theirs.name, f"{theirs.name}-b"])
    ours = Segment(8, name=lambda: next(names))
    assert ours.name != theirs.name
    assert theirs.memory.buf[0] == 42
    with pytest.raises(InputError, match="names were taken"):
        Segment(8, name=lambda: theirs.name)
    ours.close()
    theirs.close()


def test_memory_that_is_not_there_is_one_line() -> None:
    with pytest.raises(InputError, match="shared memory: .* MB needed"):
        Segment(1 << 60)


def test_segments_are_taken_at_once_so_that_nobody_fills_them_up_later(monkeypatch):
    """Memory that is only promised would end whoever writes to it once others have filled /dev/shm."""
    segment = Segment(3 << 20)
    path = Path("/dev/shm", segment.name)
    assert path.stat().st_blocks * 512 >= 3 << 20
    segment.close()
    assert not path.exists()

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match=r"shared memory: 3.1 MB cannot be had in /dev/shm \(No space left on device"):
        Segment(3 << 20, name=lambda: "poolpipe-test-full")
    assert not Path("/dev/shm/poolpipe-test-full").exists()
