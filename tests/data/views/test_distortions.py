"""Every batched distortion against a per-image loop or the standard library's colors, on images of several sizes."""

import colorsys
import math

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from scanmix.data.views import distortions


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def random_images(channels: int, size: tuple[int, int], batch: int = 40) -> Tensor:
    """Half of the images use all of 0..1, a quarter a narrow band of it, some are constant."""
    images = torch.randint(0, 256, (batch, channels, *size), generator=seeded(1)).float() / 255
    images[: batch // 4] = images[: batch // 4] / 3 + 0.2
    images[batch // 4 : batch // 4 + 3] = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1)
    return images


def distinct(images: Tensor) -> int:
    return len({image.numpy().tobytes() for image in images})


def jittered_by_hand(image: Tensor, factors: list[float], turn: float) -> Tensor:
    """One image, pixel by pixel, with the standard library's color conversions."""
    weights = [0.299, 0.587, 0.114]
    array = image.double().numpy() * factors[0]
    array = array.clip(0, 1)
    mean = np.tensordot(weights, array, 1).mean()
    array = (mean + factors[1] * (array - mean)).clip(0, 1)
    gray = np.tensordot(weights, array, 1)
    array = (gray + factors[2] * (array - gray)).clip(0, 1)
    for y, x in np.ndindex(*array.shape[1:]):
        hue, saturation, value = colorsys.rgb_to_hsv(*array[:, y, x])
        array[:, y, x] = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
    return torch.from_numpy(array).float()


@pytest.mark.parametrize("hue", [0.1, 0.5])
def test_color_jitter_matches_a_loop_over_pixels(hue: float) -> None:
    images = random_images(3, (5, 6))
    result = distortions.color_jitter(images.clone(), 0.4, 0.3, 0.8, hue, seeded(7))
    again, batch = seeded(7), len(images)
    factors = [(1 - s + 2 * s * torch.rand(batch, generator=again)) for s in (0.4, 0.3, 0.8)]
    turns = hue * (2 * torch.rand(batch, generator=again) - 1)
    for index, image in enumerate(images):
        expected = jittered_by_hand(image, [f[index].item() for f in factors], turns[index].item())
        torch.testing.assert_close(result[index], expected, atol=2e-5, rtol=0)


def test_color_jitter_of_one_channel_is_brightness_and_contrast() -> None:
    images = random_images(1, (5, 6))
    result = distortions.color_jitter(images.clone(), 0.4, 0.3, 0.8, 0.1, seeded(7))
    again = seeded(7)
    first, second = ((1 - s + 2 * s * torch.rand(len(images), generator=again)).view(-1, 1, 1, 1) for s in (0.4, 0.3))
    expected = (images * first).clamp(0, 1)
    mean = expected.mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(result, (mean + second * (expected - mean)).clamp(0, 1))


def test_color_jitter_leaves_the_share_it_should() -> None:
    images = random_images(3, (4, 4))[-1:].repeat(2000, 1, 1, 1)
    result = distortions.color_jitter(images.clone(), 0.4, 0.4, 0.4, 0.1, seeded(), apply_probability=0.8)
    same = (result == images).flatten(1).all(dim=1)
    assert same.float().mean().item() == pytest.approx(0.2, abs=0.04)
    assert distinct(result[~same]) == (~same).sum()  # no two images share their draws
    assert torch.equal(distortions.color_jitter(images.clone(), 0.4, 0.4, 0.4, 0.1, seeded(), 0.0), images)


def test_many_images_are_jittered_as_few() -> None:
    """Images are changed so many at once; nothing depends on how many."""
    images = random_images(3, (4, 5), batch=300)
    strengths = (0.4, 0.4, 0.4, 0.1)
    expected = distortions.color_jitter(images.clone(), *strengths, seeded(), 0.8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distortions, "AT_ONCE", 7)
        found = distortions.color_jitter(images.clone(), *strengths, seeded(), 0.8)
    torch.testing.assert_close(found, expected)
    assert distinct(expected[distortions.AT_ONCE :]) > 150


def test_large_strengths_never_invert_an_image() -> None:
    images = torch.rand(500, 1, 4, 4, generator=seeded())
    result = distortions.color_jitter(images.clone(), 0.0, 3.0, 0.0, 0.0, seeded())
    centered = images - images.mean(dim=(2, 3), keepdim=True)
    assert ((result - result.mean(dim=(2, 3), keepdim=True)) * centered).sum(dim=(1, 2, 3)).min() > -1e-5


@pytest.mark.parametrize("strength", [0.4, 1.5])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_constant_images_stay_finite_and_in_range(level: float, channels: int, strength: float) -> None:
    images = torch.full((32, channels, 8, 8), level)
    result = distortions.color_jitter(images.clone(), strength, strength, strength, 0.5, seeded())
    assert result.isfinite().all() and result.min() >= 0 and result.max() <= 1
    assert (result - result[:, :1, :1, :1]).abs().max() < 1e-6  # still gray and constant


def test_a_third_of_the_circle_moves_the_channels() -> None:
    images = torch.rand(8, 3, 4, 4, generator=seeded())
    turned = distortions.shift_hue(images.clone(), torch.full((8,), 1 / 3))
    torch.testing.assert_close(turned, images.roll(1, dims=1), atol=1e-5, rtol=0)  # red becomes green
    torch.testing.assert_close(distortions.shift_hue(images.clone(), torch.zeros(8)), images, atol=1e-6, rtol=0)


def test_grayscale_is_the_luma_of_a_share_of_the_images() -> None:
    images = torch.rand(2000, 3, 3, 3, generator=seeded())
    result = distortions.grayscale(images.clone(), 0.2, seeded(8))
    gray = (images * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1, keepdim=True)
    changed = (result != images).flatten(1).any(dim=1)
    assert changed.float().mean().item() == pytest.approx(0.2, abs=0.04)
    torch.testing.assert_close(result[changed], gray[changed].expand(-1, 3, -1, -1))
    single = images[:, :1]
    assert torch.equal(distortions.grayscale(single.clone(), 1.0, seeded()), single)


@pytest.mark.parametrize("size", [(9, 7), (3, 2), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_gaussian_blur_matches_a_loop_over_pixels(channels: int, size: tuple[int, int]) -> None:
    height, width = size
    images = torch.rand(4, channels, height, width, generator=seeded())
    sigmas = [0.0, 0.1, 0.7, 2.0]
    result = distortions.gaussian_blur(images, torch.tensor(sigmas))
    assert torch.equal(result[0], images[0])
    for image, sigma, blurred in zip(images[1:], sigmas[1:], result[1:], strict=True):
        expected = torch.zeros_like(image)
        total = 0.0
        for dy in range(-6, 7):
            for dx in range(-6, 7):
                weight = math.exp(-(dy**2 + dx**2) / (2 * sigma**2))
                rows = [min(max(y + dy, 0), height - 1) for y in range(height)]
                columns = [min(max(x + dx, 0), width - 1) for x in range(width)]
                expected += weight * image[:, rows][:, :, columns]
                total += weight
        torch.testing.assert_close(blurred, expected / total)
