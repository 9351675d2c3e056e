"""Features of pictures without a pretrained network, beside slow versions: pixels of small ones, else patches."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scanmix.audit import audit_data, collect, evidence_from_examples
from scanmix.blocks import pictures
from scanmix.blocks.neighbors import nearest_neighbors
from scanmix.blocks.pictures import image_features, narrowed_axes, of_patches, of_pixels
from scanmix.data.examples import Examples
from scanmix.features.patch_encoder import LEAST_CONTRAST, PATCH, SIDE, THRESHOLD, filters, open_sided_patches
from scanmix.model import Outputs

DRAW = torch.Generator().manual_seed(0)


def drawn(count: int, channels: int = 1, height: int = 8, width: int = 8) -> Tensor:
    return torch.randint(256, (count, channels, height, width), generator=DRAW, dtype=torch.uint8)


def examples(images: Tensor, labels: Tensor, names: str = "ab") -> Examples:
    return Examples(images=images, labels=labels, class_names=tuple(names), ids=tuple(map(str, range(len(images)))))


# --- pixels ---


def slow_thumbnail(image: np.ndarray) -> list[float]:
    """One row of `of_pixels`: mean of each cell of a grid, pixel by pixel."""
    channels, height, width = image.shape
    high, wide = min(height, 12), min(width, 12)
    found = []
    for channel, i, j in itertools.product(range(channels), range(high), range(wide)):
        rows = range(i * height // high, -(-(i + 1) * height // high))
        columns = range(j * width // wide, -(-(j + 1) * width // wide))
        cell = [float(image[channel, row, column]) for row in rows for column in columns]
        found.append(sum(cell) / len(cell))
    mean = sum(found) / len(found)
    return [value - mean for value in found] + [1.0]


@pytest.mark.parametrize(
    ("channels", "height", "width"), [(1, 8, 8), (3, 8, 8), (1, 23, 28), (3, 15, 31), (1, 1, 40), (2, 24, 24)]
)
def test_small_pictures_are_thumbnails_as_a_slow_loop_makes_them(channels: int, height: int, width: int) -> None:
    images = drawn(5, channels, height, width)
    slow = torch.tensor([slow_thumbnail(image) for image in images.numpy()])
    torch.testing.assert_close(image_features(images), slow, atol=1e-3, rtol=1e-5)


def test_vectors_stay_as_they_are() -> None:
    vectors = torch.randn(4, 5, 1, 1, generator=DRAW)
    assert torch.equal(image_features(vectors), vectors.flatten(1))


def test_chunks_change_nothing_and_count_up(monkeypatch: pytest.MonkeyPatch) -> None:
    images, seen = drawn(7), []
    whole = image_features(images)
    monkeypatch.setattr(pictures, "HELD", 3 * 64)
    assert torch.equal(image_features(images, lambda *step: seen.append(step)), whole)
    assert [step[:2] for step in seen] == [(3, 7), (6, 7), (7, 7)]


# --- patches ---


def slow_patches(picture: Tensor, kernels: Tensor) -> Tensor:
    """(3, 32, 32) of 0..1, (K, 3, 6, 6) -> (18 K,): each patch by itself, then the mean of each cell."""
    places = SIDE - PATCH + 1
    responses = torch.zeros(len(kernels), places, places)
    for y, x in itertools.product(range(places), range(places)):
        patch = picture[:, y : y + PATCH, x : x + PATCH]
        patch = (patch - patch.mean()) / (patch.std(correction=0) + LEAST_CONTRAST)
        responses[:, y, x] = (kernels * patch).sum((1, 2, 3))
    found = [
        (sign * responses[k, row : row + 9, column : column + 9] - THRESHOLD).clamp(min=0).mean()
        for sign in (1, -1) for k in range(len(kernels)) for row in (0, 9, 18) for column in (0, 9, 18)
    ]  # fmt: skip
    return torch.stack(found)


def slow_features(rows: Tensor, sample: Tensor, count: int) -> Tensor:
    """Standardize by the sample, project on the axes of its whole decomposition, divide by variance ** (1/4)."""
    mean, deviation = sample.double().mean(0), sample.double().std(0, correction=0).clamp(min=1e-3)
    _, values, axes = torch.linalg.svd((sample.double() - mean) / deviation, full_matrices=False)
    variances = values.square() / len(sample)
    count = min(count, int((variances > 1e-3).sum()))
    found: Tensor = (rows.double() - mean) / deviation @ axes[:count].T / variances[:count] ** 0.25
    return found.float()


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_are_those_of_a_loop_and_a_whole_decomposition(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Axes have no sign, and those of nearly equal variance may be turned: what is between pictures is compared."""
    monkeypatch.setattr(pictures, "FILTERS", 6)
    images = drawn(7, channels, 32, 32)
    kernels = filters(12)[:6]
    rows = torch.stack([slow_patches(image.float().expand(3, -1, -1) / 255, kernels) for image in images])
    expected, found = slow_features(rows, rows, 7), image_features(images)
    assert found.shape == (7, 7) and found.norm() > 10
    torch.testing.assert_close(found @ found.T, expected @ expected.T, atol=2e-3, rtol=2e-3)


def test_the_axes_are_those_of_a_whole_decomposition() -> None:
    sample = torch.randn(300, 140, generator=DRAW) @ torch.diag(torch.linspace(9, 1, 140)).exp().log() + 5
    sample[:, 3] = 2.0  # as in a set where nothing answers a filter
    mean, axes = narrowed_axes(sample)
    expected = slow_features(sample, sample, 128)
    found = (sample - mean) @ axes
    assert found.shape == (300, 128)
    torch.testing.assert_close(found[:, :4].std(0), expected[:, :4].std(0), rtol=1e-3, atol=1e-3)
    alike = F.cosine_similarity(found @ found.T, expected @ expected.T)
    assert float(alike.min()) > 0.99


def test_what_is_not_sampled_is_projected_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample alone decides the axes; no more than a batch is encoded at once; the counts rise to all."""
    images, seen, sizes = drawn(50, 3, 28, 30), [], []
    images[41] = images[7]
    monkeypatch.setattr(pictures, "SAMPLED", 20)

    def watched(count: int) -> object:
        encoder = open_sided_patches(count)

        class Counting:
            def encode(self, batch: Tensor) -> Tensor:
                sizes.append(len(batch))
                return encoder.encode(batch)

        return Counting()

    monkeypatch.setattr("scanmix.blocks.pictures.open_sided_patches", watched)
    whole = of_patches(images)
    assert sizes == [20, 30] and whole.shape == (50, 20)
    rows = open_sided_patches(128).encode(images)
    sampled = torch.randperm(50, generator=torch.Generator().manual_seed(0))[:20]
    expected = slow_features(rows, rows[sampled], 20)
    torch.testing.assert_close(whole @ whole.T, expected @ expected.T, atol=0.2, rtol=1e-3)
    sizes.clear()
    monkeypatch.setattr(pictures, "HELD", 7 * 3 * 28 * 30)
    parts = of_patches(images, lambda *step: seen.append(step[:2]))
    assert sizes == [7, 7, 6, 7, 7, 7, 7, 2] and seen == [(done, 50) for done in (7, 14, 20, 27, 34, 41, 48, 50)]
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)
    near = nearest_neighbors(parts, 1)
    assert (int(near[7]), int(near[41])) == (41, 7), "equal pictures are nearest, in whatever batch each is"


def test_plain_pictures_are_finite_and_alike() -> None:
    images = drawn(30, 1, 24, 24)
    images[[4, 20, 27]] = torch.tensor([0, 130, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    found = evidence_from_examples(examples(images, torch.arange(30) % 2))
    assert found.neighbors is not None and set(found.neighbors[20, :2].tolist()) == {4, 27}
    for plain in (images[[4]].expand(6, -1, -1, -1), images[[4, 20] * 3], images[[4, 20, 3, 5, 6, 7]]):
        assert bool(of_patches(plain).isfinite().all())
        audit = audit_data(examples(plain, torch.arange(6) % 2))
        assert np.isfinite(audit["p_clean"]).all()


def test_brightness_and_contrast_hardly_move_a_picture_and_its_mirror_image_is_another() -> None:
    images = (F.interpolate(drawn(40, 3, 6, 6).float(), size=(32, 32), mode="bilinear") / 4 + 60).to(torch.uint8)
    images[9], images[12] = images[5] * 2 - 60, images[5].flip(2)
    found = image_features(images)
    near = nearest_neighbors(found, 1)
    assert near[5] == 9 and near[9] == 5
    assert float(F.cosine_similarity(found[5], found[12], dim=0)) < 0.6


def textures(count: int) -> tuple[Tensor, Tensor]:
    """Colored pictures of three classes: strokes at random places, of the direction of the class; any color."""
    truth = torch.arange(count) % 3
    strokes = torch.stack([torch.eye(7), torch.eye(7).flip(0), torch.zeros(7, 7)]).unsqueeze(1)
    strokes[2, 0, 3] = 1
    places = (torch.rand(count, 1, 38, 38, generator=DRAW) < 0.04).float()
    drawing = torch.stack([F.conv2d(row, strokes[label : label + 1]) for row, label in zip(places, truth, strict=True)])
    colors = torch.rand(count, 3, 1, 1, generator=DRAW)
    return (40 + 200 * drawing.clamp(max=1) * colors).to(torch.uint8), truth


def test_an_audit_of_textures_finds_what_pixels_do_not_show() -> None:
    """No pixel tells the direction of strokes, as they are anywhere; patches do."""
    images, truth = textures(300)
    wrong = torch.rand(300, generator=DRAW) < 0.2
    labels = torch.where(wrong, (truth + 1) % 3, truth)
    audit = audit_data(examples(images, labels, "abc"))
    looks = set(audit["id"][audit.looks_wrong].tolist())
    known = set(map(str, wrong.nonzero().flatten().tolist()))
    assert len(looks & known) > 0.9 * len(known) and len(looks - known) < 0.1 * len(known)
    assert audit.noise_rate.low < float(wrong.float().mean()) < audit.noise_rate.high
    pure = [(truth[nearest_neighbors(rows, 10)] == truth.unsqueeze(1)).float().mean().item() for rows in (
        of_pixels(images), of_patches(images)
    )]  # fmt: skip
    assert pure[0] < 0.6 and pure[1] > 0.95, pure


def test_a_run_has_neighbors_by_the_same_features_and_says_how_far_it_is() -> None:
    images, truth = textures(30)
    outputs = Outputs(logits=torch.zeros(1, 30, 3), features=torch.randn(30, 4, generator=DRAW))
    seen: dict[str, tuple[int, int]] = {}
    found = collect(
        outputs, examples(images, truth, "abc"), tick=lambda stage, done, total, _: seen.update({stage: (done, total)})
    )
    assert found.image_neighbors is not None
    assert torch.equal(found.image_neighbors, nearest_neighbors(image_features(images), 10))
    stages = ("neighbors", "features of pictures", "neighbors by pictures")
    assert list(seen.items()) == [(stage, (30, 30)) for stage in stages]
