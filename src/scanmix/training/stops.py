"""How a training that ends before its time is told: what happened, what is kept, what is lost, how to go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from scanmix.distributed.meter import Diverged
from scanmix.files import CannotWrite
from scanmix.training import Run
from scanmix.training.checkpoint import has_checkpoint


@contextmanager
def explained(run: Run) -> Iterator[None]:
    """Say where a run stopped, what is left of it and what is lost."""
    try:
        yield
    except Diverged as error:
        raise Diverged(_sentence(run, str(error))) from error
    except CannotWrite as error:
        goes_on = (
            "" if run.folder is None else f"; `scanmix resume {run.folder}` goes on after epoch {len(run.metrics)}"
        )
        raise CannotWrite(f"{error}{goes_on}") from error
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(_stopped(run, str(stop))) from None


def _stopped(run: Run, told: str) -> str:
    """Say what Ctrl-C costs; `told` is what a stage before the first epoch says of itself."""
    done = len(run.metrics)
    epochs = f"stopped after {done} epochs"
    if run.folder is None:
        return f"{epochs}, and nothing of them is kept: no run folder was asked for (out=)" + (
            f"; {told}" if told else ""
        )
    goes_on = f"{epochs}; `scanmix resume {run.folder}` goes on"
    if told:
        return f"{goes_on}: {told}"
    if has_checkpoint(run.folder):
        return f"{goes_on} after epoch {done}; what epoch {done + 1} had done is lost"
    return f"{goes_on} from the start: no epoch and no stage before the first was done"


def lost(run: Run, what: str) -> str:
    """Say how to go on after a process was lost."""
    goes_on = run.folder is not None and has_checkpoint(run.folder)
    return _sentence(run, what) + (f"; `scanmix resume {run.folder}` goes on" if goes_on else "")


def _sentence(run: Run, what: str) -> str:
    """Say where a run was when `what` happened, and what is left of it."""
    done, saved = len(run.metrics), run.folder and has_checkpoint(run.folder)
    where = f"in epoch {done + 1}" if done or saved else "at the start"
    kept = f"the last good checkpoint (epoch {done}) is in {run.folder}" if saved else "there is no checkpoint"
    return f"{run.settings.method} stopped {where}: {what} ({kept})"
