from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import struct
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from scanmix.config import UserError
from scanmix.data.examples import Examples
from scanmix.data.readers import KNOWN, fashion_mnist, load, reload
from scanmix.data.sources import is_known, name_of


def pair(source: str, **asked: object) -> tuple[Examples, Examples]:
    train, test = load(source, **asked)  # type: ignore[arg-type]
    assert test is not None
    return train, test


def test_digits_are_sklearns_split_in_even_shares() -> None:
    train, test = pair("digits")
    assert (len(train), len(test)) == (1437, 360)
    assert train.images.shape[1:] == (1, 8, 8) and train.images.dtype == torch.uint8
    assert not train.flip and train.name == "digits"
    assert set(train.ids).isdisjoint(test.ids) and len({*train.ids, *test.ids}) == 1797
    everything = load_digits()
    for part in (train, test):
        for i in (0, 100, len(part) - 1):
            place = int(part.ids[i].removeprefix("digits/"))
            assert int(part.labels[i]) == everything.target[place]
            wanted = everything.images[place] * 255 / 16
            assert np.abs(part.images[i, 0].numpy() - wanted).max() <= 0.5
    whole = np.bincount(everything.target)
    assert (test.labels.bincount() - torch.from_numpy(whole) / 5).abs().max() < 1.01


def test_digits_never_change() -> None:
    train, test = pair("digits")
    # A changed split would silently change every number measured on it.
    assert train.fingerprint()[:16] == "440efbe9258fc766"
    assert test.fingerprint()[:16] == "cd5fede5a2ebc488"


def test_load_arguments_and_source() -> None:
    train, test = pair("digits", per_class=12, limit_test=50, size=16, seed=3, flip=True)
    assert train.labels.bincount().tolist() == [12] * 10
    assert (len(test), train.size, test.size) == (50, (16, 16), (16, 16))
    assert train.flip and test.flip
    full, full_test = pair("digits")
    assert train.ids == full.per_class(12, 3).ids
    assert test.ids == full_test.ids[:50]
    for part, split in ((train, "train"), (test, "test")):
        assert part.source is not None and part.source["split"] == split
        again = reload(json.loads(json.dumps(part.source)))
        assert again.fingerprint() == part.fingerprint() and again.ids == part.ids and again.flip
        assert again.source == part.source
    assert full.source == {"load": {"source": "digits"}, "split": "train"}


@pytest.mark.parametrize(
    ("source", "asked", "words"),
    [
        ("fashon-mnist", {}, "Did you mean 'fashion-mnist'"),
        ("CIFAR_10", {}, "Did you mean 'cifar10'"),
        ("/nowhere/at/all", {}, "no folder, table or known data set '/nowhere/at/all'"),
        ("digits", {"size": 4}, "at least 8"),
        ("digits", {"limit_test": 0}, "at least 1"),
        ("digits", {"per_class": 1000}, "per_class=1000"),
        ("cifar10", {"root": "/nowhere"}, "/nowhere lacks cifar-10-batches-py"),
    ],
)
def test_load_refuses_in_one_sentence(source: str, asked: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        load(source, **asked)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_reload_refuses_what_load_did_not_write() -> None:
    with pytest.raises(UserError, match="did not come from"):
        reload({})
    source = {"load": {"source": "digits"}, "split": "train", "steps": [{"blur": 3}]}
    with pytest.raises(UserError, match="unknown step"):
        reload(source)
    with pytest.raises(UserError, match="'extra'"):
        reload({"load": {"source": "digits"}, "split": "extra"})


def idx(array: np.ndarray) -> bytes:
    return struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_fashion(folder: Path, packed: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(30, 28, 28), dtype=np.uint8)
    labels = np.arange(30, dtype=np.uint8) % 10
    folder.mkdir(parents=True)
    for prefix, count in (("train", 30), ("t10k", 10)):
        for name, array in (("images-idx3-ubyte", images[:count]), ("labels-idx1-ubyte", labels[:count])):
            content = idx(array)
            path = folder / f"{prefix}-{name}{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
    return images, labels


@pytest.mark.parametrize("packed", [True, False])
def test_fashion_mnist_packed_and_raw(tmp_path: Path, packed: bool) -> None:
    images, labels = write_fashion(tmp_path / "fm", packed)
    train, test = pair("fashion-mnist", root=tmp_path / "fm")
    assert np.array_equal(train.images[:, 0].numpy(), images)
    assert train.labels.tolist() == labels.tolist()
    assert (len(test), test.ids[3], train.flip) == (10, "fashion-mnist/test/00003", True)
    assert train.class_names[9] == "Ankle boot"
    assert train.source is not None
    assert reload(train.source).fingerprint() == train.fingerprint()


def test_fashion_mnist_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANMIX_DATA", str(tmp_path))
    write_fashion(tmp_path / "fashion-mnist", packed=True)
    assert len(pair("fashion-mnist")[0]) == 30


def test_fashion_mnist_missing_names_all_three_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCANMIX_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "none")
    with pytest.raises(UserError, match=r"root=.*dataset-fashion-mnist.*download=True"):
        load("fashion-mnist")


def test_fashion_mnist_broken_files(tmp_path: Path) -> None:
    write_fashion(tmp_path / "fm", packed=True)
    target = tmp_path / "fm" / "train-images-idx3-ubyte.gz"
    good = target.read_bytes()
    for bad in (good[: len(good) // 2], b"no gzip", gzip.compress(gzip.decompress(good)[:-5]), gzip.compress(b"ab")):
        target.write_bytes(bad)
        with pytest.raises(UserError, match="truncated or no IDX file"):
            load("fashion-mnist", root=tmp_path / "fm")
    target.write_bytes(gzip.compress(idx(np.zeros((5, 28, 28), dtype=np.uint8))))
    with pytest.raises(UserError, match="do not fit together"):
        load("fashion-mnist", root=tmp_path / "fm")


def test_fashion_mnist_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fashion(tmp_path / "origin", packed=True)

    def answer(address: str, timeout: float) -> io.BytesIO:
        return io.BytesIO((tmp_path / "origin" / address.rpartition("/")[2]).read_bytes())

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    # The right sums belong to the real files: these are refused, and nothing is left behind.
    with pytest.raises(UserError, match="wrong SHA-256"):
        load("fashion-mnist", root=tmp_path / "new", download=True)
    assert not list((tmp_path).glob("new/*"))
    sums = {
        name: hashlib.sha256(gzip.decompress((tmp_path / "origin" / f"{name}.gz").read_bytes())).hexdigest()
        for name in fashion_mnist.CONTENT_SHA256
    }
    monkeypatch.setattr(fashion_mnist, "CONTENT_SHA256", sums)
    assert len(pair("fashion-mnist", root=tmp_path / "new", download=True)[0]) == 30
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(f"{name}.gz" for name in sums)


def test_fashion_mnist_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: str, timeout: float) -> io.BytesIO:
        raise OSError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(UserError, match=r"could not be downloaded \(no network\).*by hand"):
        load("fashion-mnist", root=tmp_path / "new", download=True)


@pytest.mark.skipif(not fashion_mnist.DEBIAN_FOLDER.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist_of_debian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCANMIX_DATA", raising=False)
    train, test = pair("fashion-mnist", root=fashion_mnist.DEBIAN_FOLDER, per_class=500, limit_test=2000)
    assert (tuple(train.images.shape), tuple(test.images.shape)) == ((5000, 1, 28, 28), (2000, 1, 28, 28))
    assert train.labels.bincount().tolist() == [500] * 10
    assert test.labels[:5].tolist() == [9, 2, 1, 1, 6]


def test_the_page_of_data_sets_has_every_one() -> None:
    text = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    assert {name_of(word) for word in re.findall(r"`([^`\s]+)`", text) if is_known(word)} == set(KNOWN)


def test_a_size_beyond_all_memory_is_refused() -> None:
    with pytest.raises(UserError, match=r"1437 images of 16000x16000 pixels take 368 GB; choose a smaller size"):
        load("digits", size=16_000)
    with pytest.raises(UserError, match="size must be at most 16,384 pixels"):
        load("digits", size=10**7)
