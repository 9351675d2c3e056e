"""Images on the disk are those in memory: read once, kept, found again, and gone with what they were made of."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import scanmix
from scanmix.config import UserError
from scanmix.data import decoding, store
from scanmix.data.store import OffloadedImages, on_device
from scanmix.files import npy
from scanmix.files.npy import stays_on_disk


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes for training, one image of which is broken, and one for test."""
    draws = np.random.default_rng(0)
    for place in ("train/a/1", "train/a/2", "train/b/3", "train/b/4", "test/a/5", "test/b/6"):
        path = tmp_path / "data" / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)
    (tmp_path / "data/train/b/3.png").write_bytes(b"no picture")
    return tmp_path / "data"


def loaded(folder: Path) -> tuple[scanmix.Examples, scanmix.Examples]:
    with pytest.warns(UserWarning, match="1 of 6 images could not be read"):
        train, test = scanmix.load(folder, size=8)
    assert test is not None
    return train, test


def test_the_same_examples_come_from_the_disk(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory = loaded(folder)
    assert not cache.exists()
    monkeypatch.setenv("SCANMIX_IN_MEMORY", "100")
    first = loaded(folder)
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".npy"]
    monkeypatch.setattr(store, "_write", None)  # the second time nothing is decoded
    for found in (first, loaded(folder)):
        for one, other in zip(found, in_memory, strict=True):
            assert one.fingerprint() == other.fingerprint()
            assert (one.ids, one.skipped) == (other.ids, other.skipped)


def test_the_array_is_a_plain_file_and_is_not_written_to(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANMIX_IN_MEMORY", "0")
    train, test = loaded(folder)
    (path,) = cache.glob("*.npy")
    assert np.array_equal(np.load(path), torch.cat([train.images, test.images]).numpy())
    train.images[:] = 7
    assert np.array_equal(np.load(path)[len(train) :], test.images.numpy()) and not (np.load(path) == 7).all()


def test_a_changed_file_is_decoded_anew(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANMIX_IN_MEMORY", "0")
    before, _ = loaded(folder)
    Image.fromarray(np.zeros((9, 9, 3), dtype=np.uint8)).save(folder / "train/a/1.png")
    os.utime(folder / "train/a/1.png", ns=(1, 1))
    after, _ = loaded(folder)
    assert int(after.images[0].sum()) == 0 and torch.equal(after.images[1:], before.images[1:])
    assert len(list(cache.glob("*.npy"))) == 2


def test_a_decoding_that_stops_leaves_nothing(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANMIX_IN_MEMORY", "0")

    def stop(*_: object) -> np.ndarray:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(decoding, "_decode", stop)
        with pytest.raises(KeyboardInterrupt):
            scanmix.load(folder, size=8)
    assert list(cache.iterdir()) == []
    assert len(loaded(folder)[0]) == 3


def test_a_cache_that_cannot_be_written_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "taken"))
    monkeypatch.setenv("SCANMIX_IN_MEMORY", "0")
    with pytest.raises(UserError, match=r"taken.*cannot be written.* SCANMIX_CACHE"):
        scanmix.load(folder, size=8)


def test_vectors_stay_on_the_disk_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "x.npy", np.arange(12, dtype=np.float32).reshape(4, 3))
    np.save(tmp_path / "y.npy", np.array([0, 1, 0, 1]))
    expected, _ = scanmix.load(tmp_path / "x.npy", labels=tmp_path / "y.npy")
    monkeypatch.setenv("SCANMIX_IN_MEMORY", "1")
    found, _ = scanmix.load(tmp_path / "x.npy", labels=tmp_path / "y.npy")
    assert found.fingerprint() == expected.fingerprint()


def test_what_is_asked_for_is_fetched() -> None:
    images = torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2)
    fetched = OffloadedImages(images, torch.device("cpu"))
    index = torch.tensor([4, 0])
    assert torch.equal(fetched[index], images[index]) and torch.equal(fetched[1:3], images[1:3])
    assert (len(fetched), fetched.shape) == (6, images.shape)
    assert torch.equal(torch.cat(list(fetched.split(4))), images)


def test_too_many_images_are_not_brought_to_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.zeros(6, 1, 2, 2, dtype=torch.uint8)
    assert on_device(images, torch.device("cpu")) is images
    monkeypatch.setenv("SCANMIX_IN_MEMORY", "23")
    assert on_device(images, torch.device("cpu")) is images
    assert isinstance(on_device(images, torch.device("meta")), OffloadedImages)
    monkeypatch.setenv("SCANMIX_IN_MEMORY", "24")
    assert isinstance(on_device(images, torch.device("meta")), torch.Tensor)


def test_the_limit_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not stays_on_disk(npy.IN_MEMORY) and stays_on_disk(npy.IN_MEMORY + 1)
    monkeypatch.setenv("SCANMIX_IN_MEMORY", "8e9")
    assert not stays_on_disk(8_000_000_000)
    monkeypatch.setenv("SCANMIX_IN_MEMORY", "much")
    with pytest.raises(UserError, match="SCANMIX_IN_MEMORY must be a number"):
        stays_on_disk(1)
