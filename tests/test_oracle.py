"""Taking every trace of the true labels away does not change one bit of what a method learns."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

import scanmix
from scanmix.data.examples import Examples
from scanmix.methods.cross_entropy import CrossEntropy
from scanmix.model import Model
from scanmix.training.loop import train
from tests.tiny import NETWORK, settings, suited


@pytest.fixture(scope="module")
def noisy() -> Examples:
    return scanmix.add_noise(scanmix.load("digits", per_class=6)[0], "symmetric", rate=0.6, seed=0)


def trained(examples: Examples, method: str, cache: Path) -> Model:
    more: dict[str, Any] = (
        {"identity": 0.5} if method == "backward" else {}
    )  # its matrix of one epoch on 60 images is singular
    asked = settings(method, **more)
    examples = suited(method, examples)
    run = train(examples, method=method, cache=cache, network=NETWORK, threads=1, progress=False, **asked)
    return run.model


def same_weights(first: Model, second: Model) -> bool:
    ours, theirs = first.predictor.state_dict(), second.predictor.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("method", scanmix.METHODS)
def test_true_labels_change_nothing(method: str, noisy: Examples, tmp_path: Path) -> None:
    informed = trained(noisy, method, tmp_path / "informed")
    blind = trained(noisy.without_true_labels(), method, tmp_path / "blind")
    assert same_weights(informed, blind)


@pytest.mark.parametrize("method", scanmix.METHODS)
def test_the_weights_do_depend_on_what_a_method_may_see(method: str, noisy: Examples, tmp_path: Path) -> None:
    """Without this the test above could pass on weights that nothing moves."""
    inverted = dataclasses.replace(noisy, images=255 - noisy.images)
    assert not same_weights(trained(noisy, method, tmp_path), trained(inverted, method, tmp_path))


def test_a_method_that_peeked_would_be_caught(noisy: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, truth = CrossEntropy.epoch, noisy.true_labels
    assert truth is not None

    def peeking(self: CrossEntropy, state: Any, data: Any, epoch: int) -> dict[str, float]:
        return honest(self, state, dataclasses.replace(data, labels=truth), epoch)

    fair = trained(noisy.without_true_labels(), "cross_entropy", tmp_path)
    monkeypatch.setattr(CrossEntropy, "epoch", peeking)
    assert not same_weights(fair, trained(noisy, "cross_entropy", tmp_path))
