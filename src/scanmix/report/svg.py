"""The parts of figures: escaped tags, scales, ticks, axes and legends. Functions take numbers and return SVG.

Colors are CSS classes (`tone0` ...), which the style sheet of the page defines for light, dark and printed pages.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from scanmix.data.names import visible

CHARACTER = 6.2
"""Approximate width of a letter in the font of the style sheet, in units of the drawing."""
TONES = 6
"""Number of colors in the style sheet; each has its own dashes too."""


def tag(name: str, *children: str, **attributes: str | float) -> Markup:
    """Return an element; children that are not `Markup` are escaped, and control characters made visible.

    In names of attributes `_` becomes `-`, and a trailing `_` is dropped (`class_`).
    """
    shown = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), short(value)) for key, value in attributes.items()
    )
    inside = Markup("").join(child if isinstance(child, Markup) else visible(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), shown, inside)


def short(value: str | float) -> str:
    """Return a coordinate with at most two decimals; text stays as it is."""
    return visible(value) if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


def label(content: str, x: float, y: float, anchor: str = "middle", kind: str = "label") -> Markup:
    """Return text at a point; `anchor` ("start", "middle", "end") is the part of it that lies there."""
    return tag("text", content, x=x, y=y, text_anchor=anchor, class_=kind)


def figure(title: str, description: str, width: float, height: float, *parts: str) -> Markup:
    """Return a whole figure; title and description are for people who cannot see it."""
    return tag(
        "svg", tag("title", title), tag("desc", description), *parts,
        viewBox=f"0 0 {short(width)} {short(height)}", role="img", aria_label=f"{title}. {description}",
        style=f"max-width:{short(width * 1.25)}px",
    )  # fmt: skip


def path(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    """Return a line through points."""
    return tag("path", d="M" + "L".join(f"{short(x)},{short(y)}" for x, y in points), class_=class_)


@dataclass(frozen=True)
class Scale:
    """A linear scale from values in `low`..`high` to positions in `start`..`end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the position of a value; the middle if `low` equals `high`."""
        span = self.high - self.low
        share = (value - self.low) / span if span else 0.5
        return self.start + share * (self.end - self.start)


def ticks(low: float, high: float, most: int = 6, whole: bool = False) -> list[float]:
    """Return round values within low..high, at most `most` of them: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    power = math.floor(math.log10((high - low) / most))
    for step in (round_step * 10.0**p for p in itertools.count(power) for round_step in (1, 2, 5)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most and not (whole and step < 1):
            break
    return [round(i * step, 12) for i in range(first, last + 1)]


def tick_texts(values: Sequence[float], percent: bool = False) -> list[str]:
    """Return ticks as text, with as many decimals as the distance between them needs."""
    factor = 100 if percent else 1
    distance = factor * (values[1] - values[0]) if len(values) > 1 else 1
    decimals = max(0, -math.floor(math.log10(distance) + 1e-9))
    return [f"{factor * value:,.{decimals}f}" + (" %" if percent else "") for value in values]


def axes(x: Scale, y: Scale, x_label: str, percent: bool = False, whole_x: bool = True) -> Markup:
    """Return grid lines, ticks and the name of the x axis.

    Args:
        x: scale of the x axis; its ends are the frame.
        y: scale of the y axis.
        x_label: name of the x axis.
        percent: whether y holds shares (0..1), which are written in percent.
        whole_x: whether ticks of x must be whole numbers.
    """
    parts = []
    across, up = ticks(x.low, x.high, 7, whole=whole_x), ticks(y.low, y.high, 6)
    for value, written in zip(up, tick_texts(up, percent), strict=True):
        parts.append(tag("line", x1=x.start, x2=x.end, y1=y(value), y2=y(value), class_="grid"))
        parts.append(label(written, x.start - 6, y(value) + 4, "end"))
    for value, written in zip(across, tick_texts(across), strict=True):
        parts.append(tag("line", x1=x(value), x2=x(value), y1=y.start, y2=y.start + 4, class_="axis"))
        parts.append(label(written, x(value), y.start + 17))
    parts.append(tag("line", x1=x.start, x2=x.end, y1=y.start, y2=y.start, class_="axis"))
    parts.append(label(x_label, x.end, y.start + 33, "end", "name"))
    return Markup("").join(parts)


def legend(names: Sequence[str], marks: Sequence[str], x: float, y: float, width: float) -> tuple[Markup, float]:
    """Return a legend, wrapped at `width`, and its height. Marks are drawings of 26 x 12 units.

    The origin of a mark is the middle of its left side.
    """
    parts, at, line = [], 0.0, 0
    for name, mark in zip(names, marks, strict=True):
        needed = 34 + CHARACTER * len(name) + 14
        if at and at + needed > width:
            at, line = 0.0, line + 1
        place = f"translate({short(x + at)},{short(y + 18 * line)})"
        parts.append(tag("g", mark, label(name, 32, 4, "start"), transform=place))
        at += needed
    return Markup("").join(parts), 18.0 * (line + 1)


def clipped(name: str, letters: int) -> str:
    """Return a name of at most so many letters; a longer one loses its middle."""
    if len(name) <= letters:
        return name
    head = letters // 2
    return f"{name[:head]}…{name[len(name) - (letters - 1 - head) :]}"


def tone(number: int) -> str:
    """Return the CSS class of a color and its dashes."""
    return f"tone{number % TONES}"
