"""What many tests share: the command lines run in this process, and small problems solvable by hand."""

import os
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

# One thread for NumPy's linear algebra, here and in processes that tests start: it is loaded after this. Two workers of
# pytest have two cores, and threads that waited for each other there took up to seven times the processor time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

LONGEST = ("test_wheel.py", "test_reproduce_ipa.py", "test_reproduce_compi.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run first what takes longest, so that in the end no worker goes on with it alone."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


class Finished(NamedTuple):
    """How a command line ended, and what it printed."""

    status: int
    out: str
    err: str


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Finished]:
    """Run ``python -m planner ...`` or ``python -m simulator ...`` in this process."""

    def run(package: str, *arguments: object) -> Finished:
        if package == "planner":
            from planner.cli.main import main
        else:
            from simulator.cli.main import main
        monkeypatch.setattr(sys, "argv", [package, *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        return Finished(status, *capsys.readouterr())

    return run
