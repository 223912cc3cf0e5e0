import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from planner.files import models
from planner.files.models import load_model, model_sha256, save_model
from planner.model import InputError
from planner.profiling import extract_parts, open_session, random_feeds, read_graph, run_chain, run_model


@pytest.fixture
def model():
    made = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 64] x) => (float[n, 64] y)'
        " <float[64, 64] w = {0}> { h = MatMul(x, w) y = Relu(h) }"
    )
    weights = np.random.default_rng(0).standard_normal((64, 64), np.float32)
    made.graph.initializers["w"].const_value = ir.tensor(weights, name="w")
    return made


def test_a_model_survives_the_file(tmp_path, model):
    save_model(model, tmp_path / "a.onnx")
    save_model(load_model(tmp_path / "a.onnx"), tmp_path / "b.onnx")
    assert model_sha256(tmp_path / "a.onnx") == model_sha256(tmp_path / "b.onnx")


def test_large_models_keep_their_weights_beside_them(tmp_path, model, monkeypatch):
    monkeypatch.setattr(models, "EXTERNAL_ABOVE_BYTES", 1000)
    save_model(model, tmp_path / "large.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large.onnx", "large.onnx.data"]
    onnx.checker.check_model(str(tmp_path / "large.onnx"))
    loaded = load_model(tmp_path / "large.onnx")
    feeds = random_feeds(model, 2, np.random.default_rng(1))
    (expected,) = run_model(open_session(model), feeds)
    graph = read_graph(loaded)
    made = run_chain(
        extract_parts(graph, [0, 1]), lambda part, given: run_model(open_session(part.model), given), feeds
    )
    np.testing.assert_array_equal(made["y"], expected)


def test_the_hash_covers_external_data(tmp_path, model, monkeypatch):
    monkeypatch.setattr(models, "EXTERNAL_ABOVE_BYTES", 1000)
    save_model(model, tmp_path / "large.onnx")
    before = model_sha256(tmp_path / "large.onnx")
    data = bytearray((tmp_path / "large.onnx.data").read_bytes())
    data[100] ^= 1
    (tmp_path / "large.onnx.data").write_bytes(data)
    assert model_sha256(tmp_path / "large.onnx") != before


def test_missing_external_data_are_named(tmp_path, model, monkeypatch):
    monkeypatch.setattr(models, "EXTERNAL_ABOVE_BYTES", 1000)
    save_model(model, tmp_path / "large.onnx")
    (tmp_path / "large.onnx.data").unlink()
    with pytest.raises(InputError, match="tensor 'w' is missing: its external data file .* does not exist"):
        load_model(tmp_path / "large.onnx")


@pytest.mark.parametrize("content", [b"", b"hello, this is no model", bytes(range(256)) * 8])
def test_what_is_no_model_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(InputError, match="not an ONNX model") as found:
        load_model(tmp_path / "x.onnx")
    assert "\n" not in str(found.value)


def test_a_model_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_model(tmp_path / "none.onnx")


@pytest.mark.slow
def test_a_model_of_more_than_two_gigabytes_is_read_split_and_run(tmp_path):
    """Three embedding tables of 0.8 GB in a sparse file, of which only a few rows are not zero."""
    rows, width = 200_000, 1_000
    table_bytes = rows * width * 4
    with (tmp_path / "tables.data").open("wb") as stream:
        stream.truncate(3 * table_bytes)
        for table in range(3):
            stream.seek(table * table_bytes + 7 * width * 4)  # row 7
            stream.write(np.full(width, table + 1, np.float32).tobytes())
    made = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> tables (int64[n] ids) => (float[n, 1000] y)'
        " <float[1] t0 = {0}, float[1] t1 = {0}, float[1] t2 = {0}> {"
        " a = Gather(t0, ids) b = Gather(t1, ids) c = Gather(t2, ids) d = Add(a, b) y = Add(d, c) }"
    )
    for table in range(3):
        value = made.graph.initializers[f"t{table}"]
        value.shape = ir.Shape((rows, width))
        value.const_value = ir.ExternalTensor(
            "tables.data", table * table_bytes, table_bytes, ir.DataType.FLOAT,
            shape=ir.Shape((rows, width)), name=f"t{table}", base_dir=tmp_path,
        )  # fmt: skip
    (tmp_path / "tables.onnx").write_bytes(ir.to_proto(made).SerializeToString())

    graph = read_graph(load_model(tmp_path / "tables.onnx"))
    assert graph.parameter_bytes() > 2**31
    parts = extract_parts(graph, [0, 2, 4])
    made_tensors = run_chain(
        parts,
        lambda part, given: run_model(open_session(part.model, optimise=False), given),
        {"ids": np.array([7, 8])},
    )
    np.testing.assert_array_equal(made_tensors["y"][:, 0], [6, 0])


@pytest.mark.parametrize("kind", ["map(int64,float)", "seq(map(int64,float))"])
def test_maps_are_refused_by_name(kind, tmp_path):
    """What scikit-learn's exporter puts behind classifiers."""
    text = (
        f'<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]> g (float[n, 2] p) => ({kind} named)'
        " { named = ai.onnx.ml.ZipMap<classlabels_int64s=[0, 1]>(p) }"
    )
    onnx.save(onnx.parser.parse_model(text), tmp_path / "map.onnx")
    with pytest.raises(InputError, match="map.onnx: 'named' is a map, .*zipmap") as found:
        load_model(tmp_path / "map.onnx")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("flat", [True, False])
def test_sparse_weights_are_ordinary_ones(flat, tmp_path, model):
    """Stored as what is not zero, and where: places counted through the tensor, or a row and a column each."""
    weights = model.graph.initializers["w"].const_value.numpy() * (np.arange(64) % 3 == 0)
    proto = ir.to_proto(model)
    del proto.graph.initializer[:]
    places = np.flatnonzero(weights) if flat else np.argwhere(weights)
    values = numpy_helper.from_array(weights[weights != 0], "w")
    sparse = onnx.helper.make_sparse_tensor(values, numpy_helper.from_array(places, "places"), [64, 64])
    proto.graph.sparse_initializer.append(sparse)
    onnx.save(proto, tmp_path / "sparse.onnx")
    feeds = {"x": np.eye(64, dtype=np.float32)}
    expected = np.maximum(weights, 0)
    np.testing.assert_array_equal(run_model(open_session(load_model(tmp_path / "sparse.onnx")), feeds)[0], expected)
    proto.graph.sparse_initializer[0].dims[:] = [64, 32]
    onnx.save(proto, tmp_path / "wrong.onnx")
    with pytest.raises(InputError, match="sparse tensor 'w': its places are none of \\[64, 32\\]"):
        load_model(tmp_path / "wrong.onnx")


def test_small_external_weights_can_be_saved_again_while_in_use(tmp_path):
    made = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 8] x) => (float[n, 8] y)'
        " <float[8] b = {1, 2, 3, 4, 5, 6, 7, 8}> { y = Add(x, b) }"
    )
    onnx.save(ir.to_proto(made), tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="m.data")
    loaded = load_model(tmp_path / "m.onnx")
    used = loaded.graph.initializers["b"].const_value.numpy()
    ir.save(loaded, tmp_path / "again.onnx", external_data="again.data")
    np.testing.assert_array_equal(used, np.arange(1, 9))
