"""Every batched operation against Pillow or a per-image loop, on images of several sizes."""

import colorsys
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Generator, Tensor

from scanmix.data import operations

SIZES = [(8, 8), (28, 28), (32, 32), (20, 33), (2, 5), (1, 1)]
Reference = Callable[[Image.Image, float], Image.Image]
Batched = Callable[[Tensor, Tensor], Tensor]


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def random_images(channels: int, size: tuple[int, int], batch: int = 40) -> Tensor:
    """Half of the images use all levels, a quarter a narrow band of them, some are constant."""
    images = torch.randint(0, 256, (batch, channels, *size), generator=seeded(1)).float()
    images[: batch // 4] = (images[: batch // 4] / 3).floor() + 40
    images[batch // 4 : batch // 4 + 3] = torch.tensor([0.0, 128.0, 255.0]).view(3, 1, 1, 1)
    return images


def distinct(images: Tensor) -> int:
    return len({image.numpy().tobytes() for image in images})


def to_pillow(image: Tensor) -> Image.Image:
    array = image.permute(1, 2, 0).byte().numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def by_pillow(images: Tensor, reference: Reference, magnitudes: Tensor) -> Tensor:
    results = []
    for image, magnitude in zip(images, magnitudes.tolist(), strict=True):
        array = np.array(reference(to_pillow(image), magnitude))
        results.append(torch.from_numpy(array.reshape(*image.shape[1:], -1)).permute(2, 0, 1).float())
    return torch.stack(results)


def moved(matrix: Callable[[float, Image.Image], tuple[float, ...]]) -> Reference:
    return lambda image, v: image.transform(image.size, Image.Transform.AFFINE, matrix(v, image))


TONE: dict[str, tuple[Batched, Reference, float, float, int]] = {
    # name: batched, Pillow, range of the magnitude, levels they may differ by
    "autocontrast": (lambda x, _: operations.autocontrast(x), lambda p, _: ImageOps.autocontrast(p), 0, 1, 1),
    "equalize": (lambda x, _: operations.equalize(x), lambda p, _: ImageOps.equalize(p), 0, 1, 0),
    "solarize": (operations.solarize, lambda p, v: ImageOps.solarize(p, v), 0, 256, 0),  # type: ignore[arg-type]
    "posterize": (operations.posterize, lambda p, v: ImageOps.posterize(p, int(v)), 1, 8.99, 0),
    "color": (operations.color, lambda p, v: ImageEnhance.Color(p).enhance(v), 0, 2, 1),
    "contrast": (operations.contrast, lambda p, v: ImageEnhance.Contrast(p).enhance(v), 0, 2, 1),
    "brightness": (operations.brightness, lambda p, v: ImageEnhance.Brightness(p).enhance(v), 0, 2, 1),
    "sharpness": (operations.sharpness, lambda p, v: ImageEnhance.Sharpness(p).enhance(v), 0, 2, 1),
}

GEOMETRY: dict[str, tuple[Batched, Reference, float]] = {
    "rotate": (operations.rotate, lambda p, v: p.rotate(v), 30),
    "shear_x": (operations.shear_x, moved(lambda v, p: (1, v, 0, 0, 1, 0)), 0.1),
    "shear_y": (operations.shear_y, moved(lambda v, p: (1, 0, 0, v, 1, 0)), 0.1),
    "translate_x": (operations.translate_x, moved(lambda v, p: (1, 0, v * p.width, 0, 1, 0)), 0.1),
    "translate_y": (operations.translate_y, moved(lambda v, p: (1, 0, 0, 0, 1, v * p.height)), 0.1),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", TONE)
def test_tone_and_enhancement_match_pillow(name: str, channels: int, size: tuple[int, int]) -> None:
    operation, reference, low, high, tolerance = TONE[name]
    images = random_images(channels, size)
    magnitudes = low + (high - low) * torch.rand(len(images), generator=seeded(2))
    result = operation(images, magnitudes)
    difference = (result - by_pillow(images, reference, magnitudes)).abs()
    assert difference.max() <= tolerance
    assert (difference > 0).float().mean() < 0.03  # where one level is allowed, it is the exception
    assert torch.equal(result, result.round())
    assert result.min() >= 0 and result.max() <= 255


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", GEOMETRY)
def test_geometry_matches_pillow(name: str, channels: int, size: tuple[int, int]) -> None:
    operation, reference, reach = GEOMETRY[name]
    images = random_images(channels, size, batch=64)
    magnitudes = reach * (2 * torch.rand(len(images), generator=seeded(3)) - 1)
    wrong = operation(images, magnitudes) != by_pillow(images, reference, magnitudes)
    # Pillow counts in 1/65536 of a pixel: a position that near a border may fall to the other side.
    assert wrong.float().mean() < 0.005


def test_thresholds_and_factors_at_their_ends() -> None:
    images = random_images(3, (8, 8))
    zeros, ones = torch.zeros(len(images)), torch.ones(len(images))
    for name in ("color", "contrast", "brightness", "sharpness"):
        assert torch.equal(TONE[name][0](images, ones), images), name
        assert not torch.equal(TONE[name][0](images, zeros), images), name
    assert torch.equal(operations.solarize(images, 256 * ones), images)
    assert torch.equal(operations.solarize(images, zeros), 255 - images)
    assert torch.equal(operations.posterize(images, 8 * ones), images)
    for operation, _, _ in GEOMETRY.values():
        assert torch.equal(operation(images, zeros), images)


def test_other_numbers_of_channels_are_gray_by_their_mean() -> None:
    images = random_images(2, (8, 8))
    ones = torch.ones(len(images))
    assert torch.equal(operations.color(images, 0 * ones), images)
    gray = (images.mean(dim=1) + 0.5).floor().mean(dim=(1, 2))
    faded = operations.contrast(images, 0 * ones)
    assert torch.equal(faded, (gray + 0.5).floor().view(-1, 1, 1, 1).expand_as(images))


def test_affine_goes_from_output_to_input() -> None:
    image = torch.arange(12.0).view(1, 1, 3, 4)
    right = operations.affine(image, torch.tensor([[[1.0, 0, 1], [0, 1, 0]]]))
    assert right.tolist() == [[[[1, 2, 3, 0], [5, 6, 7, 0], [9, 10, 11, 0]]]]
    down = operations.affine(image, torch.tensor([[[1.0, 0, 0], [0, 1, -1]]]))
    assert down.tolist() == [[[[0, 0, 0, 0], [0, 1, 2, 3], [4, 5, 6, 7]]]]


@pytest.mark.parametrize("channels", [1, 3])
def test_random_augment_keeps_shape_and_whole_levels(channels: int) -> None:
    images = random_images(channels, (16, 16), batch=256)
    before = images.clone()
    result = operations.random_augment(images, 4, seeded())
    assert torch.equal(images, before)
    assert result.shape == images.shape and result.dtype == images.dtype
    assert torch.equal(result, result.round()) and result.min() >= 0 and result.max() <= 255


def test_random_augment_follows_its_generator() -> None:
    images = random_images(3, (8, 8))
    first = operations.random_augment(images, 4, seeded(5))
    assert torch.equal(first, operations.random_augment(images, 4, seeded(5)))
    assert not torch.equal(first, operations.random_augment(images, 4, seeded(6)))
    state = torch.get_rng_state()
    operations.random_augment(images, 4, seeded(5))
    assert torch.equal(state, torch.get_rng_state())


def test_memory_layout_changes_nothing() -> None:
    images = random_images(3, (8, 8), batch=128)
    expected = operations.random_augment(images, 4, seeded())
    strided = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(operations.random_augment(strided, 4, seeded()), expected)


def test_equal_images_are_augmented_apart() -> None:
    images = random_images(3, (16, 16))[-1:].repeat(64, 1, 1, 1)
    assert distinct(operations.random_augment(images, 4, seeded())) > 55


@pytest.mark.parametrize("batch", [0, 1])
def test_random_augment_of_small_batches_and_no_operation(batch: int) -> None:
    images = random_images(3, (8, 8))[:batch]
    assert operations.random_augment(images, 4, seeded()).shape == images.shape
    assert torch.equal(operations.random_augment(images, 0, seeded()), images)


def test_random_augment_is_the_drawn_operations_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace every operation by one that writes down what it did, and where: base 100, one digit a round."""
    drawn: list[tuple[int, Tensor]] = []

    def recorder(kind: int) -> Batched:
        def record(images: Tensor, magnitude: Tensor) -> Tensor:
            drawn.append((kind, magnitude))
            assert len(images) == len(magnitude)
            return images * 100 + kind

        return record

    table = [(recorder(kind), *limits) for kind, (_, *limits) in enumerate(operations.AUGMENTATIONS)]
    monkeypatch.setattr(operations, "AUGMENTATIONS", tuple(table))
    batch, count = 4200, 3
    images = torch.arange(batch, dtype=torch.float64).view(-1, 1, 1, 1)
    codes = operations.random_augment(images, count, seeded()).flatten().long()
    assert torch.equal(codes // 100**count, torch.arange(batch))  # every image back in its own place
    digits = torch.stack([codes // 100**place % 100 for place in range(count)])
    occurrences = digits.flatten().bincount(minlength=14)
    assert len(occurrences) == 14
    assert (occurrences - count * batch / 14).abs().max() < 6 * math.sqrt(count * batch / 14)
    repeats = (digits[0] == digits[1]).float().mean()
    assert abs(repeats - 1 / 14) < 0.02  # with replacement
    for kind, (_, low, high) in enumerate(operations.AUGMENTATIONS):
        values = torch.cat([magnitude for drawn_kind, magnitude in drawn if drawn_kind == kind])
        assert low <= values.min() and values.max() <= high
        assert values.std().item() == pytest.approx((high - low) / math.sqrt(12), rel=0.1)  # uniform
        assert values.mean().item() == pytest.approx((high + low) / 2, abs=0.05 * (high - low) + 1e-9)


def test_the_table_holds_the_fourteen_operations() -> None:
    images = random_images(3, (28, 28))
    magnitudes = torch.rand(len(images), generator=seeded())
    names = ["identity", *list(TONE)[:2], "rotate", *list(TONE)[2:], *list(GEOMETRY)[1:]]
    limits = [(low, high) for _, low, high in operations.AUGMENTATIONS]
    expected_limits = [(0, 0)] * 3 + [(-30, 30), (0, 256), (4, 8)] + [(0.05, 0.95)] * 4 + [(-0.1, 0.1)] * 4
    assert limits == expected_limits
    for name, (operation, low, high) in zip(names, operations.AUGMENTATIONS, strict=True):
        amounts = low + (high - low) * magnitudes
        by_name = TONE[name][0] if name in TONE else GEOMETRY[name][0] if name in GEOMETRY else None
        expected = by_name(images, amounts) if by_name else images
        assert torch.equal(operation(images, amounts), expected), name


def test_cutout_matches_a_loop_over_images() -> None:
    images = torch.ones(300, 2, 9, 12)
    result = operations.cutout(images, 6, seeded(4))
    assert torch.equal(images, torch.ones_like(images))
    again = seeded(4)
    sides = torch.randint(1, 7, (300, 1), generator=again).flatten().tolist()
    tops = torch.randint(0, 9, (300, 1), generator=again).flatten().tolist()
    lefts = torch.randint(0, 12, (300, 1), generator=again).flatten().tolist()
    for image, side, y, x in zip(result, sides, tops, lefts, strict=True):
        expected = torch.ones(2, 9, 12)
        half = side // 2
        expected[:, max(0, y - half) : y + half, max(0, x - half) : x + half] = 0
        assert torch.equal(image, expected)
    assert set(sides) == set(range(1, 7)) and set(tops) == set(range(9)) and set(lefts) == set(range(12))


def test_cutout_of_side_one_is_no_hole() -> None:
    images = torch.ones(5, 1, 4, 4)
    assert torch.equal(operations.cutout(images, 1, seeded()), images)


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
    images = random_images(3, (5, 6)) / 255
    before = images.clone()
    result = operations.color_jitter(images, 0.4, 0.3, 0.8, hue, seeded(7))
    assert torch.equal(images, before)
    again, batch = seeded(7), len(images)
    factors = [(1 - s + 2 * s * torch.rand(batch, generator=again)) for s in (0.4, 0.3, 0.8)]
    turns = hue * (2 * torch.rand(batch, generator=again) - 1)
    for index, image in enumerate(images):
        expected = jittered_by_hand(image, [f[index].item() for f in factors], turns[index].item())
        torch.testing.assert_close(result[index], expected, atol=2e-5, rtol=0)


def test_color_jitter_of_one_channel_is_brightness_and_contrast() -> None:
    images = random_images(1, (5, 6)) / 255
    result = operations.color_jitter(images, 0.4, 0.3, 0.8, 0.1, seeded(7))
    again = seeded(7)
    first, second = ((1 - s + 2 * s * torch.rand(len(images), generator=again)).view(-1, 1, 1, 1) for s in (0.4, 0.3))
    expected = (images * first).clamp(0, 1)
    mean = expected.mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(result, (mean + second * (expected - mean)).clamp(0, 1))


def test_color_jitter_leaves_the_share_it_should() -> None:
    images = (random_images(3, (4, 4))[-1:] / 255).repeat(2000, 1, 1, 1)
    result = operations.color_jitter(images, 0.4, 0.4, 0.4, 0.1, seeded(), apply_probability=0.8)
    same = (result == images).flatten(1).all(dim=1)
    assert same.float().mean().item() == pytest.approx(0.2, abs=0.04)
    assert distinct(result[~same]) == (~same).sum()  # no two images share their draws
    assert torch.equal(operations.color_jitter(images, 0.4, 0.4, 0.4, 0.1, seeded(), 0.0), images)


def test_large_strengths_never_invert_an_image() -> None:
    images = torch.rand(500, 1, 4, 4, generator=seeded())
    result = operations.color_jitter(images, 0.0, 3.0, 0.0, 0.0, seeded())
    centered = images - images.mean(dim=(2, 3), keepdim=True)
    assert ((result - result.mean(dim=(2, 3), keepdim=True)) * centered).sum(dim=(1, 2, 3)).min() > -1e-5


@pytest.mark.parametrize("strength", [0.4, 1.5])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_constant_images_stay_finite_and_in_range(level: float, channels: int, strength: float) -> None:
    images = torch.full((32, channels, 8, 8), level)
    result = operations.color_jitter(images, strength, strength, strength, 0.5, seeded())
    assert result.isfinite().all() and result.min() >= 0 and result.max() <= 1
    assert (result - result[:, :1, :1, :1]).abs().max() < 1e-6  # still gray and constant
    augmented = operations.random_augment((images * 255).round(), 4, seeded())
    assert augmented.isfinite().all()


def test_a_third_of_the_circle_moves_the_channels() -> None:
    images = torch.rand(8, 3, 4, 4, generator=seeded())
    turned = operations.shift_hue(images, torch.full((8,), 1 / 3))
    torch.testing.assert_close(turned, images.roll(1, dims=1), atol=1e-5, rtol=0)  # red becomes green
    torch.testing.assert_close(operations.shift_hue(images, torch.zeros(8)), images, atol=1e-6, rtol=0)


def test_grayscale_is_the_luma_of_a_share_of_the_images() -> None:
    images = torch.rand(2000, 3, 3, 3, generator=seeded())
    result = operations.grayscale(images, 0.2, seeded(8))
    gray = (images * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1, keepdim=True)
    changed = (result != images).flatten(1).any(dim=1)
    assert changed.float().mean().item() == pytest.approx(0.2, abs=0.04)
    torch.testing.assert_close(result[changed], gray[changed].expand(-1, 3, -1, -1))
    single = images[:, :1]
    assert torch.equal(operations.grayscale(single, 1.0, seeded()), single)


@pytest.mark.parametrize("size", [(9, 7), (3, 2), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_gaussian_blur_matches_a_loop_over_pixels(channels: int, size: tuple[int, int]) -> None:
    height, width = size
    images = torch.rand(4, channels, height, width, generator=seeded())
    sigmas = [0.0, 0.1, 0.7, 2.0]
    result = operations.gaussian_blur(images, torch.tensor(sigmas))
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
