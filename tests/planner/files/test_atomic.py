import errno
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.files import file_name, name_of, replacing, write_text
from planner.files.names import cell, value_of
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


def test_links_modes_and_the_umask_are_respected(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    write_text(tmp_path / "real" / "f.txt", "old")
    (tmp_path / "real" / "f.txt").chmod(0o640)
    (tmp_path / "link.txt").symlink_to(tmp_path / "real" / "f.txt")
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "link.txt", "new")
        write_text(tmp_path / "fresh.txt", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real" / "f.txt").read_text() == "new"
    assert (tmp_path / "real" / "f.txt").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "fresh.txt").stat().st_mode & 0o777 == 0o640


def test_pipes_and_devices_are_written_to_and_stay(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_text(tmp_path / "pipe", "through")
    reader.join(10)
    assert got == ["through"]
    assert (tmp_path / "pipe").is_fifo()
    write_text(Path("/dev/null"), "gone")
    assert Path("/dev/null").is_char_device()
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"]


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "f.txt", "old")

    def fill() -> None:
        with replacing(tmp_path / "f.txt") as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(InputError, match=r"f.txt: cannot write there \(No space left on device\); make room"):
        fill()
    assert (tmp_path / "f.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f.txt"]


def test_names_as_long_as_allowed_are_written(tmp_path: Path) -> None:
    write_text(tmp_path / ("n" * 251 + ".txt"), "x")
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["n" * 300 + ".txt", "n" * 300 + "/a.txt"])
def test_names_that_are_too_long_are_one_line_before_the_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"cannot write there \(File name too long\)"), replacing(tmp_path / name):
        raise AssertionError("the work was begun")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", ["-", "/dev/stdout", "/proc/self/fd/1", "/dev/fd/1"])
def test_standard_output_is_written_where_it_stands(out: str, tmp_path: Path) -> None:
    """Appended to, where it is a file."""
    code = f"from pathlib import Path\nfrom planner.files import write_text\nwrite_text(Path('{out}'), 'more')"
    with (tmp_path / "all.txt").open("w+") as file:
        file.write("some, ")
        file.flush()
        subprocess.run([sys.executable, "-c", f"print('and ', end='')\n{code}"], stdout=file, check=True, cwd=tmp_path)
    assert (tmp_path / "all.txt").read_text() == "some, and more"
    assert [each.name for each in tmp_path.iterdir()] == ["all.txt"]


def test_a_reader_that_has_left_ends_nothing() -> None:
    code = "from pathlib import Path\nfrom planner.files import write_text\nwrite_text(Path('-'), 'x' * 10**6)"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_standard_output_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="^-: - is standard output, which holds one file; give a folder"):
        write_text(Path("-/plan.json"), "x")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_memory_is_a_folder(tmp_path: Path) -> None:
    """Not all below /dev is a device."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        write_text(Path(folder, "new", "f.txt"), "whole")
        assert [each.name for each in Path(folder, "new").iterdir()] == ["f.txt"]


@given(st.text(min_size=1, max_size=40))
def test_names_come_back_from_file_names_that_stay_in_their_folder(name: str) -> None:
    text = file_name(name)
    assert name_of(text) == name
    assert Path(text).name == text
    assert text not in (".", "..")
    assert not text.startswith(".")


@given(st.text(max_size=40) | st.text(alphabet="'=+-@\\\\xu0af\x1b\n\u202e", max_size=12))
def test_cells_come_back_as_they_were_and_do_nothing_elsewhere(name: str) -> None:
    text = cell(name)
    assert isinstance(text, str)
    assert value_of(text) == name
    assert text.isprintable()
    try:
        float(text)
    except ValueError:
        assert not text.startswith(("=", "+", "-", "@"))
