"""Every operation of RandAugment against Pillow, and Cutout against a loop, on images of several sizes."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Generator, Tensor

from scanmix.data.views import augmentations

SIZES = [(8, 8), (28, 28), (32, 32), (20, 33), (2, 5), (1, 1)]
Reference = Callable[[Image.Image, float], Image.Image]
Batched = Callable[[Tensor, Tensor], None]
Moving = Callable[[Tensor, Tensor, int, int], None]


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


def changed(operation: Batched, images: Tensor, amounts: Tensor) -> Tensor:
    images = images.clone()
    operation(images, amounts)
    return images


def shifted(operation: Moving, images: Tensor, amounts: Tensor) -> Tensor:
    matrices = torch.eye(2, 3).repeat(len(images), 1, 1)
    operation(matrices, amounts, *images.shape[2:])
    return changed(augmentations.affine, images, matrices)


def moved(matrix: Callable[[float, Image.Image], tuple[float, ...]]) -> Reference:
    return lambda image, v: image.transform(image.size, Image.Transform.AFFINE, matrix(v, image))


TONE: dict[str, tuple[Batched, Reference, float, float, int]] = {
    # name: batched, Pillow, range of the magnitude, levels they may differ by
    "autocontrast": (augmentations.autocontrast, lambda p, _: ImageOps.autocontrast(p), 0, 1, 1),
    "equalize": (augmentations.equalize, lambda p, _: ImageOps.equalize(p), 0, 1, 0),
    "solarize": (augmentations.solarize, lambda p, v: ImageOps.solarize(p, v), 0, 256, 0),  # type: ignore[arg-type]
    "posterize": (augmentations.posterize, lambda p, v: ImageOps.posterize(p, int(v)), 1, 8.99, 0),
    "color": (augmentations.color, lambda p, v: ImageEnhance.Color(p).enhance(v), 0, 2, 1),
    "contrast": (augmentations.contrast, lambda p, v: ImageEnhance.Contrast(p).enhance(v), 0, 2, 1),
    "brightness": (augmentations.brightness, lambda p, v: ImageEnhance.Brightness(p).enhance(v), 0, 2, 1),
    "sharpness": (augmentations.sharpness, lambda p, v: ImageEnhance.Sharpness(p).enhance(v), 0, 2, 1),
}

GEOMETRY: dict[str, tuple[Moving, Reference, float]] = {
    "rotate": (augmentations.rotate, lambda p, v: p.rotate(v), 30),
    "shear_x": (augmentations.shear_x, moved(lambda v, p: (1, v, 0, 0, 1, 0)), 0.1),
    "shear_y": (augmentations.shear_y, moved(lambda v, p: (1, 0, 0, v, 1, 0)), 0.1),
    "translate_x": (augmentations.translate_x, moved(lambda v, p: (1, 0, v * p.width, 0, 1, 0)), 0.1),
    "translate_y": (augmentations.translate_y, moved(lambda v, p: (1, 0, 0, 0, 1, v * p.height)), 0.1),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", TONE)
def test_tone_and_enhancement_match_pillow(name: str, channels: int, size: tuple[int, int]) -> None:
    operation, reference, low, high, tolerance = TONE[name]
    images = random_images(channels, size)
    magnitudes = low + (high - low) * torch.rand(len(images), generator=seeded(2))
    result = changed(operation, images, magnitudes)
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
    wrong = shifted(operation, images, magnitudes) != by_pillow(images, reference, magnitudes)
    # Pillow counts in 1/65536 of a pixel: a position that near a border may fall to the other side.
    assert wrong.float().mean() < 0.005


def test_thresholds_and_factors_at_their_ends() -> None:
    images = random_images(3, (8, 8))
    zeros, ones = torch.zeros(len(images)), torch.ones(len(images))
    for name in ("color", "contrast", "brightness", "sharpness"):
        assert torch.equal(changed(TONE[name][0], images, ones), images), name
        assert not torch.equal(changed(TONE[name][0], images, zeros), images), name
    assert torch.equal(changed(augmentations.solarize, images, 256 * ones), images)
    assert torch.equal(changed(augmentations.solarize, images, zeros), 255 - images)
    assert torch.equal(changed(augmentations.posterize, images, 8 * ones), images)
    for operation, _, _ in GEOMETRY.values():
        assert torch.equal(shifted(operation, images, zeros), images)


def test_other_numbers_of_channels_are_gray_by_their_mean() -> None:
    images = random_images(2, (8, 8))
    ones = torch.ones(len(images))
    assert torch.equal(changed(augmentations.color, images, 0 * ones), images)
    gray = (images.mean(dim=1) + 0.5).floor().mean(dim=(1, 2))
    faded = changed(augmentations.contrast, images, 0 * ones)
    assert torch.equal(faded, (gray + 0.5).floor().view(-1, 1, 1, 1).expand_as(images))


def test_affine_goes_from_output_to_input() -> None:
    image = torch.arange(12.0).view(1, 1, 3, 4)
    right = changed(augmentations.affine, image, torch.tensor([[[1.0, 0, 1], [0, 1, 0]]]))
    assert right.tolist() == [[[[1, 2, 3, 0], [5, 6, 7, 0], [9, 10, 11, 0]]]]
    down = changed(augmentations.affine, image, torch.tensor([[[1.0, 0, 0], [0, 1, -1]]]))
    assert down.tolist() == [[[[0, 0, 0, 0], [0, 1, 2, 3], [4, 5, 6, 7]]]]


def drawn_and_applied(images: Tensor, count: int, generator: Generator) -> Tensor:
    return augmentations.augment(images, *augmentations.draw_augmentations(len(images), count, generator))


@pytest.mark.parametrize("channels", [1, 3])
def test_augment_keeps_shape_and_whole_levels(channels: int) -> None:
    images = random_images(channels, (16, 16), batch=256).byte()
    before = images.clone()
    result = drawn_and_applied(images, 4, seeded())
    assert torch.equal(images, before)
    assert result.shape == images.shape and result.dtype == torch.float32
    assert torch.equal(result, result.round()) and result.min() >= 0 and result.max() <= 255


def test_augment_follows_its_generator() -> None:
    images = random_images(3, (8, 8)).byte()
    first = drawn_and_applied(images, 4, seeded(5))
    assert torch.equal(first, drawn_and_applied(images, 4, seeded(5)))
    assert not torch.equal(first, drawn_and_applied(images, 4, seeded(6)))
    state = torch.get_rng_state()
    drawn_and_applied(images, 4, seeded(5))
    assert torch.equal(state, torch.get_rng_state())


def test_memory_layout_changes_nothing() -> None:
    images = random_images(3, (8, 8), batch=128).byte()
    expected = drawn_and_applied(images, 4, seeded())
    strided = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(drawn_and_applied(strided, 4, seeded()), expected)


def test_equal_images_are_augmented_apart() -> None:
    images = random_images(3, (16, 16))[-1:].repeat(64, 1, 1, 1).byte()
    assert distinct(drawn_and_applied(images, 4, seeded())) > 55


@pytest.mark.parametrize("batch", [0, 1])
def test_augment_of_small_batches_and_no_operation(batch: int) -> None:
    images = random_images(3, (8, 8))[:batch].byte()
    assert drawn_and_applied(images, 4, seeded()).shape == images.shape
    assert torch.equal(drawn_and_applied(images, 0, seeded()), images.float())


@pytest.mark.parametrize("channels", [1, 3])
def test_constant_images_stay_finite(channels: int) -> None:
    for level in (0, 128, 255):
        images = torch.full((200, channels, 8, 8), level, dtype=torch.uint8)
        result = drawn_and_applied(images, 4, seeded())
        assert result.isfinite().all() and result.min() >= 0 and result.max() <= 255


def one_by_one(images: Tensor, choices: Tensor, shares: Tensor) -> Tensor:
    """Each image alone, through the operations that were drawn for it."""
    results = []
    for image, kinds, amounts in zip(images.float(), choices.tolist(), shares, strict=True):
        alone = image.unsqueeze(0)
        for kind, share in zip(kinds, amounts, strict=True):
            operation, low, high, geometric = augmentations.AUGMENTATIONS[kind]
            apply: Callable[..., Tensor] = shifted if geometric else changed
            alone = apply(operation, alone, (low + share * (high - low)).view(1))
        results.append(alone)
    return torch.cat(results)


@pytest.mark.parametrize("size", [(8, 8), (5, 9)])
@pytest.mark.parametrize("channels", [1, 3])
def test_augment_is_the_drawn_operations_in_turn(channels: int, size: tuple[int, int]) -> None:
    images = random_images(channels, size, batch=150).byte()
    draw = augmentations.draw_augmentations(len(images), 3, seeded())
    assert torch.equal(augmentations.augment(images, *draw), one_by_one(images, *draw))


def test_operations_are_drawn_evenly_and_with_replacement() -> None:
    batch, count, kinds = 4200, 3, len(augmentations.AUGMENTATIONS)
    choices, shares = augmentations.draw_augmentations(batch, count, seeded())
    assert choices.shape == shares.shape == (batch, count)
    occurrences = choices.flatten().bincount(minlength=kinds)
    assert len(occurrences) == kinds == 14
    assert (occurrences - count * batch / kinds).abs().max() < 6 * math.sqrt(count * batch / kinds)
    assert abs((choices[:, 0] == choices[:, 1]).float().mean() - 1 / kinds) < 0.02
    assert shares.min() >= 0 and shares.max() <= 1
    assert shares.mean().item() == pytest.approx(0.5, abs=0.02)
    assert shares.std().item() == pytest.approx(1 / math.sqrt(12), rel=0.05)


def test_the_table_holds_the_fourteen_operations() -> None:
    operations = {name: entry[0] for name, entry in (TONE | GEOMETRY).items()}
    names = ["unchanged", *list(TONE)[:2], "rotate", *list(TONE)[2:], *list(GEOMETRY)[1:]]
    limits = [(0, 0)] * 3 + [(-30, 30), (0, 256), (4, 8)] + [(0.05, 0.95)] * 4 + [(-0.1, 0.1)] * 4
    for name, expected, entry in zip(names, limits, augmentations.AUGMENTATIONS, strict=True):
        operation, low, high, geometric = entry
        assert (low, high) == expected and geometric is (name in GEOMETRY), name
        assert operation is operations.get(name, augmentations.unchanged), name


def test_cutout_matches_a_loop_over_images() -> None:
    images = torch.rand(300, 2, 9, 12, generator=seeded()) + 1
    half, center = augmentations.draw_holes(300, 6, 9, 12, seeded(4))
    result = augmentations.cutout(images.clone(), half, center)
    again = seeded(4)
    sides, tops, lefts = (
        torch.randint(low, high, (300,), generator=again).tolist() for low, high in ((1, 7), (0, 9), (0, 12))
    )
    for image, before, side, y, x in zip(result, images, sides, tops, lefts, strict=True):
        expected, reach = before.clone(), side // 2
        expected[:, max(0, y - reach) : y + reach, max(0, x - reach) : x + reach] = 0
        assert torch.equal(image, expected)
    assert set(sides) == set(range(1, 7)) and set(tops) == set(range(9)) and set(lefts) == set(range(12))


def test_cutout_of_side_one_is_no_hole() -> None:
    images = torch.ones(5, 1, 4, 4)
    draw = augmentations.draw_holes(5, 1, 4, 4, seeded())
    assert torch.equal(augmentations.cutout(images.clone(), *draw), images)
