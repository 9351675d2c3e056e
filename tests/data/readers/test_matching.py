"""Examples made to fit a model that was trained on others, and loaded again the same way."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scanmix.config import UserError
from scanmix.data.decoding import decode_images
from scanmix.data.examples import OPEN_SET, Examples
from scanmix.data.readers import load, match, reload
from scanmix.data.readers.matching import with_channels


def examples(class_names: tuple[str, ...], size: tuple[int, int] = (8, 8), channels: int = 1) -> Examples:
    count = 2 * len(class_names)
    pixels = torch.arange(count * channels * size[0] * size[1]) % 256
    return Examples(
        images=pixels.reshape(count, channels, *size).to(torch.uint8),
        labels=torch.arange(count) % len(class_names),
        class_names=class_names,
        ids=tuple(str(i) for i in range(count)),
    )


def test_classes_are_matched_by_name() -> None:
    matched = match(examples(("b", "d")), ["a", "b", "c", "d"], (8, 8), 1)
    assert matched.class_names == ("a", "b", "c", "d")
    assert matched.labels.tolist() == [1, 3, 1, 3]


def test_true_labels_are_matched_too() -> None:
    noisy = examples(("b", "d")).with_labels(torch.tensor([1, 1, 0, 0]))
    matched = match(noisy, ["a", "b", "c", "d"], (8, 8), 1)
    assert matched.labels.tolist() == [3, 3, 1, 1]
    assert matched.true_labels is not None and matched.true_labels.tolist() == [1, 3, 1, 3]
    mixed = dataclasses.replace(noisy, true_labels=torch.tensor([0, OPEN_SET, 0, 1]))
    matched = match(mixed, ["a", "b", "c", "d"], (8, 8), 1)
    assert matched.true_labels is not None and matched.true_labels.tolist() == [1, OPEN_SET, 1, 3]


def test_a_class_the_model_does_not_know_is_refused() -> None:
    with pytest.raises(UserError, match=r"has the class 'd'; the model knows a, b"):
        match(examples(("b", "d")), ["a", "b"], (8, 8), 1)


def test_size_is_changed_only_to_squares() -> None:
    assert match(examples(("a", "b")), ["a", "b"], (12, 12), 1).size == (12, 12)
    assert match(examples(("a", "b"), (8, 10)), ["a", "b"], (8, 10), 1).size == (8, 10)
    with pytest.raises(UserError, match=r"8x10 pixels.*only squares"):
        match(examples(("a", "b")), ["a", "b"], (8, 10), 1)


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 1), ("L", 3)])
def test_channels_are_changed_as_pillow_does(mode: str, channels: int) -> None:
    shape = (5, 7, 3) if mode == "RGB" else (5, 7)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    wanted = np.asarray(Image.fromarray(pixels).convert("L" if channels == 1 else "RGB")).astype(int)
    images = torch.from_numpy(pixels.reshape(5, 7, -1)).permute(2, 0, 1)[None]
    found = with_channels(images, channels)[0].permute(1, 2, 0).numpy().astype(int)
    assert found.shape[2] == channels
    assert np.abs(found.squeeze() - wanted).max() <= 1  # Pillow counts in whole numbers


def test_matched_examples_can_be_loaded_again(tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (20, 24), (200, 30, 90)).save(tmp_path / name / "one.png")
    loaded, _ = load(tmp_path, size=16)
    matched = match(loaded, ["w", "x", "y"], (16, 16), 1)
    assert matched.source is not None
    again = reload(matched.source)
    assert again.fingerprint() == matched.fingerprint()
    assert again.class_names == ("w", "x", "y")


def test_decoding_says_why_a_file_cannot_be_read(tmp_path: Path) -> None:
    Image.new("L", (20, 24), 77).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    bad, good, gone = decode_images([tmp_path / name for name in ("bad.png", "good.png", "gone.png")], 8, 3)
    assert isinstance(good, np.ndarray) and good.shape == (3, 8, 8) and (good == 77).all()
    assert (bad, gone) == ("not an image", "no such file")
