"""ONNX files that ship in public wheels: accepted, cut, and as right as the files themselves.

`scripts/fetch_models.py` gets them; those that are not there are skipped. scripts/check_models.py tries more cuts.
"""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "check_models.py"))

pytestmark = [pytest.mark.models, pytest.mark.slow]

# Files of which two requests cannot share a run: a sequence, carried from step to step.
SINGLE = {"silero_vad/data/silero_vad_16k_sequence.onnx"}
CUTS = 2
# Of the nine of the onnx wheel two, which have all that the others have; the script tries all.
LIGHT = {"light_shufflenet.onnx", "light_squeezenet.onnx"}
ENTRIES = [each for each in SCRIPT["entries"]() if each["wheel"] != "onnx" or each["file"].rpartition("/")[2] in LIGHT]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["file"].rpartition("/")[2])
def test_a_file_is_accepted_and_its_parts_answer_as_it_does(entry):
    path = SCRIPT["locate"](entry, ROOT / "out" / "models")
    if not path.exists():
        pytest.skip(f"{path.name} of {entry['wheel']} is not there; run scripts/fetch_models.py")
    found = SCRIPT["attempt"](entry, path, CUTS, timed=False)
    assert not found.accepted.startswith("refused"), found.accepted
    assert found.batch.startswith("1: ") == (entry["file"] in SINGLE), found.batch
    if entry["wheel"] == "onnx":  # their weights are all alike, and so are their answers
        assert "equal outputs for different inputs" in found.cuts
    else:
        assert (found.cuts, found.wrong) == (str(CUTS), "0"), found
