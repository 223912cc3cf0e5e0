import pytest

from planner.files.measurements import load_measurements
from planner.model import InputError

HEADER = "device,share,batch,block,latency_us\n"
GOOD = HEADER + "L4,1,1,0,10\nL4,1,1,1,20.4\nL4,1,2,0,15\nL4,1,2,1,30\n"
CUTS = "block,cut_bytes\n0,4096\n"


def load(folder, rows, cuts=CUTS, **options):
    (folder / "m.csv").write_text(rows)
    (folder / "cuts.csv").write_text(cuts)
    return load_measurements(folder / "m.csv", folder / "cuts.csv", "mine", **options)


def test_rows_in_any_order_become_a_table(tmp_path):
    profile = load(tmp_path, HEADER + "".join(reversed(GOOD.splitlines(keepends=True)[1:])), date="2026-11-22")
    (table,) = profile.tables
    assert table.batches == (1, 2)
    assert table.latency_us == ((10, 20), (15, 30))
    assert profile.cut_bytes == (4096,)
    assert table.provenance.kind == "measured"
    assert table.provenance.date == "2026-11-22"


def test_shares_may_name_segments(tmp_path):
    rows = "A100,3g.40gb,1,0,10\nA100,2 cores/2,1,0,20\nA100,2,1,0,30\n"
    profile = load(tmp_path, HEADER + rows, cuts="block,cut_bytes\n")
    assert [table.share for table in profile.tables] == ["3g.40gb", "2 cores/2", 2]
    with pytest.raises(InputError, match=r"m.csv:2: share: expected an integer >= 1, got '-1'"):
        load(tmp_path, HEADER + "A100,-1,1,0,10\n", cuts="block,cut_bytes\n")


def test_a_model_of_one_block_needs_no_cut(tmp_path):
    profile = load(tmp_path, HEADER + "L4,1,1,0,10\n", cuts="block,cut_bytes\n")
    assert len(profile.blocks) == 1


@pytest.mark.parametrize(
    ("rows", "cuts", "message"),
    [
        # a negative latency
        (GOOD.replace("15", "-15"), CUTS, r"m.csv:4: latency_us: expected a number >= 0, got '-15'"),
        # no number
        (GOOD.replace("15", "fast"), CUTS, r"m.csv:4: latency_us: expected a number >= 0, got 'fast'"),
        # not a number that counts
        (GOOD.replace("15", "nan"), CUTS, r"m.csv:4: latency_us: expected a number >= 0, got 'nan'"),
        # an empty cell
        (GOOD.replace(",15", ","), CUTS, "m.csv:4: latency_us: missing; add it"),
        # a row that ends early
        (GOOD.replace(",15", ""), CUTS, "m.csv:4: latency_us: missing; add it"),
        # a comma in a number, and in a name
        (GOOD.replace(",15", ",1,5"), CUTS, "m.csv:4: expected 5 columns, got 6; is there a comma in a number"),
        (GOOD.replace("L4", "L4,old", 1), CUTS, "m.csv:2: expected 5 columns, got 6"),
        # a row that ends in a comma
        (GOOD.replace(",15", ",15,"), CUTS, "m.csv:4: expected 5 columns, got 6"),
        # a cut with a comma in it
        (GOOD, "block,cut_bytes\n0,1,204\n", "cuts.csv:2: expected 2 columns, got 3"),
        # a block without a latency
        (GOOD.replace("L4,1,2,1,30\n", ""), CUTS, "no latency for L4 1/1, batch 2, block 1"),
        # the same measurement twice
        (GOOD + "L4,1,2,1,31\n", CUTS, "m.csv:6: batch 2, block 1 is given twice"),
        # a block beyond the cuts
        (GOOD + "L4,1,1,2,9\n", CUTS, "block 2 is beyond the 2 blocks"),
        # batches are counted from 1
        (GOOD.replace("L4,1,2,0", "L4,1,0,0"), CUTS, "m.csv:4: batch: expected an integer >= 1, got '0'"),
        # another header
        (GOOD.replace("latency_us", "latency_ms"), CUTS, "m.csv:1: expected the header device,share"),
        # nothing but a header
        (HEADER, CUTS, "holds no measurement"),
        # cuts with a gap
        (GOOD, "block,cut_bytes\n1,4096\n", r"block: expected 0 to 0 without a gap, got \[1\]"),
        # a negative size
        (GOOD, "block,cut_bytes\n0,-1\n", "cuts.csv:2: cut_bytes: expected an integer >= 0, got '-1'"),
    ],
)
def test_bad_measurements_are_refused_in_one_line(tmp_path, rows, cuts, message):
    with pytest.raises(InputError, match=message) as found:
        load(tmp_path, rows, cuts)
    assert "\n" not in str(found.value)


def test_fewer_batches_than_asked_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"has batches \[1, 2\], asked for \[1, 2, 4\]: measure batch 4"):
        load(tmp_path, GOOD, batches=(1, 2, 4))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot read it"):
        load_measurements(tmp_path / "none.csv", tmp_path / "none.csv", "mine")
