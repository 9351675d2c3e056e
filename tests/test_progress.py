"""Bars: shown on a terminal, silent elsewhere, nested on one display."""

import io
import subprocess
import sys

import pytest
from rich.console import Console

from scanmix.progress import Bar, Lines, Quiet, Shown, progress, ticker


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
