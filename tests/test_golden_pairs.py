"""Every test that compares with stored results has a test of invariants beside it, as tests/README.md lists them."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAIRS = dict(re.findall(r"^\| `([\w/.]+)` \|[^|]*\| `([\w/.:]+)` \|$", (TESTS / "README.md").read_text("utf-8"), re.M))
# How published data, pictures, schemas and traces that are kept here are found.
STORED = re.compile(r'environ.*"POOLPIPE_REFERENCE"|"data" / "figures"|"schemas" / f"|TRACES = .* / "traces"')


def test_every_golden_test_is_listed():
    golden = {
        path.relative_to(TESTS).as_posix()
        for path in TESTS.rglob("test_*.py")
        if path != Path(__file__) and STORED.search(path.read_text("utf-8"))
    }
    assert golden == set(PAIRS), "tests/README.md names each, with a test of what must always hold"


@pytest.mark.parametrize("golden", PAIRS)
def test_its_partner_stands_and_needs_no_stored_result(golden):
    assert (TESTS / golden).exists()
    name, test = PAIRS[golden].split("::")
    above, found, _ = (TESTS / name).read_text("utf-8").partition(f"\ndef {test}(")
    assert found, f"{name} has no {test}"
    decorators = re.search(r"(?:^@.*\n|^[ )\]].*\n)*\Z", above + "\n", re.M)[0]
    assert "reference" not in decorators.lower()
