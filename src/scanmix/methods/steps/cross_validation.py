"""Twofold cross-validation on noisy labels (INCV: Chen et al., ICML 2019). Legend: M candidates."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.meter import Meter
from scanmix.networks.inference import PerSample, classify, predict_rows
from scanmix.networks.peer import Peer


def halved(candidate: Tensor, split: Generator) -> tuple[Tensor, Tensor]:
    """Return the positions of the candidates in two halves, drawn at random. Shape: (N,) bool -> (M / 2,) each."""
    positions = candidate.nonzero().squeeze(1)
    shuffled = positions[torch.randperm(len(positions), generator=split, device=split.device)]
    first, second = shuffled.tensor_split(2)
    return first, second


def learn_and_look(
    peer: Peer, data: TrainingData, learned: Tensor, held: Tensor, batch_size: int, rate: float, draw: tuple[str, int],
    meter: Meter,
) -> PerSample:  # fmt: skip
    """Train by cross-entropy on some labels for an epoch; return what the network says of labels that are held out.

    Args:
        peer: the network.
        data: all examples.
        learned: positions of the labels that are learned. Shape: (L,).
        held: positions of those that are held out. Shape: (M,).
        batch_size: images of a step.
        rate: learning rate of SGD.
        draw: stage and epoch of which order and views are drawn.
        meter: takes each loss as `learn/loss`.
    """
    order, draws = data.generators(*draw, "order", "views")
    peer.train()
    with meter.timed("learn"):
        for index in map(peer.shard, batches(learned, batch_size, order)):
            logits = peer.logits(data.views.weak(data.images[index], draws))
            loss = F.cross_entropy(logits, peer.all_gather(data.labels[index]))
            meter.add("learn", loss=loss)
            peer.step(loss, rate)
    with meter.timed("examine"):
        if not len(held):
            return PerSample(torch.zeros(0, device=held.device), held)
        logits = peer.engine.broadcast(predict_rows(classify(peer), data, held, peer.engine))
    return PerSample(F.cross_entropy(logits, data.labels[held], reduction="none"), logits.argmax(1))
