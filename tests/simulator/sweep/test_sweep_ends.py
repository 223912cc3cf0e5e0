"""Sweeps that are told to end, while their processes start or work, leave none behind and say a line at most."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("number", "after_s", "to_all", "status", "said"),
    [
        (signal.SIGTERM, 0.0, False, 143, ""),
        (signal.SIGHUP, 0.6, False, 129, ""),
        (signal.SIGINT, 0.0, True, 130, "stopped; what was finished is kept\n"),  # as a terminal sends it
    ],
)
def test_sweeps_end_with_their_processes(
    tmp_path: Path, number: signal.Signals, after_s: float, to_all: bool, status: int, said: str
) -> None:
    edge = ROOT / "plans" / "edge"
    command = ["sweep", edge / "np.json", edge / "pipelines.json", "--trace", ROOT / "traces" / "maf-like.maf21.csv.gz"]
    command += ["--replay", "scale", "--duration", "1000", "--jobs", "2", "--out", tmp_path / "sweep"]
    with subprocess.Popen(
        [sys.executable, "-m", "simulator", *map(str, command)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,  # jobs in the background ignore it
    ) as sweep:  # fmt: skip
        while not (processes := _spawned(sweep.pid)):
            assert sweep.poll() is None
            time.sleep(0.01)
        time.sleep(after_s)
        (os.killpg if to_all else os.kill)(sweep.pid, number)
        _, err = sweep.communicate(timeout=60)
    assert (sweep.returncode, err) == (status, said)
    assert not [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def _spawned(pid: int) -> list[psutil.Process]:
    return [one for one in psutil.Process(pid).children() if "--multiprocessing-fork" in one.cmdline()]
