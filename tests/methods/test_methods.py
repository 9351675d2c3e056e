"""What holds for every method: it trains, it depends on its seed alone, and it stops when numbers end."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Diverged
from scanmix.methods import METHODS, Method
from scanmix.networks.inference import Predictor, predict_all
from scanmix.networks.preact_resnet import PreActResNetSettings

Methods = Callable[..., dict[str, Method]]  # (epochs, warmup=1)
NAMES = sorted(METHODS)
WITH_LABELS = [name for name in NAMES if not METHODS[name].self_supervised]
FROZEN = ["linear", "propagate", "neighbors", "wann"]
"""Methods whose network stays as it is."""
VOTES = ["neighbors", "wann"]
"""Methods whose classifier is a vote of the training examples."""


def run(
    method: Method, data: TrainingData, network: PreActResNetSettings, seed: int = 0
) -> tuple[Any, list[dict[str, float]]]:
    state = method.start(data, network, Engine(seed=seed))
    return state, [method.epoch(state, data, epoch) for epoch in range(method.epochs)]


def weights(state: Any) -> dict[str, Tensor]:
    """Weights of all peers, and tensors that the state keeps besides."""
    kept = {name: value.clone() for name, value in vars(state).items() if isinstance(value, Tensor)}
    return kept | {
        f"{i}.{name}": value.clone() for i, peer in enumerate(state.peers) for name, value in peer.state_dict().items()
    }


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_every_method_is_tested(methods: Methods) -> None:
    assert sorted(methods(2)) == NAMES
    for name, method in methods(2).items():
        assert type(method) is METHODS[name]


@pytest.mark.parametrize("name", NAMES)
def test_two_epochs_train_and_predict(
    name: str, methods: Methods, data: TrainingData, network: PreActResNetSettings
) -> None:
    method = methods(2)[name]
    state = method.start(data, network, Engine())
    assert isinstance(state, method.State)
    before = weights(state)
    for epoch in range(method.epochs):
        results = method.epoch(state, data, epoch)
        assert all(math.isfinite(value) for value in results.values())
        assert method.self_supervised or any(key.startswith("seconds/") for key in results)
    after = weights(state)
    assert all(bool(value.isfinite().all()) for value in after.values())
    if not method.self_supervised:
        assert not equal(before, after)
    predictor = method.predictor(state)
    assert isinstance(predictor, Predictor)
    logits = predict_all(predictor, data)
    assert logits.shape == (64, 4) and bool(logits.isfinite().all())
    stand = state.averages if name in ("accord", "mentormix", "mlnt") else state.peers
    members = [peer.classifier(predict_all(peer.encoder, data)) for peer in stand]
    if name not in VOTES:
        assert torch.allclose(logits, torch.stack(members).sum(0), atol=1e-5), "summed logits of the classifiers"
    heads = METHODS[name].heads
    assert len(state.peers) == method.about.networks
    for peer in state.peers:
        assert set(peer.heads) == set(heads(peer.classifier.in_features) if heads else ())
    if state.p_clean is not None:
        assert method.clean_threshold is not None
        assert state.p_clean.shape == (len(state.peers), 64)
        assert bool(((state.p_clean >= 0) & (state.p_clean <= 1)).all())


@pytest.mark.parametrize(
    ("name", "epochs", "warmup"), [("cross_entropy", 25, 1), ("mixup", 40, 1), ("dividemix", 40, 25)]
)
def test_methods_learn_what_most_labels_say(
    name: str, epochs: int, warmup: int, methods: Methods, data: TrainingData, network: PreActResNetSettings
) -> None:
    method = methods(epochs, warmup)[name]
    state, _ = run(method, data, network)
    found = predict_all(method.predictor(state), data).argmax(1)
    # A quarter is chance, a third of the labels is wrong.
    assert float((found == torch.arange(64) % 4).float().mean()) > 0.85


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_everything_and_the_global_generator_nothing(
    name: str, methods: Methods, make_data: Callable[[int], TrainingData], network: PreActResNetSettings
) -> None:
    method = methods(2)[name]
    torch.manual_seed(1)
    first = weights(run(method, make_data(0), network)[0])
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = weights(run(method, make_data(0), network)[0])
    assert torch.equal(before, torch.get_rng_state()), "nothing may draw from the global generator"
    assert equal(first, again)
    assert not equal(first, weights(run(method, make_data(1), network, seed=1)[0]))


@pytest.mark.parametrize("name", NAMES)
def test_looking_at_the_predictor_between_epochs_changes_nothing(
    name: str, methods: Methods, data: TrainingData, network: PreActResNetSettings
) -> None:
    method = methods(2)[name]
    state = method.start(data, network, Engine())
    for epoch in range(method.epochs):
        predict_all(method.predictor(state), data)
        method.epoch(state, data, epoch)
    assert equal(weights(state), weights(run(method, data, network)[0]))


def poison(state: Any, part: str) -> None:
    with torch.no_grad():
        getattr(state.peers[0], part).bias.fill_(float("nan"))


@pytest.mark.parametrize("name", [name for name in WITH_LABELS if name not in FROZEN])
def test_a_poisoned_network_stops_its_method_at_once(
    name: str, methods: Methods, data: TrainingData, network: PreActResNetSettings
) -> None:
    method = methods(3)[name]
    state = method.start(data, network, Engine())
    poison(state, "classifier")
    with pytest.raises(Diverged, match=r"step 1 of (warmup|learn)"):
        method.epoch(state, data, 0)


@pytest.mark.parametrize("name", FROZEN)
def test_poisoned_features_stop_a_method_that_fits_its_classifier_anew(
    name: str, methods: Methods, data: TrainingData, network: PreActResNetSettings
) -> None:
    method = methods(3)[name]
    state = method.start(data, network, Engine())
    with torch.no_grad():
        next(state.peers[0].encoder.parameters()).fill_(float("nan"))
    with pytest.raises(Diverged, match="features that are infinite or NaN"):
        method.epoch(state, data, 0)


@pytest.mark.parametrize("name", ["dividemix", "scan_dividemix", "scanmix"])
def test_poison_after_warm_up_is_found_in_the_learning_stage(
    name: str, methods: Methods, data: TrainingData, network: PreActResNetSettings
) -> None:
    method = methods(3)[name]
    state = method.start(data, network, Engine())
    method.epoch(state, data, 0)
    poison(state, "classifier")
    with pytest.raises(Diverged, match="loss became nan at step 1 of learn"):
        method.epoch(state, data, 1)


def test_poison_of_the_clustering_head_is_found_in_its_stage(
    methods: Methods, data: TrainingData, network: PreActResNetSettings
) -> None:
    method = methods(3)["scanmix"]
    state = method.start(data, network, Engine())
    method.epoch(state, data, 0)
    poison(state, "clusterer")
    with pytest.raises(Diverged, match="step 1 of cluster"):
        method.epoch(state, data, 1)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_hyper_parameter_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not_there"):
        METHODS[name](**{"not_there": 1})
