import pytest

from planner.model import (
    Block,
    Cluster,
    DeviceType,
    Dnn,
    InputError,
    LatencyTable,
    Network,
    Pipeline,
    Plan,
    Problem,
    Profile,
    Provenance,
    Stage,
)
from simulator.dispatch.system import System
from simulator.engine import build_system
from simulator.executor.devices import Emulation, assign_cores, slices_of, threads_of


def test_slices_stay_on_their_devices_cores(make_case) -> None:
    case = make_case(slices=(2, 1))
    system = build_system(case.problem, case.plan, case.dnn)
    slices = slices_of(system)
    assert list(assign_cores(system, slices, {}, available=[4, 5, 6]).values()) == [(4,), (5,), (6,)]
    two_each = assign_cores(system, slices, {"core": 2}, available=range(8))
    assert list(two_each.values()) == [(0, 1), (2, 3), (4, 5)]


def system_of(device: DeviceType, *pools: tuple[int | str, int]) -> System:
    """A DNN of one block with a pipeline per pool: share, and number of slices."""
    tables = tuple(
        LatencyTable(device.name, share, (1,), ((9,),), Provenance("measured", "by hand")) for share in device.offers
    )
    profile = Profile("toy", (Block(("a",)),), (), tables)
    problem = Problem(Cluster((device,), Network(1.0)), (Dnn("toy", 1000.0, (profile,)),))
    pipelines = tuple(
        Pipeline("toy", "toy", 1.0, 0.0, 0.0, (Stage(0, 1, device.name, share, slices, 1, 9, 0.0, 1.0),))
        for share, slices in pools
    )
    plan = Plan("pipelines", "max_min_throughput", "optimal", 1.0, 1.0, "", "", 0.0, "", {}, pipelines)
    return build_system(problem, plan, "toy")


def test_shares_of_a_device_use_the_same_cores() -> None:
    # Three halves and a half of another pipeline: two devices, not a new one for the second pipeline.
    system = system_of(DeviceType("cpu", 2, shares=(1, 2)), (2, 3), (2, 1))
    assert list(assign_cores(system, slices_of(system), {}, available=[0, 1]).values()) == [(0,), (0,), (1,), (1,)]


def test_segments_of_cores_have_their_own() -> None:
    system = system_of(DeviceType("cpu", 2, cores=4), ("2 cores", 3), ("1 core", 2))
    slices = slices_of(system)
    assigned = assign_cores(system, slices, {}, available=range(8))
    assert list(assigned.values()) == [(0, 1), (2, 3), (4, 5), (6,), (7,)]
    assert [threads_of(system, one, {}) for one in slices] == [2, 2, 2, 1, 1]


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
