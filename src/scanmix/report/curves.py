"""Figures over epochs: accuracy, losses by stage, labels taken as right, histograms of losses, seconds.

Every function takes one or two runs by name, and draws both into one figure where that stays readable.
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
from scanmix.training.metrics import PROCESSOR

Runs = Mapping[str, RunFindings]
"""One or two runs by name."""

NO_LOSS = ("seconds", "rate", "elbo")
"""Prefixes of metrics that are not losses of a stage."""
BINS = 40
"""Bins of a histogram of losses."""
SHOWN_EPOCHS = 4
"""Epochs whose losses are shown if none are chosen."""
SMALL = (420, 240)
"""Width and height of a figure that shares a row with another."""
LEAST_SHARE = 0.002
"""Share of all seconds (0..1) below which a bar is left out, since it would be narrower than a pixel."""
STAGES = {
    "start": "start (pre-training, or from the cache)",
    "examine": "looking at every label",
    "warmup": "warm-up",
    "learn": "learning from labels",
    "cluster": "learning from neighbors",
}
"""What the report calls the stages of `metrics.jsonl`."""


class ChartRow(NamedTuple):
    """Figures of one run."""

    name: str
    figures: list[Markup]


def accuracy_chart(runs: Runs) -> Markup | None:
    """Return test accuracy by epoch, with the best, the last and the mean of the last ten; None without test data."""
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
    """Return for each run a figure of losses for every stage it has."""
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
    """Return the figures of `bound_charts` for each run that measured Eq. 4 of the paper."""
    found = {name: bound_charts(name, each.run) for name, each in runs.items()}
    return [ChartRow(name, figures) for name, figures in found.items() if figures]


def bound_charts(name: str, run: Run) -> list[Markup]:
    """Return figures of Eq. 4 by epoch; empty if it was not measured.

    They show the log-likelihood with its bound (ELBO) and the expectation that EM raises, the KL divergence, and what
    each epoch added; all in nats.
    """
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
    """Return in how many epochs Lemma 1 does not apply because E[log p(y,z|x)] fell; empty if it was not measured."""
    gains = _values(run, "elbo/gain")[1]
    return f"{name} lowered it in {sum(gain < 0 for gain in gains)} of {len(gains)} epochs" if gains else ""


def p_clean_charts(runs: Runs) -> list[Markup]:
    """Return by epoch the share of labels that the method took as right, and the share of those that are."""
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
    named = (("Labels trusted, of all", sizes), ("Right ones among those trusted", purities))
    return [line_chart(title, title, lines, "epoch", percent=True, size=SMALL) for title, lines in named if lines]


def chosen_epochs(runs: Runs, wanted: Sequence[int]) -> dict[str, list[Snapshot]]:
    """Return for each run the snapshots whose losses are shown: those of the wanted epochs, else four of all.

    Raises:
        UserError: there is no snapshot of a wanted epoch.
    """
    chosen = {}
    for name, found in runs.items():
        kept = {snapshot.epoch: snapshot for snapshot in found.snapshots}
        for epoch in wanted if kept else ():
            if epoch not in kept:
                raise UserError(f"{found.folder} kept nothing after epoch {epoch}; it did after {_listed(list(kept))}")
        places = np.linspace(0, len(kept) - 1, min(SHOWN_EPOCHS, len(kept))).round().astype(int)
        chosen[name] = [kept[epoch] for epoch in wanted or [list(kept)[place] for place in places]] if kept else []
    return chosen


def loss_histograms(runs: Runs, wanted: Sequence[int] = ()) -> list[ChartRow]:
    """Return histograms of the losses of given labels, mean over networks, of right and wrong ones where known.

    All figures have one scale; the largest 1 % of the losses are counted in the last bin.

    Args:
        runs: one or two runs by name.
        wanted: epochs to show; a few from the first to the last if empty.
    """
    chosen = chosen_epochs(runs, wanted)
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
    """Return for each run the seconds of its stages; stages too short to be seen are left out."""
    rows = []
    for name, found in runs.items():
        bars = seconds_of(found.run)
        shown = [bar for bar in bars if bar.value >= LEAST_SHARE * sum(other.value for other in bars) > 0]
        rows += [ChartRow(name, [bar_chart(f"{name}: seconds by stage", shown)])] if shown else []
    return rows


def seconds_of(run: Run) -> list[BarSeries]:
    """Return seconds by stage over the whole run; what an epoch took beyond its stages is "the rest of the epochs"."""
    totals = {key.removeprefix("seconds/"): value for key, value in run.stage_seconds.items() if key != PROCESSOR}
    epochs, evaluate = totals.pop("epoch", 0.0), totals.pop("evaluate", 0.0)
    rest = epochs - sum(value for stage, value in totals.items() if stage != "start")
    order = sorted(totals, key=lambda stage: stage != "start")  # metrics have "start" after the first epoch
    named = {STAGES.get(stage, stage): totals[stage] for stage in order}
    named |= {"the rest of the epochs": max(rest, 0.0), f"measuring on test {run.settings.given}s": evaluate}
    whole = sum(named.values())
    return [BarSeries(name, value, f"{value:,.1f} s ({value / (whole or 1):.0%})") for name, value in named.items()]


def _values(run: Run, key: str) -> tuple[list[int], list[float]]:
    """Return the epochs that have a metric, and its values."""
    found = [(line["epoch"], float(line[key])) for line in run.metrics if key in line]
    return [epoch for epoch, _ in found], [value for _, value in found]


def _mean_losses(snapshot: Snapshot) -> np.ndarray:
    """Return the losses, mean over networks. Shape: -> (N,)."""
    return snapshot.losses.float().mean(0).numpy()


def _listed(epochs: Sequence[int]) -> str:
    return ", ".join(str(epoch) for epoch in epochs)
