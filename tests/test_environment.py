"""What scripts/environment.sh makes of a checkout, with a stand-in for pip."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"

PYTHON = """#!/bin/bash
# Installs as pip does: the path of the checkout in a file that Python reads as it starts.
if [ "$1" = -m ]; then
  mkdir -p "$(dirname "$0")/../lib/python3.99/site-packages"
  printf %s "{root}" > "$(dirname "$0")/../lib/python3.99/site-packages/_editable_impl_poolpipe.pth"
else
  exec "{python}" "$@"
fi
"""


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_a_checkout_in_a_folder_with_other_letters_starts_in_any_locale(tmp_path):
    """Python 3.11 reads .pth files in the locale's encoding, so they hold ASCII alone; and so they may be moved."""
    root = tmp_path / "été [1]"
    (root / "scripts").mkdir(parents=True)
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / "scripts" / "environment.sh").write_bytes((SCRIPTS / "environment.sh").read_bytes())
    (root / "pyproject.toml").touch()
    python = root / ".venv" / "bin" / "python"
    python.write_text(PYTHON.format(root=root, python=sys.executable), encoding="utf-8")
    python.chmod(0o755)
    for _ in range(2):  # the second time nothing is installed
        command = ["bash", "-c", 'source "$0"; environment ""', str(root / "scripts" / "environment.sh")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    packages = root / ".venv" / "lib" / "python3.99" / "site-packages"
    text = (packages / "_editable_impl_poolpipe.pth").read_text(encoding="ascii")
    assert (packages / text.strip()).resolve() == root.resolve()
