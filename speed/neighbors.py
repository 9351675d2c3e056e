"""Nearest neighbors of every example: exact beside faiss and scikit-learn, and of a million in cells."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scanmix.blocks.neighbors import nearest_neighbors
from scanmix.progress import Bar, progress
from speed.rows import Row
from speed.timing import interleave, ready

COUNT, SIZE, K = 50_000, 128, 20
MANY, ASKED = 1_000_000, 1000
"""Examples that are searched in cells; those of them that are also searched exactly, for the recall."""
REPEATS = 3


def rows(bar: Bar) -> list[Row]:
    """Search 20 neighbors of 50,000 embeddings."""
    features = made_embeddings(COUNT, SIZE)
    others = {"faiss-cpu": by_faiss(features), "scikit-learn": by_sklearn(features)}
    found: dict[str, np.ndarray] = {}

    def storing(name: str, search: Callable[[], np.ndarray]) -> Callable[[], None]:
        def work() -> None:
            found[name] = search()

        return work

    candidates = {"scanmix": ready(storing("scanmix", lambda: nearest_neighbors(features, K).numpy()))}
    candidates |= {name: ready(storing(name, search)) for name, search in others.items() if search is not None}
    with progress("neighbors", REPEATS * len(candidates) + 1, bar) as steps:
        times = interleave(candidates, REPEATS, steps)
        many = in_cells(steps)
    what = f"top {K} of {COUNT:,} x {SIZE}, exact"
    return [
        Row(what, times["scanmix"], name, times[name], f"{agreement(found['scanmix'], found[name]):.4%} the same")
        if name in times
        else Row(what, times["scanmix"], name, note="not installed")
        for name in others
    ] + [many]


def in_cells(steps: Bar) -> Row:
    """Search a million embeddings once."""
    features = made_embeddings(MANY, SIZE, seed=1)
    found: list[Tensor] = []
    times = interleave({"cells": ready(lambda: found.append(nearest_neighbors(features, K)))}, 1, steps)
    similarity = features[:ASKED] @ features.T
    similarity[torch.arange(ASKED), torch.arange(ASKED)] = -1
    exact = similarity.topk(K, 1).indices.numpy()
    recall = agreement(found[0][:ASKED].numpy(), exact)
    return Row(f"top {K} of {MANY:,} x {SIZE}, in cells", times["cells"], note=f"{recall:.2%} of the true ones found")


def made_embeddings(count: int, size: int, seed: int = 0) -> Tensor:
    """Return unit rows around a thousand centers. Shape: -> (count, size)."""
    draws = torch.Generator().manual_seed(seed)
    centers = torch.randn(1000, size, generator=draws)
    chosen = torch.randint(len(centers), (count,), generator=draws)
    return F.normalize(centers[chosen] + 0.7 * torch.randn(count, size, generator=draws), dim=1)


def by_faiss(features: Tensor) -> Callable[[], np.ndarray] | None:
    """Search by exact inner product, each example itself left out; None where faiss is not installed."""
    try:
        import faiss
    except ImportError:
        return None

    def search() -> np.ndarray:
        faiss.omp_set_num_threads(torch.get_num_threads())
        rows = features.numpy()
        index = faiss.IndexFlatIP(rows.shape[1])
        index.add(rows)
        return without_self(index.search(rows, K + 1)[1])

    return search


def by_sklearn(features: Tensor) -> Callable[[], np.ndarray]:
    """Search by brute force, which is scikit-learn's own choice for so many dimensions."""
    from sklearn.neighbors import NearestNeighbors

    def search() -> np.ndarray:
        rows = features.numpy()
        found: np.ndarray = NearestNeighbors(n_neighbors=K, algorithm="brute").fit(rows).kneighbors()[1]
        return found

    return search


def without_self(found: np.ndarray) -> np.ndarray:
    """Drop each row's own number, or the last where it is not there. Shape: (N, K + 1) -> (N, K)."""
    itself = found == np.arange(len(found))[:, None]
    itself[~itself.any(1), -1] = True
    rest: np.ndarray = found[~itself].reshape(len(found), -1)
    return rest


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Return the share (0..1) of neighbors that both found, in any order. Shape: (N, K), (N, K)."""
    return float(np.mean([len(np.intersect1d(a, b)) / len(a) for a, b in zip(one[:2000], other[:2000], strict=True)]))
