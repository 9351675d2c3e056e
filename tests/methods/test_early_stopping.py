"""PES, plain and semi-supervised: which parts begin anew, and which labels are learned from then on."""

import pytest
import torch

from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.pes import PES
from scanmix.methods.pes_semi import PESSemi
from scanmix.methods.steps.early_stopping import RefitPart, agrees, last_layers, reinit_and_refit
from scanmix.networks.inference import classify
from scanmix.networks.mlp import MlpSettings
from scanmix.networks.peer import make_peer
from scanmix.networks.preact_resnet import PreActResNetSettings
from scanmix.networks.resnet import ResNetSettings
from tests.methods.tiny import KIND, Network, near, run, weights


@pytest.mark.parametrize("part", ["head", "last stage"])
def test_only_the_part_is_taught(part: RefitPart, data: TrainingData, network: Network) -> None:
    peer, fresh = (make_peer(network, data, Engine(), name, 0.9, 5e-4) for name in "ab")
    peer.optimizer.state[peer.classifier.weight] = {}
    before = {name: value.clone() for name, value in peer.named_parameters()}
    own = {id(value) for value in last_layers(peer, part).parameters()}
    reinit_and_refit(peer, fresh, part, 2, 0.01, 16, data, Meter())
    for name, value in peer.named_parameters():
        assert value.requires_grad
        assert torch.equal(value, before[name]) == (id(value) not in own), name
    assert not peer.optimizer.state, "momentum is gone"


def test_a_part_that_is_not_taught_is_fresh(data: TrainingData, network: Network) -> None:
    peer, fresh = (make_peer(network, data, Engine(), name) for name in "ab")
    reinit_and_refit(peer, fresh, "last stage", 0, 0.01, 16, data, Meter())
    assert near(weights(last_layers(peer, "last stage")), weights(last_layers(fresh, "last stage")))
    assert not near(weights(peer), weights(fresh))


def test_the_last_stage_of_each_network() -> None:
    preact = PreActResNetSettings(widths=(4, 8), blocks=(2, 3), final_norm=True).build(1)
    resnet = ResNetSettings(kind="resnet", widths=(4, 8), blocks=(1, 2)).build(3)
    mlp = MlpSettings(hidden=(8, 4)).build(5)
    for encoder, first in ((preact, "stages.2."), (resnet, "stages.1."), (mlp, "layers.3.")):
        names = [name for name, _ in encoder.named_parameters()]
        own = {id(value) for part in encoder.last_stage() for value in part.parameters()}
        late_names = [name for name, value in encoder.named_parameters() if id(value) in own]
        begin = next(i for i, name in enumerate(names) if name.startswith(first))
        assert late_names == names[begin:], "all from there to the end"


def test_agreement_is_of_the_mean_of_two_views(data: TrainingData, network: Network) -> None:
    peer = make_peer(network, data, Engine(), "a")
    draws = data.generator("examine", 3, "views")
    views = [data.views.weak(data.images[data.everything], draws) for _ in range(2)]
    peer.eval()
    with torch.no_grad():
        said = sum(classify(peer)(view).softmax(1) for view in views) / 2
    assert torch.equal(agrees(peer, data, 3), said.argmax(1) == data.labels)


def test_pes_learns_the_labels_it_predicts_and_rare_classes_as_much(
    data: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    real = torch.nn.functional.cross_entropy

    def noted(logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        seen.append(weight)
        return real(logits, labels, weight)

    method = PES(epochs=6, warmup=5, refit_stage=2, refit_head=2, refit_rate=0.01, batch_size=16, learning_rate=0.05)
    state = run(method, data, network, 5)
    monkeypatch.setattr("scanmix.methods.pes.F.cross_entropy", noted)
    monkeypatch.setattr("scanmix.methods.pes.reinit_and_refit", lambda *_: None)
    method.epoch(state, data, 5)
    agreed = state.p_clean[0] > 0
    counts = data.labels[agreed].bincount(minlength=4).float()
    occur = counts > 0
    wanted = torch.where(occur, counts[occur].mean() / counts, torch.zeros(4))
    assert torch.allclose(seen[0], wanted) and len(seen) == -(-int(agreed.sum()) // 16)


def test_labels_that_pes_predicts_are_right(data: TrainingData, network: Network) -> None:
    method = PES(epochs=30, warmup=12, batch_size=16, refit_rate=0.01, learning_rate=0.05)
    state = run(method, data, network)
    right = data.labels == KIND
    assert float(right[state.p_clean[0] > 0].float().mean()) > 0.85


def test_pes_semi_renews_the_head_alone(data: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    method = PESSemi(epochs=4, warmup=2, refit=3, refit_rate=0.01, batch_size=16)
    state = run(method, data, network, 2)
    before, head = weights(state.peers[0].encoder), weights(state.peers[0].classifier)
    monkeypatch.setattr(PESSemi, "_train_pass", lambda *_: None)
    method.epoch(state, data, 2)
    assert near(before, weights(state.peers[0].encoder)) and not near(head, weights(state.peers[0].classifier), 1e-3)
    assert not near(weights(state.fresh[0].classifier), weights(state.peers[0].classifier), 1e-3)
    assert 0 < int((state.p_clean[0] > 0).sum()) < 64


def test_pes_semi_learns_from_labels_it_agrees_with(data: TrainingData, network: Network) -> None:
    method = PESSemi(epochs=30, warmup=15, batch_size=16, refit_rate=0.01, learning_rate=0.05, unlabeled_weight=1.0)
    state = run(method, data, network)
    right = data.labels == KIND
    assert float(right[state.p_clean[0] > 0].float().mean()) > 0.85
