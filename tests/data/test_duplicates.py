"""Groups of copies against a version that compares every pair, and images that must or must not count as copies."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_image
from torch import Tensor

import scanmix
from scanmix.data import duplicates
from scanmix.data.duplicates import ALIKE, exact_groups, near_groups


def slow_groups(images: Tensor) -> list[list[int]]:
    """Every pair of different images, one after the other; groups by flooding."""
    kernel = [-(-side // 32) for side in images.shape[2:]]
    pooled = F.avg_pool2d(images.double(), kernel).flatten(1).numpy()
    near: dict[int, set[int]] = {i: set() for i in range(len(images))}
    for i in range(len(images)):
        for j in range(i):
            a, b = pooled[i] - pooled[i].mean(), pooled[j] - pooled[j].mean()
            if (a @ b) >= ALIKE * np.sqrt((a @ a) * (b @ b)) > 0:
                near[i].add(j)
                near[j].add(i)
    exact = {place for group in exact_groups(images) for place in group[1:]}
    groups, seen = [], set(exact)
    for i in range(len(images)):
        if i in seen:
            continue
        group, waiting = {i}, [i]
        while waiting:
            new = near[waiting.pop()] - group - exact
            group |= new
            waiting += new
        seen |= group
        if len(group) > 1:
            groups.append(sorted(group))
    return groups


def crowd(count: int, channels: int, height: int, width: int, seed: int) -> Tensor:
    """Images around a few scenes, some of them alike enough, some just not, some equal, some of one color."""
    draws = torch.Generator().manual_seed(seed)
    scenes = 255 * torch.rand(6, channels, height, width, generator=draws)
    picked = scenes[torch.randint(0, 6, (count,), generator=draws)]
    blur = torch.tensor([1.0, 6.0, 12.0, 40.0])[torch.randint(0, 4, (count,), generator=draws)]
    images = picked + blur.view(-1, 1, 1, 1) * torch.randn(picked.shape, generator=draws)
    images[:: count // 4] = 77
    images[1 :: count // 3] = images[1]
    return images.clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize(
    ("channels", "height", "width"), [(1, 8, 8), (3, 16, 16), (1, 28, 28), (3, 48, 48), (3, 2, 70), (1, 1, 5)]
)
@pytest.mark.parametrize("chunk", [7, 256])
def test_groups_are_those_of_the_slow_version(
    channels: int, height: int, width: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "CHUNK", chunk)
    images = crowd(60, channels, height, width, seed=height)
    found = near_groups(images)
    assert found == slow_groups(images)
    assert found or height == 1


def test_exact_groups_are_equal_in_every_pixel() -> None:
    images = torch.zeros(6, 1, 4, 4, dtype=torch.uint8)
    images[1, 0, 3, 3] = images[4, 0, 3, 3] = 1
    images[5, 0, 3, 3] = 2
    assert exact_groups(images) == [[0, 2, 3], [1, 4]]
    assert exact_groups(images[4:]) == []


def test_there_may_be_one_image_or_none_that_differs() -> None:
    images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    assert near_groups(images) == [] and near_groups(images[:1]) == []


def photographs() -> list[Image.Image]:
    """Forty cuts of two photographs, none of them of one color."""
    whole = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    draws = np.random.default_rng(0)
    cuts: list[Image.Image] = []
    while len(cuts) < 40:
        left, top = (int(draws.integers(0, side - 128)) for side in whole[0].size)
        cut = whole[len(cuts) % 2].crop((left, top, left + 128, top + 128))
        if np.asarray(cut).std() > 30:
            cuts.append(cut)
    return cuts


def stacked(images: list[Image.Image]) -> Tensor:
    pixels = [np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC)) for image in images]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()


def stored_again(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=75)
    return Image.open(file).convert("RGB")


def test_photographs_that_were_stored_again_resized_or_brightened_are_found() -> None:
    cuts = photographs()
    for change in (
        stored_again,
        lambda cut: cut.resize((80, 80)),
        lambda cut: ImageEnhance.Brightness(cut).enhance(0.9),
    ):
        groups = near_groups(stacked(cuts + [change(cut) for cut in cuts]))
        assert sum([i, i + len(cuts)] in groups for i in range(len(cuts))) >= 38


def test_other_photographs_and_digits_are_not() -> None:
    assert near_groups(stacked(photographs())) == []
    train, test = scanmix.load("digits")
    assert test is not None
    digits = torch.cat([train.images, test.images])
    assert exact_groups(digits) == [] and near_groups(digits) == []


def test_many_frames_of_one_scene_are_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    thumbnails = duplicates._thumbnails

    def counted(images: Tensor) -> Tensor:
        nonlocal compared
        compared += len(images)
        return thumbnails(images)

    monkeypatch.setattr(duplicates, "_thumbnails", counted)
    draws = torch.Generator().manual_seed(0)
    scene = torch.randint(0, 250, (1, 1, 16, 16), generator=draws)
    frames = (scene + torch.randint(0, 4, (1500, 1, 16, 16), generator=draws)).to(torch.uint8)
    assert [len(group) for group in near_groups(frames)] == [1500]
    assert compared <= 3 * len(frames)  # once as a coarse thumbnail, once as rows, once beside the first rows


def test_progress_ends_at_the_end() -> None:
    told: list[tuple[int, int, str]] = []
    near_groups(crowd(300, 1, 8, 8, seed=1), lambda *far: told.append(far))
    assert told[-1][0] == told[-1][1] and [done for done, _, _ in told] == sorted(done for done, _, _ in told)
