"""Prototypes of classes by the peaks of their density (SMP: Han, Luo and Wang, ICCV 2019).

Legend: M images of a class, C classes, D features, P prototypes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def density_peaks(features: Tensor, count: int, share: float = 0.4, most_similar: float = 0.95) -> Tensor:
    """Return the positions of images that have many similar ones, and are not near to one that has more.

    With S the cosine similarities and S_c the one at `share` (0..1) of all in rising order: the density rho_i is
    sum_j sign(S_ij - S_c) (Eq. 1), and eta_i is the largest S_ij to a denser image; for the densest the smallest S_ij
    (Eq. 2). Of equally dense ones the earlier counts as denser, or a place could have several peaks. Images of the
    denser half with eta below `most_similar` come first, densest first; the others follow in the same way, so that
    there are min(count, M). Without the half, a few wrong labels that are alike would be a peak.
    Memory grows with M x M. Shape: (M, D) -> (P,) int64.
    """
    unit = F.normalize(features.float(), dim=1)
    similarity = unit @ unit.T
    ranked = similarity.flatten()
    limit = ranked.kthvalue(max(1, math.ceil(share * len(ranked)))).values
    density = (similarity - limit).sign().sum(1)
    order = density.argsort(descending=True, stable=True)
    similarity = similarity[order][:, order]  # the columns before the diagonal are of denser images
    nearest = similarity.masked_fill(torch.ones_like(similarity).triu().bool(), float("-inf")).amax(1)
    nearest[0] = similarity[0].min()
    peak = (nearest < most_similar) & (torch.arange(len(order), device=order.device) * 2 < len(order))
    return order[(~peak).long().argsort(stable=True)][:count]


class PrototypeScores(nn.Module):
    """Features in, the mean cosine similarity to the prototypes of each class out (Eq. 4)."""

    def __init__(self, centers: Tensor) -> None:
        """Hold the mean of the L2-normalized prototypes of each class. Shape: (C, D); NaN for a class without any."""
        super().__init__()
        self.centers = centers

    def forward(self, features: Tensor) -> Tensor:
        """Return the scores, the least one for a class without prototypes. Shape: (M, D) -> (M, C) in -1..1."""
        return (F.normalize(features.float(), dim=1) @ self.centers.T).nan_to_num(-1.0)
