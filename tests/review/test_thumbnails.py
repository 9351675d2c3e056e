import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from scanmix.review import thumbnails


def opened(picture: thumbnails.EncodedImage) -> Image.Image:
    return Image.open(io.BytesIO(picture.content))


def test_arrays_come_as_they_are_and_in_the_order_of_the_audit(make_review: Any) -> None:
    pictures = make_review().thumbnails  # row i stands at position 11 - i, and its pixels say so
    for row in (0, 5, 11):
        assert (np.asarray(opened(pictures.get(row))) == 11 - row).all()


def test_color_arrays_keep_their_color() -> None:
    pixels = torch.tensor([200, 30, 60], dtype=torch.uint8).view(1, 3, 1, 1).expand(12, 3, 8, 8)
    picture = thumbnails.Thumbnails(pixels, list(range(12))).get(0)
    assert opened(picture).convert("RGB").getpixel((2, 2)) == (200, 30, 60)


@pytest.mark.parametrize("name", ["a b#?&%20.png", "ü'\"<script>alert(1)</script>.jpg".replace("/", "_"), "x.webp"])
def test_files_with_odd_names_are_shown_whole_and_upright(make_review: Any, tmp_path: Path, name: str) -> None:
    image = Image.new("RGB", (400, 200), "red")
    orientation = Image.Exif()
    orientation[274] = 6  # lies on its side
    image.save(tmp_path / name, exif=orientation)
    pictures = make_review(paths=[str(tmp_path / name)] * 12).thumbnails
    assert opened(pictures.get(0)).size == (80, 160)
    assert opened(pictures.get(0, "large")).size == (200, 400)


def test_a_deleted_or_broken_file_becomes_a_reason_and_may_come_back(make_review: Any, tmp_path: Path) -> None:
    path = tmp_path / "gone.png"
    pictures = make_review(paths=[str(path)] * 12).thumbnails
    assert pictures.get(0).missing and b"no such file" in pictures.get(0).content
    path.write_bytes(b"<svg onload=alert(1)>")
    assert b"not an image" in pictures.get(0).content
    Image.new("L", (4, 4)).save(path)
    assert pictures.get(0).media_type == "image/png" and not pictures.get(0).missing


def test_a_reason_is_text_whatever_it_says() -> None:
    drawing = thumbnails._placeholder("<script>&")
    assert b"<script" not in drawing.content and b"&lt;script&gt;&amp;" in drawing.content


def test_memory_is_bounded_and_the_oldest_leaves(make_review: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = make_review().thumbnails
    size = len(pictures.get(0).content)
    monkeypatch.setattr(thumbnails, "KEPT_BYTES", 3 * size + size // 2)
    for row in range(12):
        pictures.get(row)
        assert sum(len(kept.content) for kept in pictures._kept.values()) == pictures._bytes <= 3.5 * size
    assert [row for row, _ in pictures._kept] == [9, 10, 11]
    first = pictures.get(9)
    pictures.get(0)
    assert pictures.get(9) is first and (10, "small") not in pictures._kept
