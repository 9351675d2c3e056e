"""Open-set noise: images of other classes under the labels of the data, which are all wrong."""

from pathlib import Path

import pytest
import torch

import scanmix
from scanmix.config import UserError
from scanmix.data.examples import OPEN_SET, Examples
from scanmix.data.noise import save_noise
from scanmix.data.readers import reload
from scanmix.data.readers.open_set import add_open_set
from scanmix.semantic_noise import apply_noise
from tests.layouts import picture


def made(count: int, side: int, channels: int = 3, name: str = "others") -> Examples:
    generator = torch.Generator().manual_seed(count)
    return Examples(
        images=torch.randint(0, 256, (count, channels, side, side), generator=generator, dtype=torch.uint8),
        labels=torch.arange(count) % 2,
        class_names=("a", "b"),
        ids=tuple(f"{name}/{i}" for i in range(count)),
        name=name,
    )


def test_a_share_of_images_is_replaced_and_all_else_stays() -> None:
    own, others = made(50, 8, 1, "own"), made(30, 8, 1)
    mixed = add_open_set(own, others, 0.4, seed=3)
    strange = mixed.open_set
    assert strange is not None and int(strange.sum()) == 20
    assert torch.equal(mixed.labels, own.labels)
    assert torch.equal(mixed.images[~strange], own.images[~strange])
    known = {image.numpy().tobytes() for image in others.images}
    assert len({image.numpy().tobytes() for image in mixed.images[strange]} & known) == 20  # none twice
    assert mixed.noise is not None and mixed.noise.actual_rate == pytest.approx(0.4)
    assert mixed.true_labels is not None and set(mixed.true_labels[strange].tolist()) == {OPEN_SET}
    assert [sum(row) for row in mixed.noise.transition] == pytest.approx([1, 1])


def test_selections_are_nested_and_few_images_are_used_again() -> None:
    own, others = made(40, 8, 1, "own"), made(3, 8, 1)
    little, much = (add_open_set(own, others, rate, seed=1).open_set for rate in (0.2, 0.9))
    assert little is not None and much is not None
    assert int(much.sum()) == 36 and bool(much[little].all())


def test_size_and_channels_follow_the_data() -> None:
    mixed = add_open_set(made(10, 16, 1, "own"), made(10, 24, 3), 0.5)
    assert mixed.images.shape == (10, 1, 16, 16)


def test_label_noise_after_it_counts_both() -> None:
    mixed = add_open_set(made(200, 8, 1, "own"), made(30, 8, 1), 0.4)
    noisy = scanmix.add_noise(mixed, "symmetric-exclusive", rate=0.5, seed=9)
    assert noisy.noise is not None and noisy.noise.actual_rate == pytest.approx(0.4 + 0.6 * 0.5, abs=0.08)


def test_the_command_lines_form_is_loaded_and_saved(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        for number in range(4):
            picture(tmp_path / "animals" / label / f"{number}.png", number, 16)
    train, _ = scanmix.load("digits", per_class=5)
    mixed = apply_noise(train, f"openset:{tmp_path / 'animals'}:0.3", 0)
    assert mixed.source is not None
    again = reload(mixed.source)
    assert torch.equal(again.images, mixed.images) and again.fingerprint() == mixed.fingerprint()
    save_noise(mixed, tmp_path / "noise.json")
    assert '"open_noise": [' in (tmp_path / "noise.json").read_text()


def test_other_kinds_are_refused() -> None:
    vectors = Examples(torch.zeros(4, 3, 1, 1), torch.arange(4) % 2, ("a", "b"), tuple("1234"), name="vectors")
    with pytest.raises(UserError, match="other vectors than"):
        add_open_set(made(4, 8), vectors, 0.5)
    with pytest.raises(UserError, match="between 0 and 1"):
        add_open_set(made(4, 8), made(4, 8), 2.0)
