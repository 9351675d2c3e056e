"""Pixels of any type to uint8 images."""

import numpy as np
import pytest
import torch

from scanmix.config import UserError
from scanmix.data.arrays import find_white, same_shape, to_images


@pytest.mark.parametrize(
    ("values", "white"),
    [
        ([0.0, 1.0], 1), ([0, 1], 1), ([False, True], 1), ([0.0, 0.0], 1), ([0.0, 1.001], 16), ([0.0, 16.0], 16),
        ([0, 17], 255), ([0.0, 255.0], 255), (np.array([3, 255], dtype=np.uint8), 255), ([], 1),
    ],
)  # fmt: skip
def test_white_is_the_smallest_that_nothing_exceeds(values: list[float], white: int) -> None:
    assert find_white(np.array(values)) == white


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_missing_pixels_are_told_by_row(value: float) -> None:
    pixels = np.zeros((9000, 2, 2))
    pixels[5000, 1, 1] = pixels[8999, 0, 0] = value
    for look in (find_white, lambda asked: to_images(asked, 1)):
        with pytest.raises(UserError, match=r"pixels are NaN, infinite or too large in 2 rows, first row 5000; repair"):
            look(pixels)


@pytest.mark.parametrize("white", [16, 255])
def test_floats_of_0_to_1_are_of_another_scale(white: int) -> None:
    for pixels in (np.full((2, 3, 3), 0.5), np.ones((2, 3, 3)), np.ones((2, 3, 3), dtype=bool)):
        with pytest.raises(UserError, match=f"as if 1 were white, but those of training made {white} white; multiply"):
            to_images(pixels, white)
    assert int(to_images(np.zeros((2, 3, 3)), white).max()) == 0
    assert int(to_images(np.ones((2, 3, 3), dtype=np.uint8), white).max()) == round(255 / white)


def test_images_of_different_types_or_shapes_are_told_by_row() -> None:
    with pytest.raises(UserError, match=r"not uint8 and float64 \(rows 0 and 1\): bytes have 255 for white"):
        same_shape([np.zeros((2, 2), dtype=np.uint8), np.zeros((2, 2))])
    with pytest.raises(UserError, match=r"not \(2, 2\) and \(2, 3\) \(rows 0 and 1\)"):
        same_shape([np.zeros((2, 2)), np.zeros((2, 3))])


@pytest.mark.parametrize("values", [[-0.01, 1.0], [0.0, 255.5], [-1, 300]])
def test_other_ranges_are_refused(values: list[float]) -> None:
    with pytest.raises(UserError, match=r"must lie in 0\.\.1 or 0\.\.255"):
        find_white(np.array(values))


@pytest.mark.parametrize("white", [1, 16, 255])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_every_pixel_is_where_it_was(white: int, channels: int | None) -> None:
    shape = (3, 4, 5) if channels is None else (3, 4, 5, channels)
    pixels = np.random.default_rng(0).random(shape) * white
    images = to_images(pixels, white)
    assert images.shape == (3, channels or 1, 4, 5) and images.dtype == torch.uint8
    for place in np.ndindex(shape):
        n, h, w, c = (*place, 0)[:4]
        assert images[n, c, h, w] == round(float(pixels[place]) / white * 255)


def test_bytes_are_kept_as_they_are_and_copied() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    assert torch.equal(to_images(pixels, 255).flatten(), torch.arange(256, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((2, 3, 8, 8)), "channels stand last"),
        (np.zeros((2, 8, 8, 4)), "1 or 3 channels"),
        (np.zeros((2, 8)), r"\(N, H, W\)"),
        (np.zeros((2, 0, 8)), r"\(N, H, W\)"),
        (np.full((2, 8, 8), 1.5), "made 1 white"),
        (np.full((2, 8, 8), -0.5), "made 1 white"),
    ],
)
def test_what_is_no_image_is_refused(pixels: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        to_images(pixels, 1)
