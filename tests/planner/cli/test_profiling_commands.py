import csv
import json
import sys

import onnx_ir as ir
import onnxruntime
import pytest
from typer.testing import CliRunner

from planner import profiling
from planner.cli.main import app
from planner.files import load_profile
from planner.files.models import load_model
from planner.model import Block, InputError, LatencyTable, Profile, Provenance
from planner.profiling import joined

SMALL = (
    '<ir_version: 8, opset_import: ["" : 17]> small (float[n, 3, 16, 16] x) => (float[n, 3, 16, 16] y)'
    " { a = Relu(x) b = Tanh(a) c = Exp(b) y = Add(c, a) }"
)

BRIEFLY = ("--batches", "1", "--cap-s", "0.01", "--rounds", "1")


@pytest.fixture
def planner():
    """Run a command; bad input is raised as it would reach the command line's one-line report."""

    def run(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return run


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "small.onnx"
    ir.save(ir.from_onnx_text(SMALL), path)
    return path


def test_profiles_of_several_machines_are_merged(planner, model, tmp_path):
    """A profile goes to another machine and comes back with its latencies; what was estimated gives way to them."""
    here, there, both = (tmp_path / f"{name}.json" for name in ("here", "there", "both"))
    planner("profile", model, "--device", "here", "--out", here, *BRIEFLY)
    planner("estimate", model, "--device", "V100,T4", "--out", here, "--batches", "1", "--shares", "1")
    there.write_bytes(here.read_bytes())
    planner("profile", model, "--device", "pi", "--out", there, *BRIEFLY)
    planner("profile", model, "--device", "T4", "--out", there, *BRIEFLY, "--again")
    output = planner("merge-profiles", there, here, "--out", both)
    merged = load_profile(both)
    assert set(merged.devices) == {"here", "V100", "T4", "pi"}
    assert [merged.table(name, 1).provenance.kind for name in ("here", "V100", "T4", "pi")] == [
        "measured", "estimated", "measured", "measured"
    ]  # fmt: skip
    assert merged.table("pi", 1) == load_profile(there).table("pi", 1)
    assert "pi" in output
    (reverse,) = joined([("here", load_profile(here)), ("there", load_profile(there))])
    assert {table.device: table for table in reverse.tables} == {table.device: table for table in merged.tables}
    document = json.loads(planner("merge-profiles", here, "--out", both, "--json"))
    assert [row["device"] for row in document["tables"]] == ["here", "V100", "T4"]
    assert load_profile(both) == load_profile(here)


def test_profiles_that_cannot_be_merged_are_refused():
    how = Provenance("measured", "by hand")

    def named(name="net", us=(5, 6), layers=("a",), device="L4"):
        table = LatencyTable(device, 1, (1,), (us,), how)
        return Profile(name, (Block(layers), Block(("b",))), (100,), (table,))

    for other, message in (
        (named(us=(5, 7)), r"b: measured latencies on L4 are not those of a; give each machine a --device name"),
        (named(layers=("c",), device="T4"), "b: blocks of net are not those of a; take a along and profile into it"),
        (named(name="other", device="T4"), "b: is the profile of other, a of net; merge profiles of one model"),
    ):
        with pytest.raises(InputError, match=message):
            joined([("a", named()), ("b", other)])


def test_measuring_estimating_and_measuring_again_add_up(planner, model, tmp_path):
    out = tmp_path / "small.json"
    planner("profile", model, "--device", "here", "--out", out, "--batches", "1,2", "--rounds", "1")
    planner("estimate", model, "--device", "V100,RaspberryPi5", "--out", out, "--batches", "1,2", "--shares", "1")
    first = load_profile(out)
    assert first.devices == ("here", "V100", "RaspberryPi5")
    assert [table.provenance.kind for table in first.tables] == ["measured", "estimated", "estimated"]
    assert [block.layers for block in first.blocks] == [("a",), ("b",), ("c",), ("y",)]  # fewer layers than blocks
    output = planner("profile", model, "--device", "here", "--out", out, "--batches", "1,2", "--cap-s", "0.01")
    assert "has all of it" in output
    assert load_profile(out) == first
    planner("profile", model, "--device", "here", "--out", out, "--batches", "1,2", "--rounds", "2", "--again")
    second = load_profile(out)
    assert "2 rounds" in second.table("here", 1).provenance.method
    assert second.blocks == first.blocks
    assert second.tables[1:] == first.tables[1:]


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of the resident size is Linux's")
def test_measured_peak_memory_stands_beside_the_computed(planner, model, tmp_path):
    out = tmp_path / "small.json"
    output = planner("profile", model, "--device", "here", "--out", out, "--batches", "1,256", "--cap-s", "0.01")
    # x and a have 3 kB a request each; at batch 256 some of the three or four tensors of 0.8 MB are alive at once
    small, large = load_profile(out).table("here", 1).peak_memory_bytes
    assert large > small
    assert "peak memory on here 1/1, batch 256: measured" in output


def test_an_interrupted_profile_goes_on_where_it_stopped(planner, model, tmp_path, monkeypatch):
    out = tmp_path / "small.json"
    arguments = ["profile", model, "--device", "here", "--out", out, *BRIEFLY]
    measured, measure = [], profiling.measure_tables

    def measuring(graph, starts, device, *rest):
        if device.shares == (2,) and not measured[1:]:
            measured.append("interrupted")
            raise KeyboardInterrupt
        measured.append(device.shares)
        return measure(graph, starts, device, *rest)

    monkeypatch.setattr(profiling, "measure_tables", measuring)
    with pytest.raises(AssertionError, match="130"):  # the exit status of Ctrl-C
        planner(*arguments, "--shares", "1,2")
    first = load_profile(out)
    assert [table.share for table in first.tables] == [1]
    planner(*arguments, "--shares", "1,2")
    assert measured == [(1,), "interrupted", (2,)]
    assert load_profile(out).table("here", 1) == first.table("here", 1)


def test_segments_and_models_beside_stand_in_the_profile(planner, model, tmp_path):
    out = tmp_path / "small.json"
    output = planner("profile", model, "--device", "here", "--segment", "1 core", "--out", out, *BRIEFLY)
    assert " here    1 core " in output
    half = ("profile", model, "--device", "here", "--shares", "2", "--out", out, *BRIEFLY)
    planner(*half)
    planner(*half, "--beside", model)
    profile = load_profile(out)
    assert [(table.share, table.beside) for table in profile.tables] == [("1 core", ()), (2, ("small",))]
    assert "has all of it" in planner(*half, "--beside", model)


def test_a_provider_that_runs_nothing_of_a_model_is_refused(planner, model, tmp_path):
    others = [name for name in onnxruntime.get_available_providers() if name != "CPUExecutionProvider"]
    if "AzureExecutionProvider" not in others:
        pytest.skip("onnxruntime has no provider here that runs nothing of a usual model")
    out = tmp_path / "small.json"
    arguments = ["profile", model, "--device", "here", "--out", out, *BRIEFLY]
    with pytest.raises(InputError, match="AzureExecutionProvider runs no node of small: all of its 4 run on CPU"):
        planner(*arguments, "--provider", "AzureExecutionProvider")
    assert not out.exists()


def test_a_pinned_batch_is_freed_and_the_model_written_as_it_was(planner, tmp_path):
    path, copy, out = tmp_path / "pinned.onnx", tmp_path / "copy.onnx", tmp_path / "pinned.json"
    ir.save(ir.from_onnx_text(SMALL.replace("float[n, ", "float[1, ")), path)
    assert "pins its batch" in planner("estimate", path, "--device", "T4", "--out", out, "--model-out", copy)
    assert copy.read_bytes() == path.read_bytes()
    planner("estimate", copy, "--device", "L4", "--out", out)  # the same model, by its hash
    assert load_profile(out).devices == ("T4", "L4")


def test_models_are_listed_and_exported(planner, tmp_path):
    assert "mobilenet_v2" in planner("models")
    planner("models", "export", "mobilenet_v2", "--out", tmp_path / "m.onnx", "--size", "32x64", "--classes", "10")
    assert str(load_model(tmp_path / "m.onnx").graph.inputs[0].shape) == "[batch,3,32,64]"


def test_layers_are_listed_with_their_latencies(planner, model, tmp_path):
    planner("layers", model, "--measure", "--device", "V100", "--out", tmp_path / "layers.csv")
    rows = (tmp_path / "layers.csv").read_text().splitlines()
    assert rows[0] == "layer,operator,MACs,parameter_bytes,live_bytes,cut_bytes,V100_us,measured_us"
    # Relu reads x and makes a, 3 × 16 × 16 floats each; a alone is alive behind it
    assert rows[1].startswith("a,Relu,0,0,6144,3072,")
    assert len(rows) == 5
    assert "y" in planner("layers", model)


def test_measurements_are_imported(planner, tmp_path):
    (tmp_path / "m.csv").write_text("device,share,batch,block,latency_us\nL4,1,1,0,10\nL4,1,1,1,20\n")
    (tmp_path / "cuts.csv").write_text("block,cut_bytes\n0,4096\n")
    planner("import-profile", tmp_path / "m.csv", "--cuts", tmp_path / "cuts.csv", "--out", tmp_path / "m.json")
    assert load_profile(tmp_path / "m.json").name == "m"


def _model(folder, body):
    return _save(folder, "float[n, 4] x", "float[n, 4] y", body)


def _save(folder, given, made, body):
    text = f'<ir_version: 8, opset_import: ["" : 17, "mine" : 1]> g ({given}) => ({made}) {body}'
    ir.save(ir.from_onnx_text(text), folder / "bad.onnx")
    return folder / "bad.onnx"


def _without_rank(folder):
    model = ir.from_onnx_text(SMALL)
    model.graph.inputs[0].shape = None
    ir.save(model, folder / "bad.onnx")
    return folder / "bad.onnx"


def _write(folder, name, text):
    (folder / name).write_text(text)
    return folder / name


BAD = {
    # not an ONNX file
    "text": (lambda d: ["profile", _write(d, "x.onnx", "hello"), "--device", "h"], "not an ONNX model"),
    # two nodes that need each other
    "cycle": (
        lambda d: ["profile", _model(d, "{ h = Add(x, y) y = Relu(h) }"), "--device", "h"],
        r"bad\.onnx: graph 'g' has a cycle",
    ),
    # weights that the file does not hold
    "missing initializer": (
        lambda d: ["profile", _model(d, "{ y = Add(x, w) }"), "--device", "h"],
        "tensor 'w', read by node 'Add', is neither an input, an initializer",
    ),
    # a scalar has no dimension to batch along
    "no batch dimension": (
        lambda d: ["profile", _save(d, "float x", "float y", "{ y = Relu(x) }"), "--device", "h"],
        r"bad\.onnx: input 'x' has no batch dimension",
    ),
    # an input without a shape
    "unknown rank": (
        lambda d: ["profile", _without_rank(d), "--device", "h"],
        r"bad\.onnx: unsupported dynamic shape: input 'x' has no shape",
    ),
    # an operator that nobody knows
    "unknown operator": (
        lambda d: ["profile", _model(d, "{ h = mine.Odd(x) y = Relu(h) }"), "--device", "h"],
        "not a registered function/op",
    ),
    # an operator of ONNX that onnxruntime has for other types only
    "operator that onnxruntime lacks": (
        lambda d: ["profile", _save(d, "int64[n, 4] x", "int64[n, 4] y", "{ y = Relu(x) }"), "--device", "h"],
        "onnxruntime cannot run 'g': .*Could not find an implementation for Relu",
    ),
    # no such file, and no such model
    "nothing": (lambda d: ["profile", "resnet51", "--device", "h"], "unknown model 'resnet51'"),
    # batch sizes that are none
    "batches": (lambda d: ["profile", d / "small.onnx", "--device", "h", "--batches", "1,one"], "--batches: expected"),
    "batch order": (
        lambda d: ["profile", d / "small.onnx", "--device", "h", "--batches", "2,1"],
        "--batches: expected",
    ),
    # a device that the catalogue lacks
    "device": (lambda d: ["estimate", d / "small.onnx", "--device", "V200"], "the catalogue has no device 'V200'"),
    # no device at all
    "no device": (lambda d: ["estimate", d / "small.onnx", "--device", ","], "--device: expected names such as T4,L4"),
    "nameless": (lambda d: ["profile", d / "small.onnx", "--device", " "], "--device: expected a name"),
    # a share that a device does not offer
    "share": (
        lambda d: ["estimate", d / "small.onnx", "--device", "T4,P4", "--shares", "2"],
        "--shares: P4 offers 1/1 and none of 2",
    ),
    # an execution provider that is not installed
    "provider": (
        lambda d: ["profile", d / "small.onnx", "--device", "h", "--provider", "NoneProvider"],
        "execution provider 'NoneProvider' is not installed",
    ),
    # an unknown clock
    "clock": (lambda d: ["profile", d / "small.onnx", "--device", "h", "--clock", "sun"], "--clock: expected wall"),
    # negative latencies in a user's measurements
    "measurements": (
        lambda d: [
            "import-profile",
            _write(d, "m.csv", "device,share,batch,block,latency_us\nL4,1,1,0,-1\n"),
            "--cuts",
            _write(d, "c.csv", "block,cut_bytes\n"),
        ],
        "expected a number >= 0, got '-1'",
    ),
    # fewer batches than asked
    "fewer batches": (
        lambda d: [
            "import-profile",
            _write(d, "m.csv", "device,share,batch,block,latency_us\nL4,1,1,0,1\n"),
            "--cuts",
            _write(d, "c.csv", "block,cut_bytes\n"),
            "--batches",
            "1,2",
        ],
        "measure batch 2 as well",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_no_file(planner, model, tmp_path, case):
    make, message = BAD[case]
    arguments = make(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=message) as found:
        planner(*arguments, "--out", tmp_path / "out.json")
    assert "\n" not in str(found.value)
    assert sorted(tmp_path.iterdir()) == before


def test_a_profile_of_another_model_is_not_added_to(planner, model, tmp_path):
    out = tmp_path / "small.json"
    planner("estimate", model, "--device", "T4", "--out", out)
    other = tmp_path / "other.onnx"
    ir.save(ir.from_onnx_text(SMALL.replace("Exp", "Sqrt")), other)
    before = out.read_text()
    with pytest.raises(InputError, match="is the profile of another model file"):
        planner("estimate", other, "--device", "L4", "--out", out)
    assert out.read_text() == before
    assert json.loads(before)["schema"] == "profile/1"


def test_even_blocks_are_at_least_as_even(planner, tmp_path):
    largest_share = {}
    for flag in ("fewest bytes", "--even"):
        out = tmp_path / f"{flag}.json"
        extra = [flag] if flag == "--even" else []
        planner("estimate", "squeezenet-light", "--device", "RaspberryPi5", "--batches", "1", "--out", out, *extra)
        latency_us = load_profile(out).tables[0].latency_us[0]
        largest_share[flag] = max(latency_us) / sum(latency_us)
    assert largest_share["--even"] < largest_share["fewest bytes"]


def test_names_are_printed_and_written_as_they_are(planner, tmp_path):
    names = ["[/encoder]", 'layer,with "comma"', "[red]danger[/red]", ":warning:"]
    model = ir.from_onnx_text(SMALL)
    for node, name in zip(model.graph, names, strict=True):
        node.name = name
    path, table = tmp_path / "[red]m.onnx", tmp_path / "layers.csv"
    ir.save(model, path)
    said = planner("layers", path)
    assert all(name in said for name in names)
    planner("layers", path, "--out", table)
    with table.open(newline="") as stream:
        assert [row["layer"] for row in csv.DictReader(stream)] == names
    assert "[red]m" in planner("estimate", path, "--device", "T4", "--out", tmp_path / "[a].json")
    assert str(tmp_path / "[a].json") in planner(
        "profile", path, "--device", "[b]", "--out", tmp_path / "[a].json", *BRIEFLY
    ).replace("\n", "")


def test_a_line_break_in_a_name_breaks_no_row(planner, tmp_path):
    model = ir.from_onnx_text(SMALL)
    model.graph[0].name = "line\nbreak\x1b[2J"
    path = tmp_path / "m.onnx"
    ir.save(model, path)
    assert r"line\nbreak\x1b[2J" in planner("layers", path)
