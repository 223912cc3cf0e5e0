"""Make everything again that rests on measurements of this machine: ten minutes on two quiet cores.

1. The zoo is measured and estimated (`profile_zoo.py`) and put into profiles/zoo.
2. The coefficients of the catalogue's x86 core are fitted to it (`calibrate_roofline.py`).
3. The plans of plans/ are made again.
4. The profiles are held against new measurements (`check_profiles.py`): the figures that the documents state.

What is finished is kept in OUT, so that an interrupted run goes on there; all that was printed is in OUT/remade.txt.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import TextIO

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = (("edge", "np"), ("edge", "pipelines"), ("photos", "pipelines"))


def main() -> None:
    """Run the steps one after the other; stop at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--core", required=True, help="what one core of this machine is called in profiles")
    parser.add_argument("--pair", required=True, help="what two cores of this machine are called in profiles")
    parser.add_argument("--processor", required=True, help="the processor in words")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "remade", help="folder for what is finished")
    parser.add_argument("--no-check", action="store_true", help="leave out the last step")
    arguments = parser.parse_args()
    zoo, out = ROOT / "profiles" / "zoo", arguments.out
    out.mkdir(parents=True, exist_ok=True)
    with (out / "remade.txt").open("a", encoding="utf-8") as log:
        step(log, "scripts/profile_zoo.py", "--core", arguments.core, "--pair", arguments.pair, "--clock", "cpu",
             "--out", out / "zoo")  # fmt: skip
        made = sorted((out / "zoo").glob("*.json"))
        for path in made:
            shutil.copyfile(path, zoo / path.name)
        profiles = [zoo / path.name for path in made]
        step(log, "scripts/calibrate_roofline.py", "--profiles", *profiles, "--measured", arguments.core,
             "--processor", arguments.processor, "--out", out / "roofline.csv",
             "--write", ROOT / "planner" / "profiling" / "catalogue.toml")  # fmt: skip
        for folder, scheduler in EXAMPLES:
            example = ROOT / "plans" / folder
            step(log, "-m", "planner", "plan", example / "problem.toml", "--scheduler", scheduler,
                 "--out", example / f"{scheduler}.json")  # fmt: skip
        if not arguments.no_check:
            step(log, "scripts/check_profiles.py", *profiles, "--device", arguments.core, "--clock", "cpu",
                 "--rounds", 2, "--out", out / "checked.csv", may_fail=True)  # fmt: skip


def step(log: TextIO, *command: object, may_fail: bool = False) -> None:
    """Run Python on a script of ours, and write what it prints here and into the log."""
    begin_s = perf_counter()
    words = [sys.executable, *map(str, command)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            for stream in (sys.stdout, log):
                print(line, end="", file=stream, flush=True)
    for stream in (sys.stdout, log):
        print(f"== {command[0]}: {perf_counter() - begin_s:.0f} s\n", file=stream, flush=True)
    if process.returncode and not may_fail:
        sys.exit(process.returncode)


if __name__ == "__main__":
    main()
