"""A child process that ends with its parent, however that ended. Imports nothing slow: it is to run at once."""

from __future__ import annotations

import os
import threading


def end_with_parent() -> None:
    """From now on, end this process at once, as by kill -9, when the parent is gone.

    The parent must have started it with `stdin=subprocess.PIPE` and never write there: the system closes that pipe
    when the parent ends, and the waiting read returns.
    """
    threading.Thread(target=_wait_and_end, daemon=True).start()


def _wait_and_end() -> None:
    os.read(0, 1)
    os._exit(1)
