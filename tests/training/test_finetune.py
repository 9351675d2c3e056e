"""Runs whose network begins with pretrained weights: what rests, what learns, and which weights are refused."""

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

import scanmix
from scanmix.blocks.neighbors import nearest_neighbors
from scanmix.cli import app
from scanmix.config import UserError
from scanmix.data.batches import TrainingData
from scanmix.data.examples import Examples
from scanmix.data.views import make_views
from scanmix.distributed.engine import Engine
from scanmix.export.card import model_card
from scanmix.export.folder import export_onnx
from scanmix.methods.scanmix import ScanMix
from scanmix.networks.inference import predict_all
from scanmix.networks.peer import make_encoder
from scanmix.networks.timm_network import TimmNetwork, TimmSettings
from scanmix.report.command import train_command
from scanmix.training import Run, RunSettings, epochs, open_run
from scanmix.training.checkpoint import save_checkpoint
from scanmix.training.finetune import opened_for, resolve_finetuned
from scanmix.training.loop import resume, train
from tests import standin_timm

SHORT: Mapping[str, Any] = {"method": "cross_entropy", "epochs": 4, "batch_size": 16, "threads": 1, "progress": False}
MODEL = f"timm:{standin_timm.NAME}@tiny.safetensors"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "cache"))
    standin_timm.install(monkeypatch)
    standin_timm.write_weights(Path("tiny.safetensors"))


@pytest.fixture
def parts() -> tuple[Examples, Examples]:
    first, second = scanmix.load("digits", per_class=6, limit_test=40)
    assert second is not None
    return scanmix.add_noise(first, "symmetric", rate=0.3, seed=0), second


def colored(examples: Examples) -> Examples:
    return dataclasses.replace(examples, images=examples.images.expand(-1, 3, -1, -1).contiguous())


def weights(run: Run) -> dict[str, Tensor]:
    return run.model.predictor.state_dict()


def equal(first: Run, second: Run) -> bool:
    one, two = weights(first), weights(second)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def encoder_of(run: Run) -> dict[str, Tensor]:
    prefix = "members.0.0.network."
    return {name.removeprefix(prefix): tensor for name, tensor in weights(run).items() if name.startswith(prefix)}


def settings(**more: Any) -> RunSettings:
    return resolve_finetuned(opened_for(MODEL, "cpu"), overrides=more, method="cross_entropy")


def test_what_the_weights_ask_for_is_laid_on_the_recipe() -> None:
    found = settings()
    assert found.recipe == "finetune/any/cross_entropy" and found.kind == "image"
    network = found.network
    assert isinstance(network, TimmSettings)
    assert (network.name, network.side, network.head_first, network.encoder_rate) == ("tiny_net", 12, 2, 0.1)
    assert (network.pretrained, network.weights) == (False, str(Path("tiny.safetensors").absolute()))
    assert network.digest == opened_for(MODEL, "cpu").parts[0].digest
    assert (found.views.mean, found.views.std) == (standin_timm.MEAN, standin_timm.STD)
    other = settings(**{"network.side": 20, "network": {"head_first": 0}, "views": {"mean": (0.5,)}, "epochs": 3})
    assert isinstance(other.network, TimmSettings)
    assert (other.network.side, other.network.head_first, other.views.mean) == (20, 0, (0.5,))
    assert other.settings["epochs"] == 3
    assert resolve_finetuned(opened_for(MODEL, "cpu"), None).method == "cross_entropy"


def test_the_encoder_rests_first_and_then_learns(parts: tuple[Examples, Examples]) -> None:
    noisy, test = (colored(each) for each in parts)
    given = load_file("tiny.safetensors")
    rested = train(noisy, test=test, finetune=MODEL, **{**SHORT, "epochs": 2})
    assert all(torch.equal(tensor, given[name]) for name, tensor in encoder_of(rested).items())
    assert rested.metrics[0]["learn/loss"] > rested.metrics[1]["learn/loss"], "the head learns meanwhile"
    after = encoder_of(train(noisy, test=test, finetune=MODEL, **{**SHORT, "epochs": 3}))
    assert not torch.equal(after["stem.weight"], given["stem.weight"])
    assert not torch.equal(after["norm.weight"], given["norm.weight"])
    assert torch.equal(after["norm.running_mean"], given["norm.running_mean"]), "the recipe keeps the statistics"
    network = {"keep_statistics": False}
    after = encoder_of(train(noisy, test=test, finetune=MODEL, network=network, **{**SHORT, "epochs": 3}))
    assert not torch.equal(after["norm.running_mean"], given["norm.running_mean"])


def test_gray_pictures_are_seen_as_the_same_in_color(parts: tuple[Examples, Examples]) -> None:
    network = settings().network
    pictures = torch.randn(5, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        gray, color = (network.build_first(channels).eval() for channels in (1, 3))
        torch.testing.assert_close(gray(pictures), color(pictures.expand(-1, 3, -1, -1)))
    views = train(parts[0], finetune=MODEL, **{**SHORT, "epochs": 1}).settings.views
    assert views.mean == pytest.approx((0.5,)) and views.std == pytest.approx((0.25,))


@pytest.mark.parametrize("cut", [1, 3])
def test_a_run_that_is_cut_ends_as_one_that_is_not(
    cut: int, parts: tuple[Examples, Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once while the encoder rests, once while it learns."""
    train_set, test = scanmix.load("digits", per_class=6, limit_test=40)
    whole = train(train_set, test=test, finetune=MODEL, out="whole", **SHORT)
    keep = save_checkpoint

    def cutting(folder: Path, config: str, done: int, state: Any) -> None:
        keep(folder, config, done, state)
        if done == cut:
            raise KeyboardInterrupt

    monkeypatch.setattr(epochs, "save_checkpoint", cutting)
    with pytest.raises(KeyboardInterrupt):
        train(train_set, test=test, finetune=MODEL, out="cut", **SHORT)
    monkeypatch.setattr(epochs, "save_checkpoint", keep)
    Path("tiny.safetensors").unlink()
    assert equal(resume("cut", progress=False), whole)
    assert open_run("cut").accuracies == whole.accuracies


def test_changed_weights_are_refused_and_moved_ones_are_not(parts: tuple[Examples, Examples]) -> None:
    noisy, _ = parts
    run = train(noisy, finetune=MODEL, out="run", **SHORT)
    Path("tiny.safetensors").rename("moved.safetensors")
    again = train(noisy, finetune=f"timm:{standin_timm.NAME}@moved.safetensors", out="run", **SHORT)
    assert equal(again, run) and open_run("run").settings.config_hash() == again.settings.config_hash()
    standin_timm.write_weights(Path("tiny.safetensors"), seed=1)
    with pytest.raises(UserError, match=r"run holds another run \(network.digest was '\w+', is '\w+'\)"):
        train(noisy, finetune=MODEL, out="run", **SHORT)


def test_a_run_that_never_began_refuses_other_weights(
    parts: tuple[Examples, Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    train_set, _ = scanmix.load("digits", per_class=6)

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(epochs, "check_weights", stopped)
        train(train_set, finetune=MODEL, out="run", **SHORT)
    standin_timm.write_weights(Path("tiny.safetensors"), seed=1)
    with pytest.raises(UserError, match=r"the weights of tiny_net have the hash \w{16}, and the run began with"):
        resume("run", progress=False)


def test_neighbors_are_those_of_the_given_features(parts: tuple[Examples, Examples]) -> None:
    """ScanMix without its self-supervised stages."""
    found = resolve_finetuned(opened_for(MODEL, "cpu"), "scanmix")
    method, engine, examples = found.build_method(), Engine(seed=0), colored(parts[0])
    assert isinstance(method, ScanMix) and method.pretrain.epochs == method.clustering.epochs == 0
    views = make_views(found.views, examples.images, flip=False)
    data = TrainingData(examples.images, examples.labels, examples.num_classes, views, engine.generator)
    state = method.start(data, found.network, engine)
    features = predict_all(make_encoder(found.network, 3, engine, "any"), data)
    assert torch.equal(state.candidates[:, 1:].long(), nearest_neighbors(features, method.num_neighbors))


@pytest.mark.parametrize("method", ["ssr", "scanmix", "dividemix", "scan", "c2d", "scan_dividemix", "co_teaching"])
def test_every_kind_of_method_begins_with_them(method: str, parts: tuple[Examples, Examples]) -> None:
    short: Any = {"epochs": 2}
    if method in ("scanmix", "dividemix"):
        short |= {"warmup": 1}
    elif method in ("c2d", "scan_dividemix"):
        short = {"dividemix.epochs": 2, "dividemix.warmup": 1}
    elif method == "scan":
        short = {"clustering.epochs": 1}
    run = train(parts[0], test=parts[1], finetune=MODEL, method=method, threads=1, progress=False, **short)
    assert len(run.accuracies) == (1 if method == "scan" else 2)
    assert not {"pretrain", "simclr"} & {part for line in run.metrics for key in line for part in key.split("/")}
    assert not list(Path("cache").rglob("simclr*"))


def test_large_batches_are_looked_at_in_parts() -> None:
    network = settings().network.build_first(3).eval()
    assert isinstance(network, TimmNetwork)
    images = torch.randn(70, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = network(images)
        resized = torch.nn.functional.interpolate(images, size=(12, 12), mode="bilinear")
        plain = network.network(resized)
        torch.testing.assert_close(found, 6.0 * plain / plain.norm(dim=1, keepdim=True))
        assert network(images[:0]).shape == (0, 6)


def test_predict_export_and_the_card_need_no_weights_file(parts: tuple[Examples, Examples]) -> None:
    noisy, test = (colored(each) for each in parts)
    run = train(noisy, test=test, finetune=MODEL, out="run", **SHORT)
    Path("tiny.safetensors").unlink()
    again = open_run("run")
    assert torch.equal(torch.as_tensor(again.predict_proba(test)), torch.as_tensor(run.predict_proba(test)))
    assert export_onnx(Path("run"), Path("exported")).difference < 1e-4
    card = model_card(again, {}, "")
    digest = settings_digest(again)
    assert f"| fine-tuned from | timm:tiny\\_net@tiny.safetensors (weights {digest[:16]}, license mit) |" in card
    assert "It began as a pretrained network, whose weights have a license" in card


def settings_digest(run: Run) -> str:
    assert isinstance(run.settings.network, TimmSettings) and run.settings.network.digest is not None
    return run.settings.network.digest


def test_the_command_line_trains_the_same_again() -> None:
    train_set, test = scanmix.load("digits", per_class=6, limit_test=20)
    run = train(train_set, test=test, finetune=MODEL, out="run", **SHORT)
    line = train_command(run)
    assert line is not None and "--finetune timm:tiny_net@" in line and "network." not in line
    result = CliRunner().invoke(app, [*shlex.split(line)[1:], "--out", "again"])
    assert result.exit_code == 0, result.output
    assert "license mit" in result.output
    assert equal(open_run("again"), run)
    result = CliRunner().invoke(app, ["train", "digits", "--per-class=3", f"--finetune={MODEL}", "--set=epochs=1"])
    assert result.exit_code == 0, result.output
    assert (Path("runs") / "digits-tiny_net-tuned-cross_entropy-0").is_dir()


def test_what_cannot_be_is_said(parts: tuple[Examples, Examples]) -> None:
    noisy, _ = parts
    for source in ("onnx:x.onnx", f"{MODEL}+{MODEL}", lambda images: images):
        with pytest.raises(UserError, match=r"only a single network of timm|no such file|needs onnx"):
            train(noisy, finetune=source, **SHORT)
    with pytest.raises(UserError, match="give one of them"):
        train(noisy, finetune=MODEL, features=MODEL, **SHORT)
    vectors = dataclasses.replace(noisy, images=torch.randn(len(noisy), 5, 1, 1))
    with pytest.raises(UserError, match="holds vectors"):
        train(vectors, finetune=MODEL, **SHORT)
    result = CliRunner().invoke(app, ["train", "digits", f"--finetune={MODEL}", f"--features={MODEL}"])
    assert result.exit_code == 2 and "give one of them" in result.output
