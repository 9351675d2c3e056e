"""ScanMix's EM as its paper defines it (Eq. 2 to 6), without approximation: all pairs of examples, in float64.

The model: image i has its label with p(y_i | x_i), and then, for every j, a bit z_ji ("j is a neighbor of i") with
p(z_ji | y_i, x_i) of Eq. 5. Eq. 6 adds up log p(y_i, z_ji | x_i) over all pairs (i, j), so each pair stands for itself
and has a bit of its own. Sums over pairs are means here, which moves no maximum. `docs/theory.md` says what follows.

Legend: N examples, C classes. A table [z, i, j] of shape (2, N, N) is about the bit z_ji being z.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = torch.finfo(torch.float64).tiny
"""Least probability of a bit between equal labels: its logarithm is -708. Networks stay far away from it."""
MOST_EXAMPLES = 2000
"""Tables of more would not fit: ten of them may live at a time, of 64 MB each."""


def log_probabilities(logits: Tensor) -> Tensor:
    """Return log p(. | x) in float64, on the CPU: not every device has it. Shape: (N, C) -> (N, C)."""
    return F.log_softmax(logits.cpu().double(), 1)


def log_likelihoods(log_probs: Tensor, labels: Tensor) -> Tensor:
    """Return log p(y_i | x_i), whose mean is Eq. 2. Shape: (N, C), (N,) -> (N,)."""
    return log_probs.gather(1, labels.unsqueeze(1)).squeeze(1)


def log_posterior(log_probs: Tensor, labels: Tensor) -> Tensor:
    """Return log p(z_ji | y_i, x_i), Eq. 5.

    p(z = 0) is added up from pairs of different classes, not 1 - p(z = 1): sure networks would leave nothing of it.
    Where labels differ it is exactly 1, and p(z = 1) exactly 0. Shape: (N, C), (N,) -> (2, N, N).
    """
    probs = log_probs.exp()
    apart = 1 - torch.eye(probs.shape[1], dtype=probs.dtype)
    differ = labels.unsqueeze(1) != labels
    neighbors = (probs @ probs.T).clamp(min=TINY).log().masked_fill(differ, float("-inf"))
    strangers = (probs @ apart @ probs.T).clamp(min=TINY).log().masked_fill(differ, 0.0)
    return torch.stack([strangers, neighbors])


def log_joint(log_probs: Tensor, labels: Tensor) -> Tensor:
    """Return log p(y_i, z_ji | x_i), the product in Eq. 6. Shape: (N, C), (N,) -> (2, N, N)."""
    return log_posterior(log_probs, labels) + log_likelihoods(log_probs, labels).unsqueeze(1)


def expectation(q: Tensor, values: Tensor) -> Tensor:
    """Return E_q of `values`, mean over pairs; what has no probability counts nothing. Shape: (2, N, N) twice -> ()."""
    return torch.where(q > 0, q * values, 0.0).sum(0).mean()


class Terms(NamedTuple):
    """One turn of EM in numbers, in nats, mean over pairs: from theta_old, which q is of, to theta."""

    log_likelihood: float
    """log p_theta(y | x), Eq. 2."""
    expected: float
    """E_q[log p_theta(y, z | x)], Eq. 6: what the M-step raises."""
    entropy: float
    """-E_q[log q]."""
    bound: float
    """ELBO(q, theta), Eq. 4: the sum of the two before."""
    kl: float
    """KL[q || p_theta(z | y, x)]."""
    gain: float
    """E_q[log p_theta(y, z | x)] - E_q[log p_theta_old(y, z | x)]: Lemma 1 assumes that it is not negative."""


def em_terms(before: Tensor, now: Tensor, labels: Tensor) -> Terms:
    """Measure a turn of EM from theta_old to theta, with the exact q of its E-step.

    Shape: log-probabilities (N, C) of theta_old, then of theta, and given labels (N,).
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
    """Name the terms as `metrics.jsonl` does: `elbo/log_likelihood` and so on."""
    return {f"elbo/{name}": value for name, value in terms._asdict().items()}
