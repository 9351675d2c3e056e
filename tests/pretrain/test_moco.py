"""MoCo-v2: InfoNCE, the queue, the key network, statistics of parts; purer neighbors; the same bits when cut short."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import scanmix.pretrain.moco as module
from scanmix.blocks.losses import info_nce
from scanmix.blocks.neighbors import nearest_neighbors
from scanmix.config import UserError
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Diverged
from scanmix.files.tensors import Tensors
from scanmix.networks.inference import predict_all
from scanmix.networks.peer import make_encoder
from scanmix.networks.preact_resnet import PreActResNet, PreActResNetSettings
from scanmix.pretrain import cache as artifacts
from scanmix.pretrain.moco import KeyQueue, MoCo, follow_weights, moco

SMALL = PreActResNetSettings(widths=(8, 16), blocks=(1, 1))


def settings(epochs: int = 2, **changes: Any) -> MoCo:
    asked = MoCo(
        kind="moco", epochs=epochs, batch_size=32, learning_rate=0.1, projection_size=32, queue_size=64,
        key_momentum=0.99, splits=2,
    )  # fmt: skip
    return dataclasses.replace(asked, **changes)


def trained(data: TrainingData, epochs: int = 2, unfinished: Path | None = None, **changes: Any) -> Tensors:
    return moco(settings(epochs, **changes), make_encoder(SMALL, 1, Engine(), "encoder"), data, Engine(), unfinished)


def unit(rows: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(rows, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1)


def test_info_nce_is_the_slow_one() -> None:
    queries, keys, queue = unit(4, 0), unit(4, 1), unit(7, 2)
    slow = 0.0
    for query, key in zip(queries, keys, strict=True):
        scores = [float(query @ key) / 0.2, *(float(query @ other) / 0.2 for other in queue)]
        slow -= (scores[0] - float(torch.tensor(scores, dtype=torch.float64).logsumexp(0))) / 4
    assert float(info_nce(queries, keys, queue, 0.2)) == pytest.approx(slow, abs=1e-12)


def test_the_queue_replaces_its_oldest_keys_first() -> None:
    queue = KeyQueue(5, 6, torch.Generator().manual_seed(0))
    assert torch.allclose(queue.keys.norm(dim=1), torch.ones(5))
    begun = queue.keys.clone()
    first, second = unit(3, 1).float(), unit(4, 2).float()
    queue.add(first)
    assert torch.equal(queue.keys, torch.cat([first, begun[3:]]))
    queue.add(second)  # two at the end, then two of the first three
    assert torch.equal(queue.keys, torch.cat([second[2:], first[2:], second[:2]]))
    assert int(queue.place) == 2


def test_key_weights_follow_and_their_statistics_do_not() -> None:
    network = nn.BatchNorm1d(4)
    average = copy.deepcopy(network)
    assert network.running_mean is not None and average.running_mean is not None
    nn.init.constant_(network.weight, 3.0)
    network.running_mean += 5
    follow_weights(average, network, 0.75)
    assert torch.allclose(average.weight, torch.full((4,), 0.75 * 1 + 0.25 * 3))
    assert not average.running_mean.any()


def test_each_part_has_its_own_statistics(textures: TrainingData) -> None:
    encoder = make_encoder(SMALL, 1, Engine(), "encoder")
    index = torch.arange(12)
    encoder.train()
    found = module._in_parts(encoder, index, 3, textures, Engine(), textures.generator("moco", 0, "views"))
    views = textures.views.contrastive(textures.images[index], textures.generator("moco", 0, "views"))
    alone = torch.cat([encoder(part) for part in views.split(4)])
    together = encoder(views)
    assert torch.allclose(found, alone, atol=1e-6)
    assert not torch.allclose(found, together, atol=1e-3)


def test_moco_makes_neighbors_purer(textures: TrainingData) -> None:
    def purity(features: Tensor) -> float:
        found = textures.labels[nearest_neighbors(features, 10)]
        return float((found == textures.labels.unsqueeze(1)).float().mean())

    before = purity(predict_all(make_encoder(SMALL, 1, Engine(), "encoder"), textures))
    assert purity(trained(textures, 30)["embedding"]) > max(0.8, before + 0.2)


def test_it_reads_no_label_and_returns_its_encoder(textures: TrainingData) -> None:
    shuffled = TrainingData(textures.images, textures.labels.flip(0), 4, textures.views, textures.generator)
    first, second = trained(textures, 1), trained(shuffled, 1)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.allclose(first["embedding"].norm(dim=1), torch.ones(160), atol=1e-5)


def test_neighbors_may_be_those_of_the_encoder(textures: TrainingData) -> None:
    encoder = make_encoder(SMALL, 1, Engine(), "encoder")
    found = moco(settings(1, neighbors_of="encoder"), encoder, textures, Engine(), None)
    assert torch.equal(found["embedding"], F.normalize(predict_all(encoder, textures), dim=1))


def test_a_draw_of_images_is_trained_on_and_all_are_embedded(
    textures: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[int] = set()
    original = batches

    def recorded(index: Tensor, *args: Any, **more: Any) -> Any:
        seen.update(index.tolist())
        return original(index, *args, **more)

    monkeypatch.setattr(module, "batches", recorded)
    assert len(trained(textures, 2, images=70)["embedding"]) == 160
    assert len(seen) == 70  # the same ones in both epochs


def test_a_stage_that_was_cut_short_ends_with_the_same_bits(
    textures: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "MOST_LOST", 0.0)
    epochs = 4
    whole = trained(textures, epochs)
    original = info_nce

    def cut(*args: Any) -> Tensor:
        if (tmp_path / "stage").exists():
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(module, "info_nce", cut)
    with pytest.raises(KeyboardInterrupt):
        trained(textures, epochs, tmp_path / "stage")
    monkeypatch.undo()
    again = trained(textures, epochs, tmp_path / "stage")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


@pytest.mark.parametrize("size", [20, 161])
def test_a_queue_of_no_use_is_refused(textures: TrainingData, size: int) -> None:
    with pytest.raises(UserError, match=rf"queue_size = {size} must lie between a batch \(32\) .* \(160\)"):
        trained(textures, 1, queue_size=size)


def test_a_loss_that_is_no_number_stops_it(textures: TrainingData) -> None:
    encoder = make_encoder(SMALL, 1, Engine(), "encoder")
    assert isinstance(encoder, PreActResNet)
    nn.init.constant_(encoder.stem.weight, float("nan"))
    with pytest.raises(Diverged, match="step 1 of moco"):
        moco(settings(1), encoder, textures, Engine(), None)
