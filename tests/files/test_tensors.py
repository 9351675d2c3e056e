"""Tensors on disk: what Ctrl-C and a full disk say while they are written."""

import errno
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from scanmix.files import CannotWrite
from scanmix.files.tensors import read_state, write_state


# Ctrl-C between open() and the start of its `with` block leaves the closing to the garbage collector, which warns.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_ctrl_c_while_a_state_is_written_is_ctrl_c(tmp_path: Path) -> None:
    content = {"tensors": [torch.full((64, 64), float(i)) for i in range(200)]}
    path = tmp_path / "state.pt"
    write_state(path, content)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    stopped = 0
    try:
        for delay in range(1, 61):
            try:
                signal.setitimer(signal.ITIMER_REAL, delay * 2e-4)
                write_state(path, content)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                stopped += 1
            assert len(read_state(path)["tensors"]) == 200
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert stopped > 5


def test_a_full_disk_says_so_while_a_state_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(CannotWrite, match=r"state\.pt cannot be written: No space left on device; free some space"):
        write_state(tmp_path / "state.pt", {"x": torch.zeros(3)})
