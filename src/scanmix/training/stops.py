"""Messages for a training that ends early: what happened, what is saved, what is lost, and how to go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from scanmix.distributed.meter import Diverged
from scanmix.files import CannotWrite
from scanmix.training import Run
from scanmix.training.checkpoint import has_checkpoint


@contextmanager
def explained(run: Run) -> Iterator[None]:
    """Add to what stops the block where the run stopped, what is saved of it and what is lost.

    Raises:
        Diverged, CannotWrite, KeyboardInterrupt: as the block, with the longer message.
    """
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


def _stopped(run: Run, message: str) -> str:
    """Say what Ctrl-C costs; `message` comes from a stage before the first epoch, and is empty in an epoch."""
    done = len(run.metrics)
    epochs = f"stopped after {done} epochs"
    if run.folder is None:
        return f"{epochs}, and nothing of them is kept: no run folder was asked for (out=)" + (
            f"; {message}" if message else ""
        )
    goes_on = f"{epochs}; `scanmix resume {run.folder}` goes on"
    if message:
        return f"{goes_on}: {message}"
    if has_checkpoint(run.folder):
        return f"{goes_on} after epoch {done}; what epoch {done + 1} had done is lost"
    return f"{goes_on} from the start: no epoch and no stage before the first was done"


def lost(run: Run, what: str) -> str:
    """Return the message for a run of which a process was lost, with how to go on."""
    goes_on = run.folder is not None and has_checkpoint(run.folder)
    return _sentence(run, what) + (f"; `scanmix resume {run.folder}` goes on" if goes_on else "")


def _sentence(run: Run, what: str) -> str:
    """Say where a run was when `what` happened, and what is saved of it."""
    done, saved = len(run.metrics), run.folder and has_checkpoint(run.folder)
    where = f"in epoch {done + 1}" if done or saved else "at the start"
    kept = f"the last good checkpoint (epoch {done}) is in {run.folder}" if saved else "there is no checkpoint"
    return f"{run.settings.method} stopped {where}: {what} ({kept})"
