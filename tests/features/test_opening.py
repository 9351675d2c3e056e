"""Encoders by name: joined ones, functions, hashes that are asked for, and names that are none."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scanmix.config import UserError, install
from scanmix.features import is_encoder, open_encoder
from tests.encoders import WIDTH, write_encoder

PICTURES = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (4, 3, 16, 16), dtype=np.uint8))


def means(images: Tensor) -> Tensor:
    return images.float().mean((2, 3))


def test_features_of_joined_encoders_have_length_one_each(tmp_path: Path) -> None:
    names = [f"onnx:{write_encoder(tmp_path / f'a+b{seed}.onnx', seed=seed)}" for seed in (0, 1)]
    joined = open_encoder("+".join(names))
    parts = [open_encoder(name).encode(PICTURES).numpy() for name in names]
    found = joined.encode(PICTURES).numpy()
    assert found.shape == (4, 2 * WIDTH) and joined.name == "+".join(names)
    for row in range(4):
        wanted = [part[row] / np.sqrt((part[row] ** 2).sum()) for part in parts]
        np.testing.assert_allclose(found[row], np.concatenate(wanted), rtol=1e-5, atol=1e-6)


def test_the_order_of_joined_encoders_is_part_of_their_hash(tmp_path: Path) -> None:
    one, other = (f"onnx:{write_encoder(tmp_path / f'{seed}.onnx', seed=seed)}" for seed in (0, 1))
    digests = {open_encoder(text).digest for text in (one, other, f"{one}+{other}", f"{other}+{one}")}
    assert len(digests) == 4


def test_another_hash_than_the_one_asked_for_is_refused(tmp_path: Path) -> None:
    path = write_encoder(tmp_path / "a.onnx")
    digest = open_encoder(f"onnx:{path}").digest
    assert digest is not None
    assert open_encoder(f"onnx:{path}", digest=digest).digest == digest
    assert open_encoder(f"onnx:{path}", digest=digest[:8]).digest == digest
    with pytest.raises(UserError, match="hash"):
        open_encoder(f"onnx:{path}", digest=digest[:7])
    write_encoder(path, seed=1)
    with pytest.raises(UserError, match=f"not {digest[:16]} as asked for; bring back the file"):
        open_encoder(f"onnx:{path}", digest=digest)


def test_a_function_sees_the_pictures_as_they_are() -> None:
    encoder = open_encoder(means, digest="1")
    assert (encoder.name, encoder.digest) == ("means", "1")
    assert torch.equal(encoder.encode(PICTURES), PICTURES.float().mean((2, 3)))
    assert open_encoder(encoder) is encoder


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda images: images.float(), r"shape \(4, D\) for 4 pictures, not \(4, 3, 16, 16\)"),
        (lambda images: images.float().mean((1, 2, 3)), r"not \(4,\)"),
        (lambda images: images.float().mean((2, 3))[:2], r"not \(2, 3\)"),
        (lambda images: 1 // 0, r"fails on pictures of shape \(3, 16, 16\): .*division"),
    ],
)
def test_a_function_that_fails_is_named(function: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        open_encoder(function).encode(PICTURES)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("resnet50", "unknown kind of encoder 'resnet50'"),
        ("time:resnet50", "did you mean 'timm'"),
        ("onnx:", "names no encoder; give timm:NAME, onnx:FILE, hf:NAME or patches:COUNT"),
        (7, "7 is no encoder; give timm:NAME"),
    ],
)
def test_what_names_no_encoder_is_refused(source: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        open_encoder(source)


@pytest.mark.parametrize(
    ("text", "package", "extra"),
    [("timm:resnet18", "timm", "timm"), ("hf:some/model", "transformers", "hf"), ("onnx:a", "onnxruntime", "onnx")],
)
def test_a_missing_package_is_named_with_its_extra(
    text: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=re.escape(f"needs {package}: {install(extra)}")):
        open_encoder(text)


def test_encoders_are_told_from_files() -> None:
    assert [is_encoder(text) for text in ("timm:a", "onnx:a.onnx", "hf:a/b", "hf.npy", "timm", "c:x.npy")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip
