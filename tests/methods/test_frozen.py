"""Methods for frozen features: the network stays, the classifier is fitted at once, and wrong labels are mended."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scanmix.blocks.adaptive_neighbors import least_agreeing
from scanmix.blocks.discriminant import discriminants
from scanmix.blocks.logistic import logistic_regression
from scanmix.blocks.neighbors import nearest_neighbors
from scanmix.data.batches import TrainingData
from scanmix.data.noise import symmetric
from scanmix.data.views.feature_views import FeatureViewSettings, make_feature_views
from scanmix.distributed.engine import Engine
from scanmix.methods import Method
from scanmix.methods.linear import Linear
from scanmix.methods.neighbors import Neighbors
from scanmix.methods.propagate import Propagate
from scanmix.methods.steps.frozen import Voters
from scanmix.methods.wann import WANN
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


def right(method: Method, data: TrainingData, true: Tensor) -> float:
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


@pytest.mark.parametrize("method", [Linear(), Propagate(), Neighbors(), WANN()])
def test_the_network_stays_as_it_is(method: Method, data: TrainingData, network: Network) -> None:
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


def voters_of(method: Neighbors | WANN, data: TrainingData) -> Voters:
    state = method.start(data, VECTORS, Engine())
    method.epoch(state, data, 0)
    return state


def test_the_vote_is_that_of_the_nearest_examples() -> None:
    """Sorted by hand, in whole precision; a row is not among its neighbors where k is chosen."""
    data, true = clouds(0.4)
    unit = F.normalize(data.eval_view(data.everything).double(), dim=1)
    similarity = unit @ unit.T
    order = (similarity - 2 * torch.eye(len(data))).argsort(1, descending=True)
    said = {
        k: sum(int(data.labels[near[:k]].bincount(minlength=4).argmax() == label) for near, label in rows)
        for rows in [list(zip(order, data.labels, strict=True))]
        for k in (5, 20, 60)
    }
    method = Neighbors(tried=(60, 5, 20))
    state = voters_of(method, data)
    k = int(state.reach[0])
    assert said[k] == max(said.values()) and len(set(said.values())) == 3 and bool((state.reach == k).all())
    votes = F.one_hot(data.labels[similarity.argsort(1, descending=True)[:, :k]], 4).double().mean(1)
    found = predict_all(method.predictor(state), data).softmax(1).double()
    near = (found - (k * votes + 0.25) / (k + 1)).abs().amax(1) < 1e-5
    assert float(near.float().mean()) > 0.98, "rows in half precision may exchange neighbors that are all but equal"
    assert right(method, data, true) > 0.9 > float((data.labels == true).float().mean())


def test_reliable_labels_count_more_and_the_nearest_says_how_many_vote() -> None:
    data, true = clouds(0.4)
    state = voters_of(WANN(), data)
    clean = data.labels == true
    assert torch.equal(state.weights, 1 / state.reach) and int(state.reach.min()) == 11 and int(state.reach.max()) == 51
    assert float(state.weights[clean].mean()) > 2 * float(state.weights[~clean].mean())
    assert right(WANN(), data, true) > 0.95


def test_a_label_that_is_known_is_as_reliable_as_can_be() -> None:
    data, true = clouds(0.0)
    known = torch.arange(len(data)) == 7
    wrong = dataclasses.replace(data, labels=torch.where(known, (true + 1) % 4, true))
    doubted, trusted = (voters_of(WANN(), dataclasses.replace(wrong, trusted=one)) for one in (None, known))
    assert int(doubted.reach[7]) == 51 and int(trusted.reach[7]) == 11
    assert torch.equal(doubted.reach[~known], trusted.reach[~known])


@pytest.mark.parametrize("shrinkage", [0.0, 0.9])
def test_filtered_discriminants_come_from_labels_that_neighbors_confirm(shrinkage: float) -> None:
    data, true = clouds(0.4)
    method = WANN(discriminant=shrinkage)
    state, plain = voters_of(method, data), voters_of(WANN(), data)
    features, told = data.eval_view(data.everything), plain.reach < 51
    assert 0.5 < float(told.float().mean()) < 0.9
    wanted = discriminants(features[told], data.labels[told], 4, shrinkage)
    assert state.directions is not None and torch.equal(state.directions, wanted.directions)
    assert state.rows.shape == (300, 3) and bool((state.reach != plain.reach).any())
    places = (features - wanted.center) @ wanted.directions
    near = nearest_neighbors(places, 51)
    assert torch.equal(state.reach, least_agreeing(near, data.labels, 4, 11))
    assert right(method, data, true) > 0.95


def test_a_class_that_no_neighbors_confirm_keeps_its_direction() -> None:
    data, true = clouds(0.0)
    labels = torch.where(true == 3, 0, true)
    labels[3] = 3  # one alone among others
    state = voters_of(WANN(discriminant=0.9), dataclasses.replace(data, labels=labels))
    assert int(state.reach[3]) == 51 and state.directions is not None and bool(state.directions.any(0).all())


@pytest.mark.parametrize("method", [Neighbors(), WANN(), WANN(discriminant=0.0), WANN(discriminant=0.9)])
def test_three_examples_are_enough(method: Neighbors | WANN) -> None:
    data, _ = clouds(0.0, count=3)
    logits = predict_all(method.predictor(voters_of(method, data)), data)
    assert logits.shape == (3, 4) and bool(logits.isfinite().all())


@pytest.mark.parametrize("method", [Neighbors(), WANN(), WANN(discriminant=0.9)])
def test_a_predictor_follows_its_state(method: Neighbors | WANN) -> None:
    data, _ = clouds(0.4)
    state = method.start(data, VECTORS, Engine())
    before = method.predictor(state)
    method.epoch(state, data, 0)
    assert torch.equal(predict_all(before, data), predict_all(method.predictor(state), data))
