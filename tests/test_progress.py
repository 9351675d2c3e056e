"""Bars: shown on a terminal, silent elsewhere, nested on one display."""

import io
import subprocess
import sys

import pytest
from rich.console import Console

from scanmix.progress import Bar, Lines, LongSteps, Quiet, Shown, progress, ticker, watched_stages


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def state(bar: Bar) -> tuple[float, float | None, str]:
    assert isinstance(bar, Shown)
    task = bar.display.tasks[bar.display.task_ids.index(bar.line)]
    return task.completed, task.total, task.fields["note"]


def test_bar_shows_title_count_and_note() -> None:
    console = terminal()
    with progress("Pre-training (SimCLR)", total=60, console=console) as bar:
        bar.advance(2)
        bar.advance(note="loss 4.21")
        assert state(bar) == (3, 60, "loss 4.21")
    assert "Pre-training (SimCLR)" in written(console)
    assert "3/60" in written(console)
    assert "loss 4.21" in written(console)


def test_ticker_sets_rather_than_adds() -> None:
    with progress("clustering", total=None, console=terminal()) as bar:
        tick = ticker(bar)
        tick(4, 11, "loss 1.0")
        tick(5, 11, "loss 0.9")
        assert state(bar) == (5, 11, "loss 0.9")


def test_nested_bars_share_one_display_and_the_inner_goes() -> None:
    with progress("epochs", total=2, console=terminal()) as outer:
        for _ in range(2):
            with progress("batches", total=3, outer=outer) as inner:
                inner.advance()
                assert isinstance(outer, Shown) and isinstance(inner, Shown)
                assert inner.display is outer.display
                assert [task.description for task in outer.display.tasks] == ["epochs", "batches"]
                assert state(inner) == (1, 3, "")
            outer.advance()
            assert [task.description for task in outer.display.tasks] == ["epochs"]
        assert state(outer) == (2, 2, "")


def test_inner_bar_goes_when_the_work_fails() -> None:
    with progress("epochs", total=2, console=terminal()) as outer:
        with pytest.raises(RuntimeError), progress("batches", total=3, outer=outer):
            raise RuntimeError("boom")
        assert isinstance(outer, Shown)
        assert len(outer.display.tasks) == 1


def test_inside_a_quiet_bar_is_quiet() -> None:
    console = terminal()
    with progress("batches", total=3, outer=Quiet(), console=console) as inner:
        inner.advance(note="loss")
        inner.set(1, 3)
        assert isinstance(inner, Quiet)
    assert written(console) == ""


def test_lines_are_written_for_every_tenth_of_the_work() -> None:
    lines: list[str] = []
    bar = Lines("ScanMix", lines.append)
    for done in range(41):
        bar.set(done, 40, f"accuracy {done}")
    assert lines == [f"ScanMix {done}/40 accuracy {done}" for done in range(4, 41, 4)]


def test_a_bar_inside_lines_writes_lines_of_its_own() -> None:
    lines: list[str] = []
    outer = Lines("ScanMix", lines.append)
    outer.set(0, 60)
    with progress("clustering", total=2, outer=outer) as inner:
        inner.advance(note="loss 4.2")
        inner.advance()
    outer.set(60, 60)
    assert lines == ["clustering 1/2 loss 4.2", "clustering 2/2", "ScanMix 60/60"]


def test_nothing_is_written_when_stderr_is_a_pipe() -> None:
    code = """
from scanmix.progress import progress
with progress("epochs", total=2) as outer:
    with progress("batches", total=2, outer=outer) as inner:
        inner.advance(note="loss")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""


class Clock:
    """A clock that is set by hand, in seconds."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def timed() -> tuple[Clock, Console]:
    """A clock, and a terminal that goes by it."""
    clock = Clock()
    return clock, Console(file=io.StringIO(), force_terminal=True, width=120, get_time=clock)


def left(bar: Bar) -> float | None:
    assert isinstance(bar, Shown)
    return bar.display.tasks[bar.display.task_ids.index(bar.line)].time_remaining


def test_time_left_is_known_in_the_first_minute_of_epochs_of_ten_minutes() -> None:
    clock, console = timed()
    with progress("ScanMix", total=12, console=console) as bar:
        epochs = LongSteps(bar, expected=10_000, clock=clock)
        epochs.set(0, 12)
        for _ in range(60):
            clock.now += 1
            epochs.read(17)
        assert left(bar) == pytest.approx(119 * 60, rel=0.03), "a tenth of the first epoch of twelve is done"
        for _ in range(540):
            clock.now += 1
            epochs.read(17)
        epochs.set(1, 12, "accuracy 31.3%")
        assert state(bar) == (1, 12, "accuracy 31.3%")
        assert left(bar) == pytest.approx(11 * 600, rel=0.01)
        for _ in range(3):
            clock.now += 600
            epochs.set(epochs.done + 1, 12)
            assert left(bar) == pytest.approx((12 - epochs.done) * 600, rel=0.01), "without any image, too"


def test_a_step_reads_as_many_images_as_the_one_before() -> None:
    clock, console = timed()
    with progress("ScanMix", total=3, console=console) as bar:
        epochs = LongSteps(bar, expected=1000, clock=clock)
        epochs.set(0, 3)
        for _ in range(4):
            clock.now += 1
            epochs.read(1000)
        assert state(bar)[0] == 0.99, "the guess was too small: the epoch is not done before it is"
        epochs.set(1, 3)
        clock.now += 1
        epochs.read(1000)
        assert state(bar)[0] == 1.25
        epochs.read(1000)
        assert state(bar)[0] == 1.25, "not twice in a second"


def test_images_move_the_bar_of_the_stage_under_way() -> None:
    lines: list[str] = []
    seen: list[tuple[float, int, str]] = []

    class Noting(Quiet):
        def set(self, done: float, total: int, note: str = "") -> None:
            seen.append((done, total, note))

    with watched_stages("scanmix", 2, Noting(), images=100) as watched:
        watched.stages("clustering", 0, 1, "")
        watched.images(50)
        assert seen == [], "the images of a stage do not count for the epochs"
        watched.stages("clustering", 1, 1, "loss 2")
        watched.epochs(0, 2, "")
        watched.images(50)
    assert seen == [(0, 2, ""), (0.5, 2, "")]
    bar = Lines("scanmix", lines.append)
    for done in (0, 0.5, 1, 1.5):
        bar.set(done, 2)
    assert lines == ["scanmix 1/2"], "logs have whole steps"
