"""Python entry points with arguments of any kind: a result, or one sentence; never an error from deep inside."""

import random
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
import torch

import scanmix
from scanmix import ScanMixClassifier
from scanmix.audit.arrays import evidence_from_arrays
from scanmix.config import UserError
from scanmix.data.corrections import apply_corrections
from scanmix.data.examples import Examples
from scanmix.integrations.conversions import from_dataset
from tests.fuzz.kinds import build

QUICK, LONG = 12, 150
"""Calls of each function."""
TINY = {"method": "cross_entropy", "epochs": 1, "network": {"widths": [4], "blocks": [1]}, "progress": False}


class Strange:
    """Of no type that anything here knows."""

    def __repr__(self) -> str:
        return "<strange>"


def values(top: Path) -> list[Any]:
    """What is given where something else was expected."""
    examples = scanmix.load("digits", per_class=2)[0]
    return [
        None, True, 0, -1, 7, 2**70, 0.5, float("nan"), float("inf"), "", "x", "digits", "symmetric", "\x1b[31m", b"x",
        [], [1], ["a"], {}, {"a": 1}, (), (1, 2), set(), Strange(), Strange, len, object(), top, top / "missing",
        top / "noise.json", str(top / "run"), np.zeros(0), np.zeros(3), np.zeros((3, 3)), np.array(["a", "b"]),
        np.array([None, 1], dtype=object), np.full((4, 5, 5), np.nan), np.zeros((4, 8, 8), np.uint8), np.float64(3),
        np.int64(2), torch.zeros(3), torch.zeros(2, 1, 8, 8, dtype=torch.uint8), examples, (examples, None), 1 + 2j,
        range(3), "cpu", "auto", "cuda:7", ["tensorboard"], 10**6,
        "x" * 5000, "a\0b", "digits/any/scanmix",
    ]  # fmt: skip


def calls(top: Path) -> Mapping[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Functions and good arguments."""
    train_set, test_set = scanmix.load("digits", per_class=4, limit_test=20)
    noisy = scanmix.add_noise(train_set, "symmetric", rate=0.5, seed=0)
    images, labels = train_set.images[:, 0].numpy(), train_set.labels.numpy()
    probs = np.full((40, 10), 0.1)

    def fit(X: Any, y: Any, **more: Any) -> Any:
        return ScanMixClassifier(**{"method": "cross_entropy", "settings": {"epochs": 1}, **more}).fit(X, y)

    fitted = fit(images, labels)
    pairs = [(image, int(label)) for image, label in zip(images, labels, strict=True)]
    return {
        "load": (scanmix.load, {
            "source": "digits", "size": 8, "per_class": 2, "seed": 0, "limit_test": 5, "flip": None,
        }),
        "add_noise": (scanmix.add_noise, {"examples": train_set, "kind": "symmetric", "rate": 0.3, "seed": 0}),
        "train": (scanmix.train, {
            "examples": noisy, "test": test_set, "seed": 0, "out": None, "recipe": None, "device": "cpu", "threads": 1,
            "cache": top / "cache", "loggers": (), "precision": "32-true", "batch_norm": "split", **TINY,
        }),
        "resume": (scanmix.resume, {"folder": top / "run", "cache": None, "loggers": ()}),
        "open_run": (scanmix.open_run, {"folder": top / "run"}),
        "predict": (lambda images: scanmix.open_run(top / "run").predict_proba(images), {"images": train_set.images}),
        "corrections": (apply_corrections, {"examples": train_set, "path": top / "run" / "corrected.csv"}),
        "arrays": (evidence_from_arrays, {
            "labels": labels, "probs": probs, "features": images.reshape(40, -1), "class_names": list("abcdefghij"),
            "ids": [str(i) for i in range(40)],
        }),
        "audit_data": (scanmix.audit_data, {"examples": train_set, "features": images.reshape(40, -1)}),
        "from_dataset": (from_dataset, {"dataset": pairs, "class_names": list("abcdefghij"), "name": "mine"}),
        "select": (train_set.select, {"index": [0, 1]}),
        "fit": (fit, {"X": images, "y": labels, "method": "cross_entropy", "settings": {"epochs": 1}}),
        "estimator predicts": (fitted.predict, {"X": images}),
    }  # fmt: skip


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run in it."""
    found = tmp_path_factory.mktemp("python")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCANMIX_CACHE", str(found / "cache"))
        build(found)
    return found


def call(name: str, count: int, top: Path) -> None:
    odd, (function, good) = values(top), calls(top)[name]
    allowed: tuple[type[BaseException], ...] = (UserError,)
    if "fit" in name or "estimator" in name:  # scikit-learn's own conventions
        allowed = (UserError, ValueError, TypeError)
    if name == "select":  # as its docstring says
        allowed = (UserError, IndexError, TypeError, ValueError)
    for number in range(count):
        draw = random.Random(zlib.crc32(f"{name} {number}".encode()))
        wrong = {key: draw.choice(odd) for key in draw.sample(list(good), draw.choice([1, 1, 2][: len(good)]))}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                function(**{**good, **wrong})
            except pydantic.ValidationError as error:
                raise AssertionError(f"{name} {wrong!r:.200}: {error}") from error
            except allowed as error:
                assert str(error).strip(), (name, wrong)
            except Exception as error:
                raise AssertionError(f"{name} {wrong!r:.200}: {type(error).__name__}: {error}") from error


NAMES = (
    "load", "add_noise", "train", "resume", "open_run", "predict", "corrections", "arrays", "audit_data",
    "from_dataset", "select", "fit", "estimator predicts",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_odd_arguments_are_one_sentence(name: str, top: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    call(name, QUICK, top)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_many_odd_arguments_are_one_sentence_each(
    name: str, top: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    call(name, LONG, top)


def test_good_arguments_are_good(top: Path) -> None:
    for name, (function, good) in calls(top).items():
        assert function(**good) is not None, name
    assert isinstance(scanmix.load("digits", per_class=2)[0], Examples)
    assert set(NAMES) == set(calls(top))
