from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.model import DeviceType, InputError, Segment
from planner.model.packing import arranged, fits, geometries, maximal_layouts, most_segments, packed, sums_decide
from planner.model.segments import MIG

SEVEN = ("1g.10gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb")


def test_layouts_of_an_a100_are_those_of_the_user_guide() -> None:
    # NVIDIA's MIG User Guide, "Supported MIG Profiles": the rows of its picture, as numbers of 1g, 2g, 3g, 4g, 7g.
    (geometry,) = geometries(DeviceType("A100", 1, mig="a100-80gb"), SEVEN)
    assert set(maximal_layouts(geometry)) == {
        (0, 0, 0, 0, 1),
        (0, 0, 1, 1, 0),
        (1, 1, 0, 1, 0),
        (3, 0, 0, 1, 0),
        (0, 0, 2, 0, 0),
        (0, 2, 1, 0, 0),  # 2g at 0 and 2, 3g at 4
        (2, 1, 1, 0, 0),
        (4, 0, 1, 0, 0),
        (1, 3, 0, 0, 0),
        (3, 2, 0, 0, 0),
        (5, 1, 0, 0, 0),
        (7, 0, 0, 0, 0),
    }


@pytest.mark.parametrize("name", MIG)
def test_every_layout_has_places_within_its_gpu_s_compute_slices(name: str) -> None:
    gpu = DeviceType("gpu", 1, mig=name)
    (geometry,) = geometries(gpu, gpu.names)
    for layout in maximal_layouts(geometry):
        places = arranged(geometry, layout)
        assert fits(geometry, [(geometry.kinds[kind], start) for kind, start in places])
        compute = sum(int(str(geometry.kinds[kind]).partition("g")[0]) for kind, _ in places)
        assert compute <= (4 if name.startswith("a30") else 7)
        memory = sum(int(gpu.segment_memory_bytes(geometry.kinds[kind]) or 0) for kind, _ in places)
        assert memory <= int(name.partition("-")[2][:-2]) * 2**30


@given(
    st.sets(st.integers(1, 7), min_size=1, max_size=3),
    st.lists(st.integers(0, 7), min_size=3, max_size=3),
)
def test_packed_segments_fit_and_are_as_few_devices_as_fractions_say_where_sums_decide(
    shares: set[int], numbers: list[int]
) -> None:
    device = DeviceType("gpu", 1, shares=tuple(sorted(shares)))
    (geometry,) = geometries(device, device.shares)
    counts = dict(zip(geometry.kinds, numbers, strict=False))
    layouts = [layout for layout, devices in packed(geometry, counts) for _ in range(devices)]
    for layout in layouts:
        assert fits(geometry, [(geometry.kinds[kind], start) for kind, start in arranged(geometry, layout)])
    for number, kind in enumerate(geometry.kinds):
        assert sum(layout[number] for layout in layouts) == counts[kind]
    filled = sum(width * counts[kind] for kind, width in zip(geometry.kinds, geometry.widths, strict=True))
    least = -(-filled // geometry.slots)
    assert len(layouts) == least if sums_decide(geometry) else len(layouts) >= least


@pytest.mark.parametrize("shares", [(2, 3), (2, 3, 4), (2, 3, 5), (3, 4), (3, 5), (2, 5), (2, 4, 8), (3, 5, 7)])
def test_sums_decide_where_no_counterexample_is_found(shares: tuple[int, ...]) -> None:
    device = DeviceType("gpu", 1, shares=shares)
    (geometry,) = geometries(device, shares)

    def holds(counts: tuple[int, ...], devices: int) -> bool:
        """Tell whether the segments fit, by leaving out one device of any layout."""
        if not any(counts):
            return True
        return devices > 0 and any(
            holds(tuple(max(0, n - less) for n, less in zip(counts, layout, strict=True)), devices - 1)
            for layout in maximal_layouts(geometry)
        )

    def fewest_by_fractions(counts: tuple[int, ...]) -> int:
        return -(-sum(w * n for w, n in zip(geometry.widths, counts, strict=True)) // geometry.slots)

    few = [counts for counts in product(*(range(k + 1) for k in shares)) if fewest_by_fractions(counts) <= 2]
    assert sums_decide(geometry) == all(holds(counts, fewest_by_fractions(counts)) for counts in few)


def test_memory_and_lists_of_layouts_limit_what_fits() -> None:
    segments = (Segment("small", 1, memory_bytes=6), Segment("large", 2, memory_bytes=10))
    free = DeviceType("gpu", 1, slots=4, segments=segments)
    narrow = DeviceType("gpu", 1, slots=4, segments=segments, memory_bytes=16)
    listed = DeviceType("gpu", 1, slots=4, segments=segments, layouts=({"small": 4}, {"large": 1}))
    names = ["small", "large"]
    assert maximal_layouts(geometries(free, names)[0]) == ((0, 2), (2, 1), (4, 0))
    assert maximal_layouts(geometries(narrow, names)[0]) == ((1, 1), (2, 0))
    assert maximal_layouts(geometries(listed, names)[0]) == ((0, 1), (4, 0))
    assert most_segments(narrow, "small") == 2


def test_kinds_without_a_common_measure_are_packed_as_quickly_as_others() -> None:
    """1/983, 1/991 and 1/997 divide a device in a billion slots."""
    device = DeviceType("gpu", 1, shares=(983, 991, 997))
    (geometry,) = geometries(device, [991])
    assert maximal_layouts(geometry) == ((991,),)
    assert [most_segments(device, kind) for kind in device.shares] == [983, 991, 997]
    last = arranged(geometry, (991,))[-1][1]
    assert last == 990 * 983 * 997
    assert fits(geometry, [(991, 0), (991, last)])


def test_many_kinds_that_do_not_divide_each_other() -> None:
    (geometry,) = geometries(DeviceType("gpu", 1, shares=tuple(range(1, 13))), range(1, 13))
    layouts = maximal_layouts(geometry)
    used = [sum(Fraction(n, kind) for kind, n in enumerate(layout, 1)) for layout in layouts]
    assert all(1 - Fraction(1, 12) < one <= 1 for one in used)
    assert len(set(layouts)) == len(layouts)
    assert (0,) * 11 + (12,) in layouts
    (larger,) = geometries(DeviceType("gpu", 1, shares=tuple(range(1, 17))), range(1, 17))
    with pytest.raises(InputError, match=r"segments 1/1, .*, 1/16: more than 20000 ways to divide a device; offer"):
        maximal_layouts(larger)


def test_devices_of_thousands_of_cores_are_laid_out_and_checked() -> None:
    cpu = DeviceType("cpu", 1, "cpu", cores=4096)
    (geometry,) = geometries(cpu, cpu.names)
    ((layout, devices),) = packed(geometry, {"1 core": 4096})
    places = [(geometry.kinds[kind], start) for kind, start in arranged(geometry, layout)]
    assert devices == 1
    assert [start for _, start in places] == list(range(4096))
    assert fits(geometry, places)
    assert not fits(geometry, [*places, ("2 cores", 4094)])


def test_many_slots_with_given_places() -> None:
    segments = Segment("a", 1, tuple(range(0, 900, 3))), Segment("b", 2, (0, 997))
    device = DeviceType("gpu", 1, slots=999, segments=segments)
    (geometry,) = geometries(device, device.names)
    assert maximal_layouts(geometry) == ((299, 2), (300, 1))
    assert sorted(start for kind, start in arranged(geometry, (299, 2)) if kind == 1) == [0, 997]


def test_cores_divide_each_other() -> None:
    cpu = DeviceType("cpu", 1, "cpu", cores=48, memory_bytes=96)
    assert cpu.names == ["1 core", "3 cores", "6 cores", "12 cores", "24 cores", "48 cores"]
    assert sums_decide(geometries(cpu, cpu.names)[0])
    assert cpu.slice_memory_bytes("12 cores") == 24


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mig": "a100"}, r"mig of gpu: expected one of \['a100-40gb', .*, got 'a100'"),
        ({"mig": "a100-40gb", "cores": 4}, "expected one of mig, cores, and segments with slots, got several"),
        ({"slots": 4}, "segments and slots belong together"),
        ({"slots": 2, "segments": (Segment("a", 3),)}, "segment a: expected 3 slots"),
        ({"slots": 4, "segments": (Segment("a", 2, (3,)),)}, "segment a: expected 2 slots"),
        ({"slots": 4, "segments": (Segment("a", 2), Segment("a", 1))}, "names must differ"),
        ({"cores": 4, "layouts": ({"5 cores": 1},)}, "layouts of gpu: unknown segment '5 cores'"),
        ({"idle_watts": 9.0, "busy_watts": 8.0}, "busy_watts of gpu: expected at least idle_watts, 9, got 8"),
    ],
)
def test_impossible_segments_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DeviceType("gpu", 1, **changes)  # type: ignore[arg-type]


def test_names_of_segments_have_no_processes() -> None:
    with pytest.raises(InputError, match="expected a name without '/', got 'a/2'"):
        Segment("a/2", 1)
    with pytest.raises(InputError, match="expected increasing numbers"):
        Segment("a", 1, (2, 1))


def test_an_unknown_share_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"share of cpu: expected one of \[1, '1 core', '2 cores'\], got '3 cores'"):
        DeviceType("cpu", 1, cores=2).fraction("3 cores")
