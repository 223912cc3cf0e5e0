import numpy as np
import pytest

from planner.model import InputError
from simulator.executor.transport import Attached, Segment, read, write, write_rows


def test_tensors_are_read_in_place_through_another_handle() -> None:
    segment = Segment(slots=1, slot_bytes=200)
    offset = segment.take()
    assert offset is not None
    tensors = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "flag": np.array([True, False])}
    places = write(segment.memory, offset, segment.slot_bytes, tensors)
    attached = Attached()
    for name, place in places.items():
        got = read(attached[place.segment], place)
        np.testing.assert_array_equal(got, tensors[name])
        assert got.dtype == tensors[name].dtype
    read(segment.memory, places["x"])[...] = 7
    assert (read(attached[segment.name], places["x"]) == 7).all()
    attached[segment.name].close()
    segment.close()


def test_requests_become_one_batch_without_a_detour() -> None:
    segment = Segment(slots=1, slot_bytes=1000)
    rows = [{"x": np.full((1, 4), i, np.float32), "n": np.array([[i]], np.int64)} for i in range(3)]
    places = write_rows(segment.memory, 0, segment.slot_bytes, rows)
    np.testing.assert_array_equal(read(segment.memory, places["x"])[:, 0], [0, 1, 2])
    assert places["n"].shape == (3, 1)
    assert places["x"].nbytes == 48
    segment.close()


def test_what_does_not_fit_is_refused_before_it_is_written() -> None:
    segment = Segment(slots=2, slot_bytes=64)
    beyond = np.zeros(17, np.float32)
    with pytest.raises(ValueError, match="does not fit into its slot"):
        write(segment.memory, 0, 64, {"x": beyond})
    with pytest.raises(ValueError, match="does not fit into its slot"):
        write_rows(segment.memory, 0, 64, [{"x": beyond}])
    segment.close()


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
