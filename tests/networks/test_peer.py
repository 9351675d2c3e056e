"""Peers: where weights come from, what one step moves, and which mode every forward is in."""

import io

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import scanmix.networks.inference as module
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.networks.inference import Predictor, classify, frozen_copy, inference, per_sample_losses, predict_all
from scanmix.networks.peer import Peer, make_encoder, make_peer, rest_encoders
from scanmix.networks.preact_resnet import PreActResNetSettings

SMALL = PreActResNetSettings(widths=(4, 6), blocks=(1, 1))


def made_peer(
    data: TrainingData, name: str = "first", seed: int = 0, momentum: float = 0.9, weight_decay: float = 0.1
) -> Peer:
    return make_peer(SMALL, data, Engine(seed=seed), name, momentum=momentum, weight_decay=weight_decay)


def copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def changed(network: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


def same(first: nn.Module, second: nn.Module) -> bool:
    return not changed(first, copied(second))


def test_initial_weights_depend_on_seed_and_name_alone(data: TrainingData) -> None:
    torch.manual_seed(1)
    peer, encoder = made_peer(data), make_encoder(SMALL, 3, Engine(), "first")
    torch.manual_seed(2)
    torch.rand(3)
    assert same(made_peer(data), peer) and same(make_encoder(SMALL, 3, Engine(), "first"), encoder)
    for other in (made_peer(data, name="second"), made_peer(data, seed=1)):
        weights = {name for name in copied(peer) if name.endswith("conv1.weight") or "ifier" in name}
        assert weights <= changed(other, copied(peer))
    assert not same(make_encoder(SMALL, 3, Engine(), "second"), encoder)
    assert not same(make_encoder(SMALL, 3, Engine(seed=1), "first"), encoder)


def test_initialization_leaves_the_global_generator_alone(data: TrainingData) -> None:
    before = torch.get_rng_state()
    made_peer(data)
    make_encoder(SMALL, 3, Engine(), "encoder")
    assert torch.equal(before, torch.get_rng_state())


def test_a_peer_has_an_encoder_and_two_heads_of_their_own(data: TrainingData) -> None:
    peer = made_peer(data)
    for head in (peer.classifier, peer.clusterer):
        assert head.weight.shape == (3, 6) and head.bias.shape == (3,)
    assert not torch.equal(peer.classifier.weight, peer.clusterer.weight)
    moved = {id(p) for group in peer.optimizer.param_groups for p in group["params"]}
    assert moved == {id(p) for p in peer.parameters()}


def test_one_step_is_stochastic_gradient_descent_by_hand(data: TrainingData) -> None:
    """v <- m v + (g + wd w), w <- w - lr v (the rate is outside the momentum, as in PyTorch)."""
    peer = made_peer(data)
    features = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    weight, velocity = peer.classifier.weight.detach().clone(), torch.zeros(3, 6)
    for rate in (0.5, 0.1, 0.2):
        loss = F.cross_entropy(peer.classifier(features), torch.tensor([0, 1, 2, 0, 1]))
        (gradient,) = torch.autograd.grad(loss, [peer.classifier.weight], retain_graph=True)
        velocity = 0.9 * velocity + gradient + 0.1 * weight
        weight = weight - rate * velocity
        peer.step(loss, rate)
        assert torch.allclose(peer.classifier.weight, weight, atol=1e-6)


def test_a_head_without_part_in_the_loss_is_frozen(data: TrainingData) -> None:
    """Neither weight decay nor leftover momentum moves it (reference-facts 1.10)."""
    peer = made_peer(data, weight_decay=0.5)
    images = data.eval_view(slice(0, 6))

    def step(head: nn.Module) -> set[str]:
        before = copied(peer)
        peer.train()
        loss = head(peer.encoder(images)).square().mean()
        peer.step(loss, 0.1)
        return {name.split(".")[0] for name in changed(peer, before)}

    assert step(peer.classifier) == {"encoder", "classifier"}
    assert step(peer.clusterer) == {"encoder", "clusterer"}
    assert step(peer.classifier) == {"encoder", "classifier"}


def test_head_only_learning_leaves_every_encoder_weight_and_moves_its_statistics(data: TrainingData) -> None:
    peer = made_peer(data, weight_decay=0.5)
    before = copied(peer)
    for _ in range(2):
        with inference(peer.encoder, batch_statistics=True):
            features = peer.encoder(data.eval_view(slice(0, 6)))
        peer.step(F.cross_entropy(peer.classifier(features), data.labels[:6]), 0.1)
    moved = changed(peer, before)
    assert {"classifier.weight", "classifier.bias"} <= moved
    rest = moved - {"classifier.weight", "classifier.bias"}
    assert rest == {name for name in before if "running" in name or "num_batches" in name}


@pytest.mark.parametrize("was_training", [True, False])
@pytest.mark.parametrize("batch_statistics", [True, False])
def test_guessing_is_explicit_about_batch_norm_and_restores_the_mode(
    data: TrainingData, was_training: bool, batch_statistics: bool
) -> None:
    encoder = made_peer(data).encoder.train(was_training)
    before = copied(encoder)
    with inference(encoder, batch_statistics=batch_statistics):
        assert encoder.training is batch_statistics
        features = encoder(data.eval_view(slice(0, 6)))
        shifted = encoder(data.eval_view(slice(0, 6)) + torch.arange(6).view(-1, 1, 1, 1))
    assert not features.requires_grad and not shifted.requires_grad
    assert all(part.training is was_training for part in encoder.modules())
    assert torch.is_grad_enabled()
    moved = {name for name in before if "running" in name or "num_batches" in name}
    assert changed(encoder, before) == (moved if batch_statistics else set())


def test_guessing_restores_the_mode_after_an_error(data: TrainingData) -> None:
    encoder = made_peer(data).encoder.train()
    with pytest.raises(ZeroDivisionError), inference(encoder, batch_statistics=False):
        raise ZeroDivisionError
    assert encoder.training and torch.is_grad_enabled()


def test_learning_uses_batch_statistics_and_keeps_gradients(data: TrainingData) -> None:
    peer = made_peer(data).eval()
    before = copied(peer)
    peer.train()
    features = peer.encoder(data.eval_view(slice(0, 6)))
    assert features.requires_grad
    assert "encoder.stages.0.norm1.running_mean" in changed(peer, before)


@pytest.mark.parametrize("size", [1, 5, 6, 11, 12, 13])
def test_sweep_is_one_example_at_a_time_in_evaluation_mode(
    data: TrainingData, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(module, "INFERENCE_BATCH", size)
    network = classify(made_peer(data)).train()
    network.train()
    network(data.eval_view(slice(0, 12)))  # statistics that are not the initial ones
    before = copied(network)
    swept = predict_all(network, data)
    assert network.training and not swept.requires_grad
    assert not changed(network, before)
    network.eval()
    slow = torch.cat([network(data.eval_view(torch.tensor([i]))) for i in range(12)])
    assert torch.allclose(swept, slow, atol=1e-5)


def test_examine_is_the_loss_of_each_label_and_the_likeliest_class(data: TrainingData) -> None:
    peer = made_peer(data)
    belief = per_sample_losses(peer, data)
    probs = predict_all(classify(peer), data).double().softmax(1)
    for i in range(12):
        assert float(belief.losses[i]) == pytest.approx(-float(probs[i, data.labels[i]].log()), rel=1e-4)
        assert int(belief.prediction[i]) == max(range(3), key=lambda c: float(probs[i, c]))


def test_examine_looks_at_the_classifier(data: TrainingData) -> None:
    peer = made_peer(data)
    nn.init.constant_(peer.clusterer.weight, 0)
    with torch.no_grad():
        peer.classifier.weight.zero_()
        peer.classifier.bias.copy_(torch.tensor([0.0, 9.0, 0.0]))
    assert per_sample_losses(peer, data).prediction.tolist() == [1] * 12


def test_predictor_adds_the_logits_of_its_members(data: TrainingData) -> None:
    first, second = classify(made_peer(data)).eval(), classify(made_peer(data, name="second")).eval()
    images = data.eval_view(slice(0, 4))
    got = Predictor([first, second])(images)
    assert torch.allclose(got, first(images) + second(images))


def test_classify_shares_its_weights_with_the_peer(data: TrainingData) -> None:
    peer = made_peer(data).eval()
    network = classify(peer)
    with torch.no_grad():
        peer.classifier.bias.add_(3)
    images = data.eval_view(slice(0, 4))
    assert torch.equal(network(images), peer.classifier(peer.encoder(images)))


def test_a_frozen_copy_is_apart(data: TrainingData) -> None:
    network = classify(made_peer(data)).train()
    copy = frozen_copy(network)
    assert same(copy, network) and network.training and not copy.training
    assert not any(p.requires_grad for p in copy.parameters())
    assert all(p.requires_grad for p in network.parameters())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert not same(copy, network)


@pytest.mark.parametrize("keep", [True, False])
def test_a_task_begins_with_or_without_the_momentum_left_over(data: TrainingData, keep: bool) -> None:
    peer, twin = made_peer(data), made_peer(data)
    for each in (peer, twin):
        each.step(each.classifier(each.encoder(data.eval_view(slice(0, 4)))).square().sum(), 0.01)
    assert peer.begin(keep) is peer
    assert bool(peer.optimizer.state) is keep
    for each in (peer, twin):
        each.step(each.classifier(each.encoder(data.eval_view(slice(0, 4)))).square().sum(), 0.01)
    assert same(peer, twin) is keep


class Slow(nn.Module):
    """A linear encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 5)

    def forward(self, rows: Tensor) -> Tensor:
        found: Tensor = self.layer(rows)
        return found


def slow_peer(encoder_rate: float) -> Peer:
    torch.manual_seed(0)
    return Peer(Slow(), 5, 3, engine=Engine(), momentum=0.9, weight_decay=0.1, encoder_rate=encoder_rate)


def moved(peer: Peer, steps: int) -> dict[str, Tensor]:
    """How far each weight is from where it was, after steps of SGD."""
    before = copied(peer)
    rows, labels = torch.arange(24.0).view(6, 4) / 24, torch.tensor([0, 1, 2, 0, 1, 2])
    for _ in range(steps):
        peer.step(F.cross_entropy(peer.classifier(peer.encoder(rows)), labels), 0.1)
    return {name: tensor - before[name] for name, tensor in peer.state_dict().items()}


def test_the_encoder_learns_at_its_share_of_the_rate() -> None:
    whole, tenth = moved(slow_peer(1.0), 1), moved(slow_peer(0.1), 1)
    for name in ("classifier.weight", "classifier.bias"):
        assert torch.equal(whole[name], tenth[name])
    for name in ("encoder.layer.weight", "encoder.layer.bias"):
        torch.testing.assert_close(0.1 * whole[name], tenth[name], rtol=1e-4, atol=1e-7)
        assert whole[name].abs().min() > 0


def test_the_share_is_kept_with_the_state() -> None:
    peer, other = slow_peer(0.1), slow_peer(0.1)
    moved(peer, 2)
    buffer = io.BytesIO()
    torch.save(peer.state(), buffer)
    buffer.seek(0)
    other.load_state(torch.load(buffer, weights_only=True))
    one, two = moved(peer, 2), moved(other, 2)
    assert all(torch.equal(one[name], two[name]) for name in one)
    old = slow_peer(1.0).state()
    assert len(old["optimizer"]["param_groups"]) == 1, "as the states of earlier versions"


def test_an_encoder_at_rest_stays_as_it_is(data: TrainingData) -> None:
    peer = made_peer(data)
    before = copied(peer)
    rest_encoders([peer], resting=True)
    labels, views = data.labels[:8], data.eval_view(data.everything[:8])

    def step() -> None:
        peer.train()
        peer.step(F.cross_entropy(peer.classifier(peer.encoder(views)), labels), 0.1)

    step()
    assert changed(peer, before) == {"classifier.weight", "classifier.bias"}
    rest_encoders([peer], resting=False)
    assert peer.encoder.training
    step()
    assert {"encoder.stem.weight"} <= changed(peer, before)
    assert any("running_mean" in name for name in changed(peer, before))
