"""Figures over epochs: accuracy, losses by stage, what was believed, histograms of losses, seconds.

Every function takes one run or two by name, and draws both into one figure where that can be read.
Legend: N examples, P networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from scanmix.config import UserError
from scanmix.model.dynamics import Snapshot
from scanmix.report.findings import RunFindings
from scanmix.report.plots import BarSeries, LineSeries, Mark, bar_chart, histogram, line_chart
from scanmix.training import Run

Runs = Mapping[str, RunFindings]
"""One run or two, by what they are called."""

NO_LOSS = ("seconds", "rate", "elbo")
BINS = 40
SHOWN_EPOCHS = 4
SMALL = (420, 240)
LEAST_SHARE = 0.002
"""Of all seconds: a shorter bar is narrower than a pixel."""
STAGES = {
    "start": "start (pre-training, or from the cache)",
    "examine": "looking at every label",
    "warmup": "warm-up",
    "learn": "learning from labels",
    "cluster": "learning from neighbors",
}
"""Plain words for the stages of `metrics.jsonl`."""


class ChartRow(NamedTuple):
    """Figures of one run."""

    name: str
    figures: list[Markup]


def accuracy_chart(runs: Runs) -> Markup | None:
    """Test accuracy by epoch, with its best, its last and the mean of the last ten; None without test images."""
    lines, marks = [], []
    for tone, (name, found) in enumerate(runs.items()):
        epochs, shares = _values(found.run, "accuracy")
        if not epochs:
            continue
        lines.append(LineSeries(name, epochs, shares, tone))
        best = int(np.argmax(shares))
        marks += [
            Mark("mean", epochs[-10:][0], float(np.mean(shares[-10:])), tone, epochs[-1]),
            Mark("best", epochs[best], shares[best], tone),
            Mark("last", epochs[-1], shares[-1], tone),
        ]
    if not lines:
        return None
    return line_chart(
        "Test accuracy by epoch", "Test accuracy", lines, "epoch", percent=True, marks=marks, size=(860, 320)
    )


def loss_rows(runs: Runs) -> list[ChartRow]:
    """For each run the losses of every stage it has, each stage in a figure of its own."""
    rows = []
    for name, found in runs.items():
        keys = dict.fromkeys(key for line in found.run.metrics for key in line if "/" in key)
        stages: dict[str, list[str]] = {}
        for key in keys:
            stage, _, loss = key.partition("/")
            if stage not in NO_LOSS:
                stages.setdefault(stage, []).append(loss)
        figures = []
        for stage, losses in stages.items():
            lines = [LineSeries(loss, *_values(found.run, f"{stage}/{loss}"), tone) for tone, loss in enumerate(losses)]
            heading = STAGES.get(stage, stage).capitalize()
            figures.append(line_chart(f"{name}: losses, {heading}", heading, lines, "epoch", size=SMALL))
        if figures:
            rows.append(ChartRow(name, figures))
    return rows


def bound_rows(runs: Runs) -> list[ChartRow]:
    """For each run that measured Eq. 4 its figures."""
    found = {name: bound_charts(name, each.run) for name, each in runs.items()}
    return [ChartRow(name, figures) for name, figures in found.items() if figures]


def bound_charts(name: str, run: Run) -> list[Markup]:
    """Log-likelihood, ELBO and what EM raises; KL; what each epoch added. None where Eq. 4 was not measured."""
    epochs, gains = _values(run, "elbo/gain")
    if not epochs:
        return []
    terms = {key: _values(run, f"elbo/{key}")[1] for key in ("log_likelihood", "bound", "expected", "kl")}
    added = [gain + kl for gain, kl in zip(gains, terms["kl"], strict=True)]
    groups = {
        "log-likelihood and its bound (nats)": {
            "log p(y|x)": terms["log_likelihood"], "ELBO": terms["bound"], "E[log p(y,z|x)]": terms["expected"],
        },
        "KL of q from the posterior (nats)": {"KL": terms["kl"]},
        "added by each epoch (nats)": {"log p(y|x)": added, "E[log p(y,z|x)]": gains},
    }  # fmt: skip
    figures = []
    for heading, curves in groups.items():
        lines = [LineSeries(term, epochs, values, tone) for tone, (term, values) in enumerate(curves.items())]
        title = f"{name}: {heading}"
        figures.append(line_chart(title, title, lines, "epoch", size=SMALL))
    return figures


def broken_assumptions(name: str, run: Run) -> str:
    """Say in how many epochs Lemma 1 promises nothing: they lowered what EM raises. Empty where it was not measured."""
    gains = _values(run, "elbo/gain")[1]
    return f"{name} lowered it in {sum(gain < 0 for gain in gains)} of {len(gains)} epochs" if gains else ""


def belief_charts(runs: Runs) -> list[Markup]:
    """The share of labels that were believed, and the share of those that are right, by epoch."""
    sizes, purities, known = [], [], {}
    for tone, (name, found) in enumerate(runs.items()):
        epochs, counts = _values(found.run, "clean_size")
        if not epochs:
            continue
        total, actual = found.run.about["num_examples"], found.run.noise.actual
        sizes.append(LineSeries(name, epochs, [count / total for count in counts], tone))
        if actual is not None:
            known[1 - actual] = [epochs[0], epochs[-1]]
        epochs, shares = _values(found.run, "clean_purity")
        purities += [LineSeries(name, epochs, shares, tone)] if epochs else []
    sizes += [
        LineSeries("right in truth", ends, [share, share], len(runs) + place)
        for place, (share, ends) in enumerate(known.items())
    ]
    named = (("Labels believed, of all", sizes), ("Right ones among those believed", purities))
    return [line_chart(title, title, lines, "epoch", percent=True, size=SMALL) for title, lines in named if lines]


def chosen_epochs(runs: Runs, asked: Sequence[int]) -> dict[str, list[Snapshot]]:
    """Return for each run the snapshots whose losses are shown: those asked for, else a few from first to last.

    Raises:
        UserError: nothing was kept after an epoch that is asked for.
    """
    chosen = {}
    for name, found in runs.items():
        kept = {snapshot.epoch: snapshot for snapshot in found.snapshots}
        for epoch in asked if kept else ():
            if epoch not in kept:
                raise UserError(f"{found.folder} kept nothing after epoch {epoch}; it did after {_listed(list(kept))}")
        places = np.linspace(0, len(kept) - 1, min(SHOWN_EPOCHS, len(kept))).round().astype(int)
        chosen[name] = [kept[epoch] for epoch in asked or [list(kept)[place] for place in places]] if kept else []
    return chosen


def loss_histograms(runs: Runs, asked: Sequence[int] = ()) -> list[ChartRow]:
    """Losses of the given labels, mean over networks: right and wrong ones apart where the truth is known.

    One scale for all figures; what lies beyond 99 % of the losses stands in the last bin.
    """
    chosen = chosen_epochs(runs, asked)
    everything = [_mean_losses(snapshot) for snapshots in chosen.values() for snapshot in snapshots]
    if not everything:
        return []
    edges = np.linspace(0.0, max(float(np.quantile(np.concatenate(everything), 0.99)), 1e-3), BINS + 1)
    rows = []
    for name, found in runs.items():
        figures = []
        for snapshot in chosen[name]:
            losses, wrong = _mean_losses(snapshot).clip(max=edges[-1]), found.wrong
            groups = {"labels": losses}
            if wrong is not None:
                groups = {"right labels": losses[~wrong], "wrong labels": losses[wrong]}
            counts = {group: np.histogram(part, edges)[0].tolist() for group, part in groups.items()}
            heading = f"After epoch {snapshot.epoch}"
            figures.append(histogram(f"{name}: {heading}", heading, edges.tolist(), counts, "loss of the given label"))
        if figures:
            rows.append(ChartRow(name, figures))
    return rows


def seconds_rows(runs: Runs) -> list[ChartRow]:
    """For each run what its stages took; those too short to be seen are left out."""
    rows = []
    for name, found in runs.items():
        bars = seconds_of(found.run)
        shown = [bar for bar in bars if bar.value >= LEAST_SHARE * sum(other.value for other in bars) > 0]
        rows += [ChartRow(name, [bar_chart(f"{name}: seconds by stage", shown)])] if shown else []
    return rows


def seconds_of(run: Run) -> list[BarSeries]:
    """Return seconds by stage over the whole run; what an epoch took beyond its stages is "the rest of the epochs"."""
    totals = {key.removeprefix("seconds/"): value for key, value in run.stage_seconds.items()}
    epochs, evaluate = totals.pop("epoch", 0.0), totals.pop("evaluate", 0.0)
    rest = epochs - sum(value for stage, value in totals.items() if stage != "start")
    order = sorted(totals, key=lambda stage: stage != "start")  # the first epoch writes it down after its own
    named = {STAGES.get(stage, stage): totals[stage] for stage in order}
    named |= {"the rest of the epochs": max(rest, 0.0), f"measuring on test {run.settings.kind}s": evaluate}
    whole = sum(named.values())
    return [BarSeries(name, value, f"{value:,.1f} s ({value / (whole or 1):.0%})") for name, value in named.items()]


def _values(run: Run, key: str) -> tuple[list[int], list[float]]:
    """Epochs that have a number, and the numbers."""
    found = [(line["epoch"], float(line[key])) for line in run.metrics if key in line]
    return [epoch for epoch, _ in found], [value for _, value in found]


def _mean_losses(snapshot: Snapshot) -> np.ndarray:
    """Shape: -> (N,)."""
    return snapshot.losses.float().mean(0).numpy()


def _listed(epochs: Sequence[int]) -> str:
    return ", ".join(str(epoch) for epoch in epochs)
