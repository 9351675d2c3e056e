"""ScanMix's EM as its paper defines it (Eq. 2 to 6), without approximation: all pairs of examples, in float64.

The model gives image i its label with p(y_i | x_i), and each pair (i, j) a binary variable z_ji ("j is a neighbor of
i") with p(z_ji | y_i, x_i) of Eq. 5. Eq. 6 sums log p(y_i, z_ji | x_i) over all pairs. Here sums over pairs are means,
which have the same maximum. `docs/theory.md` says what follows from the model.

Legend: N examples, C classes. In a table of shape (2, N, N), entry [z, i, j] belongs to z_ji = z.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = torch.finfo(torch.float64).tiny
"""Least probability of either value of z_ji between equal labels: its logarithm is -708."""
MOST_EXAMPLES = 2000
"""Memory grows with N x N: at this size one table of (2, N, N) float64 is 64 MB, and ten may exist at a time."""


def log_probabilities(logits: Tensor) -> Tensor:
    """Return log p(. | x) in float64 on the CPU, as not every device has float64. Shape: (N, C) -> (N, C)."""
    return F.log_softmax(logits.cpu().double(), 1)


def log_likelihoods(log_probs: Tensor, labels: Tensor) -> Tensor:
    """Return log p(y_i | x_i) in nats; its mean is Eq. 2. Shape: (N, C), (N,) int64 -> (N,)."""
    return log_probs.gather(1, labels.unsqueeze(1)).squeeze(1)


def log_posterior(log_probs: Tensor, labels: Tensor) -> Tensor:
    """Return log p(z_ji | y_i, x_i), Eq. 5, in nats.

    p(z = 0) is the sum over pairs of different classes, not 1 - p(z = 1), which would cancel to 0 for confident
    networks. Where the labels differ, p(z = 0) is exactly 1 and p(z = 1) exactly 0.
    Shape: (N, C), (N,) int64 -> (2, N, N), with -inf where the probability is 0.
    """
    probs = log_probs.exp()
    different = 1 - torch.eye(probs.shape[1], dtype=probs.dtype)  # (C, C)
    differ = labels.unsqueeze(1) != labels
    neighbors = (probs @ probs.T).clamp(min=TINY).log().masked_fill(differ, float("-inf"))
    others = (probs @ different @ probs.T).clamp(min=TINY).log().masked_fill(differ, 0.0)
    return torch.stack([others, neighbors])


def log_joint(log_probs: Tensor, labels: Tensor) -> Tensor:
    """Return log p(y_i, z_ji | x_i), the product in Eq. 6, in nats. Shape: (N, C), (N,) int64 -> (2, N, N)."""
    return log_posterior(log_probs, labels) + log_likelihoods(log_probs, labels).unsqueeze(1)


def expectation(q: Tensor, values: Tensor) -> Tensor:
    """Return E_q of `values` as the mean over pairs; where q is 0 the value, which may be -inf, counts as 0.

    Shape: (2, N, N), (2, N, N) -> ().
    """
    return torch.where(q > 0, q * values, 0.0).sum(0).mean()


class Terms(NamedTuple):
    """One iteration of EM from theta_old, whose posterior is q, to theta: in nats, means over pairs."""

    log_likelihood: float
    """log p_theta(y | x), Eq. 2."""
    expected: float
    """E_q[log p_theta(y, z | x)], Eq. 6: the objective of the M-step."""
    entropy: float
    """-E_q[log q], the entropy of q."""
    bound: float
    """ELBO(q, theta), Eq. 4: the sum of the two before."""
    kl: float
    """KL[q || p_theta(z | y, x)]."""
    gain: float
    """E_q[log p_theta(y, z | x)] - E_q[log p_theta_old(y, z | x)]; Lemma 1 assumes that it is not negative."""


def em_terms(before: Tensor, now: Tensor, labels: Tensor) -> Terms:
    """Measure an iteration of EM from theta_old to theta, with the exact q of its E-step. Memory grows with N x N.

    Shape: log-probabilities (N, C) of theta_old, then (N, C) of theta, and given labels (N,) int64.
    """
    log_q = log_posterior(before, labels)
    q = log_q.exp()
    expected, entropy = expectation(q, log_joint(now, labels)), -expectation(q, log_q)
    return Terms(
        log_likelihood=log_likelihoods(now, labels).mean().item(),
        expected=expected.item(),
        entropy=entropy.item(),
        bound=(expected + entropy).item(),
        kl=expectation(q, log_q - log_posterior(now, labels)).item(),
        gain=(expected - expectation(q, log_joint(before, labels))).item(),
    )


def in_metrics(terms: Terms) -> dict[str, float]:
    """Return the terms by their names in `metrics.jsonl`: `elbo/log_likelihood` and so on."""
    return {f"elbo/{name}": value for name, value in terms._asdict().items()}
