"""Users' timings from CSV files, as few as there are, into runs."""

import pytest

from planner.files.timings import blank_model, load_timings, models_in
from planner.model import Block, InputError, Profile
from planner.model.observed import Observed

MODELS = {name: Profile(name, (Block(("a",)), Block(("b",)), Block(("c",))), (8, 8), ()) for name in ("net", "other")}
HEADER = "model,device,share,batch,block,latency_us"
ROWS = ["net,L4,1,1,0,10.5", "net,L4,1,1,2,30", "net,L4,2,4,1,12"]
TEXT = "\n".join([HEADER, *ROWS]) + "\n"


def load(folder, content):
    path = folder / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_timings(path, MODELS)


def test_blocks_that_nobody_timed_are_open(tmp_path):
    first, second = load(tmp_path, TEXT)
    assert (first.place, first.latency_us) == (("net", "L4", 1, 1, ()), (10.5, None, 30.0))
    assert (second.place, second.latency_us) == (("net", "L4", 2, 4, ()), (None, 12.0, None))
    assert first.provenance.kind == "measured"
    assert "t.csv" in first.provenance.method
    assert first.spread is None


def test_spreadsheets_write_it_in_other_ways(tmp_path):
    """A byte order mark, semicolons, Windows line ends, other orders of columns, empty lines, shares as 1/k."""
    expected = load(tmp_path, TEXT)
    turned = [";".join(reversed(line.split(","))) for line in TEXT.splitlines()]
    turned[3] = turned[3].replace(";2;", ";1/2;")
    assert load(tmp_path, "\ufeff" + "\r\n".join([*turned, ";;;;;", ""])) == expected


def test_repetitions_are_runs_of_their_own_and_must_agree(tmp_path):
    runs = load(tmp_path, TEXT + "net,L4,1,1,0,10.9\n")
    assert [run.latency_us for run in runs] == [(10.5, None, 30.0), (10.9, None, None), (None, 12.0, None)]
    (merged, _) = Observed(tuple(MODELS.values()), runs).merged()
    assert merged.latency_us[0] == pytest.approx((10.5 * 10.9) ** 0.5)
    apart = load(tmp_path, TEXT + "net,L4,1,1,0,21\n")
    with pytest.raises(InputError, match="net on L4 1/1, batch 1: block 0: two timings disagree, 10.5 and 21 µs"):
        Observed(tuple(MODELS.values()), apart).merged()


def test_spreads_and_what_ran_beside(tmp_path):
    text = f"{HEADER},beside,spread\nnet,L4,1,1,0,15,other,0.1\nnet,L4,1,1,1,15,other + net,\n"
    first, second = load(tmp_path, text)
    assert (first.beside, first.spread) == (("other",), (0.1, None, None))
    assert (second.beside, second.spread) == (("other", "net"), None)


def test_a_model_of_which_only_the_cuts_are_known(tmp_path):
    (tmp_path / "cuts.csv").write_text("block,cut_bytes\n1,64\n0,128\n")
    model = blank_model("new", tmp_path / "cuts.csv")
    assert (len(model.blocks), model.cut_bytes, model.tables) == (3, (128, 64), ())
    load(tmp_path, TEXT)
    assert models_in(tmp_path / "t.csv") == ("net",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # times of zero, below, missing, no numbers, absurd; a comma for a point; a unit; thousands
        (TEXT.replace("10.5", "0"), r"t.csv:2: latency_us: expected a number above 0, got '0'"),
        (TEXT.replace("10.5", "-3"), r"t.csv:2: latency_us: expected a number above 0, got '-3'"),
        (TEXT.replace("10.5", ""), r"t.csv:2: latency_us: missing"),
        (TEXT.replace(",10.5", ""), r"t.csv:2: latency_us: missing"),
        (TEXT.replace("10.5", "nan"), r"t.csv:2: latency_us: expected a number above 0, got 'nan'"),
        (TEXT.replace("10.5", "1e99"), r"t.csv:2: latency_us: expected a number above 0 and <= 1e\+12, got '1e99'"),
        (
            TEXT.replace(",", ";").replace("10.5", "10,5"),
            r"got '10,5'; correct or measure it: a decimal point, no unit",
        ),
        (TEXT.replace("10.5", "10.5 ms"), r"got '10.5 ms'; .* no unit"),
        (TEXT.replace("10.5", '"1,050"'), r"got '1,050'; .* no separators of thousands"),
        (TEXT.replace("10.5", "10,5"), r"t.csv:2: expected 6 columns, got 7; is there a comma"),
        # times in another unit
        (
            TEXT.replace("latency_us", "latency_ms"),
            r"t.csv:1: .* got .*latency_ms; write latency_ms in µs as latency_us",
        ),
        # unknown names
        (TEXT.replace("net", "nut", 1), r"t.csv:2: unknown model 'nut'; expected one of \['net', 'other'\]"),
        (f"{HEADER},beside\nnet,L4,1,1,0,9,nut\n", r"t.csv:2: unknown model 'nut'"),
        (TEXT.replace("L4", "", 1), r"t.csv:2: device: missing"),
        # blocks, batches, shares that cannot be
        (TEXT.replace("1,2,30", "1,3,30"), r"t.csv:3: block: expected 0 to 2, which are the blocks of net, got 3"),
        (TEXT.replace("2,4,1", "2,0,1"), r"t.csv:4: batch: expected an integer >= 1, got '0'"),
        (TEXT.replace("2,4,1", "2,40000,1"), r"t.csv:4: batch: expected an integer >= 1 and <= 32767, got '40000'"),
        (TEXT.replace("2,4,1", f"2,{'9' * 5000},1"), r"t.csv:4: batch: expected an integer >= 1 and <= 32767"),
        (TEXT.replace("L4,2", "L4,0.5"), r"t.csv:4: share: expected an integer >= 1, got '0.5'"),
        # columns that are missing, unknown, twice; no file of that kind; no rows
        (TEXT.replace(",block", ""), r"t.csv:1: expected the header model,.*latency_us and perhaps beside,spread, got"),
        (TEXT.replace("block", "device"), r"t.csv:1: expected the header"),
        (TEXT.encode("utf-16"), r"not a text file in UTF-8"),
        (HEADER + "\n", r"holds no measurement"),
        ("", r"t.csv:1: expected the header .* got nothing"),
        (TEXT.replace("L4", '"L4', 1), r"t.csv:\d: not valid CSV"),
    ],
)
def test_what_is_no_timing_is_refused_in_one_line(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as found:
        load(tmp_path, content)
    assert "\n" not in str(found.value)
