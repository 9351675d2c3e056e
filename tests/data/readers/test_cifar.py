from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scanmix.config import UserError
from scanmix.data.readers import load
from scanmix.data.readers.pickles import ALLOWED, PlainArray, read_pickle


def batch(count: int, classes: int, key: str, seed: int) -> dict[Any, Any]:
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, size=(count, 3072), dtype=np.uint8)
    return {b"data": data, key.encode(): rng.integers(classes, size=count).tolist(), b"batch_label": b"a batch"}


def write(path: Path, content: Any, protocol: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=protocol))


def write_cifar10(folder: Path, protocol: int = 2) -> list[dict[Any, Any]]:
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    parts = [batch(4, 10, "labels", seed) for seed in range(6)]
    for name, part in zip(names, parts, strict=True):
        write(folder / name, part, protocol)
    return parts


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("inside", [True, False])
def test_cifar10_from_the_folder_or_its_parent(tmp_path: Path, protocol: int, inside: bool) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    parts = write_cifar10(folder, protocol)
    train, test = load("cifar10", root=folder if inside else tmp_path)
    assert test is not None and (len(train), len(test)) == (20, 4)
    for i in range(20):
        row = parts[i // 4][b"data"][i % 4]
        for plane in range(3):  # planes red, green, blue; each row by row
            assert np.array_equal(train.images[i, plane].numpy().ravel(), row[plane * 1024 : plane * 1024 + 1024])
        assert int(train.labels[i]) == parts[i // 4][b"labels"][i % 4]
    assert np.array_equal(test.images.numpy().reshape(4, -1), parts[5][b"data"])
    assert train.class_names[3] == "cat" and train.ids[7] == "cifar10/train/00007" and train.flip


def test_cifar100_uses_fine_labels_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANMIX_DATA", str(tmp_path))
    for name in ("train", "test"):
        part = {**batch(6, 100, "fine_labels", 1), b"coarse_labels": [0] * 6, b"filenames": [b"a.png"] * 6}
        write(tmp_path / "cifar-100-python" / name, part)
    train, _ = load("cifar100")
    assert train.labels.tolist() == part[b"fine_labels"]
    assert train.num_classes == 100 and train.class_names[0] == "apple"


def test_text_keys_and_array_labels_are_read_too(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    part = batch(4, 10, "labels", 0)
    write(tmp_path / "test_batch", {"data": np.asfortranarray(part[b"data"]), "labels": np.array(part[b"labels"])})
    test = load("cifar10", root=tmp_path)[1]
    assert test is not None and test.labels.tolist() == part[b"labels"]
    assert np.array_equal(test.images.numpy().reshape(4, -1), part[b"data"])


def test_a_python_2_pickle(tmp_path: Path) -> None:
    # As Python 2 and numpy 1 wrote it: byte strings, and numpy.core.multiarray for the array.
    stream = (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02K\x03\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x06\x01\x02\x03\x80\xfe\xfftbU\x06labels](K\x05K\x07eu."
    )
    (tmp_path / "b").write_bytes(stream)
    content = read_pickle(tmp_path / "b", "a batch", "there")
    assert content[b"labels"] == [5, 7]
    assert isinstance(content[b"data"], PlainArray)
    assert content[b"data"].to_numpy().tolist() == [[1, 2, 3], [128, 254, 255]]


class Evil:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_payload_is_refused_before_it_runs(tmp_path: Path, protocol: int) -> None:
    write_cifar10(tmp_path)
    trace = tmp_path / "ran"
    for evil in (
        Evil(os.system, f"touch {trace}"),
        Evil(eval, f"open({str(trace)!r}, 'w')"),
        Evil(getattr, "text", "upper"),
    ):
        write(tmp_path / "data_batch_3", {b"data": evil, b"labels": [1]}, protocol)
        with pytest.raises(UserError, match=r"data_batch_3 is refused: it asks for (posix|nt|builtins|__builtin__)"):
            load("cifar10", root=tmp_path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "name", ["numpy.core.numeric\n_frombuffer", "_codecs\nencode", "numpy\nndarray", "numpy\ndtype"]
)
@pytest.mark.parametrize("state", [b"(dS'x'\nI1\ns", b"(N(dS'x'\nI1\nst", b"(N(dVx\nI1\nst", b"(dV__call__\nI1\ns"])
def test_a_pickle_cannot_change_what_it_calls(name: str, state: bytes, tmp_path: Path) -> None:
    called = ALLOWED[tuple(name.split("\n"))]  # type: ignore[index]
    before = {key: getattr(called, key) for key in dir(called)}
    (tmp_path / "a").write_bytes(f"c{name}\n".encode() + state + b"b.")
    with pytest.raises(UserError, match="truncated or not a batch"):
        read_pickle(tmp_path / "a", "a batch", "there")
    assert dir(called) == list(before) and not hasattr(called, "x")
    assert vars(called) if isinstance(called, type) else not hasattr(called, "__dict__")


def test_codecs_and_object_arrays_are_no_way_in(tmp_path: Path) -> None:
    import codecs

    write(tmp_path / "a", {b"x": Evil(codecs.encode, "abc", "rot13")})
    with pytest.raises(UserError, match="encoding rot13"):
        read_pickle(tmp_path / "a", "a batch", "there")
    write_cifar10(tmp_path)
    for data in (np.array([{}, 1], dtype=object), np.zeros(4, dtype=[("a", "u1")]), np.zeros((2, 5), dtype=np.uint8)):
        write(tmp_path / "test_batch", {b"data": data, b"labels": [1, 1]})
        with pytest.raises(UserError, match="does not hold CIFAR's data"):
            load("cifar10", root=tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "truncated"),
        (b"\x80\x02}", "truncated"),
        (b"garbage", "truncated"),
        (pickle.dumps([1, 2]), "not a CIFAR batch"),
        (pickle.dumps({b"labels": [1]}), "does not hold"),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}), "2 images but 1 labels"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}), r"outside 0\.\.9"),
        (
            pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [2**70]}),
            r"data and labels \(not whole numbers",
        ),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [0.5]}), "not whole numbers"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": np.array([2**64 - 1])}), r"outside 0\.\.9"),
        (pickle.dumps({b"data": [[300] * 3072], b"labels": [1]}), "from 300 to 300 in place of 0 to 255"),
        (pickle.dumps({b"data": np.full((1, 3072), 300), b"labels": [1]}), "from 300 to 300 in place of 0 to 255"),
        (pickle.dumps({b"data": np.full((1, 3072), -1), b"labels": [1]}), "from -1 to -1 in place of 0 to 255"),
        (pickle.dumps({b"data": [[0.5] * 3072], b"labels": [1]}), "not whole numbers"),
        (pickle.dumps({b"data": np.zeros((0, 3072), np.uint8), b"labels": []}), "holds no images"),
        (pickle.dumps({b"data": b"text", b"labels": [1]}), "an array is missing"),
    ],
)
def test_broken_batches(tmp_path: Path, content: bytes, words: str) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "test_batch").write_bytes(content)
    with pytest.raises(UserError, match=words):
        load("cifar10", root=tmp_path)


def test_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCANMIX_DATA", raising=False)
    with pytest.raises(UserError, match="cifar100 needs root="):
        load("cifar100")
