import pytest

from planner.model import Block, InputError, LatencyTable, Profile, Provenance

MEASURED = Provenance("measured", "by hand")


def table(batches: tuple[int, ...] = (1, 2, 4), share: int = 1) -> LatencyTable:
    rows = tuple((10 * b, 100 * b + 1) for b in batches)
    return LatencyTable("L4", share, batches, rows, MEASURED)


def profile(**changes: object) -> Profile:
    blocks = (Block(("conv",), 1000, 64), Block(("gemm",), 3000, 16))
    return Profile(**{"name": "net", "blocks": blocks, "cut_bytes": (8,), "tables": (table(),), **changes})  # type: ignore[arg-type]


def test_profiled_batches_are_returned_as_they_are() -> None:
    assert table().block_latency_us(2) == (20, 201)


def test_between_profiled_batches_latency_is_interpolated_and_rounded_up() -> None:
    # batch 3 lies half way between 2 (20, 201) and 4 (40, 401)
    assert table().block_latency_us(3) == (30, 301)
    odd = LatencyTable("L4", 1, (1, 3), ((1, 2), (4, 4)), MEASURED)
    assert odd.block_latency_us(2) == (3, 3)  # 2.5 and 3


def test_below_the_smallest_profiled_batch_its_row_holds() -> None:
    assert table((4, 8)).block_latency_us(2) == (40, 401)


def test_a_block_takes_at_least_a_microsecond() -> None:
    free = LatencyTable("L4", 1, (1,), ((0, 5),), MEASURED)
    assert profile(tables=(free,)).stage_latency_us("L4", 1, 1, 0, 2) == 6


def test_memory_is_all_parameters_and_the_peak_activation() -> None:
    # 1000 + 3000 parameters, batch 4 times the larger of 64 and 16
    assert profile().memory_bytes(4, 0, 2) == 4000 + 256
    assert profile().memory_bytes(4, 1, 2) == 3000 + 64


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (5, r"no latency for \(L4, share 1/1, batch 5\); profiled batches are \[1, 2, 4\]"),  # larger than any
        (0, "batch 0"),
    ],
)
def test_unprofiled_batches_are_refused(batch: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        table().block_latency_us(batch)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cut_bytes": ()}, "cut_bytes: expected 1 numbers"),
        ({"tables": (table(), table())}, "one per device and share expected"),
        ({"blocks": (Block(("only",)),), "cut_bytes": ()}, "expected 1 numbers a row"),
    ],
)
def test_profiles_that_do_not_fit_together_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        profile(**changes)


def test_tables_refuse_disorder() -> None:
    with pytest.raises(InputError, match="expected increasing numbers"):
        LatencyTable("L4", 1, (2, 1), ((1,), (2,)), MEASURED)
    with pytest.raises(InputError, match="expected 2 rows"):
        LatencyTable("L4", 1, (1, 2), ((1,),), MEASURED)


def test_a_missing_table_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match="no latencies for T4 1/2 \\(it has L4 1/1\\)"):
        profile().table("T4", 2)
