"""SCAN as a method: clusters are named by the given labels, and nothing else of the labels is used."""

from collections.abc import Callable

import torch
from torch import Tensor

from scanmix.blocks.clusters import match_clusters
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.methods import Method
from scanmix.networks.inference import per_sample_losses
from scanmix.networks.preact_resnet import PreActResNetSettings


def accuracy(found: Tensor, labels: Tensor) -> float:
    return float((found == labels).double().mean())


def test_scan_names_clusters_by_the_given_labels(
    methods: Callable[..., dict[str, Method]], data: TrainingData, network: PreActResNetSettings
) -> None:
    method = methods(2)["scan"]
    state = method.start(data, network, Engine())
    (peer,) = state.peers
    with torch.no_grad():  # biases that spread the predictions over all clusters, in an order of their own
        logits = peer.classifier(peer.encoder.eval()(data.eval_view(slice(0, 64))))
        peer.classifier.bias -= logits.median(0).values
    clusters = per_sample_losses(peer, data).prediction
    assert len(clusters.unique()) >= 3
    names = match_clusters(clusters, data.labels, 4)
    weight, bias = peer.classifier.weight.detach().clone(), peer.classifier.bias.detach().clone()
    method.epoch(state, data, 0)
    assert torch.equal(per_sample_losses(peer, data).prediction, names[clusters])
    assert torch.equal(peer.classifier.weight[names], weight) and torch.equal(peer.classifier.bias[names], bias)
    before = {name: value.clone() for name, value in peer.state_dict().items()}
    method.epoch(state, data, 1)  # named already
    assert accuracy(per_sample_losses(peer, data).prediction, data.labels) == accuracy(names[clusters], data.labels)
    assert all(torch.equal(value, before[name]) for name, value in peer.state_dict().items() if "encoder" in name)


def test_a_cycle_of_names_goes_the_right_way_round(
    methods: Callable[..., dict[str, Method]], data: TrainingData, network: PreActResNetSettings
) -> None:
    """The network says cluster c for every image of class c + 1: three turns the wrong way would not do."""
    method = methods(2)["scan"]
    state = method.start(data, network, Engine())
    (peer,) = state.peers
    clusters = per_sample_losses(peer, data).prediction
    cycled = TrainingData(data.images, (clusters + 1) % 4, 4, data.views, data.generator)
    method.epoch(state, cycled, 0)
    assert torch.equal(per_sample_losses(peer, data).prediction, (clusters + 1) % 4)


def test_labels_change_the_names_alone(
    methods: Callable[..., dict[str, Method]], data: TrainingData, network: PreActResNetSettings
) -> None:
    method = methods(2)["scan"]
    turned = TrainingData(data.images, (data.labels + 1) % 4, 4, data.views, data.generator)
    first, second = (method.start(one, network, Engine()).peers[0].state_dict() for one in (data, turned))
    assert all(torch.equal(first[name], second[name]) for name in first)
