"""A table as files: a CSV with a row for each run, and a page in Markdown."""

from __future__ import annotations

import csv
import io
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scanmix.config import as_typed, percent, read_toml
from scanmix.data.names import from_here
from scanmix.evaluate.significance import welch
from scanmix.files import write_text
from scanmix.files.markdown import wrapped
from scanmix.methods import METHODS
from scanmix.reproduce.differences import differences
from scanmix.reproduce.paper import notes, on_same_data, printed
from scanmix.reproduce.tables import ResultTable, chosen_cells
from scanmix.training import Run
from scanmix.training.metrics import PROCESSOR


@dataclass(frozen=True, kw_only=True)
class Result:
    """One finished run of a table. Accuracies and noise rates are shares (0..1), times are seconds."""

    method: str
    noise: str
    seed: int
    asked: float | None = None
    actual: float | None = None
    estimated: float | None = None
    best: float | None = None
    last: float | None = None
    final: float | None = None
    """Mean of the last epochs, as many as the table averages."""
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds of each stage, all epochs together."""
    recipe: str = ""
    oracle: bool = False
    version: str = ""
    git: str = ""
    torch: str = ""

    @property
    def self_supervised(self) -> bool:
        """Whether the method sees no label; its accuracy is measured after matching clusters with classes."""
        return METHODS[self.method].self_supervised


def read_result(run: Run, noise: str, averaged: int = 10) -> Result:
    """Return the results of a finished run.

    Args:
        run: the run.
        noise: the column it was trained for.
        averaged: how many epochs at the end `Result.final` is the mean of.
    """
    versions = read_toml(run.folder / "run.toml").get("versions", {}) if run.folder else {}
    return Result(
        method=run.settings.method,
        noise=noise,
        seed=run.settings.seed,
        asked=run.noise.asked,
        actual=run.noise.actual,
        estimated=run.method_estimate,
        best=run.best_accuracy,
        last=run.last_accuracy,
        final=mean_of_last(run.accuracies, averaged),
        seconds=run.seconds,
        stages=run.stage_seconds,
        recipe=run.settings.recipe or "",
        oracle=run.settings.oracle,
        version=str(versions.get("scanmix", "")),
        git=str(versions.get("git", "")),
        torch=str(versions.get("torch", "")),
    )


def mean_of_last(accuracies: Sequence[float], count: int) -> float | None:
    """Return the mean of so many accuracies at the end, or of all where there are fewer; None if there are none."""
    return statistics.fmean(accuracies[-count:]) if accuracies else None


def write_results(
    table: ResultTable, results: Sequence[Result], out: Path, jobs: int, seconds: float, precision: str = "32-true"
) -> None:
    """Write `<table>.csv` and `<table>.md`, each whole or not at all.

    Args:
        table: rows and columns.
        results: the finished runs.
        out: folder of both files.
        jobs: number of runs at once, as the page says it.
        seconds: wall time of the whole table.
        precision: of the encoders, as the page says it.
    """
    seeds = f" --seeds {len(table.seeds)}" if len(table.seeds) > 1 else ""
    place = "" if from_here(out) == "results" else f" --out {as_typed([from_here(out)])}"
    oracle = " --oracle" if table.oracle else ""
    given = f" --root {'FOLDER' if table.is_folder else 'data/'}" if table.is_folder or table.labels else ""
    given += "" if precision == "32-true" else f" --precision {precision}"
    command = f"scanmix reproduce {table.name.removesuffix('-oracle')}{given}{place} --jobs {jobs}{seeds}{oracle}"
    machine = f"{os.cpu_count()} CPUs ({platform.machine()}, {platform.system()})"
    texts = {"csv": to_csv(table, results), "md": to_markdown(table, results, command, machine, seconds)}
    for ending, text in texts.items():
        write_text(out / f"{table.name}.{ending}", text)


def to_csv(table: ResultTable, results: Sequence[Result]) -> str:
    """Return one row for each run; stages that a run does not have are empty. Shares are 0..1, the paper's too."""
    stages = sorted({stage for result in results for stage in result.stages})
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    plain = ("method", "noise", "seed", "asked", "actual", "estimated", "best", "last", "final", "seconds")
    origin = ("recipe", "oracle", "version", "git", "torch")
    kinds = ("best", "last") if on_same_data(table) else ()
    named = {"final": f"last{table.averaged}"}
    rows.writerow([*(named.get(name, name) for name in plain), *(f"paper_{kind}" for kind in kinds), *stages, *origin])
    for result in results:
        paper = printed(table, result.method, result.noise)
        shares = [paper[kind] / 100 if kind in paper else None for kind in kinds]
        values = [getattr(result, name) for name in plain] + shares + [result.stages.get(stage) for stage in stages]
        rows.writerow([_number(value) for value in values] + [str(getattr(result, name)) for name in origin])
    return text.getvalue()


def to_markdown(table: ResultTable, results: Sequence[Result], command: str, machine: str, seconds: float) -> str:
    """Return the page of a table: accuracies, seconds, noise rates, and the meaning of the marks."""
    expected, most = len(chosen_cells(table)), max(map(len, map(table.seeds_of, table.methods)))
    several = most > 1
    remarks = [
        "Accuracy on the test images, in percent. The first number is the mean of the last "
        f"{_words(table)} epochs. The number in parentheses is that of the best epoch, which is an upper bound, "
        "because the test images choose the epoch. The best method of each column is bold."
    ]
    if several:
        remarks.append(
            f"The numbers are mean ± standard deviation over seeds 0 to {most - 1}, as far as the runs are finished."
        )
    if any(result.self_supervised for result in results):
        remarks.append(
            "¹ The accuracy is measured after clusters are matched with true classes. No other method is given true "
            "classes. The method learns without labels, so it was trained once"
            f"{' for each seed' if several else ''}, and every column has the same result."
        )
    if any(result.oracle for result in results):
        remarks.append("‡ The recipe is an oracle: it has a value that was chosen by someone who knew the noise.")
    data = ", ".join([table.source, *(f"{key}={value}" for key, value in table.load.items())])
    parts = [
        f"# {table.name}",
        f"`{command}`",
        _about(results, data, expected, machine, None if table.part_of else seconds),
        "## Accuracy",
        _grid(table, results, lambda found, noise: _accuracy(table, results, found, noise)),
        *map(wrapped, remarks),
        *_beside_paper(table, results),
        *_tests(table, results),
        "## Seconds",
        _grid(table, results, _seconds),
        wrapped(
            "Seconds of one run, on one thread: of the processor where they were counted, else of the clock, which "
            "other programs drive up. Self-supervised stages are cached and shared, so only the first run that needs a "
            "stage has its seconds."
        ),
        "## Share of wrong labels",
        _noise(table, results),
        "In percent. A method estimates the share of labels that it did not call clean after the last epoch.",
    ]
    return "\n\n".join(parts) + "\n"


def _about(results: Sequence[Result], data: str, expected: int, machine: str, seconds: float | None) -> str:
    """What was trained, on which machine, with which versions, in which time if that is known."""
    table = "" if seconds is None else f"The table took {seconds:.0f} s. "
    return wrapped(
        f"Data: {data}. {len(results)} of {expected} runs are finished. Machine: {machine}. "
        f"Versions: torch {_all(result.torch for result in results)}; scanmix "
        f"{_all(result.version for result in results)}, git {_all(_short(result.git) for result in results)}. "
        f"{table}The runs add up to {sum(result.seconds for result in results):.0f} s, each "
        "on one thread."
    )


Show = Callable[[Sequence[Result], str], str]
"""Returns the text of a field, given its runs (one for each seed) and the noise."""


def _grid(table: ResultTable, results: Sequence[Result], show: Show) -> str:
    rows = []
    for method in table.methods:
        mark = " ¹" if METHODS[method].self_supervised else ""
        rows.append([method + mark, *(show(_find(results, method, noise), noise) for noise in table.noises)])
    return _table(["method", *table.noises], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _find(results: Sequence[Result], method: str, noise: str) -> list[Result]:
    """Return the runs of a field, one for each seed; those of self-supervised methods are in every column."""
    return [
        result for result in results if result.method == method and (result.noise == noise or result.self_supervised)
    ]


def _accuracy(table: ResultTable, results: Sequence[Result], found: Sequence[Result], noise: str) -> str:
    values = _known(result.final for result in found)
    if not values:
        return "–"
    rivals = [_known(result.final for result in _find(results, method, noise)) for method in table.methods]
    means = [_percent(statistics.fmean(rival)) for rival in rivals if rival]
    mean = _percent(statistics.fmean(values))
    best = len(means) > 1 and mean == max(means, key=float)
    shown = f"**{mean}**" if best else mean
    shown += f" ± {_percent(statistics.stdev(values))}" if len(values) > 1 else ""
    shown += f" ({_percent(statistics.fmean(_known(result.best for result in found)))})"
    return shown + (" ‡" if any(result.oracle for result in found) else "")


def _beside_paper(table: ResultTable, results: Sequence[Result]) -> list[str]:
    """Return the paper's figures for the same methods and noises; on the same data also the difference to ours."""
    if table.paper is None:
        return []
    rows = []
    for method in table.methods:
        columns = [(_find(results, method, noise), printed(table, method, noise)) for noise in table.noises]
        rows.append([method, *(_printed(table, found, paper) for found, paper in columns)])
    note = "The figures are as printed: the best epoch, and after a slash the mean of the last ten, if there is one. "
    note += (
        "In parentheses is our figure minus the printed one, in points. It is bold from one point on. The paper has "
        "one run of each."
        if on_same_data(table)
        else differences(table)
    )
    remarks = map(wrapped, [note, *notes(table)])
    return [f"## The paper's {table.paper[0]}", _table(["method", *table.noises], rows), *remarks]


def _printed(table: ResultTable, found: Sequence[Result], paper: Mapping[str, float]) -> str:
    """Return a cell as the paper prints it, with the difference to ours if the data is the same."""
    shown = []
    for kind, ours in (("best", "best"), ("last", "final")):
        if kind not in paper:
            continue
        text, values = str(paper[kind]), _known(getattr(result, ours) for result in found)
        if values and on_same_data(table):
            gap = 100 * statistics.fmean(values) - paper[kind]
            text += f" (**{gap:+.1f}**)" if abs(gap) >= 1 else f" ({gap:+.1f})"
        shown.append(text)
    return " / ".join(shown) or "–"


def _tests(table: ResultTable, results: Sequence[Result]) -> list[str]:
    """Return Welch's t-tests of ScanMix against each other method, if there are several seeds."""
    rivals = [
        method for method in table.methods
        if method != "scanmix" and not METHODS[method].self_supervised and len(table.seeds_of(method)) > 1
    ]  # fmt: skip
    if len(table.seeds_of("scanmix")) < 2 or "scanmix" not in table.methods or not rivals:
        return []
    rows = []
    for method in rivals:
        shown = []
        for noise in table.noises:
            ours, theirs = (
                _known(result.final for result in _find(results, one, noise)) for one in ("scanmix", method)
            )
            gap = 100 * (statistics.fmean(ours) - statistics.fmean(theirs)) if ours and theirs else 0.0
            shown.append(f"{gap:+.1f} (p {welch(ours, theirs):.2g})" if min(len(ours), len(theirs)) > 1 else "–")
        rows.append([method, *shown])
    note = (
        f"The table has the points by which scanmix is ahead in the last {_words(table)} epochs, and the p-value of "
        "Welch's t-test over the finished seeds. Of many such tests, some are below 0.05 by chance."
    )
    return ["## scanmix against", _table(["method", *table.noises], rows), wrapped(note)]


def _seconds(found: Sequence[Result], noise: str) -> str:
    if not found:
        return "–"
    seconds = [result.stages.get(PROCESSOR, result.seconds) for result in found]
    return f"{statistics.fmean(seconds):.0f}" if found[0].noise == noise else "the same"


def _noise(table: ResultTable, results: Sequence[Result]) -> str:
    rows = []
    for name, read in (("asked", lambda result: result.asked), ("actual", lambda result: result.actual)):
        columns = [[result for result in results if result.noise == noise] for noise in table.noises]
        rows.append([name, *(_mean(_known(map(read, column))) for column in columns)])
    for method in table.methods:
        estimates = [_known(r.estimated for r in _find(results, method, noise)) for noise in table.noises]
        if any(estimates):
            rows.append([f"estimated by {method}", *map(_mean, estimates)])
    return _table(["", *table.noises], rows)


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float]) -> str:
    return _percent(statistics.fmean(values)) if values else "–"


def _percent(share: float) -> str:
    return percent(share, unit="")


def _words(table: ResultTable) -> str:
    return {3: "three", 10: "ten"}.get(table.averaged, str(table.averaged))


def _number(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _all(values: Iterable[str]) -> str:
    return ", ".join(sorted({value for value in values if value})) or "unknown"


def _short(commit: str) -> str:
    """Shorten a commit to ten digits; "-dirty" stays."""
    name, dash, state = commit.partition("-")
    return name[:10] + dash + state
