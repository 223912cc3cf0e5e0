import pytest

from planner.model import InputError
from simulator.engine import build_system
from simulator.executor.devices import Emulation, assign_cores, slices_of


def test_slices_stay_on_their_devices_cores(make_case) -> None:
    case = make_case(slices=(2, 1))
    system = build_system(case.problem, case.plan, case.dnn)
    slices = slices_of(system)
    assert list(assign_cores(system, slices, {}, available=[4, 5, 6]).values()) == [(4,), (5,), (6,)]
    two_each = assign_cores(system, slices, {"core": 2}, available=range(8))
    assert list(two_each.values()) == [(0, 1), (2, 3), (4, 5)]


def test_shares_of_a_device_use_the_same_cores(make_case) -> None:
    case = make_case(slices=(2, 1))
    system = build_system(case.problem, case.plan, case.dnn)
    system.share[0] = [2, 1]  # the first stage's slices are halves of one device
    assert list(assign_cores(system, slices_of(system), {}, available=[0, 1]).values()) == [(0,), (0,), (1,)]


def test_too_few_cores_are_an_error_unless_they_may_be_shared(make_case) -> None:
    case = make_case(slices=(2, 1))
    system = build_system(case.problem, case.plan, case.dnn)
    with pytest.raises(InputError, match="need 3 cores, this machine offers 2"):
        assign_cores(system, slices_of(system), {}, available=[0, 1])
    free = assign_cores(system, slices_of(system), {}, available=[0, 1], oversubscribe=True)
    assert set(free.values()) == {()}  # not pinned: the operating system shares them out


def test_what_is_emulated_is_said() -> None:
    assert Emulation().describe() == ""
    assert "pi4 is this CPU slowed down 8 times" in Emulation(slowdown={"pi4": 8}).describe()
