"""Strokes against numbers worked out by hand."""

import itertools
import math
import xml.etree.ElementTree as ET

import pytest
from markupsafe import Markup

from scanmix.report.svg import CHARACTER, Scale, clipped, legend, path, short, tag, tick_texts, ticks

SPANS = [(0, 1), (0.931, 0.972), (-11.2, 2.4), (1, 24), (3, 3.0001), (0, 50_000), (1e-6, 5e-6), (99, 101)]


def test_a_scale_is_a_straight_line_and_may_run_backwards() -> None:
    up = Scale(0, 10, 100, 20)
    assert [up(value) for value in (0, 5, 10)] == [100, 60, 20]
    assert Scale(3, 3, 0, 80)(3) == 40


@pytest.mark.parametrize(("low", "high"), SPANS)
def test_ticks_are_round_evenly_spaced_and_lie_within(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 6
    assert low - 1e-9 <= found[0] and found[-1] <= high + 1e-9
    steps = {f"{b - a:.3g}" for a, b in itertools.pairwise(found)}
    assert len(steps) == 1
    step = float(steps.pop())
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9)) in (1, 2, 5)
    assert found[0] - step < low and found[-1] + step > high  # none is missing


def test_whole_ticks_are_whole() -> None:
    assert ticks(1, 3, whole=True) == [1, 2, 3]
    assert ticks(1, 2, whole=False) != ticks(1, 2, whole=True) == [1, 2]
    assert ticks(4, 4) == [4]


@pytest.mark.parametrize(
    ("values", "percent", "texts"),
    [
        ([0, 0.5, 1], True, ["0 %", "50 %", "100 %"]),
        ([0.95, 0.955], True, ["95.0 %", "95.5 %"]),
        ([0, 20_000], False, ["0", "20,000"]),
        ([0.002, 0.004], False, ["0.002", "0.004"]),
        ([7], False, ["7"]),
    ],
)
def test_ticks_have_the_decimals_they_need(values: list[float], percent: bool, texts: list[str]) -> None:
    assert tick_texts(values, percent) == texts


def test_tags_escape_what_they_are_given() -> None:
    assert tag("text", "<b> & c", class_="x", stroke_width=1.5, title='"') == (
        '<text class="x" stroke-width="1.5" title="&#34;">&lt;b&gt; &amp; c</text>'
    )
    assert tag("g", tag("path"), Markup("<b/>")) == "<g><path></path><b/></g>"


def test_control_characters_are_shown_and_not_obeyed() -> None:
    shown = tag("text", "a\x1b[31m\x00\u202e", tag("title", "b\x07"), aria_label="c\x9b")
    assert shown == r'<text aria-label="c\x9b">a\x1b[31m\x00\u202e<title>b\x07</title></text>'


def test_numbers_are_short() -> None:
    assert [short(value) for value in (1.0, 1.239, 0.001, -3.5, "x")] == ["1", "1.24", "0", "-3.5", "x"]
    assert path([(0, 1), (2.5, 3)], "line") == '<path d="M0,1L2.5,3" class="line"></path>'


def test_a_legend_wraps_where_the_next_name_does_not_fit() -> None:
    names = ["alpha", "beta", "gamma"]
    one, low = legend(names, [Markup("")] * 3, 0, 0, 1000)
    two, high = legend(names, [Markup("")] * 3, 0, 0, 2 * (48 + 5 * CHARACTER))
    assert (low, high) == (18, 36)
    places = [group.attrib["transform"] for group in ET.fromstring(f"<svg>{two}</svg>")]
    assert [place.partition(",")[2] for place in places] == ["0)", "0)", "18)"]
    assert places[2] == "translate(0,18)"
    assert "18)" not in one


@pytest.mark.parametrize(("name", "short_name"), [("abc", "abc"), ("abcdefgh", "abc…gh"), ("abcdef", "abcdef")])
def test_long_names_lose_their_middle(name: str, short_name: str) -> None:
    assert clipped(name, 6) == short_name
