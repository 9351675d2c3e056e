"""Features that are computed once, kept, resumed and checked."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import scanmix
from scanmix.config import UserError
from scanmix.data.examples import Examples
from scanmix.features import AnyEncoder, embed, embedding, open_encoder
from scanmix.features.feature_file import find_distinct
from scanmix.files import locked
from tests.encoders import slow_features, write_encoder

ROOT = Path(__file__).parents[2]


def pictures(count: int = 40, copies: tuple[int, ...] = (), size: int = 16, seed: int = 0) -> Examples:
    """Random pictures, of which those numbered `copies` are the first one again."""
    images = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 3, size, size), dtype=np.uint8))
    images[list(copies)] = images[:1].clone()
    return Examples(images, torch.arange(count) % 2, ("a", "b"), tuple(map(str, range(count))))


def counting(
    seen: list[Tensor], digest: str | None = "1", stop: int = -1, error: type[BaseException] = OSError
) -> AnyEncoder:
    """An encoder of channel means that notes what it sees, and raises an error at one of its calls."""

    def means(images: Tensor) -> Tensor:
        if len(seen) == stop:
            raise error("stopped")
        seen.append(images)
        return images.float().mean((2, 3)) / 255

    return open_encoder(means, digest=digest)


def wanted(examples: Examples) -> np.ndarray:
    found: np.ndarray = examples.images.numpy().astype(float).mean((2, 3)) / 255
    return found


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "MOST_IN_BATCH", 8)


def test_features_are_half_precision_rows_of_a_file(tmp_path: Path) -> None:
    examples = pictures()
    found = embed(examples, open_encoder(f"onnx:{write_encoder(tmp_path / 'a.onnx')}"), tmp_path)
    assert isinstance(found, np.memmap) and found.dtype == np.float16 and found.shape == (40, 6)
    assert found.filename is not None and Path(found.filename).parent == tmp_path / "features"
    np.testing.assert_allclose(found.astype(float), slow_features(examples.images.numpy()), rtol=2e-3, atol=1e-3)
    assert np.array_equal(np.load(found.filename), found)


def test_what_was_computed_is_found_again(tmp_path: Path) -> None:
    first, second = list[Tensor](), list[Tensor]()
    one = embed(pictures(), counting(first), tmp_path)
    other = embed(pictures(), counting(second), tmp_path)
    assert np.array_equal(one, other) and len(first) == 5 and not second
    assert sorted(path.suffix for path in (tmp_path / "features").iterdir()) == [".json", ".npy"]


def test_copies_are_computed_once_and_each_has_its_row(tmp_path: Path) -> None:
    seen: list[Tensor] = []
    examples = pictures(30, copies=(3, 4, 11, 29))
    found = embed(examples, counting(seen), tmp_path)
    assert sum(map(len, seen)) == 26
    np.testing.assert_allclose(found.astype(float), wanted(examples), atol=1e-3)


def test_copies_are_numbered_by_the_first_of_them() -> None:
    images = pictures(6, copies=(2, 5)).images
    images[4] = images[1]
    from scanmix.data.duplicates import row_digests

    found = find_distinct(row_digests(images))
    assert found.first.tolist() == [0, 1, 3]
    assert [found.copies(i, i + 1).tolist() for i in range(3)] == [[0, 2, 5], [1, 4], [3]]
    assert found.repeated(1, np.array([[7], [8]])).tolist() == [[7], [7], [8]]


def key_of(examples: Examples, encoder: AnyEncoder, cache: Path) -> str:
    return Path(str(getattr(embed(examples, encoder, cache), "filename", ""))).stem


def test_the_key_is_of_pictures_weights_and_preparation_alone(tmp_path: Path) -> None:
    path, examples = write_encoder(tmp_path / "a.onnx"), pictures()
    first = key_of(examples, open_encoder(f"onnx:{path}"), tmp_path)
    moved = Path(shutil.copy(path, tmp_path / "b.onnx"))
    assert key_of(examples, open_encoder(f"onnx:{moved}"), tmp_path) == first
    renamed = dataclasses.replace(examples, labels=1 - examples.labels, name="other")
    assert key_of(renamed, open_encoder(f"onnx:{path}"), tmp_path) == first
    others = {
        key_of(pictures(seed=1), open_encoder(f"onnx:{path}"), tmp_path),
        key_of(examples, open_encoder(f"onnx:{path}:crop=0.5"), tmp_path),
        key_of(examples, open_encoder(f"onnx:{path}:output=maps"), tmp_path),
        key_of(examples, open_encoder(f"onnx:{path}+onnx:{path}"), tmp_path),
        key_of(examples.select(list(range(39, -1, -1))), open_encoder(f"onnx:{path}"), tmp_path),
    }
    write_encoder(path, seed=1)
    others.add(key_of(examples, open_encoder(f"onnx:{path}"), tmp_path))
    assert len(others) == 6 and first not in others


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_computation_that_fails_goes_on_where_it_was(tmp_path: Path, error: type[BaseException]) -> None:
    before, after = list[Tensor](), list[Tensor]()
    examples = pictures(copies=(39,))
    stopped = pytest.raises(
        BaseException, match="24 of 39 pictures are kept" if error is KeyboardInterrupt else "stopped"
    )
    with stopped:
        embed(examples, counting(before, stop=3, error=error), tmp_path)
    told: list[tuple[str, int, int]] = []
    found = embed(
        examples, counting(after), tmp_path, lambda stage, done, total, note: told.append((stage, done, total))
    )
    assert [len(batch) for batch in (*before, *after)] == [8, 8, 8, 8, 7]
    assert next(each for each in told if each[0] == "computing features") == ("computing features", 24, 39)
    assert told[-1] == ("computing features", 39, 39)
    np.testing.assert_allclose(found.astype(float), wanted(examples), atol=1e-3)


KILLED = """
import os, signal, sys
from pathlib import Path
from scanmix.features import embed, embedding, open_encoder
from tests.features.test_embedding import pictures

embedding.MOST_IN_BATCH, embedding.MOST_LOST = 8, 0.0
calls = []
def means(images):
    calls.append(0)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return images.float().mean((2, 3)) / 255
embed(pictures(), open_encoder(means, digest="1"), Path(sys.argv[1]))
"""


def test_a_killed_process_loses_no_finished_batch(tmp_path: Path) -> None:
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], env={**os.environ, "PYTHONPATH": path}, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    seen: list[Tensor] = []
    found = embed(pictures(), counting(seen), tmp_path)
    assert [len(batch) for batch in seen] == [8, 8]
    np.testing.assert_allclose(found.astype(float), wanted(pictures()), atol=1e-3)
    assert sorted(path.suffix for path in (tmp_path / "features").iterdir()) == [".json", ".npy"]


def flip_byte(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("damage", "computed", "sentence"),
    [
        (lambda rows, about: flip_byte(rows, -3), 8, "is damaged; the features from picture 32 on"),
        (lambda rows, about: flip_byte(rows, 128 + 6 * 9), 32, "is damaged; the features from picture 8 on"),
        (lambda rows, about: flip_byte(rows, 1), 40, "computed again"),
        (lambda rows, about: cut(rows), 40, "computed again"),
        (lambda rows, about: rows.unlink(), 40, "no such file"),
        (lambda rows, about: flip_byte(about, 12), 40, "computed again"),
        (lambda rows, about: about.write_text("{}"), 40, "computed again"),
        (lambda rows, about: np.save(rows, np.zeros((40, 3), np.float32)), 40, "it holds float32"),
    ],
)
def test_damage_is_found_and_computed_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path, Path], object],
    computed: int,
    sentence: str,
) -> None:
    monkeypatch.setattr(embedding, "MOST_LOST", 0.0)
    whole = np.array(embed(pictures(), counting([]), tmp_path))
    (rows,) = (tmp_path / "features").glob("*.npy")
    damage(rows, rows.with_suffix(".json"))
    seen: list[Tensor] = []
    with pytest.warns(UserWarning, match=sentence):
        found = embed(pictures(), counting(seen), tmp_path)
    assert np.array_equal(found, whole) and sum(map(len, seen)) == computed
    again: list[Tensor] = []
    assert np.array_equal(embed(pictures(), counting(again), tmp_path), whole) and not again


def test_pictures_on_the_disk_are_read_in_batches(tmp_path: Path) -> None:
    examples = pictures()
    np.save(tmp_path / "pixels.npy", examples.images.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "pixels.npy", mmap_mode="c"))
    seen: list[Tensor] = []
    found = embed(dataclasses.replace(examples, images=mapped), counting(seen), tmp_path)
    assert max(map(len, seen)) == 8
    np.testing.assert_allclose(found.astype(float), wanted(examples), atol=1e-3)


def test_a_function_without_a_digest_is_asked_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    for _ in range(2):
        found = embed(pictures(copies=(5,)), counting(seen, digest=None), tmp_path)
        assert not isinstance(found, np.memmap) and found.dtype == np.float16
        np.testing.assert_allclose(found.astype(float), wanted(pictures(copies=(5,))), atol=1e-3)
    assert sum(map(len, seen)) == 2 * 39 and not (tmp_path / "features").exists()
    monkeypatch.setenv("SCANMIX_IN_MEMORY", "100")
    with pytest.raises(UserError, match="too much for memory; open the function with a digest"):
        embed(pictures(), counting(seen, digest=None), tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 7e4])
def test_numbers_that_half_precision_cannot_hold_are_refused(tmp_path: Path, value: float) -> None:
    def broken(images: Tensor) -> Tensor:
        found = images.float().mean((2, 3))
        return torch.where(images[:, :1, 0, 0] == pictures().images[20, 0, 0, 0], torch.tensor(value), found)

    with pytest.raises(UserError, match=r"broken returned .* among numbers \d+ to \d+$"):
        embed(pictures(), open_encoder(broken, digest="1"), tmp_path)


def test_vectors_and_nothing_are_refused(tmp_path: Path) -> None:
    vectors = Examples(torch.zeros(4, 3, 1, 1), torch.arange(4) % 2, ("a", "b"), tuple("abcd"), name="points")
    with pytest.raises(UserError, match="'points' holds vectors; an encoder turns pictures"):
        embed(vectors, counting([]), tmp_path)
    with pytest.raises(UserError, match="has no pictures"):
        embed(pictures(0), counting([]), tmp_path)


def test_two_processes_do_not_compute_the_same(tmp_path: Path) -> None:
    key = key_of(pictures(), counting([]), tmp_path)
    with (
        locked(tmp_path / "features", "computing", name=f"{key}.lock"),
        pytest.raises(UserError, match="is computing already: process"),
    ):
        embed(pictures(), counting([]), tmp_path)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "features").write_text("a file where a folder should be")
    with pytest.raises(UserError, match=r"cannot be written.*SCANMIX_CACHE may name another folder"):
        embed(pictures(), counting([]), tmp_path)


@pytest.mark.parametrize(("size", "most"), [(8, 512), (64, 49), (224, 4), (4000, 1)])
def test_a_batch_has_no_more_pixels_than_memory_is_meant_for(
    size: int, most: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(embedding, "MOST_IN_BATCH", 512)
    seen: list[Tensor] = []
    embed(pictures(min(600, most + 3), size=size), counting(seen), tmp_path)
    assert max(map(len, seen)) == most


def test_digits_are_told_apart_by_their_features(tmp_path: Path) -> None:
    digits, _ = scanmix.load("digits", per_class=20)
    encoder = open_encoder(f"onnx:{write_encoder(tmp_path / 'a.onnx', size=32)}")
    found = torch.from_numpy(embed(digits, encoder, tmp_path).astype(np.float32))
    nearest = torch.cdist(found, found).fill_diagonal_(float("inf")).argmin(1)
    assert float((digits.labels[nearest] == digits.labels).double().mean()) > 0.2  # one in ten by chance
