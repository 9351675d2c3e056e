"""MOIT+: what its two parts learn, its queue, and the labels that its neighbors find right."""

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scanmix.blocks.contrastive import supervised_contrast
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.methods.moit_plus import MOITPlus
from scanmix.methods.steps.neighbors_agree import neighbors_agree
from scanmix.networks.inference import classify, predict_all
from tests.methods.tiny import KIND, Network, near, run, weights


def test_unmixed_images_have_cross_entropy_and_the_supervised_contrastive_loss(
    data: TrainingData, network: Network
) -> None:
    """One batch, by hand: both views of each image, first against the batch, and with the queue once more."""
    method = MOITPlus(epochs=4, batch_size=64, mixup_alpha=0.0, interpolation=4, correction=4, queue_begin=1)
    state = method.start(data, network, Engine())
    for epoch in (0, 1):
        peer, before = method.start(data, network, Engine()).peers[0], state.queue.clone()
        peer.load_state_dict(state.peers[0].state_dict())
        order, draws = data.generators("learn", epoch, "order", "views")
        index = torch.randperm(64, generator=order)
        both = torch.cat([data.views.contrastive(data.images[index], draws) for _ in range(2)])
        labels = data.labels[index].repeat(2)
        peer.train()
        with torch.no_grad():
            features = peer.encoder(both)
            embedded = F.normalize(peer.heads["projector"](features), dim=1)
            fit = F.cross_entropy(peer.classifier(features), labels)
            pull = supervised_contrast(embedded, embedded, labels, labels, 0.1).mean()
            keys = torch.cat([embedded, before])[:800]
            key_labels = torch.cat([labels, state.queue_labels])[:800]
            again = supervised_contrast(embedded, keys, labels, key_labels, 0.1).mean()
        found = method.epoch(state, data, epoch)
        assert found["learn/fit"] == pytest.approx(float(fit), rel=1e-4)
        wanted = pull if epoch == 0 else pull + again
        assert found["learn/contrast"] == pytest.approx(float(wanted), rel=1e-4)
        assert torch.allclose(state.queue, keys, atol=1e-5) and torch.equal(state.queue_labels, key_labels)


def test_the_queue_has_the_newest(data: TrainingData, network: Network) -> None:
    method = MOITPlus(epochs=4, batch_size=16, interpolation=4, correction=4, queue_per_class=5)
    state = method.start(data, network, Engine())
    assert len(state.queue) == 0
    method.epoch(state, data, 0)
    index = list(batches(data.everything, 16, data.generator("learn", 0, "order")))
    newest = torch.cat([data.labels[index[3]].repeat(2), data.labels[index[2]].repeat(2)])[:40]
    assert state.queue.shape == (40, 128) and torch.equal(state.queue_labels, newest)
    assert torch.allclose(state.queue.norm(dim=1), torch.ones(40), atol=1e-5) and not state.queue.requires_grad


def test_predictions_stand_in_for_labels_that_neighbors_do_not_have(data: TrainingData, network: Network) -> None:
    method = MOITPlus()
    state = method.start(data, network, Engine())
    index = torch.arange(10, 30)
    assert torch.equal(method._targets(state, data, index), data.one_hot(index))
    state.p_clean = (torch.arange(64) % 2).float().unsqueeze(0)
    found = method._targets(state, data, index)
    predicted = predict_all(classify(state.peers[0]), data).softmax(1)
    assert torch.equal(found[1::2], data.one_hot(index)[1::2]) and torch.allclose(found[::2], predicted[10:30:2])


def test_the_last_part_begins_with_a_new_classifier_and_learns_right_labels_alone(
    data: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = MOITPlus(epochs=5, batch_size=16, interpolation=2, correction=1, bootstrap=4, num_neighbors=8)
    state = run(method, data, network, 2)
    encoder, seen = weights(state.peers[0].encoder), []

    def watched(among: Tensor, *more: Any) -> Any:
        seen.append(sorted(among.tolist()))
        if len(seen) == 1:
            assert near(weights(state.peers[0].classifier), weights(state.fresh[0].classifier))
            assert near(weights(state.peers[0].encoder), encoder) and not state.peers[0].optimizer.state
        return batches(among, *more)

    monkeypatch.setattr("scanmix.methods.moit_plus.batches", watched)
    for epoch in (2, 3, 4):
        found = method.epoch(state, data, epoch)
        assert found["rate/learn"] == 0.001
    right = state.p_clean[0].nonzero().squeeze(1).tolist()
    assert seen == [right] * 3 and 0 < len(right) < 64
    counts = [sum(data.labels[right] == kind) for kind in range(4)]
    assert max(counts) == min(counts) or min(counts) == min(data.labels.bincount())


def test_bootstrapping_joins_late_and_leaves_known_labels(data: TrainingData, network: Network) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def watched(logits: Tensor, targets: Tensor, trust: Tensor, *, hard: bool) -> Tensor:
        seen.append((targets, trust))
        return targets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scanmix.methods.moit_plus.bootstrap_targets", watched)
        trusted = torch.arange(64) < 20
        known = dataclasses.replace(data, trusted=trusted)
        method = MOITPlus(epochs=4, batch_size=64, interpolation=1, correction=1, bootstrap=3, bootstrap_weight=0.3)
        state = method.start(known, network, Engine())
        for epoch in range(4):
            method.epoch(state, known, epoch)
            assert len(seen) == (1 if epoch == 3 else 0)
        ((_, trust),) = seen
    assert int((trust == 1).sum()) == 20
    assert trust.unique().tolist() == pytest.approx([0.7, 1.0])


def test_neighbors_find_wrong_labels(data: TrainingData, network: Network) -> None:
    """After contrastive training, the labels that are kept are cleaner; as many of each class, if it has so many."""
    method = MOITPlus(
        epochs=30, batch_size=32, interpolation=30, correction=30, learning_rate=0.05, num_neighbors=12,
        contrast_temperature=0.3,
    )  # fmt: skip
    state = run(method, data, network, 30)
    right = data.labels == KIND
    kept = neighbors_agree(state.peers[0], "projector", data, 12)
    assert float(right[kept].float().mean()) > float(right.float().mean()) + 0.1
    counts = data.labels[kept].bincount(minlength=4)
    sizes = data.labels.bincount(minlength=4)
    assert bool(((counts == counts.max()) | (counts == sizes)).all())
