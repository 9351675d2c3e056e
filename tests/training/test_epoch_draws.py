"""Runs whose epochs see a draw of the data: they train, are measured on what they saw, and go on with the same bits."""

from pathlib import Path
from typing import Any

import pytest
import torch

import scanmix
from scanmix.config import UserError
from scanmix.data.examples import Examples
from scanmix.training import Run, resolve
from scanmix.training.loop import resume
from tests.tiny import NETWORK, settings

MORE: dict[str, dict[str, Any]] = {
    "cross_entropy": {},
    "mixup": {},
    "dividemix": {"loss_memory": 1},
    "scan_dividemix": {"dividemix": {"loss_memory": 1}},
    "scanmix": {"loss_memory": 1, "neighbor_refresh": 1},
}
"""Methods that take a draw: what is kept of each example, for one epoch alone."""


@pytest.fixture
def examples() -> Examples:
    train_set, _ = scanmix.load("digits", per_class=8)
    return scanmix.add_noise(train_set, "symmetric", rate=0.4, seed=0)


def trained(examples: Examples, method: str, folder: Path, out: str, **more: Any) -> Run:
    (folder / "bare.toml").touch()
    return scanmix.train(
        examples, method=method, out=folder / out, cache=folder / "cache", network=NETWORK, threads=1,
        recipe=str(folder / "bare.toml"), progress=False, draw={"per_epoch": 50},
        **settings(method, epochs=4, **MORE[method]) | more,
    )  # fmt: skip


@pytest.mark.parametrize("method", MORE)
def test_every_method_takes_a_draw(method: str, examples: Examples, tmp_path: Path) -> None:
    run = trained(examples, method, tmp_path, "run")
    assert run.settings.draw.per_epoch == 50
    assert len(run.audit()["id"]) == 80
    if "dividemix" in method or method == "scanmix":
        assert 0 < run.metrics[-1]["clean_size"] <= 50
        assert 0 <= run.metrics[-1]["clean_purity"] <= 1


def test_a_run_that_was_stopped_draws_the_same(
    examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(examples, "scanmix", tmp_path, "whole")
    real = scanmix.METHODS["scanmix"].epoch

    def stopped(self: Any, state: Any, data: Any, epoch: int) -> dict[str, float]:
        if epoch == 3:
            raise KeyboardInterrupt
        return real(self, state, data, epoch)

    monkeypatch.setattr(scanmix.METHODS["scanmix"], "epoch", stopped)
    with pytest.raises(KeyboardInterrupt):
        trained(examples, "scanmix", tmp_path, "cut")
    monkeypatch.undo()
    again = resume(tmp_path / "cut", cache=tmp_path / "cache", progress=False)
    pairs = zip(whole.model.predictor.parameters(), again.model.predictor.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"neighbor_refresh": 0}, "neighbor_refresh must be 1"),
        ({"loss_memory": 3}, "loss_memory must be 1"),
        ({"vote_rounds": 2}, "vote_rounds must be 0"),
    ],
)
def test_what_outlives_an_epoch_is_refused(change: dict[str, int], message: str) -> None:
    draw = {"neighbor_refresh": 1, "draw.per_epoch": 50}
    with pytest.raises(UserError, match=message):
        resolve("scanmix", "nothing", str(Path(__file__).parents[1] / "published.toml"), {**draw, **change})
    with pytest.raises(UserError, match=r"dividemix\.loss_memory must be 1"):
        resolve("scan_dividemix", "cifar", None, {"draw.per_epoch": 50, "dividemix.loss_memory": 2})
