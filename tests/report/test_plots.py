"""Every kind of figure is read back: points, areas and shades are where the numbers say."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from markupsafe import Markup

from scanmix.report.plots import (
    BOTTOM,
    LEFT,
    MOST_WRITTEN,
    RIGHT,
    BarSeries,
    Interval,
    LineSeries,
    Mark,
    bar_chart,
    heat_map,
    histogram,
    interval_chart,
    line_chart,
)  # fmt: skip

Point = tuple[float, float]


def read(figure: Markup) -> ET.Element:
    return ET.fromstring(str(figure))


def points(element: ET.Element) -> list[Point]:
    pairs = re.findall(r"(-?[\d.]+),(-?[\d.]+)", element.attrib["d"])
    return [(float(x), float(y)) for x, y in pairs]


def of_class(figure: ET.Element, name: str) -> list[ET.Element]:
    return [element for element in figure.iter() if name in element.attrib.get("class", "").split()]


def texts(figure: ET.Element) -> list[str]:
    return [element.text or "" for element in figure.iter("text")]


def test_points_of_a_line_land_where_they_should() -> None:
    chart = read(line_chart("t", "h", [LineSeries("a", [1, 2, 5], [0.0, 0.5, 1.0], 0)], "epoch", limits=(0, 1)))
    (curve,) = [points(line) for line in of_class(chart, "line")]
    assert [x for x, _ in curve] == [LEFT, pytest.approx(LEFT + (640 - LEFT - RIGHT) / 4, abs=0.01), 640 - RIGHT]
    bottom, middle, top = (y for _, y in curve)
    assert bottom == 280 - BOTTOM and middle == pytest.approx((bottom + top) / 2) and top < 40


def test_a_tick_stands_at_its_own_value() -> None:
    chart = read(line_chart("t", "h", [LineSeries("a", [0, 10], [0.2, 0.6], 0)], "epoch", percent=True, limits=(0, 1)))
    ticks = {text.text: float(text.attrib["y"]) - 4 for text in chart.iter("text")}
    (curve,) = [points(line) for line in of_class(chart, "line")]
    assert [ticks["20 %"], ticks["60 %"]] == pytest.approx([curve[0][1], curve[1][1]], abs=0.01)


def test_two_lines_have_two_tones_and_a_legend_and_one_has_none() -> None:
    two = [LineSeries("first", [1, 2], [3, 4], 0), LineSeries("second", [1, 3], [4, 5], 1)]
    chart = read(line_chart("t", "h", two, "epoch"))
    assert {"first", "second"} <= set(texts(chart))
    assert len(of_class(chart, "tone0")) == len(of_class(chart, "tone1")) == 2  # the curve and its sample
    assert "first" not in texts(read(line_chart("t", "h", two[:1], "epoch")))


def test_marks_stand_on_the_curve() -> None:
    marks = [Mark("best", 2, 0.9, 0), Mark("last", 4, 0.5, 0), Mark("mean", 1, 0.6, 0, 4)]
    chart = read(
        line_chart("t", "h", [LineSeries("a", [1, 2, 4], [0.1, 0.9, 0.5], 0)], "epoch", percent=True, marks=marks)
    )
    (curve,) = [points(line) for line in of_class(chart, "line")]
    (dot,), (best,), (mean,) = of_class(chart, "dot"), of_class(chart, "best"), of_class(chart, "mean")
    assert (float(dot.attrib["cx"]), float(dot.attrib["cy"])) == pytest.approx(curve[2], abs=0.05)
    assert (points(best)[0][0], points(best)[0][1] + 7) == pytest.approx(curve[1], abs=0.1)
    assert [x for x, _ in points(mean)] == [curve[0][0], curve[2][0]]
    assert curve[1][1] < points(mean)[0][1] < curve[0][1]


def test_one_point_is_a_dot_and_a_flat_line_is_drawn() -> None:
    assert of_class(read(line_chart("t", "h", [LineSeries("a", [1], [0.3], 0)], "epoch", percent=True)), "dot")
    assert of_class(read(line_chart("t", "h", [LineSeries("a", [1, 2], [0.0, 0.0], 0)], "epoch")), "line")


def area(outline: list[Point]) -> float:
    """By the shoelace formula."""
    ends = [*outline[1:], outline[0]]
    return abs(sum(a * d - b * c for (a, b), (c, d) in zip(outline, ends, strict=True))) / 2


def test_areas_of_a_histogram_are_as_the_counts() -> None:
    groups = {"right": [0, 6, 2, 0], "wrong": [0, 0, 1, 3]}
    chart = read(histogram("t", "h", [0, 1, 2, 3, 4], groups, "loss"))
    right, wrong = (points(shape) for shape in of_class(chart, "area") if shape.tag == "path")
    assert area(right) / area(wrong) == pytest.approx(2, rel=1e-3)
    width = (420 - LEFT - RIGHT) / 4
    assert min(x for x, _ in right) == pytest.approx(LEFT + width, abs=0.01)
    assert max(x for x, _ in wrong) == pytest.approx(LEFT + 4 * width, abs=0.01)


def test_an_empty_group_of_a_histogram_is_named_and_not_drawn() -> None:
    chart = read(histogram("t", "h", [0, 1, 2], {"right": [1, 2], "wrong": [0, 0]}, "loss"))
    assert "wrong" in texts(chart)
    assert len([shape for shape in of_class(chart, "area") if shape.tag == "path"]) == 1


def test_a_heat_map_shades_and_writes_each_cell() -> None:
    shares = np.array([[0.81, 0.19], [0.004, 0.996]])
    chart = read(heat_map("t", shares, ["cat", "dog"], "true", "given"))
    cells = of_class(chart, "heat")
    assert [float(cell.attrib["fill-opacity"]) for cell in cells] == pytest.approx([0.9, 0.44, 1.0], abs=0.006)
    (first, second, third) = [(float(cell.attrib["x"]), float(cell.attrib["y"])) for cell in cells]
    assert first[1] == second[1] < third[1] and first[0] < second[0] == third[0]  # rows down, columns across
    assert [cell.find("title").text for cell in cells] == [  # type: ignore[union-attr]
        "cat → cat: 81.0 %", "cat → dog: 19.0 %", "dog → dog: 99.6 %",
    ]  # fmt: skip
    assert {"81", "19", "100"} <= set(texts(chart))


def test_a_large_heat_map_writes_no_numbers_and_not_every_name() -> None:
    count = MOST_WRITTEN + 24
    chart = read(heat_map("t", np.eye(count), [f"class {i}" for i in range(count)], "true", "given"))
    assert "100" not in texts(chart)
    names = [text for text in texts(chart) if text.startswith("class ")]
    assert len(set(names)) < count and len(names) == 2 * len(set(names))


def test_bars_are_as_long_as_their_values() -> None:
    bars = of_class(
        read(bar_chart("t", [BarSeries("a", 3, "3 s"), BarSeries("bcd", 1.5, "1.5 s"), BarSeries("e", 0, "0 s")])),
        "bar",
    )
    long, half, none = (float(bar.attrib["width"]) for bar in bars)
    assert long / half == pytest.approx(2, rel=1e-3) and none == 1


def test_an_interval_runs_from_low_to_high_around_its_value() -> None:
    chart = read(interval_chart("t", [Interval("a", 0.2, 0.3, 0.5, {"in truth": 0.4})]))
    (span,), (dot,), (known,) = of_class(chart, "span"), of_class(chart, "dot"), of_class(chart, "known")
    left, length = float(span.attrib["x"]), float(span.attrib["width"])
    assert float(dot.attrib["cx"]) == pytest.approx(left + length / 3, abs=0.02)
    assert float(known.attrib["x1"]) == pytest.approx(left + 2 * length / 3, abs=0.02)
    grid = {text.text: float(text.attrib["x"]) for text in chart.iter("text")}
    assert grid["20 %"] == pytest.approx(left, abs=0.02)


@pytest.mark.parametrize(
    "figure",
    [
        line_chart("<t>", "h", [LineSeries("<a>", [1, 2], [1, 2], 0), LineSeries("&", [1, 2], [1, 2], 1)], "epoch"),
        histogram("<t>", "h", [0, 1], {"<a>": [1]}, "<loss>"),
        heat_map("<t>", np.eye(2), ["<a>", "&"], "true", "given"),
        bar_chart("<t>", [BarSeries("<a>", 1, "&")]),
        interval_chart("<t>", [Interval("<a>", 0, 0.5, 1, {"&": 0.9})]),
    ],
)
def test_a_figure_says_what_it_is_and_is_sound_whatever_the_names(figure: Markup) -> None:
    root = read(figure)  # XML that could not be parsed would raise
    assert root.attrib["role"] == "img" and root.attrib["aria-label"].startswith("<t>. ")
    assert [child.tag for child in root][:2] == ["title", "desc"]
    assert root[1].text
