import os
import subprocess
import sys
from pathlib import Path

import pytest

from scanmix.config import UserError
from scanmix.files.lock import LOCK, locked

HOLD = """
import sys, time
from pathlib import Path
from scanmix.files import locked
with locked(Path(sys.argv[1]), "in training"):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_the_second_is_told_who_holds_it_and_since_when(tmp_path: Path) -> None:
    with locked(tmp_path, "in training"):
        since = r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d.*"
        who = rf"is in training already: process {os.getpid()}, on .+ {since}; use that page"
        with pytest.raises(UserError, match=who), locked(tmp_path, "audit", busy="use that page"):
            raise AssertionError("two at once")
        assert (tmp_path / LOCK).stat().st_mode & 0o077 == 0  # the token is nobody else's
    assert not list(tmp_path.iterdir())
    with locked(tmp_path, "in training"):
        pass


def test_two_locks_of_one_folder_do_not_meet(tmp_path: Path) -> None:
    with locked(tmp_path, "in training"), locked(tmp_path, "under review", "review.lock"):
        assert len(list(tmp_path.iterdir())) == 2


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match=f"process {holder.pid}"), locked(tmp_path, "mine"):
            pass
        holder.kill()
    assert f"process {holder.pid}" in (tmp_path / LOCK).read_text()  # a stale line
    with locked(tmp_path, "mine"):
        assert f"mine already: process {os.getpid()}, on" in (tmp_path / LOCK).read_text()


def test_a_failing_block_lets_go(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path, "in training"):
        raise ZeroDivisionError
    with locked(tmp_path, "in training"):
        pass


def test_where_nothing_can_be_written_nobody_is_kept_out(tmp_path: Path) -> None:
    with locked(tmp_path / "not there", "in training"), locked(tmp_path / "not there", "in training"):
        pass
