"""Instance-dependent noise against a loop over images, and what must hold of its rates."""

import numpy as np
import pytest
import torch

import scanmix
from scanmix.config import UserError
from scanmix.data.noise.instance import SPREAD, cut_normal, instance_dependent
from scanmix.data.readers import reload


def made(count: int = 400, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 4, 4), generator=generator, dtype=torch.uint8)
    return images, torch.randint(0, classes, (count,), generator=generator)


def test_it_is_the_slow_one() -> None:
    images, labels = made(60, 3)
    found = instance_dependent(images, labels, 0.4, 3, 7).tolist()
    pixels = images.double().flatten(1).numpy()
    seen = (pixels - pixels.mean()) / pixels.std() / 4
    flips = cut_normal(0.4, 60, np.random.default_rng([7, 0]))
    chance = np.random.default_rng([7, 1]).random(60)
    for i, label in enumerate(labels.tolist()):
        toward = np.random.default_rng([7, 2, label]).standard_normal((16, 3))
        scores = np.exp(seen[i] @ toward)
        shares = [0.0 if c == label else scores[c] / (scores.sum() - scores[label]) * flips[i] for c in range(3)]
        shares[label] = 1 - flips[i]
        assert sum(shares) == pytest.approx(1)
        below, slow = 0.0, -1
        while below <= chance[i] and slow < 2:
            slow += 1
            below += shares[slow]
        assert found[i] == slow


@pytest.mark.parametrize("rate", [0.2, 0.4])
def test_about_the_asked_share_is_wrong(rate: float) -> None:
    images, labels = made(4000)
    noisy = instance_dependent(images, labels, rate, 4, 0)
    assert float((noisy != labels).double().mean()) == pytest.approx(rate, abs=0.03)
    assert torch.equal(noisy, instance_dependent(images, labels, rate, 4, 0))
    assert not torch.equal(noisy, instance_dependent(images, labels, rate, 4, 1))


def test_alike_images_of_a_class_fall_on_alike_classes() -> None:
    """Noise that does not look at images would spread every image's labels alike."""
    images, labels = made(2, 5)
    many, own = images[:1].expand(3000, -1, -1, -1).clone(), labels[:1].expand(3000).clone()
    background = made(3000, 5)[0]
    noisy = instance_dependent(torch.cat([many, background]), torch.cat([own, own]), 0.5, 5, 0)
    shares = [part.bincount(minlength=5).double() / 3000 for part in noisy.split(3000)]
    assert float((shares[0] - shares[1]).abs().max()) > 0.03


def test_rates_are_normal_and_cut() -> None:
    drawn = cut_normal(0.5, 20_000, np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(0.5, abs=0.005) and drawn.std() == pytest.approx(SPREAD, abs=0.005)
    edge = cut_normal(0.02, 5000, np.random.default_rng(0))
    assert 0 <= edge.min() and edge.max() <= 1


def test_it_is_added_reported_and_loaded_again() -> None:
    train, _ = scanmix.load("digits")
    noisy = scanmix.add_noise(train, "instance", rate=0.3, seed=2)
    assert noisy.noise is not None and noisy.noise.kind == "instance"
    assert noisy.noise.actual_rate == pytest.approx(0.3, abs=0.05)
    assert noisy.source is not None and torch.equal(reload(noisy.source).labels, noisy.labels)


def test_what_cannot_be_is_refused() -> None:
    images, labels = made(4)
    with pytest.raises(UserError, match="between 0 and 1"):
        instance_dependent(images, labels, 1.5, 4, 0)
    with pytest.raises(UserError, match="at least two classes"):
        instance_dependent(images, labels * 0, 0.5, 1, 0)
