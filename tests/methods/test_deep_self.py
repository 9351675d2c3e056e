"""DeepSelf: when it corrects, by which prototypes, and that its labels become better."""

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.methods.cross_entropy import CrossEntropy
from scanmix.methods.deep_self import DeepSelf
from scanmix.networks.inference import predict_all
from tests.methods.tiny import KIND, Network, near, run, weights

PLAIN: dict[str, Any] = {"batch_size": 16, "learning_rate": 0.05}


def test_before_it_corrects_it_is_cross_entropy(data: TrainingData, network: Network) -> None:
    ours = run(DeepSelf(epochs=6, begin=2, lr_drop=6, lr_second_drop=6, **PLAIN), data, network, 2)
    other = run(CrossEntropy(epochs=6, lr_drop=6, weight_decay=5e-4, **PLAIN), data, network, 2)
    assert near(weights(ours.peers[0]), weights(other.peers[0]))
    plain = DeepSelf(epochs=6, begin=0, correction_weight=0.0, lr_drop=6, lr_second_drop=6, **PLAIN)
    assert near(weights(run(plain, data, network, 2).peers[0]), weights(other.peers[0]))


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_the_loss_is_of_both_labels(
    weight: float, data: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = DeepSelf(epochs=2, begin=0, batch_size=64, correction_weight=weight)
    state = method.start(data, network, Engine())
    other = (data.labels + 1) % 4
    monkeypatch.setattr(DeepSelf, "corrected", lambda *_: other)
    order, draws = data.generators("learn", 0, "order", "views")
    index = torch.randperm(64, generator=order)
    peer = method.start(data, network, Engine()).peers[0].train()
    with torch.no_grad():
        logits = peer.logits(data.views.weak(data.images[index], draws))
    losses = [float(F.cross_entropy(logits, labels[index])) for labels in (data.labels, other)]
    found = method.epoch(state, data, 0)
    assert found["learn/loss"] == pytest.approx((1 - weight) * losses[0] + weight * losses[1], rel=1e-5)
    assert found["changed"] == 1.0


def test_a_label_is_that_of_the_prototypes_which_are_most_similar(data: TrainingData, network: Network) -> None:
    """Of five classes, of which the last has no image."""
    more = dataclasses.replace(data, num_classes=5)
    method = DeepSelf(num_prototypes=64, most_similar=1.0)  # every image of a class is a prototype of it
    peer = method.start(more, network, Engine()).peers[0]
    found = method.corrected(peer, more, 0)
    features = F.normalize(predict_all(peer.encoder, data), dim=1)
    similarity = features @ features.T
    scores = torch.stack([similarity[:, data.labels == label].mean(1) for label in range(4)], 1)
    assert torch.equal(found, scores.argmax(1))


def test_prototypes_are_sought_in_a_sample_of_each_class(
    data: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def watched(features: torch.Tensor, *more: Any) -> torch.Tensor:
        sizes.append(len(features))
        return torch.arange(2)

    monkeypatch.setattr("scanmix.methods.deep_self.density_peaks", watched)
    method = DeepSelf(sampled=7)
    peer = method.start(data, network, Engine()).peers[0]
    first, again = method.centers(peer, data, 0), method.centers(peer, data, 1)
    assert sizes == [7] * 8 and not torch.equal(first, again), "another sample in each epoch"


def test_corrected_labels_become_better_and_known_ones_stay(data: TrainingData, network: Network) -> None:
    method = DeepSelf(epochs=40, begin=12, num_prototypes=4, lr_drop=40, lr_second_drop=40, **PLAIN)
    state = run(method, data, network, 30)
    found = method.corrected(state.peers[0], data, 30)
    given = float((data.labels == KIND).float().mean())
    assert float((found == KIND).float().mean()) > given + 0.15
    trusted = found != data.labels
    assert bool(trusted.any())
    known = dataclasses.replace(data, trusted=trusted)
    assert torch.equal(method.corrected(state.peers[0], known, 30), data.labels)
