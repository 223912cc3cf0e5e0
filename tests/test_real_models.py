"""ONNX files that ship in public wheels, and small ones that are built: accepted, cut, right, and priced truly.

`scripts/fetch_models.py` gets the wheels' files; those that are not there are skipped. scripts/check_models.py tries
more cuts.
"""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "check_models.py"))
BUILDER = runpy.run_path(str(ROOT / "scripts" / "build_models.py"))

pytestmark = [pytest.mark.models, pytest.mark.slow]

# Files of which two requests cannot share a run: a sequence, carried from step to step; one scale for all activations.
SINGLE = {"silero_vad/data/silero_vad_16k_sequence.onnx", "bert_dynamic_int8.onnx"}
CUTS, SAMPLES = 1, 2
# Of the nine of the onnx wheel two, which have all that the others have; the script tries all.
LIGHT = {"light_shufflenet.onnx", "light_squeezenet.onnx"}
ENTRIES = [each for each in SCRIPT["entries"]() if each["wheel"] != "onnx" or each["file"].rpartition("/")[2] in LIGHT]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["file"].rpartition("/")[2])
def test_a_file_is_accepted_and_its_parts_answer_as_it_does(entry, tmp_path):
    path = SCRIPT["locate"](entry, ROOT / "out" / "models")
    if entry["wheel"] == SCRIPT["BUILT"]:
        path = BUILDER["build"](path.stem, tmp_path)
    if not path.exists():
        pytest.skip(f"{path.name} of {entry['wheel']} is not there; run scripts/fetch_models.py")
    found = SCRIPT["attempt"](entry, path, CUTS, timed=False, samples=SAMPLES)
    assert not found.accepted.startswith("refused"), found.accepted
    assert found.batch.startswith("1: ") == (entry["file"] in SINGLE), found.batch
    if entry["wheel"] == "onnx":  # their weights are all alike, and so are their answers
        assert "equal outputs for different inputs" in found.cuts
    else:
        assert (found.cuts, found.wrong) == (str(CUTS), "0"), found
        assert abs(share(found.macs_off)) <= 0.02, found
        assert abs(share(found.bytes_off)) <= 0.02, found


def share(percent):
    return float(percent.rstrip("%")) / 100


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "squeezenet-light", "shufflenet-light"])
def test_models_built_by_name_multiply_what_onnxruntime_does(name):
    found = SCRIPT["try_file"](name, SCRIPT["read_model"](name, SCRIPT["settings_of"]()), "as it is", 1, timed=False)
    assert (share(found.macs_off), share(found.bytes_off)) == (0, pytest.approx(0, abs=0.02))
