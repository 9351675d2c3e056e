"""Balanced label propagation: what the neighbors of each image say of its class, its own label left out.

Labels flow over the graph of neighbors (Zhou et al., NeurIPS 2003), an image's own label is taken out of its result,
and the scores are balanced so that each class keeps its share of the images (Sinkhorn 1967). iLPC (Lazarou et al.,
ICCV 2021) propagates and balances in this way for few-shot learning.

Legend: N examples, C classes, K neighbors, E edges (at most 2 N K), D probes, B rows of a chunk.
"""

from __future__ import annotations

import warnings

import torch
from torch import Generator, Tensor

ALPHA = 0.95
"""Share of a propagated label that comes from the neighbors, alpha of Zhou et al.; the rest is the label itself."""
PRODUCTS = 20
"""Products with the graph: at alpha = 0.95 the error is below 0.4 % of the result, see `propagate`."""
PROBES = 48
"""Random sign vectors that `own_share` averages over."""
WIDTH = 64
"""Most columns that are propagated at once: memory for them grows with N x WIDTH."""
CHUNK = 8192
"""Rows that `sinkhorn` works on at once, so that they stay in the processor's cache."""
ROUNDS = 30
"""Rounds of Sinkhorn's balancing."""
CONSTANT = 1e-6
"""A column of scores with a standard deviation below this is taken as constant."""


def neighbor_graph(neighbors: Tensor) -> Tensor:
    """Return S = D^-1/2 W D^-1/2, where W is 1 for pairs of which either has the other among its neighbors.

    Each pair counts once, and its weight is 1 / sqrt(degree x degree). An entry of `neighbors` that is the row's own
    position is no neighbor; an example without any has an empty row and column. The eigenvalues of S lie in -1..1.
    Memory grows with N x K, for the sorting of pairs. Shape: (N, K) int64 in 0..N-1 -> (N, N) sparse CSR, float32.
    """
    count, k = neighbors.shape
    near = neighbors.flatten()
    rows = torch.arange(count, device=near.device).repeat_interleave(k)
    other = near != rows
    rows, near = rows[other], near[other]
    pairs = torch.cat([rows * count + near, near * count + rows]).unique()  # sorted by row, then by column
    rows, columns = pairs // count, pairs % count
    degree = rows.bincount(minlength=count)
    scale = degree.float().rsqrt()  # infinite where the degree is 0: such rows have no edge
    index = torch.int32 if len(pairs) < 2**31 else torch.int64
    starts = torch.cat([degree.new_zeros(1), degree.cumsum(0)]).to(index)
    weights = scale[rows] * scale[columns]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")  # what is used of it is tested here
        return torch.sparse_csr_tensor(starts, columns.to(index), weights, (count, count), check_invariants=False)


def propagate(graph: Tensor, start: Tensor, alpha: float = ALPHA, products: int = PRODUCTS) -> Tensor:
    """Return F = (1 - alpha) (I - alpha S)^-1 R for R = `start`, by a fixed number of products with S.

    The closed form of Zhou et al. (NeurIPS 2003, Eq. 4). It is solved by Chebyshev iteration (Golub and Varga, 1961),
    since the eigenvalues of alpha S lie in -alpha..alpha; the plain iteration of the paper needs five times as many
    products. The error is at most 2 q^products of F in norm, q = alpha / (1 + sqrt(1 - alpha^2)). The result is
    linear in R and symmetric in the examples. Memory grows with N x C, plus three times N x `WIDTH`.
    Shape: (N, N) sparse CSR, (N, C) float32 -> (N, C). `alpha` is in 0..1, below 1; `products` at least 0.
    """
    found = torch.empty_like(start)
    for first in range(0, start.shape[1], WIDTH):
        part = start[:, first : first + WIDTH].contiguous() * (1 - alpha)
        before, now, weight = torch.zeros_like(part), part, 1.0
        for step in range(products):
            weight = 1 / (1 - alpha**2 / 2) if step == 0 else 1 / (1 - alpha**2 * weight / 4)
            after = torch.addmm(part, graph, now, alpha=alpha)
            before, now = now, torch.lerp(before, after, weight)  # a weight above 1: past `after`
        found[:, first : first + WIDTH] = now
    return found


def own_share(
    graph: Tensor, generator: Generator, alpha: float = ALPHA, products: int = PRODUCTS, probes: int = PROBES
) -> Tensor:
    """Return how much of its own label is in the result of each example: the diagonal of the matrix of `propagate`.

    Estimated with D random sign vectors z as the mean of z * M z (Hutchinson 1990; Bekas et al. 2007). Only what
    follows the first two steps is: those contribute I + alpha^2 S^2 to the diagonal, which is known. Thus an example
    without neighbors has exactly 1 - alpha. The error is random and falls with sqrt(D).
    Memory grows with N x `WIDTH`. Shape: (N, N) sparse CSR -> (N,) in 1 - alpha..1.
    """
    count = graph.shape[0]
    starts, values = graph.crow_indices().long(), graph.values()
    total = torch.zeros(count, device=values.device)
    for first in range(0, probes, WIDTH):
        width = min(WIDTH, probes - first)
        signs = torch.randint(2, (count, width), generator=generator, device=generator.device)
        probe = (2 * signs - 1).to(values)
        once = graph @ probe
        early = probe + alpha * (once + alpha * (graph @ once))
        total += (probe * (propagate(graph, probe, alpha, products) - (1 - alpha) * early)).sum(1)
    rows = torch.repeat_interleave(starts.diff())
    squares = torch.zeros_like(total).index_add_(0, rows, values.square())  # the diagonal of S^2
    known = (1 - alpha) * (1 + alpha**2 * squares)
    return (known + total / probes).maximum(known).clamp(max=1)  # the later steps contribute nothing negative


def neighbor_scores(graph: Tensor, class_probs: Tensor, own_share: Tensor, used: Tensor | None = None) -> Tensor:
    """Return how far each class stands above its mean among what is propagated to an example from the others.

    The columns are centered first, so that a common class is not favored for being common. What an example gives
    itself is subtracted. The columns then get mean 0 and standard deviation 1; a constant column gets zeros.
    Where `used` is given, only those rows of `class_probs` are propagated, to all examples.
    Shape: (N, N) sparse CSR, (N, C) rows of probabilities, (N,), (N,) bool -> (N, C).
    """
    if used is None:
        centered = class_probs - class_probs.mean(0)
    else:
        mean = class_probs[used].mean(0) if bool(used.any()) else 0.0
        centered = (class_probs - mean) * used.unsqueeze(1)
    scores = propagate(graph, centered)
    scores -= centered.mul_(own_share.unsqueeze(1))
    return standardized(scores)


def standardized(scores: Tensor) -> Tensor:
    """Give each column mean 0 and standard deviation 1, in place; a constant column gets zeros. Shape: (N, C)."""
    scores -= scores.mean(0)
    scale = scores.std(0, correction=0)
    return scores.mul_(torch.where(scale < CONSTANT, 0.0, 1 / scale.clamp(min=CONSTANT)))


def sinkhorn(log_scores: Tensor, marginal: Tensor, rounds: int = ROUNDS) -> Tensor:
    """Return exp(log_scores) with its rows and columns scaled: rows sum to 1, column means approach `marginal`.

    Sinkhorn's balancing (1967), with the logarithms of the columns' factors, so that nothing overflows. Each round
    scales the columns, then the rows; after the last the rows are exact and the columns nearly so. With 0 rounds it
    is the softmax. A class whose marginal is 0 gets probability 0. A class that is far behind in all rows gains up to
    a factor of 1e38 in each round. Works on a copy in chunks; memory grows with N x C.
    Shape: (N, C) finite, (C,) not negative with sum 1 -> (N, C), rows sum to 1.
    """
    # Transposed, the softmax runs along memory: with ten classes it takes an eighth of the time.
    chunks = [part.T.contiguous() for part in log_scores.split(CHUNK)]
    wanted, tiny = (marginal * len(log_scores)).unsqueeze(1), torch.finfo(log_scores.dtype).tiny
    gain = torch.where(wanted > 0, 0.0, float("-inf")).to(log_scores)
    for _ in range(rounds):
        sums = torch.zeros_like(gain)
        for part in chunks:
            sums += (part + gain).softmax(0).sum(1, keepdim=True)
        gain += torch.where(wanted > 0, wanted.log() - sums.clamp(min=tiny).log(), 0.0)
    found = torch.empty_like(log_scores)
    for part, out in zip(chunks, found.split(CHUNK), strict=True):
        out.copy_((part + gain).softmax(0).T)
    return found
