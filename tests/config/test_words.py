"""Numbers as people read them."""

import pytest

from scanmix.config import last_ten, mean_of_ten, percent


@pytest.mark.parametrize(
    ("share", "more", "text"),
    [
        (0.8125, {}, "81.2 %"),
        (1.0, {"digits": 0}, "100 %"),
        (0.0004, {}, "0.0 %"),
        (0.5, {"unit": ""}, "50.0"),
        (None, {}, "-"),
        (None, {"missing": "not known"}, "not known"),
    ],
)
def test_a_share_in_percent(share: float | None, more: dict[str, str], text: str) -> None:
    assert percent(share, **more) == text  # type: ignore[arg-type]


def test_a_mean_of_the_last_ten_says_where_it_is_of_fewer() -> None:
    assert [last_ten(count) for count in (300, 10, 9, 2, 1)] == [
        "the last ten epochs", "the last ten epochs", "all 9 epochs", "all 2 epochs", "the only epoch",
    ]  # fmt: skip
    assert mean_of_ten(0.5, 10) == "50.0 %" and mean_of_ten(0.5, 9) == "50.0 % (of 9)"
    assert mean_of_ten(None, 0) == "-" and mean_of_ten(None, 0, missing="–") == "–"
