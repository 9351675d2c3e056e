"""Files are old or new, never half; leftovers of dead processes go, and nothing else does."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scanmix.files import CannotWrite, aside_of, atomic_write, remove_leftovers, write_text
from scanmix.files.atomic import HOST, is_alive


def test_write_aside_replaces_a_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write(path, lambda aside: aside.write_text("first"))
    atomic_write(path, lambda aside: aside.write_text("second"))
    assert path.read_text() == "second"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_write_aside_never_leaves_half_a_file(tmp_path: Path, error: type[BaseException]) -> None:
    def half(aside: Path) -> None:
        aside.write_text("ha")
        raise error

    path = tmp_path / "file"
    with pytest.raises(error):
        atomic_write(path, half)
    assert not list(tmp_path.iterdir())
    path.write_text("old")
    with pytest.raises(error):
        atomic_write(path, half)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write(aside: Path) -> None:
        aside.write_text("new")
        assert path.read_text() == "old"
        assert aside != path and aside.parent == path.parent, "a rename must not cross file systems"

    atomic_write(path, write)
    assert path.read_text() == "new"


def test_whoever_reads_the_old_file_goes_on_reading_it(tmp_path: Path) -> None:
    """The new file takes the place of the old by a rename; nothing is written into a file that has readers."""
    path = tmp_path / "file"
    path.write_text("old")
    with path.open() as reader:
        atomic_write(path, lambda aside: aside.write_text("new"))
        assert reader.read() == "old"


def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_what_a_dead_process_left_of_the_same_file_is_removed_and_nothing_else(tmp_path: Path) -> None:
    dead = dead_pid()
    ours = [f"n.json.{dead}-{HOST}.part", f"n.json.{dead}.part", f".n.json.{dead}"]
    kept = [
        f"n.json.{os.getpid()}-{HOST}.part", f"n.json.{dead}-{'0' * 8}.part", f"other.json.{dead}.part",
        "n.json.part", "holiday.mkv.part", f"n.json.{dead}", "n.json.x1.part", f"n.json.{dead}.part.bak",
    ]  # fmt: skip
    for name in [*ours, *kept]:
        (tmp_path / name).write_text("left")
    write_text(tmp_path / "n.json", "new")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"n.json", *kept} - {f"n.json.{os.getpid()}-{HOST}.part"}  # the last was ours to write again


def test_folders_that_an_export_left_go_too(tmp_path: Path) -> None:
    dead = dead_pid()
    (tmp_path / f"out.{dead}-{HOST}.part").mkdir()
    (tmp_path / f"out.{dead}-{HOST}.part" / "model.onnx").touch()
    remove_leftovers(tmp_path, ["out"])
    assert not list(tmp_path.iterdir())


def test_living_and_dead() -> None:
    assert is_alive(os.getpid()) and is_alive(1) and not is_alive(dead_pid()) and not is_alive(10**30)


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    def full(aside: Path) -> None:
        aside.write_text("ha")
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(CannotWrite, match=r"file cannot be written: No space left on device; free some space, then"):
        atomic_write(path, full)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="cannot be written: No such file or directory"):
        write_text(tmp_path / "no" / "file", "text")


def test_two_processes_write_to_two_files(tmp_path: Path) -> None:
    assert str(os.getpid()) in aside_of(tmp_path / "file").name
