"""Methods for frozen features: the network stays, the classifier is fitted at once, and wrong labels are mended."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scanmix.blocks.logistic import logistic_regression
from scanmix.data.batches import TrainingData
from scanmix.data.noise import symmetric
from scanmix.data.views.feature_views import FeatureViewSettings, make_feature_views
from scanmix.distributed.engine import Engine
from scanmix.methods.linear import Linear
from scanmix.methods.propagate import Propagate
from scanmix.networks.inference import predict_all
from scanmix.networks.no_layers import NoLayersSettings
from tests.methods.tiny import Network, run, weights

VECTORS = NoLayersSettings(kind="none")


def clouds(rate: float, seed: int = 0, count: int = 300) -> tuple[TrainingData, Tensor]:
    """Four clouds in sixteen dimensions, with a share of labels drawn anew, and their true classes."""
    true = torch.arange(count) % 4
    draws = torch.Generator().manual_seed(seed)
    rows = 4 * torch.eye(16)[true] + torch.randn(count, 16, generator=draws)
    vectors, labels = rows[:, :, None, None], symmetric(true, rate, 4, seed)
    views = make_feature_views(FeatureViewSettings(), vectors)
    return TrainingData(vectors, labels, 4, views, Engine().generator), true


def right(method: Linear | Propagate, data: TrainingData, true: Tensor) -> float:
    """Share of examples whose true class the classifier says."""
    state = method.start(data, VECTORS, Engine())
    method.epoch(state, data, 0)
    return float((predict_all(method.predictor(state), data).argmax(1) == true).float().mean())


def test_linear_is_the_logistic_regression_on_what_is_given() -> None:
    data, _ = clouds(0.4)
    state = Linear().start(data, VECTORS, Engine())
    Linear().epoch(state, data, 0)
    (folds,) = data.generators("learn", 0, "folds")
    found = logistic_regression(data.eval_view(data.everything), F.one_hot(data.labels, 4).float(), folds)
    (peer,) = state.peers
    assert torch.equal(peer.classifier.weight, found.weight) and torch.equal(peer.classifier.bias, found.bias)
    assert state.p_clean is None


@pytest.mark.parametrize("method", [Linear(), Propagate()])
def test_the_network_stays_as_it_is(method: Linear | Propagate, data: TrainingData, network: Network) -> None:
    before = weights(method.start(data, network, Engine()).peers[0].encoder)
    (peer,) = run(method, data, network).peers
    assert before and all(torch.equal(one, other) for one, other in zip(before, weights(peer.encoder), strict=True))
    assert not peer.training or not any(value.requires_grad and value.grad is not None for value in peer.parameters())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rate", [0.2, 0.8])
def test_propagated_labels_are_right_whatever_the_noise(rate: float, seed: int) -> None:
    data, true = clouds(rate, seed)
    assert right(Propagate(), data, true) > 0.95
    state = Propagate().start(data, VECTORS, Engine())
    Propagate().epoch(state, data, 0)
    assert state.p_clean is not None
    clean = data.labels == true
    assert float(state.p_clean[0, clean].mean()) > 0.8 > 0.3 > float(state.p_clean[0, ~clean].mean())


def test_with_much_noise_propagation_is_ahead_of_the_baseline() -> None:
    gains = [right(Propagate(), *clouds(0.8, seed)) - right(Linear(), *clouds(0.8, seed)) for seed in range(3)]
    assert min(gains) > 0.02, gains


def test_a_label_that_is_known_is_learned_whatever_its_neighbors_say() -> None:
    data, true = clouds(0.0)
    known = torch.zeros(len(data), dtype=torch.bool)
    known[0] = True
    wrong = torch.where(known, (true + 1) % 4, true)
    found = []
    for trusted in (known, None):
        asked = dataclasses.replace(data, labels=wrong, trusted=trusted)
        state = Propagate().start(asked, VECTORS, Engine())
        Propagate().epoch(state, asked, 0)
        assert state.p_clean is not None
        found.append(float(state.p_clean[0, 0]))
    assert found[0] == 1.0 and found[1] < 0.5, found
