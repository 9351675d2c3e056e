"""Numbers as people read them."""

import pytest

from scanmix.config import percent


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
