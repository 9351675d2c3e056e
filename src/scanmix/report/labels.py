"""Figures and tables of the audit: how many labels are wrong, in which classes, and where they are in the list.

Legend: N examples, C classes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from scanmix.audit import Audit
from scanmix.data.noise_report import measure_transition
from scanmix.report.curves import Runs
from scanmix.report.findings import RunFindings
from scanmix.report.plots import Interval, LineSeries, heat_map, interval_chart, line_chart

MOST_CLASSES = 40
"""Most classes in a heat map; if there are more, those with most wrong labels are shown."""
MOST_ROWS = 200
"""Most points of a curve over rows."""


class ClassRow(NamedTuple):
    """A row of the table of classes; None for what is unknown."""

    name: str
    labels: int
    expected_wrong: float
    wrong: int | None
    tested: int | None
    found: float | None
    within: tuple[float, float] | None
    """Interval of 95 % of `found`."""
    taken_for: str


class Pair(NamedTuple):
    """A row of the table of confused classes; `actual` is None if the truth is unknown."""

    true: str
    given: str
    expected: float
    actual: int | None
    width: float
    """Length of its bar, relative to the longest (0..1)."""


def noise_chart(runs: Runs) -> Markup | None:
    """Return the estimated share of wrong labels with its interval and the known share; None without an audit."""
    intervals = []
    for name, found in runs.items():
        if found.audit is None:
            continue
        rate, (asked, actual, _) = found.audit.noise_rate, found.run.noise
        known = {"in truth": actual} if actual is not None else {"asked for": asked} if asked is not None else {}
        intervals.append(Interval(name, rate.low, rate.value, rate.high, known))
    return interval_chart("Estimated share of wrong labels", intervals) if intervals else None


def transition_maps(runs: Runs) -> list[Markup]:
    """Return heat maps of given labels by true class: the estimate of each run, and the truth if it is known."""
    maps = []
    for name, found in runs.items():
        if found.audit is not None:
            maps.append(_map(f"Estimated by {name}", found.audit.transition, found.audit))
    found = next(iter(runs.values()))
    if found.audit is not None and (truth := found.truth) is not None:
        shares = measure_transition(truth, found.given, len(found.run.class_names))
        maps.append(_map("In truth", np.array(shares), found.audit))
    return maps


def left_out(audit: Audit) -> int:
    """Return how many classes the heat maps leave out."""
    return max(0, len(audit.class_names) - MOST_CLASSES)


def class_rows(found: RunFindings) -> list[ClassRow]:
    """Return the classes, those with the largest share of wrong labels first."""
    names = found.run.class_names
    estimates: list[dict[str, Any]] = [{"class": name, "labels": 0, "expected_wrong": 0.0} for name in names]
    if found.audit is not None:
        estimates = found.audit.summary()["classes"]
    rows = []
    for row in estimates:
        c = names.index(row["class"])
        wrong = None if found.wrong is None else int(found.wrong[found.given.numpy() == c].sum())
        rows.append(ClassRow(row["class"], row["labels"], row["expected_wrong"], wrong, *_tested(found, c)))
    return rows


def confused_pairs(found: RunFindings) -> list[Pair]:
    """Return the pairs of classes with the most wrong labels; empty without an audit."""
    if found.audit is None:
        return []
    pairs: list[dict[str, Any]] = found.audit.confused_pairs()
    names = found.run.class_names
    longest = max((pair["expected"] for pair in pairs), default=1.0)
    return [
        Pair(
            pair["true"], pair["given"], pair["expected"],
            _count(found, names.index(pair["true"]), names.index(pair["given"])), pair["expected"] / longest,
        )
        for pair in pairs
    ]  # fmt: skip


def expected_chart(found: RunFindings) -> Markup | None:
    """Return expected and, where known, actual numbers of wrong labels among the first rows of the audit."""
    if found.audit is None:
        return None
    expected, wrong = found.audit["expected_wrong"], found.wrong
    rows = np.unique(np.linspace(0, len(expected) - 1, min(MOST_ROWS, len(expected))).round().astype(int))
    lines = [LineSeries("expected", (rows + 1).tolist(), expected[rows].tolist(), 0)]
    if wrong is not None:
        actual = wrong[found.audit.order].cumsum()
        lines.append(LineSeries("in truth", (rows + 1).tolist(), actual[rows].tolist(), 1))
    limits = (0.0, max(line.y[-1] for line in lines) * 1.05 + 1)
    return line_chart(
        "Wrong labels among the most doubtful", "Wrong labels among those looked at", lines,
        "labels looked at, the most doubtful first", limits=limits, size=(860, 300),
    )  # fmt: skip


def _map(title: str, shares: np.ndarray, audit: Audit) -> Markup:
    """Return the heat map of the classes with most wrong labels. Shape: shares (C, C)."""
    names = audit.class_names
    if left_out(audit):
        wrong = audit.confusion.sum(0) - audit.confusion.diagonal()
        shown = np.sort(np.argsort(-wrong, kind="stable")[:MOST_CLASSES])
        shares, names = shares[np.ix_(shown, shown)], tuple(names[c] for c in shown)
    return heat_map(title, shares, names, "true class", "given label")


def _tested(found: RunFindings, c: int) -> tuple[int | None, float | None, tuple[float, float] | None, str]:
    """Return how many test examples a class has, their accuracy, its interval, and what they are most confused with."""
    if found.test is None:
        return None, None, None, ""
    names, counts = found.run.class_names, np.array(found.test["confusion"][c])
    others = counts * (np.arange(len(names)) != c)
    most = int(others.argmax())
    return (
        int(counts.sum()),
        found.test["class_accuracy"][names[c]],
        found.test["class_interval"][names[c]],
        f"{names[most]} ({others[most]})" if others[most] else "–",
    )


def _count(found: RunFindings, true: int, given: int) -> int | None:
    """Return how many examples of one class were given the label of another; None if the truth is unknown."""
    return None if found.truth is None else int(((found.truth == true) & (found.given == given)).sum())
