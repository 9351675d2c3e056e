"""The figures of a report: lines, histograms, heat maps, bars and intervals. Functions take numbers and return SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from scanmix.config import percent
from scanmix.report.svg import (
    CHARACTER,
    Scale,
    axes,
    clipped,
    figure,
    label,
    legend,
    path,
    short,
    tag,
    tick_texts,
    tone,
)

LEFT, RIGHT, BOTTOM = 58, 14, 40
"""Margins of a plot, which hold names and ticks; in units of the drawing, as all sizes here."""
MOST_WRITTEN = 16
"""Most classes of a heat map whose cells hold numbers; with more classes the numbers would not fit."""

STRONG = 0.44
"""Share (0..1) above which a cell is so dark that its number takes the other color, in both themes."""


class LineSeries(NamedTuple):
    """A curve; `tone` is the number of its color."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    tone: int


class Mark(NamedTuple):
    """A marked point of a curve: `shape` is "best" (diamond), "last" (dot) or "mean" (bar from x to x_end)."""

    shape: str
    x: float
    y: float
    tone: int
    x_end: float = 0.0


class BarSeries(NamedTuple):
    """A bar with the text beside it."""

    name: str
    value: float
    text: str


class Interval(NamedTuple):
    """An estimate (0..1) with its interval; `known` holds true values by name."""

    name: str
    low: float
    value: float
    high: float
    known: Mapping[str, float]


def line_chart(
    title: str, heading: str, lines: Sequence[LineSeries], x_label: str, *, percent: bool = False,
    limits: tuple[float, float] | None = None, marks: Sequence[Mark] = (), size: tuple[int, int] = (640, 280),
) -> Markup:  # fmt: skip
    """Return curves over a common x.

    Args:
        title: name of the figure for screen readers.
        heading: text above the plot.
        lines: the curves; with more than one there is a legend.
        x_label: name of the x axis.
        percent: whether y holds shares (0..1), which are written in percent.
        limits: lowest and highest y; those of the values, with a margin, when not given.
        marks: marked points.
        size: width and height.
    """
    width, height = size
    low, high = limits or _padded([value for line in lines for value in line.y], percent)
    xs = [value for line in lines for value in line.x]
    swatches = [path([(0, 0), (26, 0)], f"line {tone(line.tone)}") for line in lines]
    top, head = _head(heading, [line.name for line in lines], swatches, width)
    x = Scale(min(xs), max(xs), LEFT, width - RIGHT)
    y = Scale(low, high, height - BOTTOM, top)
    drawn = [_curve(line, x, y) for line in lines]
    return figure(
        title, "; ".join(_in_words(line, x_label, percent) for line in lines), width, height,
        head, axes(x, y, x_label, percent), *(_mark(mark, x, y) for mark in marks if mark.shape == "mean"),
        *drawn, *(_mark(mark, x, y) for mark in marks if mark.shape != "mean"),
    )  # fmt: skip


def histogram(
    title: str, heading: str, edges: Sequence[float], groups: Mapping[str, Sequence[int]], x_label: str, *,
    size: tuple[int, int] = (420, 220),
) -> Markup:  # fmt: skip
    """Return histograms as outlines over each other; the second of two is hatched.

    Args:
        title: name of the figure for screen readers.
        heading: text above the plot.
        edges: B + 1 edges of B bins.
        groups: B counts for each group, by its name.
        x_label: name of the x axis.
        size: width and height.
    """
    width, height = size
    swatches = [tag("rect", x=2, y=-6, width=22, height=12, class_=f"area {tone(i)}") for i in range(len(groups))]
    top, head = _head(heading, list(groups), swatches, width)
    most = max(1, *(count for counts in groups.values() for count in counts))
    x = Scale(edges[0], edges[-1], LEFT, width - RIGHT)
    y = Scale(0, most * 1.05, height - BOTTOM, top)
    outlines = []
    for i, counts in enumerate(groups.values()):
        filled = np.flatnonzero(counts).tolist()
        if filled:
            spanned = range(filled[0], filled[-1] + 1)
            steps = [(edge, counts[k]) for k in spanned for edge in edges[k : k + 2]]
            points = [(steps[0][0], 0), *steps, (steps[-1][0], 0)]
            outlines.append(path([(x(edge), y(count)) for edge, count in points], f"area {tone(i)}"))
    words = "; ".join(f"{name}: {sum(counts):,}" for name, counts in groups.items())
    return figure(title, words, width, height, head, axes(x, y, x_label, whole_x=False), *outlines)


def heat_map(
    title: str, shares: np.ndarray, names: Sequence[str], rows: str, columns: str, *, side: float = 380
) -> Markup:
    """Return shares (0..1) as shaded cells; the shade grows with the square root, so that small shares are visible.

    Cells below 0.5 % are left empty.

    Args:
        title: text above the map.
        shares: (C, C), rows sum to 1.
        names: C names of classes.
        rows: what the rows are.
        columns: what the columns are.
        side: width and height of the map without its names.
    """
    count, shown = len(names), [clipped(name, 12) for name in names]
    longest = CHARACTER * max(len(name) for name in shown)
    room, cell = 30 + longest, side / count
    upright = longest < cell
    top = 48 if upright else 38 + longest
    parts = [label(title, 2, 11, "start", "heading")]
    parts.append(tag("rect", x=room, y=top, width=side, height=side, class_="frame"))
    parts.append(label(f"{columns} →", room + side, 28, "end", "name"))
    parts.append(tag("g", label(f"← {rows}", 0, 0, "end", "name"), transform=f"translate(12,{short(top)}) rotate(-90)"))
    for i in range(0, count, -(-14 * count // int(side))):  # some names are left out where they would overlap
        middle = (i + 0.5) * cell
        parts.append(label(shown[i], room - 6, top + middle + 4, "end"))
        turn = "" if upright else " rotate(-90)"
        place = f"translate({short(room + middle + (0 if upright else 4))},{short(top - 7)}){turn}"
        parts.append(tag("g", label(shown[i], 0, 0, "middle" if upright else "start"), transform=place))
    for r, c in zip(*np.nonzero(shares >= 0.005), strict=True):
        tip = f"{names[r]} → {names[c]}: {percent(shares[r, c])}"
        parts.append(_cell(float(shares[r, c]), tip, room + c * cell, top + r * cell, cell, count <= MOST_WRITTEN))
    unchanged = float(np.diagonal(shares).mean())
    words = f"{count} by {count} classes; on average {percent(unchanged, 0)} of a class has its own label"
    return figure(title, words, room + side + 4, top + side + 4, *parts)


def bar_chart(title: str, bars: Sequence[BarSeries], *, width: int = 640) -> Markup:
    """Return horizontal bars that start at zero, each with its name on the left and its text on the right."""
    room = 20 + CHARACTER * max(len(bar.name) for bar in bars)
    behind = 20 + CHARACTER * max(len(bar.text) for bar in bars)
    x = Scale(0, max(*(bar.value for bar in bars), 1e-9), room, width - behind)
    parts = []
    for i, bar in enumerate(bars):
        top = 4 + 24 * i
        parts.append(label(bar.name, room - 8, top + 13, "end"))
        parts.append(tag("rect", x=room, y=top, width=max(x(bar.value) - room, 1), height=17, class_="bar", rx=2))
        parts.append(label(bar.text, x(bar.value) + 8, top + 13, "start"))
    return figure(title, "; ".join(f"{bar.name} {bar.text}" for bar in bars), width, 8 + 24 * len(bars), *parts)


def interval_chart(title: str, intervals: Sequence[Interval], *, width: int = 640) -> Markup:
    """Return estimates with their intervals on a scale from 0 to 1; known values are vertical marks."""
    room = 20 + CHARACTER * max(len(interval.name) for interval in intervals)
    x = Scale(0, 1, room, width - 20)
    bottom = 40 * len(intervals) + 8
    grid = [i / 10 for i in range(0, 11, 2)]
    parts = []
    for value, written in zip(grid, tick_texts(grid, percent=True), strict=True):
        parts.append(tag("line", x1=x(value), x2=x(value), y1=4, y2=bottom, class_="grid"))
        parts.append(label(written, x(value), bottom + 16))
    for i, (name, low, value, high, known) in enumerate(intervals):
        middle = 26 + 40 * i
        parts.append(label(name, room - 8, middle + 4, "end"))
        length = max(x(high) - x(low), 2)
        parts.append(tag("rect", x=x(low), y=middle - 6, width=length, height=12, class_=f"span {tone(i)}", rx=3))
        for what, share in known.items():
            parts.append(tag("line", x1=x(share), x2=x(share), y1=middle - 13, y2=middle + 13, class_="known"))
            anchor = "end" if share > 0.8 else "start"
            parts.append(label(what, x(share) + (-4 if share > 0.8 else 4), middle - 11, anchor))
        parts.append(tag("circle", cx=x(value), cy=middle, r=5, class_=f"dot {tone(i)}"))
    words = "; ".join(
        f"{i.name}: {percent(i.value)}, {percent(i.low, unit='')} to {percent(i.high)}" for i in intervals
    )
    return figure(title, words, width, bottom + 24, *parts)


def _head(heading: str, names: Sequence[str], swatches: Sequence[Markup], width: float) -> tuple[float, Markup]:
    """Return the top of the plot, and what is above it: the heading and, for more than one name, a legend."""
    text = label(heading, 2, 11, "start", "heading")
    if len(names) < 2:
        return 28, text
    key, height = legend(names, swatches, LEFT, 31, width - LEFT - RIGHT)
    return 30 + height, text + key


def _cell(share: float, tip: str, x: float, y: float, size: float, written: bool) -> Markup:
    """Return a cell of a heat map with a tooltip and, if it is `written`, its percentage."""
    square = tag(
        "rect", tag("title", tip), x=x, y=y, width=size - 1, height=size - 1, fill_opacity=share**0.5, class_="heat"
    )
    if not written:
        return square
    kind = "on-heat" if share > STRONG else "on-pale"
    return square + label(percent(share, 0, unit=""), x + size / 2, y + size / 2 + 4, kind=kind)


def _curve(line: LineSeries, x: Scale, y: Scale) -> Markup:
    """Return a line, or a dot if there is only one point."""
    if len(line.x) == 1:
        return tag("circle", cx=x(line.x[0]), cy=y(line.y[0]), r=4, class_=f"dot {tone(line.tone)}")
    points = [(x(a), y(b)) for a, b in zip(line.x, line.y, strict=True)]
    return path(points, f"line {tone(line.tone)}")


def _mark(mark: Mark, x: Scale, y: Scale) -> Markup:
    """Return the drawing of a marked point."""
    across, up = x(mark.x), y(mark.y)
    if mark.shape == "mean":
        return path([(across, up), (x(mark.x_end), up)], f"mean {tone(mark.tone)}")
    if mark.shape == "best":
        corners = f"M{across:.1f},{up - 7:.1f}l7,7l-7,7l-7,-7z"
        return tag("path", d=corners, class_=f"best {tone(mark.tone)}")
    return tag("circle", cx=across, cy=up, r=4, class_=f"dot {tone(mark.tone)}")


def _padded(values: Sequence[float], percent: bool) -> tuple[float, float]:
    """Return limits a little wider than the values; those of shares stay within 0..1."""
    low, high = min(values), max(values)
    room = max(0.08 * (high - low), 0.01 if percent else 1e-3 * max(abs(low), abs(high), 1e-9))
    return (max(low - room, 0.0), min(high + room, 1.0)) if percent else (low - room, high + room)


def _in_words(line: LineSeries, x_label: str, shares: bool) -> str:
    """Return the first and the last point of a curve in words, for screen readers."""
    first, last = (percent(value) if shares else f"{value:.4g}" for value in (line.y[0], line.y[-1]))
    return f"{line.name}: {first} at {x_label} {line.x[0]:g}, {last} at {x_label} {line.x[-1]:g}"
