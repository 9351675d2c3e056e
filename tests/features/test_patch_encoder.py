"""`patches:COUNT`: filters of patches without weights, beside a loop over patches."""

import numpy as np
import pytest
import torch
from torch import Tensor

from scanmix.config import UserError
from scanmix.features import open_encoder
from scanmix.features.patch_encoder import (
    CELLS,
    LEAST_CONTRAST,
    LEAST_SPREAD,
    PATCH,
    SIDE,
    THRESHOLD,
    covariance,
    filters,
    open_sided_patches,
)

COUNT = 6
PICTURES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, SIDE, SIDE), dtype=np.uint8))


def slow_features(picture: Tensor, kernels: Tensor) -> Tensor:
    """(3, 32, 32) of 0..1, (K, 3, 6, 6) -> (9 K,): each patch by itself, then each cell."""
    places = SIDE - PATCH + 1
    responses = torch.zeros(len(kernels), places, places)
    for y in range(places):
        for x in range(places):
            patch = picture[:, y : y + PATCH, x : x + PATCH]
            patch = (patch - patch.mean()) / (patch.std(correction=0) + LEAST_CONTRAST)
            responses[:, y, x] = (kernels * patch).sum((1, 2, 3))
    width = places // CELLS
    found = torch.zeros(2, len(kernels) // 2, CELLS, CELLS)
    for k in range(len(kernels) // 2):
        for row in range(CELLS):
            for column in range(CELLS):
                for kernel, at in ((k, column), (k + len(kernels) // 2, CELLS - 1 - column)):
                    cell = responses[kernel, row * width : (row + 1) * width, at * width : (at + 1) * width]
                    found[0, k, row, column] += (cell - THRESHOLD).clamp(min=0).mean()
                    found[1, k, row, column] += (-cell - THRESHOLD).clamp(min=0).mean()
    return found.flatten()


def test_features_are_those_of_a_loop_over_patches() -> None:
    found = open_encoder(f"patches:{COUNT}").encode(PICTURES)
    assert found.shape == (3, 9 * COUNT)
    for picture, row in zip(PICTURES.float() / 255, found, strict=True):
        torch.testing.assert_close(row, slow_features(picture, filters(COUNT)), rtol=1e-4, atol=1e-5)


def test_mirror_images_have_the_same_features() -> None:
    encoder = open_encoder(f"patches:{COUNT}")
    torch.testing.assert_close(encoder.encode(PICTURES.flip(3)), encoder.encode(PICTURES), rtol=1e-4, atol=1e-5)
    upside_down = encoder.encode(PICTURES.flip(2))
    assert (upside_down - encoder.encode(PICTURES)).abs().max() > 0.05, "only left and right are alike"


def test_brightness_does_not_matter_and_a_plain_picture_has_no_features() -> None:
    encoder = open_encoder(f"patches:{COUNT}")
    dark = PICTURES // 2
    torch.testing.assert_close(encoder.encode(dark + 100), encoder.encode(dark), rtol=1e-3, atol=1e-4)
    plain = torch.full((1, 3, SIDE, SIDE), 93, dtype=torch.uint8)
    assert torch.equal(encoder.encode(plain), torch.zeros(1, 9 * COUNT))


def test_whitened_patches_have_like_deviations() -> None:
    """Filters answer patches of the assumed covariance with about the same deviation, below 1 by what is added."""
    values = torch.linalg.eigvalsh(covariance())
    assert values.min() > -1e-5 and covariance().diagonal().mean().item() == pytest.approx(1, abs=1e-5)
    kernels = filters(64).flatten(1)
    deviation = (kernels @ covariance() * kernels).sum(1).sqrt()
    assert deviation.max() < 1 and deviation.min() > 0.5
    widest = values.max() / (values.max() + LEAST_SPREAD)
    assert deviation.max() <= widest.sqrt() + 1e-5


def test_a_patch_of_one_filter_is_answered_by_it_most() -> None:
    kernels = filters(32).flatten(1)
    values, axes = torch.linalg.eigh(covariance())
    unwhitened = kernels @ axes @ torch.diag(values.clamp(min=0) + LEAST_SPREAD) @ axes.T
    assert torch.equal((unwhitened @ kernels.T).argmax(1), torch.arange(32))


def test_gray_pictures_and_other_sizes_are_taken() -> None:
    encoder = open_encoder(f"patches:{COUNT}")
    gray = PICTURES[:, :1]
    torch.testing.assert_close(encoder.encode(gray), encoder.encode(gray.expand(-1, 3, -1, -1)))
    assert encoder.encode(torch.zeros(2, 3, 70, 48, dtype=torch.uint8)).shape == (2, 9 * COUNT)
    assert encoder.encode(PICTURES[:0]).shape[0] == 0


def test_sided_patches_tell_mirror_images_apart() -> None:
    """Their answers to a picture and its mirror image have the sum that the encoder without sides returns."""
    one, mirrored = (open_sided_patches(COUNT // 2).encode(images) for images in (PICTURES, PICTURES.flip(3)))
    assert one.shape == (3, 9 * COUNT) and (one - mirrored).abs().max() > 0.05
    torch.testing.assert_close(one + mirrored, open_encoder(f"patches:{COUNT}").encode(PICTURES), rtol=1e-4, atol=1e-5)


def test_features_do_not_depend_on_the_batch() -> None:
    encoder = open_sided_patches(8)
    images = PICTURES.repeat(9, 1, 1, 1)
    assert torch.equal(encoder.encode(images)[:3], encoder.encode(PICTURES))


def test_it_is_known_by_its_count_alone() -> None:
    one, same, other = (open_encoder(f"patches:{count}") for count in (COUNT, COUNT, 2 * COUNT))
    assert one.digest == same.digest != other.digest
    assert torch.equal(one.encode(PICTURES), same.encode(PICTURES))


@pytest.mark.parametrize("count", ["7", "0", "many", "-2", "1e3", "5000"])
def test_no_even_number_is_refused(count: str) -> None:
    with pytest.raises(UserError, match="even number of filters after the colon, 2 to 4096, as in patches:256"):
        open_encoder(f"patches:{count}")
