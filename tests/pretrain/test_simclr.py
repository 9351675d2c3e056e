"""SimCLR: better neighbors, the published schedule, and weights that follow from the seed."""

import pytest
import torch
from torch import Tensor

import scanmix.pretrain.simclr as module
from scanmix.blocks.neighbors import nearest_neighbors
from scanmix.blocks.schedules import cosine
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Diverged
from scanmix.files.tensors import Tensors
from scanmix.networks.inference import predict_all
from scanmix.networks.peer import make_encoder
from scanmix.networks.preact_resnet import PreActResNet, PreActResNetSettings
from scanmix.pretrain.simclr import Projector, SimCLR, simclr

SMALL = PreActResNetSettings(widths=(8, 16), blocks=(1, 1), stem_norm=False)


def settings(epochs: int = 20, *, symmetric: bool = False, learning_rate: float = 0.1) -> SimCLR:
    return SimCLR(
        epochs=epochs, batch_size=64, learning_rate=learning_rate, contrast_temperature=0.2,
        projection_size=32, symmetric=symmetric,
    )  # fmt: skip


def purity(features: Tensor, labels: Tensor) -> float:
    """Share of the ten nearest neighbors that are of the same class."""
    return float((labels[nearest_neighbors(features, 10)] == labels.unsqueeze(1)).float().mean())


@pytest.mark.parametrize("symmetric", [False, True])
def test_simclr_makes_neighbors_purer(textures: TrainingData, symmetric: bool) -> None:
    encoder = make_encoder(SMALL, 1, Engine(), "encoder")
    before = purity(predict_all(encoder, textures), textures.labels)
    found = simclr(settings(symmetric=symmetric), encoder, textures, Engine(), None)
    assert purity(found["embedding"], textures.labels) > max(0.8, before + 0.2)


def test_simclr_reads_no_label(textures: TrainingData) -> None:
    shuffled = TrainingData(textures.images, textures.labels.flip(0), 4, textures.views, textures.generator)
    first, second = (
        simclr(settings(2), make_encoder(SMALL, 1, Engine(), "encoder"), data, Engine(), None)
        for data in (textures, shuffled)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_simclr_returns_its_encoder_and_unit_embeddings(textures: TrainingData) -> None:
    encoder = make_encoder(SMALL, 1, Engine(), "encoder")
    before = torch.get_rng_state()
    found = simclr(settings(1), encoder, textures, Engine(), None)
    assert torch.equal(before, torch.get_rng_state())
    assert set(found) == {f"encoder.{name}" for name in encoder.state_dict()} | {"embedding"}
    assert all(torch.equal(found[f"encoder.{name}"], value) for name, value in encoder.state_dict().items())
    assert found["embedding"].shape == (160, 32)
    assert torch.allclose(found["embedding"].norm(dim=1), torch.ones(160), atol=1e-5)


def test_both_ways_of_the_loss_are_different_trainings(textures: TrainingData) -> None:
    def trained(symmetric: bool) -> Tensors:
        encoder = make_encoder(SMALL, 1, Engine(), "encoder")
        return simclr(settings(1, symmetric=symmetric), encoder, textures, Engine(), None)

    assert not torch.equal(trained(True)["embedding"], trained(False)["embedding"])


def test_learning_rate_follows_the_cosine(textures: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    original = cosine

    def recorded(start: float, end: float, done: float) -> float:
        rates.append(original(start, end, done))
        return rates[-1]

    monkeypatch.setattr(module, "cosine", recorded)
    simclr(settings(4), make_encoder(SMALL, 1, Engine(), "encoder"), textures, Engine(), None)
    # lo + (hi - lo)(1 + cos(pi e / 4)) / 2 at e = 0, 1, 2, 3; hi = 0.1, lo = 0.0001.
    assert rates == pytest.approx([0.1, 0.0853699, 0.05005, 0.0147301], abs=1e-6)


def test_a_loss_that_is_no_number_stops_pretraining(textures: TrainingData) -> None:
    encoder = make_encoder(SMALL, 1, Engine(), "encoder")
    assert isinstance(encoder, PreActResNet)
    torch.nn.init.constant_(encoder.stem.weight, float("nan"))
    with pytest.raises(Diverged, match="step 1 of simclr"):
        simclr(settings(1), encoder, textures, Engine(), None)


def test_the_projector_is_linear_relu_linear_on_the_unit_sphere() -> None:
    projector = Projector(6, 5)
    features = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    weights = projector.state_dict()
    hidden = (features @ weights["layers.0.weight"].T + weights["layers.0.bias"]).clamp(min=0)
    slow = hidden @ weights["layers.2.weight"].T + weights["layers.2.bias"]
    slow = slow / slow.square().sum(1, keepdim=True).sqrt()
    assert torch.allclose(projector(features), slow, atol=1e-6)
