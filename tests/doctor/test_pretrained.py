"""What features cost, for which pictures they are proposed, and how to get an encoder."""

import dataclasses
import importlib.util
import shlex
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import scanmix
from scanmix.config import install
from scanmix.data.examples import Examples
from scanmix.doctor import pretrained as module
from scanmix.doctor.measure import estimate
from scanmix.doctor.pretrained import as_sample, cost_of, look_natural, propose, ways_to_get_one
from scanmix.features import FrozenEncoder, embed, open_encoder
from scanmix.features.at_hand import SUGGESTED, AtHand
from scanmix.features.embedding import missing
from scanmix.networks.passes import Passes
from scanmix.training import resolve
from tests.encoders import WIDTH, write_encoder

DRAWS = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "cache"))
    write_encoder(Path("tiny.onnx"))


def silent(done: int, total: int, note: str) -> None:
    """Show nothing."""


def photo(side: int = 32) -> np.ndarray:
    """Blurred blobs of color. Shape: -> (3, side, side) uint8."""
    blobs = DRAWS.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.array(Image.fromarray(blobs).resize((side, side), Image.Resampling.BICUBIC)).transpose(2, 0, 1)


def made(pictures: list[np.ndarray] | Tensor) -> Examples:
    images = pictures if isinstance(pictures, Tensor) else torch.from_numpy(np.stack(pictures))
    count = len(images)
    return Examples(images, torch.arange(count) % 2, ("a", "b"), tuple(map(str, range(count))))


def test_photos_are_told_from_what_is_none() -> None:
    photos = [photo() for _ in range(20)]
    assert look_natural(made(photos))
    assert look_natural(made([*photos[:11], *(np.zeros_like(photos[0]) for _ in range(9))])), "most are"
    assert not look_natural(made([*photos[:9], *(np.zeros_like(photos[0]) for _ in range(11))])), "most are not"
    assert not look_natural(made([photo(16) for _ in range(20)])), "tiny"
    assert not look_natural(made([each[:1] for each in photos])), "gray"
    assert not look_natural(made([each[:1].repeat(3, 0) for each in photos])), "gray, stored as color"
    assert not look_natural(made([each // 128 * 255 for each in photos])), "drawings of few tones"
    digits, _ = scanmix.load("digits")
    assert not look_natural(digits)
    assert not look_natural(made(torch.randn(20, 7, 1, 1)))


def test_the_cost_is_what_the_encoder_takes() -> None:
    waiting = 0.02

    def slow(images: Tensor) -> Tensor:
        time.sleep(waiting * len(images))
        return images.float().mean((2, 3))

    examples = made([photo() for _ in range(30)])
    found = cost_of("slow", FrozenEncoder("slow", "function", None, slow), examples, 70, silent)
    assert (found.missing, found.measured, found.rows.shape) == (100, 30, (30, 3, 1, 1))
    assert 100 * waiting < found.seconds < 300 * waiting
    torch.testing.assert_close(found.rows[:, :, 0, 0], examples.images.float().mean((2, 3)), rtol=1e-3, atol=0.1)


def test_a_slow_encoder_is_measured_on_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SECONDS", 0.0)
    monkeypatch.setattr(module, "batch_size", lambda images, encoder: 7)
    encoder = open_encoder("onnx:tiny.onnx")
    assert cost_of("tiny", encoder, made([photo() for _ in range(30)]), 0, silent).measured == 7


def test_what_is_in_the_cache_costs_nothing() -> None:
    encoder = open_encoder("onnx:tiny.onnx")
    examples = made([*(photo() for _ in range(9)), photo()])
    assert missing(examples, encoder) == 10
    assert cost_of("tiny", encoder, examples, 5, silent).missing == 15
    embed(examples, encoder)
    assert missing(examples, encoder) == 0
    found = cost_of("tiny", encoder, examples, 5, silent)
    assert (found.missing, found.seconds) == (0, 0.0)
    other = write_encoder(Path("other.onnx"), seed=1)
    assert missing(examples, open_encoder(f"onnx:{other}")) == 10
    copies = dataclasses.replace(examples, images=examples.images[[0, 1, 2, 0, 1, 2, 0, 1, 2, 0]])
    assert missing(copies, open_encoder(f"onnx:{other}")) == 3


def test_pictures_in_files_are_read_as_the_encoder_wants_them() -> None:
    write_encoder(Path("tiny.onnx"), size=40)
    for name in ("a", "b"):
        Path("photos", name).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(photo(48).transpose(1, 2, 0)).save(f"photos/{name}/{number}.png")
    encoder = open_encoder("onnx:tiny.onnx")
    large, _ = scanmix.load("photos", size=40)
    small, _ = scanmix.load("photos", size=24)
    wanted = torch.from_numpy(embed(large, encoder).astype(np.float32))
    found = cost_of("tiny", encoder, small, 0, silent)
    torch.testing.assert_close(found.rows[:, :, 0, 0], wanted)
    assert found.missing == 12, "whether they are in the cache is not known from smaller pictures"
    assert cost_of("tiny", encoder, large, 0, silent).missing == 0


def test_the_best_encoder_that_opens_is_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    here = [AtHand("timm:broken", "onnx:none.onnx", 1), AtHand("timm:good", "onnx:tiny.onnx", 2)]
    monkeypatch.setattr(module, "at_hand", lambda: here)
    examples = made([photo() for _ in range(20)])
    found = propose(examples, 4, "cpu", silent)
    assert found is not None and found.features is not None
    assert (found.features.model, found.features.missing) == ("timm:good", 24)
    assert found.pretrained
    monkeypatch.setattr(module, "at_hand", lambda: here[:1])
    found = propose(examples, 4, "cpu", silent)
    assert found is not None and found.features is not None and not found.pretrained
    assert (found.features.model, found.features.missing) == ("patches:256", 24), "it needs no weights"
    monkeypatch.setattr(module, "FEW", 19)
    found = propose(examples, 4, "cpu", silent)
    assert found is not None and found.features is None and not found.pretrained
    monkeypatch.setattr(module, "PUBLISHED_FROM", 20)
    assert propose(examples, 4, "cpu", silent) is None
    assert propose(made([each[:1] for each in examples.images.numpy()]), 4, "cpu", silent) is None


def test_how_to_get_an_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["scanmix", "train", "my photos", "--seed", "1"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (_, online), (sentence, offline) = ways_to_get_one(words)
    assert online.startswith(f"{install('timm')} && scanmix train 'my photos' --seed 1 --features timm:")
    assert shlex.split(offline) == [*words, "--features", f"{SUGGESTED}@model.safetensors"]
    assert f"https://huggingface.co/timm/{SUGGESTED.removeprefix('timm:')}" in sentence
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert ways_to_get_one(words)[0][1].startswith("scanmix train")


def test_a_sample_stands_for_all_vectors() -> None:
    examples = made([photo() for _ in range(20)])
    cost = cost_of("tiny", open_encoder("onnx:tiny.onnx"), examples, 0, silent)
    sample = as_sample(examples, cost)
    assert (sample.kind, sample.channels, len(sample)) == ("vector", WIDTH, 20)
    settings = resolve("cross_entropy", "vectors", overrides={"epochs": 2}, kind="vector")
    few, many = (estimate(settings, sample, 0, count) for count in (20, 200_000))
    assert many.seconds[0] > 100 * few.seconds[0] and many.memory > few.memory


def test_passes_at_rest_go_forward_alone() -> None:
    passes = Passes(forward_backward=8.0, forward_only=1.0, weak=3.0)
    assert passes.resting(0.25) == Passes(forward_backward=6.0, forward_only=3.0, weak=3.0)
    assert passes.resting(0.0) == passes and passes.resting(1.0).forward_backward == 0
