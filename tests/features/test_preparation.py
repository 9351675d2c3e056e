"""Pictures as encoders want them, against Pillow and torch's plain operations."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from scanmix.config import UserError
from scanmix.features import Preparation
from scanmix.features.preparation import Interpolation

WAYS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
PLAIN = Preparation((16, 16), (0.5, 0.4, 0.3), (0.25, 0.2, 0.1))


def scenes(count: int, channels: int, height: int, width: int) -> Tensor:
    """Smooth pictures with edges, so that resizing matters and rounding does not decide."""
    draws = torch.Generator().manual_seed(height * width)
    coarse = torch.rand(count, channels, 5, 6, generator=draws)
    return (255 * torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")).byte()


def slow_resized(picture: np.ndarray, preparation: Preparation) -> np.ndarray:
    """By Pillow: the shorter side to size / crop, then the center. Shape: (C, H, W) -> (C, h, w)."""
    side, way = preparation.side, WAYS[preparation.interpolation]
    planes = []
    for plane in picture:
        image = Image.fromarray(plane)
        shorter = min(image.size)
        image = image.resize((side * image.width // shorter, side * image.height // shorter), way)
        left, top = (round((length - preparation.size[0]) / 2) for length in image.size)
        planes.append(np.asarray(image.crop((left, top, left + preparation.size[0], top + preparation.size[0]))))
    return np.stack(planes)


@pytest.mark.parametrize(
    ("shape", "crop", "way"),
    [*product([(40, 40), (40, 64), (90, 33), (8, 8), (16, 16), (17, 16)], [1.0, 0.875, 0.5], ["bicubic", "bilinear"])],
)
def test_resizing_is_pillows(shape: tuple[int, int], crop: float, way: Interpolation) -> None:
    preparation = Preparation((16, 16), (0.5,) * 3, (0.5,) * 3, crop, way)
    pictures = scenes(2, 3, *shape)
    found = preparation.resized(pictures)
    assert found.shape == (2, 3, 16, 16) and found.dtype == torch.uint8
    for picture, one in zip(pictures.numpy(), found.numpy().astype(int), strict=True):
        assert np.abs(slow_resized(picture, preparation) - one).max() <= 2


def test_a_picture_of_the_right_size_is_left_alone() -> None:
    pictures = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(PLAIN.resized(pictures), pictures)


def test_the_center_is_cut_where_a_picture_is_larger_than_the_crop() -> None:
    pictures = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(
        Preparation((16, 16), (0.5,) * 3, (0.5,) * 3, crop=0.5).resized(pictures), pictures[:, :, 8:24, 8:24]
    )


@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.floats(0.3, 1.0),
)
def test_any_picture_becomes_one_of_the_wanted_size(shape: tuple[int, int], size: tuple[int, int], crop: float) -> None:
    preparation = Preparation(size, (0.5,) * 3, (0.5,) * 3, crop)
    pictures = torch.full((1, 1, *shape), 77, dtype=torch.uint8)
    found = preparation.resized(pictures)
    assert found.shape == (1, 3, *size) and bool((found == 77).all())


def test_gray_becomes_color_and_color_gray() -> None:
    gray = torch.randint(0, 256, (2, 1, 16, 16), dtype=torch.uint8)
    assert torch.equal(PLAIN.resized(gray), torch.cat([gray] * 3, 1))
    color = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    found = Preparation((16, 16), (0.5,), (0.5,)).resized(color)
    for picture, one in zip(color.numpy(), found.numpy(), strict=True):
        theirs = np.asarray(Image.fromarray(picture.transpose(1, 2, 0)).convert("L")).astype(int)
        assert np.abs(theirs - one[0]).max() <= 1


def test_four_channels_are_refused() -> None:
    with pytest.raises(UserError, match="3 channels, not of 4"):
        PLAIN.resized(torch.zeros(1, 4, 16, 16, dtype=torch.uint8))


def test_pixels_are_normalized_channel_by_channel() -> None:
    pixels = torch.randint(0, 256, (1, 3, 2, 2), dtype=torch.uint8)
    found = PLAIN.normalized(pixels)
    for channel, row, column in product(range(3), range(2), range(2)):
        value = (int(pixels[0, channel, row, column]) / 255 - PLAIN.mean[channel]) / PLAIN.std[channel]
        assert abs(float(found[0, channel, row, column]) - value) < 1e-5


@pytest.mark.parametrize(("crop", "side"), [(1.0, 224), (0.875, 256), (0.95, 235), (0.9, 248)])
def test_the_side_that_files_are_read_at_is_rounded_down(crop: float, side: int) -> None:
    assert Preparation((224, 224), (0.5,) * 3, (0.5,) * 3, crop).side == side
