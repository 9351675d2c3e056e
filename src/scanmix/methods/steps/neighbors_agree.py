"""Right labels by the neighbors of contrastive features (MOIT: Ortego et al., CVPR 2021). Legend: N examples."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from scanmix.blocks.label_quality import self_confidence
from scanmix.blocks.neighbors import nearest_neighbors, neighbor_vote
from scanmix.blocks.selection import cleanest_of_each_class
from scanmix.blocks.trust import keep_given, pinned
from scanmix.data.batches import TrainingData
from scanmix.networks.inference import predict_all
from scanmix.networks.peer import Peer


def neighbors_agree(peer: Peer, head: str, data: TrainingData, num_neighbors: int) -> Tensor:
    """Return the labels that agree most with those of their neighbors, as many of every class.

    Neighbors vote with their given labels, then each with the winner of the votes about it. Labels that are known to be
    right are among the result. Shape: -> (N,) bool.

    Args:
        peer: the network.
        head: the one whose outputs are compared, by name.
        data: all examples.
        num_neighbors: k; at most the mean number of images of a class.
    """
    features = predict_all(nn.Sequential(peer.encoder, peer.heads[head]), data, peer.engine)
    count = max(1, min(num_neighbors, len(data) // data.num_classes, len(data) - 1))
    neighbors, labels = nearest_neighbors(features, count), data.labels
    winners = neighbor_vote(neighbors, data.one_hot(data.everything)).argmax(1)
    winners = F.one_hot(keep_given(winners, labels, data.trusted), data.num_classes).float()
    shares = neighbor_vote(neighbors, winners)
    doubts = 1 - self_confidence(shares, labels)  # in the order of -log of the share
    found = cleanest_of_each_class(doubts, shares.argmax(1) == labels, labels, data.num_classes)
    return peer.engine.broadcast(pinned(found, data.trusted))
