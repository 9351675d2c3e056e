"""Feature vectors from end to end: every method, a run on disk, the command line, and the honest comparison."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from typer.testing import CliRunner, Result

import scanmix
from scanmix.cli import app
from scanmix.config import UserError, recipe_names
from scanmix.data.examples import Examples
from scanmix.data.readers.vectors import to_vectors
from scanmix.data.views.feature_views import FeatureViewSettings
from scanmix.methods import METHODS
from scanmix.model import load_model
from scanmix.networks.mlp import MlpSettings
from scanmix.networks.no_layers import NoLayersSettings
from scanmix.training import open_run, resolve
from scanmix.training.loop import train
from tests.tiny import suited

STAGES = {"pretrain": {"epochs": 1}, "clustering": {"epochs": 1}, "num_neighbors": 5}
SHORT: dict[str, dict[str, Any]] = {
    "scan": STAGES,
    "c2d": {"pretrain": STAGES["pretrain"], "dividemix": {"epochs": 3, "warmup": 1}},
    "scan_dividemix": {**STAGES, "dividemix": {"epochs": 3, "warmup": 1}},
    "scanmix": {**STAGES, "epochs": 3, "warmup": 1, "mild_warmup": 0},
    "dividemix": {"epochs": 3, "warmup": 1},
    "augdesc": {"epochs": 3, "warmup": 1},
    "famus": {"epochs": 3, "warmup": 1},
    "decoupling": {"epochs": 3, "warmup": 1},
    "forward": {"epochs": 12},
    "cleannet": {"epochs": 4, "burn_in": 2, "verifier_steps": 40},
    "backward": {"epochs": 12},
    "gce": {"epochs": 8, "learning_rate": 0.1},
    "jocor": {"epochs": 12},
    "deep_self": {"epochs": 12},
    "exact_em": {"epochs": 3, "steps": 2},
    "linear": {},
    "neighbors": {},
    "wann": {},
    "propagate": {},
}
FROZEN = ("neighbors", "linear", "wann", "propagate")
"""Methods whose classifier stands on the vectors themselves."""


def blobs(count: int = 120, seed: int = 0) -> Examples:
    """Four clouds in eight dimensions."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    vectors = rng.normal(size=(count, 8)) + 5 * np.eye(8)[labels]
    return to_vectors(vectors, labels.tolist(), "abcd", ids=[f"{seed}/{i}" for i in range(count)], name="blobs")


def made(count: int, features: int, classes: int, seed: int) -> tuple[Examples, Examples]:
    """News-like classes from `make_classification`; the labels of the training part are 40 % symmetric noise."""
    vectors, labels = make_classification(
        2 * count, features, n_informative=min(40, features // 2), n_redundant=features // 4, n_classes=classes,
        class_sep=2.0, flip_y=0, random_state=seed,
    )  # fmt: skip
    names = [str(i) for i in range(classes)]
    ids = [str(i) for i in range(count)]
    first, second = (
        to_vectors(vectors[part], labels[part].tolist(), names, ids=ids, name="made")
        for part in (slice(None, count), slice(count, None))
    )
    return scanmix.add_noise(first, "symmetric", rate=0.4, seed=seed), second


def say(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_from_vectors(method: str, tmp_path: Path) -> None:
    examples, more = suited(method, blobs()), SHORT.get(method, {"epochs": 3})
    run = train(examples, test=blobs(seed=1), method=method, progress=False, cache=tmp_path, **more)
    assert isinstance(run.settings.network, NoLayersSettings if method in FROZEN else MlpSettings)
    assert isinstance(run.settings.views, FeatureViewSettings)
    assert run.last_accuracy is not None and run.last_accuracy > 0.5
    assert len(run.audit()["id"]) == 120


def test_a_run_on_disk_is_the_run(tmp_path: Path) -> None:
    run = train(
        blobs(), method="scanmix", network={"hidden": [16, 8]}, views={"weak_noise": 0.2}, out=tmp_path / "run",
        cache=tmp_path / "cache", progress=False, **SHORT["scanmix"],
    )  # fmt: skip
    opened = open_run(tmp_path / "run")
    assert opened.settings == run.settings and opened.settings.network == MlpSettings(hidden=(16, 8))
    new = blobs(50, seed=2)
    assert np.array_equal(opened.predict_proba(new), run.predict_proba(new))
    assert np.array_equal(opened.predict_proba(new.images.flatten(1).double().numpy()), run.predict_proba(new))
    assert load_model(tmp_path / "run").kind == "vector"
    with pytest.raises(UserError, match=r"vectors must be float32 of shape \(N, 8, 1, 1\)"):
        opened.predict_proba(new.images.double())
    with pytest.raises(UserError, match="differ in their kind"):
        train(blobs(), test=scanmix.load("digits")[1], method="cross_entropy", epochs=1)


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"exact_em"}))  # it is for looking at, on digits
def test_every_method_has_recipes_for_data_of_ones_own(method: str) -> None:
    images, vectors = (resolve(method, "mine", kind=kind) for kind in ("image", "vector"))
    for found, base in ((images, "folder"), (vectors, "vectors")):
        own = f"{base}/any/{method}"
        assert found.recipe == (own if own in recipe_names() else f"{base}/any/cross_entropy")
    for other, base in ((images, "image"), (vectors, "vector")):
        scanmix_too = resolve("scanmix", "mine", kind=other.kind)
        assert other.kind == base
        if not (base == "vector" and method in FROZEN):
            assert other.network == scanmix_too.network  # compared on the same network


def test_settings_of_images_are_no_settings_of_vectors() -> None:
    with pytest.raises(UserError, match=r"unknown key 'network\.widths'"):
        resolve("cross_entropy", "x", overrides={"network": {"widths": [4]}}, kind="vector")
    with pytest.raises(UserError, match=r"unknown key 'views\.weak_noise'"):
        resolve("cross_entropy", "x", overrides={"views": {"weak_noise": 0.1}})
    assert resolve("scanmix", "x", kind="vector").recipe == "vectors/any/scanmix"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_examples_refuse_what_is_no_number(bad: float) -> None:
    with pytest.raises(UserError, match="infinite or not a number"):
        to_vectors(np.array([[1.0], [bad]]), [0, 1], "ab", ids="xy", name="made")
    with pytest.raises(UserError, match=r"float32 of shape \(N, features, 1, 1\)"):
        Examples(torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64), ("a",), ("x", "y"))


def test_the_command_line_takes_npy_and_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "cache"))
    for name, examples in (("embeddings", blobs()), ("held_out", blobs(seed=1))):
        np.save(tmp_path / f"{name}.npy", examples.images.flatten(1).numpy())
        rows = [examples.class_names[i] for i in examples.labels]
        (tmp_path / f"{name}.csv").write_text("label\n" + "\n".join(rows))
    (tmp_path / "embeddings.csv").rename(tmp_path / "y.csv")
    arguments = [tmp_path / "embeddings.npy", "--labels", tmp_path / "y.csv", "--set", "epochs=3", "--set", "warmup=1"]
    result = say("train", *arguments, "--test", tmp_path / "held_out.npy", "--out", tmp_path / "run")
    assert "embeddings: 120 vectors of 4 classes (8 features), 120 test vectors" in result.output
    assert open_run(tmp_path / "run").settings.recipe == "vectors/any/scanmix"
    assert "of 120 vectors, within" in say("evaluate", tmp_path / "run").output
    assert "Accuracy" in say("evaluate", tmp_path / "run", "--data", tmp_path / "held_out.npy").output
    about = json.loads((tmp_path / "run" / "model" / "model.json").read_text())
    assert (about["kind"], about["network"]) == ("vector", {"hidden": [256, 256]})


def test_scanmix_beats_cross_entropy_on_little_data(tmp_path: Path) -> None:
    noisy, test = made(1500, 32, 4, seed=0)
    first, second = (
        train(noisy, test=test, method=method, progress=False, cache=tmp_path).last_accuracy
        for method in ("scanmix", "cross_entropy")
    )
    assert first is not None and second is not None and first > second + 0.05


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scanmix_beats_cross_entropy_on_twenty_classes(seed: int, tmp_path: Path) -> None:
    noisy, test = made(8000, 128, 20, seed)
    first, second = (
        train(noisy, test=test, method=method, seed=seed, progress=False, cache=tmp_path).last_accuracy
        for method in ("scanmix", "cross_entropy")
    )
    print(f"seed {seed}: scanmix {first:.4f}, cross_entropy {second:.4f}")
    assert first is not None and second is not None and first > second
