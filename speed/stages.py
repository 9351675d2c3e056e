"""Where the time of an epoch goes: the stack of the main thread, sampled a thousand times a second.

Nothing in scanmix is wrapped or changed for it. A sample counts for the innermost frame whose file is listed below, and
for "Python and the rest" where there is none.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import PurePath
from types import FrameType

EVERY = 0.001
"""Seconds between two samples."""
REST = "Python and the rest"
STAGES = {
    "scanmix/data/views": "views",
    "scanmix/blocks/divide.py": "mixture",
    "scanmix/blocks/neighbors.py": "neighbors",
    "scanmix/blocks/losses.py": "losses and MixUp",
    "scanmix/blocks/mixmatch.py": "losses and MixUp",
    "scanmix/methods/steps/mixmatch.py": "losses and MixUp",
    "torch/autograd": "backward",
    "torch/optim": "optimizer",
    "torch/nn/modules": "forward",
}
"""File, or folder of files -> what is done there."""


def shares(work: Callable[[], object]) -> dict[str, float]:
    """Run `work` in this thread; return the share of its time that each stage took, largest first."""
    main, spent, stop = threading.get_ident(), Counter[str](), threading.Event()

    def sample() -> None:
        last = time.perf_counter()
        while not stop.wait(EVERY):
            stage = stage_of(sys._current_frames().get(main))
            now = time.perf_counter()
            spent[stage] += now - last  # type: ignore[assignment]  # a late sample counts for all the time since the one before
            last = now

    sampler = threading.Thread(target=sample, daemon=True)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(EVERY / 10)
    sampler.start()
    try:
        work()
    finally:
        stop.set()
        sampler.join()
        sys.setswitchinterval(interval)
    total = sum(spent.values()) or 1
    return {stage: seconds / total for stage, seconds in spent.most_common()}


def stage_of(frame: FrameType | None) -> str:
    """Return the stage of the innermost frame whose file is listed; `REST` where none is."""
    while frame is not None:
        file = PurePath(frame.f_code.co_filename)
        for part in (file.parts[-4:], file.parts[-3:], file.parts[-4:-1], file.parts[-3:-1]):
            if (place := "/".join(part)) in STAGES:
                return STAGES[place]
        frame = frame.f_back
    return REST
