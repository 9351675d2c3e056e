"""`scanmix train` on published data sets by their own recipes: the paper's network, two epochs, few small images."""

from pathlib import Path

import pytest

from scanmix.cli import app
from scanmix.training import open_run
from tests import layouts

typer_testing = pytest.importorskip("typer.testing")

STAGES = ["pretrain.epochs=1", "pretrain.batch_size=10", "clustering.epochs=1", "clustering.batch_size=20"]
TURNS = ["epochs=2", "warmup=1", "batch_size=8", "cluster_batch_size=20", "num_neighbors=3"]


def run(source: str, root: Path, *sets: str, more: tuple[str, ...] = ()) -> Path:
    """Train as a person would, and return the run folder."""
    out = root / "run"
    words = ["train", source, "--root", str(root), "--threads", "1", "--out", str(out), *more]
    words += [f"--set={text}" for text in (*STAGES, *TURNS, *sets)]
    result = typer_testing.CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    found = open_run(out)
    assert found.settings.recipe == f"{source.partition(':')[0]}/any/scanmix"
    assert len(found.metrics) == 2 and found.finished
    return out


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "cache"))


@pytest.mark.filterwarnings("ignore:.*published:UserWarning")
@pytest.mark.parametrize("name", ["cifar10n", pytest.param("cifar100n", marks=pytest.mark.long)])
def test_cifar_n(tmp_path: Path, name: str) -> None:
    ten = name == "cifar10n"
    clean = layouts.cifar10(tmp_path, 4) if ten else layouts.cifar100(tmp_path, 20)
    wrong = [(label + 1) % (10 if ten else 100) for label in clean]
    content = {"clean_label": clean, "worse_label": wrong, "noisy_label": wrong}
    layouts.human(tmp_path / f"CIFAR-{'10' if ten else '100'}_human.pt", content)
    run(f"{name}:worse" if ten else f"{name}:fine", tmp_path)


@pytest.mark.filterwarnings("ignore:.*published:UserWarning")
def test_red_mini_imagenet(tmp_path: Path) -> None:
    layouts.red_mini_imagenet(tmp_path, classes=10)
    out = run("red-mini-imagenet:0.4", tmp_path, more=("--limit-test=4",))
    assert open_run(out).noise.actual == pytest.approx(0.25)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*published:UserWarning")
def test_clothing1m(tmp_path: Path) -> None:
    """ResNet-50, MoCo-v2, a draw for each epoch, neighbors within it, crops."""
    layouts.clothing1m(tmp_path)
    sets = ("pretrain.queue_size=12", "pretrain.images=20", "draw.per_epoch=28", "views.crop=32", "batch_size=4")
    out = run("clothing1m", tmp_path, *sets, more=("--size=40", "--limit-test=4"))
    settings = open_run(out).settings
    assert type(settings.network).__name__ == "ResNetSettings" and settings.draw.per_epoch == 28
