"""Which labels are wrong, by a mixture of two Beta distributions on the losses (Arazo et al., ICML 2019).

Legend: N examples.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from scanmix.blocks.beta_mixture import NoisyAt, fit_beta_mixture
from scanmix.blocks.trust import pinned
from scanmix.data.batches import TrainingData
from scanmix.networks.inference import inference
from scanmix.networks.peer import Peer


def fit_mixture(peer: Peer, data: TrainingData, epoch: int, batch_size: int) -> tuple[NoisyAt, Tensor]:
    """Fit the mixture to the loss of every given label in a random view, as in training; return it, and p_clean.

    `epoch` is the one of which views are drawn, `batch_size` the number of images that go through the network at once.
    Shape: -> (BINS,) table, (1, N).
    """
    draws = data.generator("examine", epoch, "views")
    losses = torch.empty(len(data), device=data.labels.device)
    with inference(peer, batch_statistics=False):
        for index in data.everything.split(batch_size):
            logits = peer.classifier(peer.encoder(data.views.weak(data.images[index], draws)))
            losses[index] = F.cross_entropy(logits, data.labels[index], reduction="none")
    losses = peer.engine.broadcast(losses)
    found = fit_beta_mixture(losses)
    found = found._replace(table=found.table.to(losses.device))
    return found, pinned(1 - found(losses), data.trusted).unsqueeze(0)
