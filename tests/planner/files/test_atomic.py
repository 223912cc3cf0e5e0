from pathlib import Path

import pytest

from planner.files import replacing, write_text
from planner.model import InputError


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    write_text(tmp_path / "f.txt", "old")

    def fail_midway() -> None:
        with replacing(tmp_path / "f.txt") as temporary:
            temporary.write_text("half")
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        fail_midway()
    assert (tmp_path / "f.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f.txt"]


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "f.txt", "x")
    assert (tmp_path / "a" / "b" / "f.txt").read_text() == "x"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write there .*choose another output folder"):
        write_text(tmp_path / "file" / "f.txt", "x")


def test_a_folder_in_the_file_s_place_is_named_and_kept(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="out: is a folder; give the name of a file"):
        write_text(tmp_path / "out", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
