"""The pictures of the docs can be made anew."""

from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("playwright.sync_api", reason="pip install 'scanmix[e2e]' for the browser tests")

from release.pictures import CHROMIUM, make

IMAGES = Path(__file__).parents[2] / "docs" / "images"


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium at /usr/bin/chromium")
def test_the_pictures_of_the_docs_are_made_and_are_as_large_as_those_there(tmp_path: Path) -> None:
    make(tmp_path / "run", tmp_path)
    for name in ("report.png", "review.png"):
        with Image.open(tmp_path / name) as made, Image.open(IMAGES / name) as there:
            assert made.size == there.size
            assert len(made.convert("RGB").getcolors(1 << 24) or ()) > 100, "not one blank page"
