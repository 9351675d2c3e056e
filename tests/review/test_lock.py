import os
import subprocess
import sys
from pathlib import Path

import pytest

from scanmix.config import UserError
from scanmix.review import lock
from scanmix.review.lock import LOCK, only_one

HOLD = """
import importlib.util, sys, time
from pathlib import Path
spec = importlib.util.spec_from_file_location("lock", sys.argv[2])  # this one file: quicker than PyTorch
lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lock)
with lock.only_one(Path(sys.argv[1]), "http://127.0.0.1:5/x/"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_server_is_told_where_the_first_is(tmp_path: Path) -> None:
    with only_one(tmp_path, "http://127.0.0.1:1/a/"):
        with pytest.raises(UserError, match=rf"under review already: process {os.getpid()} at http://127.0.0.1:1/a/;"):
            with only_one(tmp_path, "http://127.0.0.1:2/b/"):
                raise AssertionError("two at once")
        assert (tmp_path / LOCK).stat().st_mode & 0o077 == 0  # the token is nobody else's
    with only_one(tmp_path, "http://127.0.0.1:2/b/"):
        pass


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), str(lock.__file__)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {holder.pid}"), only_one(tmp_path, "mine"):
            pass
        holder.kill()
    assert f"process {holder.pid}" in (tmp_path / LOCK).read_text()  # a stale line
    with only_one(tmp_path, "mine"):
        assert (tmp_path / LOCK).read_text() == f"process {os.getpid()} at mine\n"
