"""The paper's Figures 3 and 4, and its theory, from run folders: accuracy, losses of right and wrong labels, ELBO.

Legend: N examples, P networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from scanmix.audit.stored import load_evidence
from scanmix.config import UserError
from scanmix.model.dynamics import Snapshot, load_dynamics
from scanmix.report.curves import SMALL, bound_charts, broken_assumptions
from scanmix.report.plots import LineSeries, histogram, line_chart
from scanmix.training import Run, open_run

BINS = 40
STYLE = """
text { font: 11px system-ui, sans-serif; fill: #1c1e21; } .heading { font-size: 12.5px; font-weight: 600; }
.name { fill: #5c636b; } .grid { stroke: #e8eaec; } .axis { stroke: #5c636b; }
.tone0 { color: #0072b2; } .tone1 { color: #c65102; } .tone2 { color: #007f5f; }
.line { fill: none; stroke: currentColor; stroke-width: 2; } .line.tone1 { stroke-dasharray: 7 4; }
.line.tone2 { stroke-dasharray: 2 4; }
.area { stroke: currentColor; stroke-width: 1.5; fill: currentColor; fill-opacity: .3; }
.area.tone1 { fill: url(#hatch); fill-opacity: 1; }
"""
"""The part of the report's style sheet that a figure needs when it is a file of its own."""


HATCH = (
    '<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="6" height="6" fill="#c65102" fill-opacity=".12"/>'
    '<line x1="0" y1="0" x2="0" y2="6" stroke="#c65102" stroke-width="2"/></pattern>'
)


class Figure(NamedTuple):
    """A figure and its caption."""

    svg: str
    caption: str


def figure3(folders: Sequence[Path]) -> Figure:
    """Draw the test accuracy of runs by epoch (Figure 3); the caption says how far each ends below its best.

    Raises:
        UserError: a run has no test accuracy.
    """
    runs = _named([open_run(folder) for folder in folders])
    lines, words = [], []
    for tone, (name, run) in enumerate(runs.items()):
        if len(run.accuracies) < 2:
            raise UserError(f"{run.folder} has no curve of test accuracy")
        best, last = max(run.accuracies), float(np.mean(run.accuracies[-10:]))
        lines.append(LineSeries(name, list(range(1, len(run.accuracies) + 1)), run.accuracies, tone))
        words.append(f"{name} has {100 * last:.1f} % in its last ten epochs, {100 * (best - last):.1f} below its best")
    drawn = line_chart("Accuracy by epoch", "Test accuracy", lines, "epoch", percent=True, size=(560, 280))
    return Figure(_file_of([drawn], 560, 280), f"Test accuracy by epoch, {_noise(runs)}: {'; '.join(words)}.")


def figure4(folders: Sequence[Path]) -> Figure:
    """Draw histograms of the losses of right and wrong labels (Figure 4), after the first snapshot that divided them.

    The losses of each network are scaled to 0..1, then averaged over networks. The caption says how well right and
    wrong labels separate: the share that the two histograms have in common, and how likely a wrong label has the larger
    loss.

    Raises:
        UserError: a run has no snapshots, or the true labels are not known.
    """
    runs = _named([open_run(folder) for folder in folders])
    drawn, words, edges = [], [], np.linspace(0, 1, BINS + 1)
    for name, run in runs.items():
        snapshot, wrong = _early(run)
        losses = snapshot.losses.double().numpy()
        low, high = losses.min(1, keepdims=True), losses.max(1, keepdims=True)
        losses = ((losses - low) / np.maximum(high - low, 1e-12)).mean(0)
        groups = {"right labels": losses[~wrong], "wrong labels": losses[wrong]}
        counts = {kind: np.histogram(values, edges)[0] for kind, values in groups.items()}
        heading = f"{name}, after epoch {snapshot.epoch} of {len(run.metrics)}"
        shown = {kind: number.tolist() for kind, number in counts.items()}
        drawn.append(histogram(heading, heading, edges.tolist(), shown, "loss, from least to largest"))
        shares = [number / max(1, number.sum()) for number in counts.values()]
        common, larger = np.minimum(*shares).sum(), rank_share(groups["wrong labels"], groups["right labels"])
        words.append(
            f"{name}: {100 * common:.0f} % in common, a wrong label has the larger loss in {100 * larger:.1f} %"
        )
    return Figure(
        _file_of(drawn, 420, 220),
        f"Losses of right and wrong training labels early on, {_noise(runs)}: {'; '.join(words)}.",
    )


def elbo_figure(folders: Sequence[Path]) -> Figure:
    """Draw log-likelihood, ELBO and KL of runs by epoch; the caption says how often the assumption of Lemma 1 failed.

    Raises:
        UserError: a run did not measure them.
    """
    runs, drawn = _named([open_run(folder) for folder in folders]), []
    for name, run in runs.items():
        charts = bound_charts(name, run)
        if not charts:
            raise UserError(f"{run.folder} measured no ELBO; train it with --set monitor.elbo=200")
        drawn += charts
    broken = "; ".join(broken_assumptions(name, run) for name, run in runs.items())
    return Figure(
        _file_of(drawn, *SMALL, columns=len(drawn) // len(runs)),
        f"Log-likelihood of the given labels, ELBO and KL by epoch, {_noise(runs)}, a row each for "
        f"{' and '.join(runs)}. Lemma 1 needs an epoch that does not lower E[log p(y,z|x)]: {broken}.",
    )


def rank_share(large: np.ndarray, small: np.ndarray) -> float:
    """Return how likely a draw of the first exceeds one of the second, ties counting half (the area under ROC).

    Shape: (A,), (B,) -> scalar in 0..1.
    """
    below, upto = (np.searchsorted(np.sort(small), large, side=side) for side in ("left", "right"))
    return float((below + upto).mean() / 2 / max(1, len(small)))


def _early(run: Run) -> tuple[Snapshot, np.ndarray]:
    """The first snapshot in which labels were divided, else the first; and which labels are wrong. Shape: (N,) bool."""
    assert run.folder is not None
    kept = load_dynamics(run.folder, len(run.metrics))
    evidence = load_evidence(run.folder)
    if not kept or evidence.true_labels is None:
        what = "losses of its epochs" if not kept else "true labels"
        raise UserError(f"{run.folder} holds no {what}; train it with this version on data whose truth is known")
    snapshot = next((one for one in kept if one.p_clean is not None), kept[0])
    return snapshot, (evidence.labels != evidence.true_labels).numpy()


def _named(runs: Sequence[Run]) -> dict[str, Run]:
    """Call runs by their methods; by their folders where methods are alike."""
    methods = [run.settings.method for run in runs]
    names = methods if len(set(methods)) == len(runs) else [run.folder.name if run.folder else "" for run in runs]
    if not runs or len(set(names)) < len(runs):
        raise UserError("a figure needs one or two runs in folders of different names")
    return dict(zip(names, runs, strict=True))


def _noise(runs: Mapping[str, Run]) -> str:
    data = {f"{run.about['name']} with {run.about.get('noise', 'its own')} noise" for run in runs.values()}
    rates = {f"{100 * run.noise.actual:.0f} % wrong labels" for run in runs.values() if run.noise.actual is not None}
    return ", ".join([*sorted(data), *sorted(rates)])


def _file_of(drawings: Sequence[Markup], width: int, height: int, columns: int = 2) -> str:
    """Put drawings side by side, in rows, into one SVG file with its own style."""
    places = [
        f'<svg x="{place % columns * width}" y="{place // columns * height}" width="{width}" height="{height}"'
        + str(drawing).removeprefix("<svg")
        for place, drawing in enumerate(drawings)
    ]
    across, down = width * min(columns, len(drawings)), height * -(-len(drawings) // columns)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across} {down}" width="{across}" height="{down}">'
        f'<defs>{HATCH}</defs><style>{STYLE}</style><rect width="{across}" height="{down}" fill="#ffffff"/>'
        f"{''.join(places)}</svg>\n"
    )
