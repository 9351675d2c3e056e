"""What the rivals of several parts claim of themselves, on 64 tiny images a third of whose labels are wrong."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scanmix.blocks.beta_mixture import NoisyAt
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.methods import Method
from scanmix.methods.c2d import C2D
from scanmix.methods.d2l import D2L
from scanmix.methods.dividemix import DivideMix
from scanmix.methods.elr_plus import ELRPlus
from scanmix.methods.m_correction import MCorrection, MCorrectionSH
from scanmix.methods.mentormix import MentorMix
from scanmix.methods.mixup import MixUp
from scanmix.methods.ssr import SSR, SSRPlus
from scanmix.networks.inference import classify, predict_all
from scanmix.pretrain.simclr import SimCLR
from tests.methods.tiny import KIND, Network, near, run, weights


def test_before_its_mixture_m_correction_is_mixup(data: TrainingData, network: Network) -> None:
    plain: dict[str, Any] = {"epochs": 2, "batch_size": 32, "learning_rate": 0.05, "mixup_alpha": 4.0}
    one = run(MCorrection(**plain, begin=2, weight_decay=5e-4, lr_drop=2, lr_second_drop=2), data, network)
    other = run(MixUp(**plain, lr_drop=2), data, network)
    assert near(weights(one.peers[0]), weights(other.peers[0]))
    assert one.noisy_at is not None, "fitted for the epoch in which it is needed"


def test_m_correction_finds_wrong_labels(data: TrainingData, network: Network) -> None:
    method = MCorrection(epochs=20, batch_size=16, learning_rate=0.05, begin=12, mixup_alpha=1.0)
    state = run(method, data, network)
    believed = state.p_clean[0] > 0.5
    right = data.labels == KIND
    assert float((believed == right).float().mean()) > 0.85


def test_labels_of_m_correction_are_blended_by_what_the_mixture_says(data: TrainingData, network: Network) -> None:
    method = MCorrection(epochs=4, batch_size=16, begin=1, mixup_alpha=0.0)  # images are not mixed
    state = run(method, data, network, 2)
    peer, images = state.peers[0], data.eval_view(slice(0, 8))
    given = data.one_hot(torch.arange(8))
    peer.eval()
    with torch.no_grad():
        logits = classify(peer)(images)
    peer.train()
    noisy = NoisyAt(state.noisy_at, state.low, state.high)
    before = {name: value.clone() for name, value in peer.state_dict().items()}
    same, found = method.mix(peer, images, given, noisy, 0, _generators(1)[0])
    assert all(torch.equal(value, peer.state_dict()[name]) for name, value in before.items()), "statistics stay"
    assert torch.equal(same, images)
    for i in range(8):
        loss = float(F.cross_entropy(logits[i : i + 1], data.labels[i : i + 1]))
        wrong = min(max(float(noisy(torch.tensor([loss]))), 1e-4), 1 - 1e-4)
        wanted = (1 - wrong) * given[i] + wrong * F.one_hot(logits[i].argmax(), 4)
        assert torch.allclose(found[i], wanted, atol=1e-5)


def test_images_of_m_correction_sh_count_as_their_labels_are_believed(data: TrainingData, network: Network) -> None:
    """By hand: first labels as given and images by trust; later answers, the softer the earlier, half of each."""
    method = MCorrectionSH(epochs=100, batch_size=16, cooling=0.1, coldest=0.2)
    peer, images = method.start(data, network, Engine()).peers[0], data.eval_view(slice(0, 8))
    given, noisy = data.one_hot(torch.arange(8)), NoisyAt(torch.linspace(0.1, 0.9, 100), 0.5, 2.5)
    logits, trust = method.label_weights(peer, images, given, noisy)
    assert float(trust.max() - trust.min()) > 0.05
    for since, temperature in ((0, None), (5, 1.0), (10, 0.6), (15, 0.2), (40, 0.2)):
        mixed, targets = method.mix(peer, images, given, noisy, since, _generators(1)[0])
        partner = torch.randperm(8, generator=_generators(1)[0])
        for i, j in enumerate(partner.tolist()):
            share = trust[i] / (trust[i] + trust[j])
            assert torch.allclose(mixed[i], share * images[i] + (1 - share) * images[j], atol=1e-5)
            if temperature is None:
                own = targets[i, given[i].argmax()]
                assert torch.allclose(targets[i], own * given[i] + (1 - own) * given[j], atol=1e-6) or i == j
                continue
            corrected = [trust[k] * given[k] + (1 - trust[k]) * (logits[k] / temperature).softmax(0) for k in (i, j)]
            assert torch.allclose(targets[i], (corrected[0] + corrected[1]) / 2, atol=1e-5)


def test_partners_of_mentormix_are_drawn_by_weight_and_the_trusted_side_dominates() -> None:
    method = MentorMix(mixup_alpha=1.0)
    views = torch.arange(200.0).view(200, 1, 1, 1)
    trusted = torch.cat([torch.ones(100), torch.zeros(100)])
    mixed, targets = method._mix(views, torch.eye(200), trusted, *_generators(2))
    own = targets.diagonal()
    assert bool((own[:100] >= 0.5).all()), "a trusted row stays nearer to itself"
    partner = targets.clone().fill_diagonal_(0).argmax(1)
    alone = own > 0.9999  # its own partner
    assert bool((own[100:][~alone[100:]] <= 0.5).all())
    assert torch.allclose(mixed.flatten(), (targets * torch.arange(200.0)).sum(1), atol=1e-3)
    ratio = float((partner[~alone] < 100).float().mean())
    assert 0.6 < ratio < 0.85, "softmax of 1 against 0 is e to 1"


def _generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def test_mentormix_counts_every_example_while_it_burns_in(data: TrainingData, network: Network) -> None:
    method = MentorMix(epochs=6, burn_in=2, batch_size=64, quantile=0.5, loss_decay=0.0)
    state = method.start(data, network, Engine())
    shares = [method.epoch(state, data, epoch)["learn/weight"] for epoch in range(6)]
    assert shares == pytest.approx([1, 1, 0.5, 0.5, 0.5, 0.5]) and state.steps == 6


def test_what_predicts_for_mentormix_is_the_running_average(data: TrainingData, network: Network) -> None:
    method = MentorMix(epochs=1, batch_size=64, average_decay=0.25)
    state = method.start(data, network, Engine())
    before = weights(state.averages[0])
    method.epoch(state, data, 0)
    decay = min(0.25, 2 / 11)
    wanted = [decay * old + (1 - decay) * new for old, new in zip(before, weights(state.peers[0]), strict=True)]
    assert near(weights(state.averages[0]), wanted, 1e-6)
    predicted = predict_all(method.predictor(state), data)
    assert torch.equal(predicted, predict_all(classify(state.averages[0]), data))


def test_averages_of_elr_plus_begin_as_their_networks_and_teach_the_other(data: TrainingData, network: Network) -> None:
    method = ELRPlus(epochs=2, batch_size=64, memory=0.0, average_decay=1.0, average_ramp=0)
    state = method.start(data, network, Engine())
    for peer, average in zip(state.peers, state.averages, strict=True):
        assert near(weights(peer), weights(average))
    assert not near(weights(state.peers[0]), weights(state.peers[1]))
    # An average that never moves, and a target that forgets: it is what the *other* average says of these views.
    order, draws = data.generators("learn 0", 0, "order", "views")
    index = torch.randperm(64, generator=order)
    views = data.views.weak(data.images[index], draws)
    state.averages[1].eval()
    with torch.no_grad():
        wanted = classify(state.averages[1])(views).softmax(1)
    state.averages[1].train()
    method.epoch(state, data, 0)
    assert torch.allclose(state.targets[0][index], wanted, atol=1e-4)
    assert near(weights(state.averages[0]), weights(method.start(data, network, Engine()).averages[0]))


def test_elr_plus_remembers_the_right_class_of_wrong_labels(data: TrainingData, network: Network) -> None:
    state = run(ELRPlus(epochs=40, batch_size=16, regularization=1.0, average_decay=0.9), data, network)
    wrong = data.labels != KIND
    found = state.targets.sum(0).argmax(1)
    assert float((found == KIND)[wrong].float().mean()) > 0.6


def test_d2l_goes_back_by_one_epoch_when_dimensionality_turns(
    data: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = D2L(epochs=8, begin=0, window=2, batch_size=16)
    lids = iter([3.0, 2.0, 1.9, 5.0, 5.0])
    monkeypatch.setattr(D2L, "_measure", lambda *_: next(lids))
    state: Any = method.start(data, network, Engine())
    results = []
    for epoch in range(3):
        start_of_last = weights(state.peers[0])
        results.append(method.epoch(state, data, epoch))
    assert not state.turned and all(line["trust"] == 1 for line in results)
    begun: list[list[Tensor]] = []
    monkeypatch.setattr(state.peers[0], "train", lambda *_: begun.append(weights(state.peers[0])))
    line = method.epoch(state, data, 3)
    assert state.turned and near(begun[0], start_of_last), "as it was before the epoch that turned"
    assert line["trust"] == pytest.approx(2.718281828 ** (-(3 / 8) * 5.0 / 1.9))


def test_ssr_relabels_what_it_is_sure_of() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.05, 0.95]])
    found = SSR(relabel_threshold=0.8)._relabel(probabilities, torch.tensor([1, 1, 1]))
    assert found.tolist() == [0, 1, 1]


def test_ssr_chooses_labels_that_are_right_and_repairs_others(data: TrainingData, network: Network) -> None:
    method = SSR(epochs=30, batch_size=16, num_neighbors=10, learning_rate=0.05)
    state: Any = method.start(data, network, Engine())
    for epoch in range(30):
        results = method.epoch(state, data, epoch)
    right = data.labels == KIND
    kept = state.p_clean[0] > 0
    assert float(right[kept].float().mean()) > 0.9
    found = predict_all(classify(state.peers[0]), data).argmax(1)
    assert float((found == KIND)[~right].float().mean()) > 0.5
    assert 0 < results["chosen"] <= 1 and 0 < results["relabeled"] < 1


def test_ssr_draws_each_class_equally_often(data: TrainingData, network: Network) -> None:
    """Where the labels are very uneven, the labels that are learned from are not."""
    uneven = dataclasses.replace(data, labels=torch.tensor([0] * 40 + [1] * 8 + [2] * 8 + [3] * 8))
    counts = torch.zeros(4)
    method = SSR(epochs=10, batch_size=16, num_neighbors=60, select_threshold=0.0, relabel_threshold=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scanmix.methods.ssr.mixup", lambda x, t, *_: (counts.add_(t.sum(0)), (x, t))[1])
        run(method, uneven, network)
    assert float(counts.max() / counts.min()) < 1.4


def test_the_consistency_loss_of_ssr_plus(data: TrainingData, network: Network) -> None:
    plain: dict[str, Any] = {"epochs": 1, "batch_size": 32, "num_neighbors": 5, "weight_decay": 0.0}
    method = SSRPlus(**plain)
    state = method.start(data, network, Engine())
    peer = state.peers[0]
    before = {name: weights(module) for name, module in peer.heads.items()}
    images, draws = iter([torch.arange(32)]), torch.Generator().manual_seed(0)
    peer.train()
    found = method.consistency(peer, data, images, draws)
    assert isinstance(found, Tensor) and -1 <= found.item() <= 1
    again = torch.Generator().manual_seed(0)
    strong, weak = data.views.strong(data.images[:32], again), data.views.weak(data.images[:32], again)
    one = peer.heads["predictor"](peer.heads["projector"](peer.encoder(strong)))
    other = peer.heads["projector"](peer.encoder(weak)).detach()
    slow = -sum(float((a @ b / (a.norm() * b.norm())).detach()) for a, b in zip(one, other, strict=True)) / 32
    assert found.item() == pytest.approx(slow, abs=1e-4)
    method.epoch(state, data, 0)
    assert all(not near(before[name], weights(module)) for name, module in peer.heads.items()), "they learn"
    assert SSR(**plain).start(data, network, Engine()).peers[0].heads.keys() == set()


def test_c2d_is_dividemix_where_nothing_is_pretrained(data: TrainingData, network: Network) -> None:
    inner = DivideMix(epochs=3, warmup=1, batch_size=16)
    bare = run(C2D(pretrain=SimCLR(epochs=0), dividemix=inner), data, network)
    assert near(weights(bare.peers[0]), weights(run(inner, data, network).peers[0]))


def test_both_peers_of_c2d_begin_from_one_encoder_and_two_heads(
    data: TrainingData, network: Network, methods: Callable[..., dict[str, Method]]
) -> None:
    state: Any = methods(3)["c2d"].start(data, network, Engine())
    assert near(weights(state.peers[0].encoder), weights(state.peers[1].encoder))
    assert not near(weights(state.peers[0].classifier), weights(state.peers[1].classifier))
