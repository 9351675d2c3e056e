"""The noise model on real pictures and with people's labels, beside cleanlab.

Run `python -m results.audit_real --data FOLDER --fashion FOLDER --cache FOLDER`; `results.real_data` says what lies in
the folders. The same line goes on where it was stopped. A row is in `results/audit-real.csv` as soon as it is known,
and `results/audit-real.md` is written from that. To measure another version of the model, delete the csv: features stay
in the cache. cleanlab must be installed (`compare`). Features of a network that is not installed are left out.

Legend: N examples, C classes, D features, K neighbors, S strengths.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import average_precision_score
from torch import Generator, Tensor

from results.audit_real_page import page
from results.real_data import Pool, features, pool
from results.rows import append_row, as_cell, read_rows
from scanmix.blocks.label_quality import self_confidence
from scanmix.blocks.neighbors import nearest_neighbors
from scanmix.blocks.noise_model import fit_neighbors
from scanmix.blocks.ridge import principal_components
from scanmix.data.noise import asymmetric, symmetric
from scanmix.files import write_text

NEIGHBORS = 10
"""As in the audit."""
SEEDS = (0, 1, 2, 3, 4, 5)
PEOPLE = ("aggre", "random1", "worse")
RANDOM = ("symmetric:0.2", "symmetric:0.5", "symmetric:0.8", "asymmetric:0.4")
NOISES: dict[str, tuple[str, ...]] = {
    "digits": ("none", *RANDOM[:3], "symmetric:0.9", "asymmetric:0.4"),
    "digits 10:1": ("none", "symmetric:0.2", "symmetric:0.5"),
    "fashion": ("none", *RANDOM),
    "fashion 10:1": ("none", "symmetric:0.2", "symmetric:0.5"),
    "dino": ("none", *PEOPLE, *RANDOM),
    "clip": ("none", *PEOPLE, *RANDOM),
    "cifar10": ("none", *PEOPLE, *RANDOM),
    "clothing-small": ("none", "symmetric:0.2", "symmetric:0.5", "asymmetric:0.3"),
    "ferplus": ("none", "vote"),
    "mini-imagenet32": ("none", "symmetric:0.2", "symmetric:0.5"),
}
FEATURES: dict[str, tuple[str, ...]] = {
    "pixels": ("digits", "digits 10:1", "fashion", "fashion 10:1", "cifar10", "clothing-small", "ferplus",
               "mini-imagenet32"),
    "patches": ("fashion", "fashion 10:1", "cifar10", "clothing-small", "ferplus", "mini-imagenet32"),
    "vectors": ("dino", "clip"),
    "lite0": ("cifar10", "clothing-small", "ferplus", "mini-imagenet32"),
    "simclr": ("cifar10", "clothing-small", "digits", "mini-imagenet32", "ferplus", "fashion"),
}  # fmt: skip
FIELDS = (
    "data", "features", "noise", "seed", "count", "wrong", "estimated", "low", "high", "soft", "stable", "agreement",
    "brier", "ap", "right_before", "right_after", "seconds", "classifier", "held_out", "cleanlab_brier", "cleanlab_ap",
    "cleanlab_estimated", "v_brier", "v_ap", "recalibrated_brier",
)  # fmt: skip
FOLDS, COMPONENTS = 5, 64
STRENGTHS = (1e-3, 1e-2, 1e-1)
"""Inverse of the penalty of the logistic regression, as scikit-learn's C."""
VOTERS = (10, 20, 50)
"""Neighbors of the k-NN classifier."""


class Task(NamedTuple):
    """One measurement."""

    data: str
    features: str
    noise: str
    seed: int


class Seen(NamedTuple):
    """What is seen of the examples of a seed, for all noises."""

    chosen: np.ndarray
    """(N,) positions in the pool."""
    near: Tensor
    """(N, K) int64, for the classifier that cleanlab gets; the first are those of the noise model."""
    components: Tensor
    """(N, P), principal components of the unit rows, for the noise model."""
    spread: Tensor
    """(N, D), the first of them with equal spread, for the classifier that cleanlab gets."""
    seconds: float
    """Of the search for neighbors and of the decomposition."""


def main() -> None:
    """Measure what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets of pictures")
    parser.add_argument("--fashion", type=Path, help="folder of Fashion-MNIST, where scanmix does not find it itself")
    parser.add_argument("--cache", type=Path, default=Path("runs/audit-real"), help="folder for features")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--features", choices=[*FEATURES], nargs="+", default=[*FEATURES])
    parser.add_argument("--only", choices=[*NOISES], nargs="+", default=[*NOISES], help="these data")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    path = asked.out / "audit-real.csv"
    known = {(row["data"], row["features"], row["noise"], row["seed"]) for row in read(path)}
    for kind in asked.features:
        for data in (name for name in FEATURES[kind] if name in asked.only):
            try:
                for row in missing(data, kind, asked.seeds, known, asked):
                    add(row, path)
            except ModuleNotFoundError as error:
                print(f"{kind} of {data} are left out: {error}", file=sys.stderr)
    if path.is_file():
        write_text(path.with_suffix(".md"), page(read(path)))


def missing(
    data: str, kind: str, seeds: Sequence[int], known: set[tuple[str, str, str, int]], asked: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Measure the noises of a data set that have no row yet; where nothing is drawn, the first seed alone."""
    name = data.removesuffix(" 10:1")
    source = pool(name, asked.data, asked.fashion)
    drawn = source.per_class is not None or name != data
    for seed in seeds:
        noises = [noise for noise in NOISES[data] if drawn or noise not in ("none", *PEOPLE) or seed == seeds[0]]
        tasks = [Task(data, kind, noise, seed) for noise in noises if (data, kind, noise, seed) not in known]
        if not tasks:
            continue
        chosen = choose(source, seed, name != data)
        seen = see(features(kind, name, source, chosen, asked.cache), chosen)
        for task in tasks:
            yield {**task._asdict(), **measure(task, source, seen)}


def choose(source: Pool, seed: int, imbalanced: bool) -> np.ndarray:
    """Return the positions that a seed draws from the pool; class sizes fall to a tenth if they are `imbalanced`.

    Which class has how many is drawn too.
    """
    if source.per_class is None and not imbalanced:
        return np.arange(len(source.labels))
    rng = np.random.default_rng([seed, 1])
    members = [rng.permutation(np.flatnonzero(source.labels == c)) for c in range(source.classes)]
    size = source.per_class or min(len(those) for those in members)
    order = rng.permutation(source.classes) / (source.classes - 1) if imbalanced else np.zeros(source.classes)
    drawn = [those[: round(size * 10 ** -float(rank))] for those, rank in zip(members, order, strict=True)]
    return np.sort(np.concatenate(drawn))


def see(rows: np.ndarray, chosen: np.ndarray) -> Seen:
    """Search for neighbors and compute principal components. Shape: (N, D), positions in the pool (N,)."""
    tensor = torch.from_numpy(rows)
    clock = time.process_time()
    nearest_neighbors(tensor, min(NEIGHBORS, len(tensor) - 1))
    components = principal_components(tensor, Generator().manual_seed(0))
    seconds = time.process_time() - clock
    near = nearest_neighbors(tensor, min(2 * max(VOTERS), len(tensor) - 1))
    spread = components[:, :COMPONENTS]
    return Seen(chosen, near, components, spread / spread.std(0).clamp(min=1e-6), seconds)


def measure(task: Task, source: Pool, seen: Seen) -> dict[str, Any]:
    """Fit the noise model and compare it with the truth and with cleanlab."""
    truth = torch.from_numpy(source.labels[seen.chosen])
    labels = given(task, source, seen.chosen, truth)
    clock = time.process_time()
    neighbors = seen.near[:, :NEIGHBORS].contiguous()
    draws = Generator().manual_seed(task.seed)
    model = fit_neighbors(neighbors, labels, source.classes, draws, components=seen.components)
    seconds = time.process_time() - clock + seen.seconds
    right = labels == truth
    probs, classifier, held_out = classified(seen, labels, source.classes, task.seed)
    brier, ap = quality(model.p_clean, right)
    cleanlab_brier, cleanlab_ap = quality(self_confidence(probs, labels), right)
    v_brier, v_ap = quality(self_confidence(model.v, labels), right)
    return {
        "count": len(labels), "wrong": 1 - float(right.float().mean()), "estimated": model.rate.value,
        "low": model.rate.low, "high": model.rate.high, "soft": model.soft_rate, "stable": model.stable_rate,
        "agreement": math.nan if model.agreement is None else model.agreement, "brier": brier, "ap": ap,
        "right_before": float(right.float().mean()),
        "right_after": float((model.posterior.argmax(1) == truth).float().mean()), "seconds": seconds,
        "classifier": classifier, "held_out": held_out, "cleanlab_brier": cleanlab_brier, "cleanlab_ap": cleanlab_ap,
        "cleanlab_estimated": issues(probs, labels), "v_brier": v_brier, "v_ap": v_ap,
        "recalibrated_brier": recalibrated(model.p_clean, right),
    }  # fmt: skip


def given(task: Task, source: Pool, chosen: np.ndarray, truth: Tensor) -> Tensor:
    """Return the given labels. Shape: (N,), (N,) -> (N,) int64."""
    if task.noise == "none":
        return truth
    if task.noise in source.given:
        return torch.from_numpy(source.given[task.noise][chosen])
    if task.noise == "vote":
        assert source.votes is not None
        votes = source.votes[chosen]
        order = np.random.default_rng([task.seed, 2]).random(votes.shape)
        return torch.from_numpy(votes[np.arange(len(votes)), np.where(votes < 0, -1, order).argmax(1)])
    kind, _, rate = task.noise.partition(":")
    if kind == "asymmetric":
        return asymmetric(truth, float(rate), source.mapping, task.seed)
    return symmetric(truth, float(rate), source.classes, task.seed)


def quality(confidence: Tensor, right: Tensor) -> tuple[float, float]:
    """Return Brier score, and average precision of the ranking of wrong labels, NaN where there is none.

    Shape: (N,), (N,) bool.
    """
    brier = float((confidence - right.float()).square().mean())
    ap = math.nan if bool(right.all()) else float(average_precision_score(~right, 1 - confidence))
    return brier, ap


def recalibrated(confidence: Tensor, right: Tensor) -> float:
    """Return the least Brier score of any monotone function of the confidence: isotonic regression on the truth.

    It knows the answers, so that it bounds what a better calibration of the same ranking could bring.
    Shape: (N,), (N,) bool.
    """
    # By rank, as scikit-learn takes values that are close to each other for equal ones.
    rank, truth = np.unique(confidence.numpy(), return_inverse=True)[1], right.double().numpy()
    return float(np.mean((IsotonicRegression().fit_transform(rank, truth) - truth) ** 2))


def classified(seen: Seen, labels: Tensor, classes: int, seed: int) -> tuple[Tensor, str, float]:
    """Return cross-validated probabilities of the likeliest of several classifiers, its name and log-likelihood.

    Logistic regressions and k-NN; the log-likelihood is the mean over held-out given labels. Shape: -> (N, C).
    """
    fold = torch.randperm(len(labels), generator=Generator().manual_seed(seed)) % FOLDS
    candidates = {f"{k}-NN": voted(seen.near, labels, classes, fold, k) for k in VOTERS}
    regressed = logistic(seen.spread, labels, classes, fold)
    candidates |= {f"logistic, C = {c:g}": probs for c, probs in zip(STRENGTHS, regressed, strict=True)}
    likely = {name: float(self_confidence(probs, labels).log().mean()) for name, probs in candidates.items()}
    best = max(likely, key=likely.__getitem__)
    return candidates[best], best, likely[best]


def voted(near: Tensor, labels: Tensor, classes: int, fold: Tensor, k: int) -> Tensor:
    """Return shares of labels among the k nearest in other folds, and one vote by the class sizes. Shape: -> (N, C)."""
    other = fold[near] != fold.unsqueeze(1)
    other &= other.cumsum(1) <= k
    one_hot = F.one_hot(labels, classes).float()
    counts = one_hot.mean(0).expand(len(labels), -1).clone()
    for column, counted in zip(near.unbind(1), other.unbind(1), strict=True):
        counts += one_hot[column] * counted.unsqueeze(1)
    # A class that nobody has here would have probability 0.
    counts += 1e-3
    return counts / counts.sum(1, keepdim=True)


def logistic(rows: Tensor, labels: Tensor, classes: int, fold: Tensor) -> Tensor:
    """Return held-out probabilities of logistic regressions, all strengths and folds fitted at once.

    Shape: (N, D), (N,), (N,) -> (S, N, C).
    """
    count, everyone = len(rows), torch.arange(len(rows))
    inputs = torch.cat([rows, torch.ones(count, 1)], 1)
    weights = torch.zeros(inputs.shape[1], len(STRENGTHS) * FOLDS * classes, requires_grad=True)
    counted = (fold.unsqueeze(1) != torch.arange(FOLDS)).float().repeat(1, len(STRENGTHS)) / count
    penalty = torch.tensor(STRENGTHS).reciprocal().repeat_interleave(FOLDS * classes) / (2 * count)
    optimizer = torch.optim.LBFGS([weights], max_iter=80, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = (inputs @ weights).view(count, -1, classes)
        nats = logits.logsumexp(2) - logits[everyone, :, labels]
        total = (nats * counted).sum() + (penalty * weights[:-1].square()).sum()
        torch.autograd.backward(total)
        return total

    optimizer.step(loss)
    with torch.no_grad():
        logits = (inputs @ weights).view(count, len(STRENGTHS), FOLDS, classes)
        return logits[everyone, :, fold].softmax(2).transpose(0, 1)


def issues(probs: Tensor, labels: Tensor) -> float:
    """Return the share of labels that `cleanlab.filter.find_label_issues` calls wrong. Shape: (N, C), (N,)."""
    from cleanlab.filter import find_label_issues

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a rare class without a confident example
        found = find_label_issues(labels.numpy(), probs.double().numpy(), n_jobs=1)
    return float(np.mean(found))


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows that are known already."""
    kept = {"data": str, "features": str, "noise": str, "classifier": str, "seed": int, "count": int}
    return [{name: kept.get(name, float)(row[name]) for name in FIELDS} for row in read_rows(path)]


def add(row: dict[str, Any], path: Path) -> None:
    """Append a row."""
    append_row(path, FIELDS, (as_cell(row[name]) for name in FIELDS))
    print(f"{row['data']} {row['features']} {row['noise']} {row['seed']}: {row['wrong']:.1%} wrong, estimated "
          f"{row['estimated']:.1%} ({row['low']:.1%} to {row['high']:.1%})", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
