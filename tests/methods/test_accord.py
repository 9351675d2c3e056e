"""ACCORD: what its beliefs rest on, what its two parts learn, and that it stands where most labels are wrong."""

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scanmix.blocks import pictures
from scanmix.blocks.inferred_classes import infer_classes
from scanmix.blocks.mixmatch import mixup
from scanmix.blocks.neighbors import nearest_neighbors
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.accord import AHEAD, Accord
from scanmix.networks.inference import predict_all
from tests.methods.tiny import KIND, Network, run, weights

METHOD = Accord(epochs=4, joint=0.5, joint_batch=64, batch_size=16, num_neighbors=5)


def beliefs_by(seen: Tensor, data: TrainingData, epoch: int) -> Tensor:
    """What labels and neighbors of unit rows tell together."""
    draws = data.generator("believe", epoch, "draws")
    return infer_classes(nearest_neighbors(seen, 5), seen, data.labels, 4, draws, margin=AHEAD).posterior


def test_the_first_beliefs_rest_on_the_pictures_alone(data: TrainingData, network: Network) -> None:
    state = METHOD.start(data, network, Engine())
    METHOD.believe(state, data, 0)
    wanted = beliefs_by(F.normalize(pictures.of_pixels(data.images), dim=1), data, 0)
    assert state.beliefs is not None and torch.allclose(state.beliefs, wanted, atol=1e-6)
    other = METHOD.start(data, network, Engine(seed=7))
    METHOD.believe(other, data, 0)
    assert other.beliefs is not None and torch.equal(other.beliefs, state.beliefs), "the network had a say"
    assert state.p_clean is not None
    given = [float(row[label]) for row, label in zip(state.beliefs, data.labels.tolist(), strict=True)]
    assert state.p_clean.tolist() == [pytest.approx(given)]


def test_the_second_beliefs_see_features_of_the_average_beside_those_of_the_pictures(
    data: TrainingData, network: Network
) -> None:
    state = run(METHOD, data, network, METHOD.joint_epochs)
    found = predict_all(state.averages[0].encoder, data)
    mean, axes = pictures.narrowed_axes(found)
    both = [F.normalize(pictures.of_pixels(data.images), dim=1), F.normalize((found - mean) @ axes, dim=1)]
    METHOD.believe(state, data, METHOD.joint_epochs)
    assert torch.allclose(state.beliefs, beliefs_by(torch.cat(both, 1), data, METHOD.joint_epochs), atol=1e-5)
    assert state.pictures is None, "no later checkpoint holds what is not needed"


def test_beliefs_are_formed_where_a_part_begins(
    data: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    honest = Accord.believe

    def watched(this: Accord, state: Any, data: TrainingData, epoch: int) -> None:
        seen.append(epoch)
        honest(this, state, data, epoch)

    monkeypatch.setattr(Accord, "believe", watched)
    run(dataclasses.replace(METHOD, epochs=6), data, network)
    assert seen == [0, 3]


def test_the_joint_part_has_both_losses_on_the_same_views(data: TrainingData, network: Network) -> None:
    """One batch by hand: NT-Xent and cross-entropy as sums over rows."""
    state = METHOD.start(data, network, Engine())
    METHOD.believe(state, data, 0)
    (peer,) = METHOD.start(data, network, Engine()).peers
    order, draws = data.generators("together", 0, "order", "views")
    index = torch.randperm(64, generator=order)
    both = torch.cat([data.views.contrastive(data.images[index], draws) for _ in range(2)])
    peer.train()
    with torch.no_grad():
        features = peer.encoder(both)
        embedded, log_probs = peer.heads["projector"](features), peer.classifier(features).log_softmax(1)
    contrast = 0.0
    for row in range(128):
        likeness = {other: math.exp(float(embedded[row] @ embedded[other]) / 0.2) for other in range(128)}
        del likeness[row]
        contrast -= math.log(likeness[(row + 64) % 128] / sum(likeness.values())) / 128
    assert state.beliefs is not None
    sure = METHOD.weights(state.beliefs)
    fit = 0.0
    for row in range(128):
        picture = int(index[row % 64])
        fit -= float(sure[picture] / sure.mean() * (state.beliefs[picture] @ log_probs[row])) / 128
    meter = Meter()
    METHOD.learn_together(state, data, 0, meter)
    found = meter.results()
    assert found["learn/contrast"] == pytest.approx(contrast, rel=1e-4)
    assert found["learn/fit"] == pytest.approx(fit, rel=1e-4)
    assert found["learn/loss"] == pytest.approx(contrast + 3 * fit, rel=1e-4)


def test_weights_are_certainty_over_the_root_of_the_mass_of_classes() -> None:
    beliefs = torch.rand(20, 4, generator=Generator().manual_seed(0)).pow(3)
    beliefs = beliefs / beliefs.sum(1, keepdim=True)
    sure = [max(1e-3, (max(row) - 0.25) / 0.75) for row in beliefs.tolist()]
    mass = [sum(s * row[c] for s, row in zip(sure, beliefs.tolist(), strict=True)) for c in range(4)]
    wanted = [
        s * sum(row[c] / math.sqrt(mass[c]) for c in range(4)) for s, row in zip(sure, beliefs.tolist(), strict=True)
    ]
    assert METHOD.weights(beliefs).tolist() == pytest.approx(wanted, rel=1e-4)


def test_the_last_part_mixes_as_much_as_labels_are_wrong_and_at_the_end_not_at_all(
    data: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    alphas: list[float] = []

    def watched(inputs: Tensor, targets: Tensor, alpha: float, generator: Generator) -> tuple[Tensor, Tensor]:
        alphas.append(alpha)
        return mixup(inputs, targets, alpha, generator)

    monkeypatch.setattr("scanmix.methods.accord.mixup", watched)
    state = run(dataclasses.replace(METHOD, epochs=6, polish=0.4), data, network)
    wrong = float(1 - state.p_clean.mean())
    assert 0.2 < wrong < 0.5
    assert alphas == [pytest.approx(4 * wrong)] * 8 + [0.0] * 4


def test_a_label_that_is_known_is_believed(data: TrainingData, network: Network) -> None:
    trusted = data.labels != KIND
    known = dataclasses.replace(data, trusted=trusted)
    state = METHOD.start(known, network, Engine())
    METHOD.believe(state, known, 0)
    assert state.beliefs is not None
    assert torch.equal(state.beliefs[trusted], F.one_hot(data.labels[trusted], 4).float())


def test_the_average_follows_and_predicts(data: TrainingData, network: Network) -> None:
    state = METHOD.start(data, network, Engine())
    before = weights(state.averages[0])
    METHOD.believe(state, data, 0)
    METHOD.learn_together(state, data, 0, Meter())  # one step
    for old, now, average in zip(before, weights(state.peers[0]), weights(state.averages[0]), strict=True):
        torch.testing.assert_close(average, old * 1 / 11 + now * 10 / 11)
    assert state.steps == 1
    predicting = next(METHOD.predictor(state).members[0].parameters())
    assert predicting is next(state.averages[0].encoder.parameters())
