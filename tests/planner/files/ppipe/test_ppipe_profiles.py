"""Published profiles, layers and prepartitions."""

import os
from pathlib import Path

import pytest

from planner.files.ppipe import list_dnns, read_layers, read_prepartition, read_profile
from planner.model import InputError

REFERENCE = os.environ.get("POOLPIPE_REFERENCE")
needs_reference = pytest.mark.skipif(REFERENCE is None, reason="POOLPIPE_REFERENCE is unset")
DATA = Path(REFERENCE or "") / "ppipe"


@needs_reference
def test_tables_are_ragged_by_share_and_transposed() -> None:
    profile = read_profile(DATA, "convnext_large", ("L4", "P4"))
    assert [(t.device, t.share, len(t.batches)) for t in profile.tables] == [
        ("L4", 1, 8),
        ("L4", 2, 4),
        ("L4", 3, 2),
        ("L4", 4, 2),
        ("P4", 1, 8),
    ]
    # The file's first row is block 0 at batches 1 to 8.
    rows = profile.table("L4", 1).latency_us
    assert [row[0] for row in rows] == [345, 680, 1072, 1658, 2101, 2592, 3110, 3555]


@needs_reference
def test_the_published_cuts_are_cuts_of_the_layers() -> None:
    """The bytes of every published cut follow from shapes and alive tensors: float32 as 2 bytes, int64 as 4."""
    dnns = list_dnns(DATA)
    assert len(dnns) == 18
    nine = []
    for dnn in dnns:
        layers, published = read_layers(DATA, dnn), read_prepartition(DATA, dnn)
        assert layers.names == tuple(layer for block in published.blocks for layer in block)
        assert len(layers.cut_bytes) == len(layers.names) - 1
        assert sorted(layers.latency_us) == ["L4", "P4", "T4", "V100"]
        ends = [sum(map(len, published.blocks[: n + 1])) for n in range(len(published.blocks) - 1)]
        assert tuple(layers.cut_bytes[end - 1] for end in ends) == published.cut_bytes
        if len(published.blocks) == 9:
            nine.append(dnn.partition("_")[0].partition("-")[0])
    assert nine == ["atss", "centernet", "fsaf", "gfl"]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two layers, two blocks, one device."""
    mapping = tmp_path / "prepartition_mappings" / "toy"
    write(mapping / "contraction_mapping_ilpprepart2-0.5-1.5.csv", "a,0\nb,1\n")
    write(mapping / "contraction_trans-size_ilpprepart2-0.5-1.5.csv", "24\n")
    write(tmp_path / "models/block-timing-tf32/toy-L4-1.csv", "10,15\n20,30\n")
    write(tmp_path / "models/node-profile-no-const/toy-L4.csv", "node,latency\na,10.0\nb,20.0\n")
    cuts = (
        '[{"node":"in","cut":["i"]},{"node":"a","cut":["t","u"]},{"node":"b","cut":["o"]},{"node":"out","cut":["o"]}]'
    )
    write(tmp_path / "models/cuts-no-const/toy.json", cuts)
    shapes = '{"t":{"dtype":"<f4","shape":[-1,2,5]},"u":{"dtype":"<i8","shape":[1]}}'
    write(tmp_path / "models/shapes/toy.json", shapes)
    return tmp_path


def test_a_folder_by_hand(data: Path) -> None:
    profile = read_profile(data, "toy", ["L4"])
    assert profile.cut_bytes == (24,)
    assert profile.table("L4", 1).latency_us == ((10, 20), (15, 30))
    # t: 2 · 5 floats at 2 bytes; u: one int64 at 4 bytes.
    assert read_layers(data, "toy").cut_bytes == (24,)


@pytest.mark.parametrize(
    ("path", "content", "text"),
    [
        ("models/block-timing-tf32/toy-L4-1.csv", None, "no timings on L4"),  # missing
        ("models/block-timing-tf32/toy-L4-1.csv", "10,15\n20\n", "equally long"),
        ("models/block-timing-tf32/toy-L4-1.csv", "10,nan\n20,30\n", "NaN"),
        ("models/block-timing-tf32/toy-L4-1.csv", "10,-1\n20,30\n", "none of them negative"),
        ("models/block-timing-tf32/toy-L4-1.csv", "10,15\n", "one per block"),  # a block is missing
        ("models/node-profile-no-const/toy-L4.csv", None, "no node profile"),
        ("models/node-profile-no-const/toy-L4.csv", "node,latency\na,x\nb,2\n", "node a: expected a latency"),
        ("models/node-profile-no-const/toy-P4.csv", "node,latency\nb,1\na,2\n", "differ from those of toy on L4"),
        (
            "models/node-profile-no-const/toy-L4.csv",
            "node,latency\nx,1\nb,2\n",
            "differ from those of the node profile",
        ),
        ("models/shapes/toy.json", "{}", "not the cuts of toy"),
        ("models/shapes/toy.json", None, "cannot read it"),
        ("prepartition_mappings/toy/contraction_mapping_ilpprepart2-0.5-1.5.csv", "a,1\nb,0\n", "contiguous"),
        ("prepartition_mappings/toy/contraction_mapping_ilpprepart2-0.5-1.5.csv", "a\nb\n", "layer,block"),
        ("prepartition_mappings/toy/contraction_mapping_ilpprepart2-0.5-1.5.csv", None, "expected one"),
        ("prepartition_mappings/toy/contraction_trans-size_ilpprepart2-0.5-1.5.csv", "", "a size per cut"),
    ],
)
def test_malformed_folders_are_refused(data: Path, path: str, content: str | None, text: str) -> None:
    if content is None:
        (data / path).unlink()
    else:
        write(data / path, content)
    with pytest.raises(InputError, match=text):
        (read_profile(data, "toy", ["L4"]), read_layers(data, "toy"))


def test_an_empty_folder_has_no_dnns(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="laid out as the published data"):
        list_dnns(tmp_path)
