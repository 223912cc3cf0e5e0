from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest

from planner.model import InputError
from simulator.executor.layouts import TensorLayout
from simulator.executor.messages import PACKET_BYTES, Done, Failed, Ready, Spot, Work, pack, unpack
from simulator.executor.transport import Segment, read, write

ROWS = TensorLayout("x", "float32", (1, 3), 12, 0)
FLAG = TensorLayout("flag", "bool", (2,), 2, None)


def test_tensors_are_read_in_place_through_another_handle() -> None:
    segment = Segment(slots=1, slot_bytes=200)
    offset = segment.take()
    assert offset is not None
    tensors = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array([True, False])]
    write(segment.memory, offset, [ROWS, FLAG], 2, tensors)
    attached = SharedMemory(segment.name)
    np.testing.assert_array_equal(read(attached, offset, ROWS, 2), tensors[0])
    np.testing.assert_array_equal(read(attached, offset + 64, FLAG, 2), tensors[1])
    read(segment.memory, offset, ROWS, 2)[...] = 7
    assert (read(attached, offset, ROWS, 2) == 7).all()
    attached.close()
    segment.close()


@pytest.mark.parametrize(
    "tensor",
    [np.zeros((3, 3), np.float32), np.zeros((2, 3), np.float64), np.zeros(6, np.float32)],
    ids=["rows", "type", "shape"],
)
def test_a_tensor_that_is_not_as_its_model_promised_is_refused(tensor: np.ndarray) -> None:
    segment = Segment(slots=1, slot_bytes=64)
    with pytest.raises(ValueError, match=r"tensor 'x' is .*, its model promised float32 \[2, 3\]"):
        write(segment.memory, 0, [ROWS], 2, [tensor])
    segment.close()


def test_tensors_whose_size_depends_on_the_data_carry_their_shape() -> None:
    found = TensorLayout("found", "int64", (2, 1), 16, 0, room_bytes=64)
    segment = Segment(slots=1, slot_bytes=400)
    for count in (0, 1, 4):
        tensors = [np.arange(3.0, dtype=np.float32).reshape(1, 3), np.arange(2 * count).reshape(2, count)]
        write(segment.memory, 0, [ROWS, found], 1, tensors)
        np.testing.assert_array_equal(read(segment.memory, 64, found, 1), tensors[1])
        np.testing.assert_array_equal(read(segment.memory, 0, ROWS, 1), tensors[0])
    with pytest.raises(ValueError, match="of which 64 bytes were set aside"):
        write(segment.memory, 0, [ROWS, found], 1, [tensors[0], np.zeros((2, 5), np.int64)])
    segment.close()


MESSAGES = [
    Work(3, 8, Spot(1, 640), (Spot(0, 0), Spot(2, 128))),
    Work(0, 1, Spot(1, 0), ()),
    Ready(4321),
    Done(1 << 40, 1, 2, 3),
    Failed(-1, "no such file: «modèle»"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_arrive_as_they_were_sent(message: Work | Ready | Done | Failed) -> None:
    packet = pack(message)
    assert len(packet) <= PACKET_BYTES
    assert unpack(packet) == message
    assert type(unpack(packet)) is type(message)


def test_slots_come_back_and_never_twice() -> None:
    segment = Segment(slots=2, slot_bytes=1)
    first, second = segment.take(), segment.take()
    assert (first, second, segment.take()) == (0, 64, None)
    segment.give_back(64)
    assert segment.take() == 64
    segment.give_back(0)
    with pytest.raises(AssertionError, match="twice"):
        segment.give_back(0)
    segment.close()


def test_a_name_that_is_taken_is_left_alone() -> None:
    theirs = Segment(slots=1, slot_bytes=8)
    theirs.memory.buf[0] = 42
    names = iter([theirs.name, theirs.name, f"{theirs.name}-b"])
    ours = Segment(slots=1, slot_bytes=8, name=lambda: next(names))
    assert ours.name != theirs.name
    assert theirs.memory.buf[0] == 42
    with pytest.raises(InputError, match="names were taken"):
        Segment(slots=1, slot_bytes=8, name=lambda: theirs.name)
    ours.close()
    theirs.close()


def test_memory_that_is_not_there_is_one_line() -> None:
    with pytest.raises(InputError, match="shared memory: .* MB needed"):
        Segment(slots=1, slot_bytes=1 << 60)
