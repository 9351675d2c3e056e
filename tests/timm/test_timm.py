"""Networks of timm, by way of the recipes and the model files; and our ResNet-50 beside torchvision's."""

from pathlib import Path
from typing import Any

import pytest
import torch

import scanmix
from scanmix.config import UserError
from scanmix.networks.batch_norm import synchronized
from scanmix.networks.resnet import ResNet, ResNetSettings
from scanmix.networks.timm_network import TimmSettings
from scanmix.training import Run
from tests import layouts

timm = pytest.importorskip("timm", reason="its own environment: make test-timm")

SMALL = "test_byobnet"  # of timm's own tests
STAGES: dict[str, Any] = {
    "pretrain.epochs": 1,
    "pretrain.batch_size": 8,
    "clustering.epochs": 1,
    "clustering.batch_size": 8,
}
TURNS: dict[str, Any] = {
    "epochs": 2,
    "warmup": 1,
    "mild_warmup": 0,
    "batch_size": 4,
    "num_neighbors": 3,
    "cluster_batch_size": 8,
}


def trained(folder: Path, name: str, size: int, count: int = 2, **network: Any) -> Run:
    (folder / "bare.toml").touch()
    train_set, _ = scanmix.load("digits", size=size, per_class=count)
    return scanmix.train(
        scanmix.add_noise(train_set, "symmetric", rate=0.4, seed=0), method="scanmix", out=folder / "run",
        cache=folder, recipe=str(folder / "bare.toml"), threads=1, progress=False,
        network={"kind": "timm", "name": name, **network}, **STAGES, **TURNS,
    )  # fmt: skip


def test_our_resnet_50_is_torchvisions() -> None:
    theirs = pytest.importorskip("torchvision").models.resnet50(weights=None).eval()
    theirs.fc = torch.nn.Identity()
    ours = ResNet(ResNetSettings(kind="resnet"), 3).eval()
    state = theirs.state_dict()
    ours.load_state_dict({name: state[called_there(name)] for name in ours.state_dict()})
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-3, atol=1e-4)


def called_there(name: str) -> str:
    """What torchvision calls one of our tensors: `stages.3.norms.0.bias` is `layer2.0.bn1.bias`."""
    first, place, *rest = name.split(".")
    if first == "stem":
        return ".".join([("conv1", "bn1")[int(place)], *rest])
    block, stage = int(place), 0
    while block >= (3, 4, 6, 3)[stage]:
        block, stage = block - (3, 4, 6, 3)[stage], stage + 1
    part, number, *end = rest
    inside = f"downsample.{number}" if part == "shortcut" else f"{part[:-1].replace('norm', 'bn')}{int(number) + 1}"
    return ".".join([f"layer{stage + 1}.{block}.{inside}", *end])


def test_inception_resnet_v2_has_the_published_size() -> None:
    network = TimmSettings(kind="timm", name="inception_resnet_v2").build(3)
    assert network.num_features == 1536
    assert sum(weight.numel() for weight in network.parameters()) == pytest.approx(54.3e6, rel=0.01)
    with torch.no_grad():
        assert network.eval()(torch.zeros(1, 3, 80, 80)).shape == (1, 1536)


def test_the_papers_network_trains_two_epochs(tmp_path: Path) -> None:
    run = trained(tmp_path, "inception_resnet_v2", 80, 1)
    assert len(run.metrics) == 2
    assert scanmix.open_run(tmp_path / "run").model.network == run.settings.network


def test_a_run_is_saved_opened_and_exported(tmp_path: Path) -> None:
    from scanmix.export.folder import export_onnx

    run = trained(tmp_path, SMALL, 32, 3)
    assert export_onnx(tmp_path / "run", tmp_path / "exported").difference < 1e-4
    train_set, _ = scanmix.load("digits", size=32, per_class=3)
    images = train_set.images
    found = scanmix.open_run(tmp_path / "run").predict_proba(images)
    assert torch.equal(torch.as_tensor(found), torch.as_tensor(run.predict_proba(images)))


def test_weights_come_from_a_file(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    donor = timm.create_model(SMALL, num_classes=5, in_chans=1)
    save_file(donor.state_dict(), tmp_path / "weights.safetensors")
    settings = TimmSettings(kind="timm", name=SMALL, weights=str(tmp_path / "weights.safetensors"))
    network = settings.build_first(1)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, donor.state_dict()[name.removeprefix("network.")])
    with pytest.raises(UserError, match="lacks"):
        settings.build_first(3)
    with pytest.raises(UserError, match=r"is damaged and cannot be read|no such file"):
        TimmSettings(kind="timm", name=SMALL, weights=str(tmp_path / "none")).build_first(1)
    assert settings.untrained() == TimmSettings(kind="timm", name=SMALL)


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown network of timm 'inception_resnet_v3'; did you mean 'inception_res"):
        TimmSettings(kind="timm", name="inception_resnet_v3").build(3)
    with pytest.raises(UserError, match="cannot take images of 8x8 pixels"):
        trained(tmp_path, "inception_resnet_v2", 8, 1)
    network = TimmSettings(kind="timm", name="inception_resnet_v2").build(3)
    with pytest.raises(UserError, match="--batch-norm split"):
        synchronized(network, 2)


@pytest.mark.filterwarnings("ignore:.*published:UserWarning")
def test_webvision_by_its_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """InceptionResNet-v2 and MoCo-v2 on a tiny copy of mini-WebVision, tested on ILSVRC12's images as well."""
    from typer.testing import CliRunner

    from scanmix.cli import app

    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "cache"))
    layouts.webvision(tmp_path / "webvision", classes=3, each=3)
    layouts.ilsvrc12(tmp_path / "ilsvrc12", "synset", classes=3)
    monkeypatch.setenv("SCANMIX_DATA", str(tmp_path))
    stages = ["pretrain.epochs=1", "pretrain.batch_size=4", "pretrain.queue_size=8", "clustering.epochs=1"]
    turns = ["epochs=2", "warmup=1", "batch_size=2", "cluster_batch_size=4", "num_neighbors=2", "views.crop=80"]
    words = ["train", "webvision:3", "--size=84", "--threads=1", f"--out={tmp_path / 'run'}"]
    words += [f"--set={text}" for text in ("clustering.batch_size=4", *stages, *turns)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    run = scanmix.open_run(tmp_path / "run")
    assert run.settings.recipe == "webvision/any/scanmix" and len(run.metrics) == 2
    other, _ = scanmix.load("ilsvrc12:3", size=84)
    assert run.predict_proba(other.images).shape == (3, 3)
