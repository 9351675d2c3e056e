"""Every view against a slow version that looks at one image, or one pixel, at a time."""

import itertools
import math
from collections import Counter
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scanmix.config import UserError
from scanmix.data.views import Views, ViewSettings
from scanmix.data.views import image_views as views
from scanmix.data.views.augmentations import augment, cutout, draw_augmentations, draw_holes

CROP_ONLY = ViewSettings(jitter_probability=0, grayscale_probability=0)
WHOLE = ViewSettings(contrast_scale=(1, 1), contrast_ratio=(1, 1), jitter_probability=0, grayscale_probability=0)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def random_images(channels: int, height: int, width: int, batch: int = 16) -> Tensor:
    shape = (batch, channels, height, width)
    return torch.randint(0, 256, shape, generator=seeded(1), dtype=torch.uint8)


def make(images: Tensor, settings: ViewSettings | None = None, *, flip: bool = True) -> Views:
    made = views.make_views(settings or ViewSettings(), images, flip=flip)
    assert isinstance(made, Views)
    return made


@pytest.mark.parametrize("channels", [1, 3])
def test_plain_is_each_pixel_less_the_mean_over_the_deviation(channels: int) -> None:
    images = random_images(channels, 4, 5)
    result = make(images).eval_view(images)
    assert result.dtype == torch.float32 and result.shape == images.shape
    for channel in range(channels):
        values = [value / 255 for value in images[:, channel].flatten().tolist()]
        mean = sum(values) / len(values)
        deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
        expected = torch.tensor([(value - mean) / deviation for value in values])
        torch.testing.assert_close(result[:, channel].flatten(), expected, atol=1e-5, rtol=0)


def test_given_statistics_are_taken_and_constant_channels_stay_finite() -> None:
    images = random_images(2, 4, 4)
    given = make(images, ViewSettings(mean=(0.5, 0.25), std=(0.5, 2.0)))
    expected = (images.double() / 255 - torch.tensor([0.5, 0.25]).view(2, 1, 1)) / torch.tensor([0.5, 2.0]).view(
        2, 1, 1
    )
    torch.testing.assert_close(given.eval_view(images), expected.float())
    constant = torch.full((5, 3, 4, 4), 255, dtype=torch.uint8)
    chosen = make(constant)
    for view in (chosen.eval_view(constant), *drawn_views(chosen, constant)):
        assert view.isfinite().all()


def drawn_views(chosen: Views, images: Tensor, seed: int = 0) -> list[Tensor]:
    return [draw(images, seeded(seed)) for draw in (chosen.weak, chosen.strong, chosen.contrastive)]


def test_statistics_do_not_depend_on_the_chunks() -> None:
    images = random_images(3, 2, 2, batch=9001)
    mean, deviation = views.channel_statistics(images)
    values = images.double().div(255).transpose(0, 1).flatten(1)
    torch.testing.assert_close(mean, values.mean(dim=1).float())
    torch.testing.assert_close(deviation, values.std(dim=1, correction=0).float())


def weak_candidates(image: Tensor, padding: int, *, flip: bool) -> dict[bytes, tuple[int, int, bool]]:
    """All views the weak augmentation may give of one image, written as padded rows and slices."""
    channels, height, width = image.shape
    candidates = {}
    for mirrored in (False, True) if flip else (False,):
        padded = torch.zeros(channels, height + 2 * padding, width + 2 * padding, dtype=torch.uint8)
        padded[:, padding : padding + height, padding : padding + width] = image.flip(-1) if mirrored else image
        for top in range(2 * padding + 1):
            for left in range(2 * padding + 1):
                crop = padded[:, top : top + height, left : left + width].contiguous()
                candidates[crop.numpy().tobytes()] = (top, left, mirrored)
    return candidates


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("channels", "height", "width", "padding"), [(1, 8, 8, 1), (3, 6, 7, 2)])
def test_weak_is_one_crop_of_the_padded_image_each_as_often(
    channels: int, height: int, width: int, padding: int, flip: bool
) -> None:
    image = random_images(channels, height, width, batch=1)
    # mean 0 and deviation 1/255 undo the normalization: the view is the pixels themselves
    bare = ViewSettings(crop_padding=padding, mean=(0.0,) * channels, std=(1 / 255,) * channels)
    result = make(image, bare, flip=flip).weak(image.expand(6000, -1, -1, -1), seeded()).round().byte()
    candidates = weak_candidates(image[0], padding, flip=flip)
    counts = Counter(candidates[view.numpy().tobytes()] for view in result)  # KeyError: not a weak view
    mean = 6000 / len(candidates)
    assert len(counts) == len(candidates) == (2 * padding + 1) ** 2 * (1 + flip)
    assert all(abs(count - mean) < 5 * math.sqrt(mean) for count in counts.values())


def test_weak_padding_is_an_eighth_of_the_side() -> None:
    images = random_images(1, 32, 32, batch=1).expand(500, -1, -1, -1).contiguous()
    given = make(images, ViewSettings(crop_padding=4))
    assert torch.equal(given.weak(images, seeded()), make(images).weak(images, seeded()))
    unpadded = make(images, ViewSettings(crop_padding=0, flip=False))
    assert torch.equal(unpadded.weak(images, seeded()), unpadded.eval_view(images))


def test_each_image_keeps_to_itself() -> None:
    """Changing one image of a batch changes no other view."""
    images = random_images(3, 8, 8)
    chosen = make(images, ViewSettings(blur_probability=0.5))
    other = images.clone()
    other[3] = 255 - other[3]
    for first, second in zip(drawn_views(chosen, images), drawn_views(chosen, other), strict=True):
        kept = [index for index in range(len(images)) if index != 3]
        assert torch.equal(first[kept], second[kept])
        assert not torch.equal(first[3], second[3])


@pytest.mark.parametrize("channels", [1, 3])
def test_views_follow_the_generator_and_differ_between_equal_images(channels: int) -> None:
    images = random_images(channels, 16, 16, batch=1).repeat(32, 1, 1, 1)
    before = images.clone()
    chosen = make(images)
    state = torch.get_rng_state()
    again, other = drawn_views(chosen, images), drawn_views(chosen, images, seed=9)
    for view, same, different in zip(drawn_views(chosen, images), again, other, strict=True):
        assert view.shape == images.shape and view.dtype == torch.float32
        assert torch.equal(view, same) and not torch.equal(view, different)
        assert len({image.numpy().tobytes() for image in view}) > 20
    assert torch.equal(images, before) and torch.equal(state, torch.get_rng_state())


def test_strong_without_operations_is_flip_and_hole() -> None:
    images = random_images(3, 8, 8, batch=400)
    chosen = make(images, ViewSettings(strong_operations=0, cutout=4))
    result = chosen.strong(images, seeded())
    mirrored = 0
    for view, same, flipped in zip(result, chosen.eval_view(images), chosen.eval_view(images.flip(-1)), strict=True):
        changed = [(view != image).any(dim=0) for image in (same, flipped)]
        mirrored += int(changed[1].sum() < changed[0].sum())
        hole = min(changed, key=lambda mask: int(mask.sum()))
        assert (view[:, hole] == 0).all()  # the mean color, after normalizing
        rows, columns = hole.any(dim=1), hole.any(dim=0)
        assert torch.equal(hole, rows.unsqueeze(1) & columns) and max(rows.sum(), columns.sum()) <= 4
    assert abs(mirrored - 200) < 50


def test_strong_is_its_steps_in_order() -> None:
    images = random_images(3, 16, 16)
    chosen = make(images, flip=False)
    generator = seeded()
    augmented = augment(images, *draw_augmentations(len(images), 4, generator))
    expected = cutout(chosen.eval_view(augmented), *draw_holes(len(images), 8, 16, 16, generator))
    assert torch.equal(chosen.strong(images, seeded()), expected)


@pytest.mark.parametrize("settings", [ViewSettings(), ViewSettings(crop=9)])
@pytest.mark.parametrize("size", [(12, 12), (12, 15)])
@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_several_looks_at_once_are_those_taken_in_turn(
    kind: Literal["weak", "strong"], size: tuple[int, int], settings: ViewSettings
) -> None:
    images = random_images(3, *size)
    view = make(images, settings).random_view(kind)
    parts, draws, again = [images[:5], images[:5], images[:0], images[3:]], seeded(), seeded()
    at_once = view(torch.cat(parts), draws, [len(part) for part in parts])
    assert torch.equal(at_once, torch.cat([view(part, again) for part in parts]))
    assert torch.equal(draws.get_state(), again.get_state())


def test_boxes_have_the_asked_areas_and_aspects_and_lie_inside() -> None:
    left, top, width, height = views.random_boxes(20000, (0.2, 1.0), (3 / 4, 4 / 3), seeded()).unbind(1)
    assert min(left.min(), top.min()) >= 0
    assert max((left + width).max(), (top + height).max()) <= 1 + 1e-6
    area, aspect = width * height, width / height
    assert 0.2 - 1e-6 <= area.min() and area.max() <= 1 + 1e-6
    assert 3 / 4 - 1e-5 <= aspect.min() and aspect.max() <= 4 / 3 + 1e-5
    assert aspect.log().mean().abs() < 0.01
    assert max(width.max(), height.max()) < 1  # nothing clipped: a candidate that does not fit is drawn again
    small = area < 0.7  # such boxes always fit, so there the area keeps its uniform density
    assert area[small].mean().item() == pytest.approx(0.45, abs=0.01)
    for start, length in ((left, width), (top, height)):
        place = (start / (1 - length).clamp(min=1e-6))[length < 0.9]
        assert place.mean().item() == pytest.approx(0.5, abs=0.01)
        assert place.std().item() == pytest.approx(1 / math.sqrt(12), abs=0.01)


def test_boxes_that_never_fit_are_clipped() -> None:
    boxes = views.random_boxes(50, (1.0, 1.0), (2.0, 3.0), seeded())
    left, top, width, height = boxes.unbind(1)
    assert (width == 1).all() and (left == 0).all()
    assert (height < 0.75).all() and (top + height <= 1 + 1e-6).all()


def sampled_by_hand(image: Tensor, box: list[float], angle: float) -> Tensor:
    """One image, one output pixel at a time: bilinear, the border repeated."""
    channels, height, width = image.shape
    left, top, box_width, box_height = box
    result = torch.zeros(channels, height, width)
    for row in range(height):
        for column in range(width):
            across, down = (column + 0.5) / width - 0.5, (row + 0.5) / height - 0.5  # from the box's center
            x = left + box_width * (0.5 + math.cos(angle) * across - math.sin(angle) * down)
            y = top + box_height * (0.5 + math.sin(angle) * across + math.cos(angle) * down)
            x = min(max(x * width - 0.5, 0), width - 1)
            y = min(max(y * height - 0.5, 0), height - 1)
            x0, y0 = math.floor(x), math.floor(y)
            x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
            upper = (1 - (x - x0)) * image[:, y0, x0] + (x - x0) * image[:, y0, x1]
            lower = (1 - (x - x0)) * image[:, y1, x0] + (x - x0) * image[:, y1, x1]
            result[:, row, column] = (1 - (y - y0)) * upper + (y - y0) * lower
    return result


@pytest.mark.parametrize("reach", [0.0, 0.5])
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 8, 8), (3, 7, 9)])
def test_resized_crop_matches_a_loop_over_pixels(channels: int, height: int, width: int, reach: float) -> None:
    images = random_images(channels, height, width, batch=12).float() / 255
    boxes = views.random_boxes(12, (0.2, 1.0), (3 / 4, 4 / 3), seeded(2))
    angles = reach * (2 * torch.rand(12, generator=seeded(3)) - 1)
    result = views.resized_crop(images, boxes, angles)
    for image, box, angle, crop in zip(images, boxes.tolist(), angles.tolist(), result, strict=True):
        torch.testing.assert_close(crop, sampled_by_hand(image, box, angle), atol=2e-5, rtol=0)


def test_a_quarter_turn_is_a_quarter_turn() -> None:
    images = random_images(3, 6, 6).float() / 255
    whole = torch.tensor([[0.0, 0, 1, 1]]).expand(len(images), -1)
    turned = views.resized_crop(images, whole, torch.full((len(images),), math.pi / 2))
    torch.testing.assert_close(turned, images.rot90(1, (2, 3)), atol=1e-5, rtol=0)  # counterclockwise


def test_contrastive_of_the_whole_image_is_its_flip() -> None:
    images = random_images(3, 8, 8, batch=400)
    chosen = make(images, WHOLE)
    result = chosen.contrastive(images, seeded())
    distances = [
        (result - chosen.eval_view(candidate)).abs().amax(dim=(1, 2, 3)) for candidate in (images, images.flip(-1))
    ]
    assert torch.minimum(*distances).max() < 1e-4
    assert abs(int((distances[1] < distances[0]).sum()) - 200) < 50
    kept = make(images, WHOLE, flip=False)
    torch.testing.assert_close(kept.contrastive(images, seeded()), kept.eval_view(images), atol=1e-4, rtol=0)


def test_contrastive_crops_each_image_by_a_box_of_its_own() -> None:
    images = random_images(3, 8, 8)
    chosen = make(images, CROP_ONLY, flip=False)
    result = chosen.contrastive(images, seeded())
    boxes = views.random_boxes(len(images), (0.2, 1.0), (3 / 4, 4 / 3), seeded())
    for image, box, view in zip(images, boxes.tolist(), result, strict=True):
        expected = (sampled_by_hand(image / 255, box, 0.0) - chosen.mean) / chosen.std
        torch.testing.assert_close(view, expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    ("change", "share"),
    [
        (ViewSettings(contrast_scale=(1, 1), contrast_ratio=(1, 1), grayscale_probability=0), 0.8),
        (ViewSettings(contrast_scale=(1, 1), contrast_ratio=(1, 1), jitter_probability=0), 0.2),
        (
            ViewSettings(
                contrast_scale=(1, 1),
                contrast_ratio=(1, 1),
                jitter_probability=0,
                grayscale_probability=0,
                blur_probability=0.3,
            ),
            0.3,
        ),
    ],
)
def test_contrastive_changes_the_asked_share_of_images(change: ViewSettings, share: float) -> None:
    images = random_images(3, 8, 8, batch=2000)
    chosen = make(images, change, flip=False)
    moved = (chosen.contrastive(images, seeded()) - chosen.eval_view(images)).abs().amax(dim=(1, 2, 3)) > 1e-3
    # A blur by less than about a quarter of a pixel changes nothing: its share may be somewhat smaller.
    assert share - 0.07 < moved.float().mean() < share + 0.04


def test_of_no_images_there_are_no_views() -> None:
    """Where every label looks right, nothing is unlabeled."""
    images = random_images(3, 8, 8)
    chosen, none = make(images), images[:0]
    for view in (chosen.weak(none, seeded()), chosen.strong(none, seeded())):
        assert view.shape == none.shape and view.dtype == torch.float32


CROPPED = ViewSettings(mean=(0.5,) * 3, std=(0.2,) * 3, crop=5, strong_operations=0, cutout=1)


def test_a_crop_is_cut_at_its_own_place_and_mirrored_by_half() -> None:
    """Each weak view is one of the possible crops of its image, and all places come up."""
    image = torch.arange(3 * 8 * 9).view(3, 8, 9).to(torch.uint8)
    whole: dict[bytes, tuple[int, int, bool]] = {}
    for top, left in itertools.product(range(4), range(5)):
        cut = image[:, top : top + 5, left : left + 5]
        whole |= {cut.numpy().tobytes(): (top, left, False), cut.flip(2).numpy().tobytes(): (top, left, True)}
    images = image.repeat(400, 1, 1, 1)
    seen = (make(images, CROPPED).weak(images, seeded()) * 0.2 + 0.5) * 255
    found = Counter(whole[view.round().to(torch.uint8).numpy().tobytes()] for view in seen)
    assert len(found) == len(whole) == 40
    assert 150 < sum(count for (_, _, mirrored), count in found.items() if mirrored) < 250


def test_plain_views_are_the_center_and_all_views_have_its_size() -> None:
    images = random_images(3, 8, 8)
    chosen = make(images, CROPPED)
    torch.testing.assert_close(chosen.eval_view(images), (images[..., 1:6, 1:6].float() / 255 - 0.5) / 0.2)
    assert all(view.shape == (16, 3, 5, 5) for view in drawn_views(chosen, images))
    assert chosen.contrastive_settings()["crop"] == 5 and "crop" not in make(images).strong_settings()


def test_a_contrastive_crop_is_the_resized_box() -> None:
    """The whole box, unrotated, at another size: what interpolation makes of the image."""
    images = torch.rand(2, 1, 8, 8, generator=seeded())
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(2, -1)
    found = views.resized_crop(images, whole, torch.zeros(2), 4)
    torch.testing.assert_close(found, F.interpolate(images, size=(4, 4), mode="bilinear"))


def test_images_smaller_than_the_crop_are_refused() -> None:
    images = random_images(3, 4, 8)
    chosen = make(images, CROPPED)
    with pytest.raises(UserError, match=r"views.crop = 5 is more than the images have \(8x4 pixels\)"):
        chosen.eval_view(images)
    with pytest.raises(UserError, match=r"views.crop = 5"):
        chosen.weak(images, seeded())
