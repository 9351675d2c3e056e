"""The bound is measured on the examples it says, against the epoch before, and whoever looks changes nothing."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

import scanmix
from scanmix.blocks.em import log_likelihoods, log_probabilities
from scanmix.config import UserError
from scanmix.data.examples import Examples
from scanmix.distributed.engine import Engine
from scanmix.methods.cross_entropy import CrossEntropy
from scanmix.training import Run, resolve
from scanmix.training.loop import resume, train
from scanmix.training.monitor import bound_monitor

NETWORK = {"widths": [4, 8], "blocks": [1, 1], "stem_stride": 2}
TERMS = {f"elbo/{name}" for name in ("log_likelihood", "expected", "entropy", "bound", "kl", "gain")}
STAGES: dict[str, Any] = {
    "pretrain.epochs": 1, "pretrain.batch_size": 40, "clustering.epochs": 1, "clustering.batch_size": 40,
    "num_neighbors": 4, "warmup": 1, "mild_warmup": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def digits() -> Examples:
    return scanmix.add_noise(scanmix.load("digits", per_class=6)[0], "symmetric", rate=0.5, seed=0)


def quick(examples: Examples, out: Path | None = None, elbo: int | None = 40, **more: Any) -> Run:
    monitor = {} if elbo is None else {"monitor": {"elbo": elbo}}
    plain = {"method": "cross_entropy", "network": NETWORK, "epochs": 4, "batch_size": 16, "threads": 1}
    return train(examples, out=out, progress=False, **{**plain, **monitor, **more})


def terms(run: Run) -> list[dict[str, float]]:
    return [{key: value for key, value in line.items() if key in TERMS} for line in run.metrics]


def test_every_epoch_has_the_terms_and_they_add_up(digits: Examples) -> None:
    lines = terms(quick(digits))
    assert len(lines) == 4 and all(line.keys() == TERMS for line in lines)
    for line in lines:
        assert line["elbo/log_likelihood"] == pytest.approx(line["elbo/bound"] + line["elbo/kl"], abs=1e-5)
        assert line["elbo/bound"] == pytest.approx(line["elbo/expected"] + line["elbo/entropy"])
    for old, new in pairwise(lines):
        risen = new["elbo/log_likelihood"] - old["elbo/log_likelihood"]
        assert risen == pytest.approx(new["elbo/gain"] + new["elbo/kl"], abs=1e-9)


def test_asked_of_more_than_there_are_it_looks_at_all_as_the_predictor_sees_them(digits: Examples) -> None:
    run = quick(digits, elbo=1000)
    log_probs = log_probabilities(run.model.logits(digits))
    assert terms(run)[-1]["elbo/log_likelihood"] == pytest.approx(
        log_likelihoods(log_probs, digits.labels).mean().item()
    )


def test_the_seed_draws_the_examples(digits: Examples) -> None:
    model = quick(digits, elbo=None).model

    def measured(size: int, seed: int) -> dict[str, float]:
        return bound_monitor(model, digits, size, Engine(seed=seed))()

    assert measured(20, 0) == measured(20, 0) != measured(20, 1)
    assert measured(60, 0)["elbo/log_likelihood"] == pytest.approx(measured(60, 1)["elbo/log_likelihood"])
    assert measured(20, 0)["elbo/gain"] == measured(20, 0)["elbo/kl"] == 0.0, "nothing was learned in between"


@pytest.mark.parametrize("method", ["cross_entropy", "scanmix"])
def test_looking_changes_no_weight(method: str, digits: Examples, tmp_path: Path) -> None:
    more: dict[str, Any] = {"method": method, "cache": tmp_path} | (STAGES if method == "scanmix" else {})
    seen, unseen = (quick(digits, elbo=size, **more) for size in (40, None))
    ours, theirs = (run.model.predictor.state_dict() for run in (seen, unseen))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not TERMS & unseen.metrics[0].keys() and terms(seen)[0].keys() == TERMS


def test_a_run_that_was_stopped_goes_on_with_the_same_numbers(
    digits: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, honest = quick(digits, tmp_path / "whole"), CrossEntropy.epoch

    def failing(self: CrossEntropy, state: Any, data: Any, epoch: int) -> dict[str, float]:
        if epoch == 2:
            raise KeyboardInterrupt
        return honest(self, state, data, epoch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CrossEntropy, "epoch", failing)
        quick(digits, tmp_path / "cut")
    assert len((tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()) == 2
    resumed = resume(tmp_path / "cut", progress=False)
    assert json.dumps(terms(resumed)) == json.dumps(terms(whole))


def test_a_run_is_told_from_one_that_is_watched_otherwise(digits: Examples, tmp_path: Path) -> None:
    quick(digits, tmp_path / "run", elbo=40, epochs=1)
    with pytest.raises(UserError, match=r"monitor\.elbo was 40, is 30"):
        quick(digits, tmp_path / "run", elbo=30, epochs=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [({"monitor.elbo": 1}, r"monitor\.elbo"), ({"monitor.elbo": 2001}, r"monitor\.elbo"), ({"monitor.elb": 9}, "elbo")],
)
def test_what_cannot_be_measured_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve("cross_entropy", "digits", None, given)


def test_a_run_without_it_is_the_run_it_was_before_there_was_one() -> None:
    assert "monitor" not in resolve("cross_entropy", "digits").hashed_settings()
