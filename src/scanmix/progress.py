"""Progress bars on the terminal: what runs, how far it is, and how long it has left.

Nothing is shown where stderr is no terminal, unless a program asks for lines of text. Work reports in one of three
ways, all with counts of steps done:

- `tick(done, total, note)` (`Tick`): a function that does one piece of work calls it with where it is now.
- `tick(stage, done, total, note)` (`StageTick`): the same for work in several stages; it names the stage first.
- `Bar`: an object, for code that also nests bars. `bar.set` is a `Tick`; `bar.advance` adds to what was done.

Where a step may take minutes, as an epoch does, a bar also moves inside it (`LongSteps`).

with progress("ScanMix", total=60) as epochs:
    for epoch in range(60):
        with progress("clustering", total=11, outer=epochs) as batches:
            batches.advance(note="loss 4.21")
        epochs.advance(note="accuracy 93.1")
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from scanmix.config import UserError, in_short

Tick = Callable[[int, int, str], None]
"""Called as (done, total, note): `done` of `total` steps are done so far; `note` is a short text or empty."""
StageTick = Callable[[str, int, int, str], None]
"""Called as (stage, done, total, note): a `Tick` with the title of the stage before it."""


def of_stage(stage: str, tick: StageTick | None) -> Tick | None:
    """Return a tick of one stage; None where nothing is reported to."""
    return None if tick is None else lambda done, total, note: tick(stage, done, total, note)


LONGEST_STEP = 24 * 3600.0
"""Seconds over which the speed of a bar is averaged at most. Rich itself takes 30, and says no time left of a bar whose
steps take longer."""
MOST_OF_A_STEP = 0.99
"""Part of a step that is shown at most before the step is done."""


class Bar(Protocol):
    """Shows how far one piece of work is."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """`count` more steps are done."""

    def set(self, done: float, total: int, note: str = "") -> None:
        """`done` of `total` steps are done; a part of the step under way may be counted with them."""


class Quiet:
    """A bar that shows nothing: for use as a library, and where there is no terminal."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Show nothing."""

    def set(self, done: float, total: int, note: str = "") -> None:
        """Show nothing."""


@dataclass
class Lines:
    """A bar that writes a line of text at every tenth of the work: for logs, where bars cannot be drawn."""

    title: str
    write: Callable[[str], object]
    tenths: int = 0
    done: int = 0
    total: int = 0

    def advance(self, count: int = 1, note: str = "") -> None:
        """`count` more steps are done."""
        self.set(self.done + count, self.total, note)

    def set(self, done: float, total: int, note: str = "") -> None:
        """`done` of `total` steps are done; a step under way does not count."""
        self.done, self.total = (done := int(done)), total
        tenths = 10 * done // total if total else 0
        if tenths > self.tenths:
            self.write(f"{self.title} {done}/{total} {note}".rstrip())
        self.tenths = tenths


@dataclass(frozen=True)
class Shown:
    """A bar on a terminal: one line of the display that all nested bars share."""

    display: Progress
    line: TaskID

    def advance(self, count: int = 1, note: str = "") -> None:
        """`count` more steps are done."""
        self.display.update(self.line, advance=count, note=note)

    def set(self, done: float, total: int, note: str = "") -> None:
        """`done` of `total` steps are done."""
        self.display.update(self.line, completed=done, total=total, note=note)


@dataclass
class LongSteps:
    """Steps that may take minutes each, such as epochs: their bar also moves inside a step, by the images it reads.

    A step is taken to read as many as the one before it did. So time left is known from the first minute on.
    """

    bar: Bar
    expected: float
    """Images that the first step is guessed to read."""
    clock: Callable[[], float] = time.monotonic
    done: int = 0
    total: int = 0
    note: str = ""
    images: int = 0
    """Images that were read in the step under way."""
    shown: float = -math.inf
    """When the bar was last moved inside a step."""

    def set(self, done: int, total: int, note: str = "") -> None:
        """`done` of `total` steps are done."""
        if done == self.done + 1 and self.images:
            self.expected = self.images
        self.done, self.total, self.note, self.images = done, total, note, 0
        self.bar.set(done, total, note)

    def read(self, count: int) -> None:
        """So many images more were read."""
        self.images += count
        if (now := self.clock()) >= self.shown + 1:
            self.shown = now
            part = min(self.images / self.expected, MOST_OF_A_STEP)
            self.bar.set(self.done + part, self.total, self.note)


@contextmanager
def progress(title: str, total: int | None, outer: Bar | None = None, console: Console | None = None) -> Iterator[Bar]:
    """Show a bar while the block runs: on stderr if that is a terminal, else nothing.

    Args:
        title: what is being done.
        total: how many steps it takes; None while that is not known.
        outer: the bar that this one is part of; this one is then shown on a line below it until it is done.
        console: where to write instead of stderr.
    """
    if isinstance(outer, Shown):
        line = outer.display.add_task(title, total=total, note="")
        try:
            yield Shown(outer.display, line)
        finally:
            outer.display.remove_task(line)
        return
    if isinstance(outer, Lines):
        yield Lines(title, outer.write, total=total or 0)
        return
    terminal = sys.stderr.isatty() if console is None else console.is_terminal
    if outer is not None or not terminal:
        yield Quiet()
        return
    with _display(console or Console(stderr=True)) as display:
        yield Shown(display, display.add_task(title, total=total, note=""))


class Watched(NamedTuple):
    """What a training reports to."""

    epochs: Tick
    stages: StageTick
    images: Callable[[int], None]
    """Called with the number of images of each batch that is read: the bar of the stage under way moves."""


@contextmanager
def watched_stages(title: str, epochs: int, show: bool | Bar, images: float) -> Iterator[Watched]:
    """Give what epochs, self-supervised stages and images that are read report to; a stage has a bar below the first.

    Args:
        title: what is being done.
        epochs: the total of the bar.
        show: True for bars on the terminal, False for none, or the bar to report to.
        images: how many an epoch reads, at a guess.

    Raises:
        UserError: `show` is something else.
    """
    if not isinstance(show, bool) and not callable(getattr(show, "set", None)):
        raise UserError(f"progress must be True, False or a bar to report to, not {in_short(show)}")
    with ExitStack() as stack:
        outer: Bar = Quiet()
        if isinstance(show, bool):
            outer = stack.enter_context(progress(title, epochs)) if show else outer
        else:
            outer = show
        running = [LongSteps(outer, images)]
        stages: dict[str, LongSteps] = {}

        def tick(stage: str, done: int, total: int, note: str) -> None:
            if stage not in stages:
                stages[stage] = LongSteps(stack.enter_context(progress(stage, total, outer=outer)), images)
            stages[stage].set(done, total, note)
            running[1:] = [stages[stage]] if done < total else []

        yield Watched(running[0].set, tick, lambda count: running[-1].read(count))


def _display(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        speed_estimate_period=LONGEST_STEP,
    )


def ticker(bar: Bar) -> Tick:
    """Return the `Tick` that moves this bar, for functions that know nothing of bars."""
    return bar.set
