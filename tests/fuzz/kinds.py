"""Every kind of file the product reads: a whole one, and what the product does when it reads it."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import scanmix
from scanmix.audit import Audit, Evidence, score_labels
from scanmix.audit.arrays import evidence_from_arrays
from scanmix.audit.stored import load_evidence
from scanmix.cli.summary import read_labels
from scanmix.data.corrections import apply_corrections
from scanmix.data.decoding import decode_images
from scanmix.data.examples import Examples
from scanmix.data.noise import load_noise, save_noise
from scanmix.data.readers import load
from scanmix.distributed.engine import Engine
from scanmix.export.folder import export_onnx
from scanmix.export.loading import load_classifier
from scanmix.files.npy import read_array
from scanmix.methods import METHODS
from scanmix.model import load_model
from scanmix.model.dynamics import load_dynamics
from scanmix.networks.peer import make_peer
from scanmix.pretrain.cache import cached, resumable
from scanmix.report import write_report
from scanmix.report.command import train_command
from scanmix.reproduce.store import read_store
from scanmix.review import Decisions
from scanmix.training import open_run, resolve
from scanmix.training.checkpoint import load_checkpoint, unpack
from scanmix.training.loggers import hyperparameters
from tests import layouts
from tests.fuzz import mutations
from tests.fuzz.mutations import Mutate

RECIPE = """method = "scanmix"
[settings]
epochs = 3
[settings.pretrain]
epochs = 2
[network]
widths = [4, 8]
blocks = [1, 1]
"""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Kind:
    """A kind of file."""

    file: str
    """Where it lies in the folder of all kinds."""
    read: Callable[[Path], Any]
    """What the product does with the folder of all kinds; returns what it found there."""
    ways: Sequence[Mutate]
    """To damage it."""
    sealed: bool = False
    """Whether it carries a checksum: then what is read is what was written, or there is an error or a warning."""
    slow: bool = False
    """Whether one reading takes a tenth of a second, so that `make test-long` reads a quarter as many."""


def build(top: Path) -> None:
    """Write one of every kind."""
    train_set, test_set = scanmix.load("digits", per_class=4, limit_test=20)
    noisy = scanmix.add_noise(train_set, "symmetric", rate=0.5, seed=0)
    scanmix.train(
        noisy, test=test_set, method="cross_entropy", network={"widths": [4], "blocks": [1]}, epochs=3, out=top / "run",
        progress=False, threads=1, recipe=str(_write(top / "bare.toml", "")),
    )  # fmt: skip
    run = open_run(top / "run")
    found = score_labels(run.evidence())
    run.audit().to_csv(top / "run" / "labels.csv")
    decisions = Decisions(top / "run", found, "tester")
    decisions.decide([0, 1], "accept")
    decisions.decide([2], "exclude")
    decisions.undo()
    decisions.decide([3], "relabel", 2)
    save_noise(noisy, top / "noise.json")
    np.save(top / "noise.npy", noisy.labels.numpy())
    _write(top / "recipe.toml", RECIPE)
    cached(Engine(cache=top / "cache"), "stage", "key", lambda _: {"x": torch.arange(12.0)})
    _stage(top / "unfinished.pt")
    draws = np.random.default_rng(0)
    np.save(top / "vectors.npy", draws.normal(size=(30, 4)).astype(np.float32))
    _write(top / "vectors.csv", "label\n" + "".join(f"{'abc'[i % 3]}\n" for i in range(30)))
    probs = draws.dirichlet(np.ones(3), size=30)
    np.save(top / "probs.npy", probs)
    np.save(top / "labels.npy", draws.integers(0, 3, 30))
    layouts.cifar10(top / "cifar", count=3)
    (top / "photos").mkdir()
    for i in range(6):
        pixels = draws.integers(0, 255, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(top / "photos" / f"{i}.png")
        Image.fromarray(pixels).save(top / "photos" / f"{i}.jpg")
    rows = [f"photos/{i}.png,{'ab'[i % 2]},{'train' if i < 4 else 'test'}" for i in range(6)]
    _write(top / "table.csv", "path,label,split\n" + "\n".join(rows) + "\n")
    _write(top / "store.jsonl", "".join(json.dumps({"table": "t", "seed": i, "last": 0.5}) + "\n" for i in range(4)))
    export_onnx(top / "run", top / "given")


def use_run(top: Path) -> Any:
    """All that is made of a run without its data."""
    run = open_run(top / "run")
    return (
        repr(run), run.noise, run.accuracies, run.last10_accuracy, train_command(run), hyperparameters(run),
        run.settings.build_method(), dataclasses.astuple(run.settings.processes),
    )  # fmt: skip


def report(top: Path) -> None:
    """A page of a run, which reads all it keeps."""
    write_report(top / "run", top / "page.html")


def model(top: Path) -> Any:
    """What a model says of two images."""
    found = load_model(top / "run")
    shape = (2, found.channels, *found.size)
    return found.class_names, found.predict_proba(torch.zeros(shape, dtype=torch.uint8)).tolist()


def onnx(top: Path) -> Any:
    """What an exported model says of two images."""
    found = load_classifier(top / "given", "cpu")
    shape = (2, found.channels, *found.size)
    return found.class_names, found.predict_proba(np.zeros(shape, np.uint8)).tolist()


def evidence(top: Path) -> Any:
    """Evidence, and the audit of it."""
    found = load_evidence(top / "run")
    score_labels(found)
    return _plain(found)


def trajectory(top: Path) -> Any:
    """The snapshots of a run."""
    return _plain(load_dynamics(top / "run", 3))


def checkpoint(top: Path) -> Any:
    """The state that training would go on from, as a whole state of its method."""
    run = open_run(top / "run")
    saved = load_checkpoint(top / "run", run.settings.config_hash(), CPU)
    assert saved is not None
    epoch, payload = saved
    data = _training_data()
    state: Any = unpack(
        METHODS["cross_entropy"].State, payload, lambda: make_peer(run.settings.network.untrained(), data, Engine(), "")
    )
    return epoch, [_plain(dict(peer.state_dict())) for peer in state.peers]


def labels(top: Path) -> Any:
    """The table of labels, as training shows it when it ends."""
    return read_labels(top / "run")


def corrected(top: Path) -> Any:
    """The labels that a person corrected."""
    found = apply_corrections(_digits(), top / "run" / "corrected.csv")
    return found.labels.tolist()


def review_log(top: Path) -> Any:
    """The decisions of a person."""
    return Decisions(top / "run", _audit(top), "tester").codes.tolist()


def noise(name: str) -> Callable[[Path], Any]:
    """Labels from a file."""
    return lambda top: load_noise(_digits(), top / name).labels.tolist()


def recipe(top: Path) -> Any:
    """Settings from a recipe."""
    return resolve(None, "digits", str(top / "recipe.toml")).config_hash()


def artifact(top: Path) -> Any:
    """A result in the cache; a damaged one is made again."""
    found = cached(
        Engine(cache=top / "cache"), "stage", "key", lambda _: {"x": torch.arange(12.0)},
        lambda tensors: tensors["x"].shape == (12,),
    )  # fmt: skip
    return found["x"].tolist()


def unfinished(top: Path) -> Any:
    """A stage that was cut: it goes on, or begins anew, and ends alike."""
    return _stage(top / "unfinished.pt")


def vectors(top: Path) -> Any:
    """Feature vectors with their labels."""
    return load(top / "vectors.npy")[0].fingerprint()


def arrays(top: Path) -> Any:
    """Labels and probabilities of somebody else."""
    return _plain(evidence_from_arrays(read_array(top / "labels.npy"), read_array(top / "probs.npy")))


def cifar(top: Path) -> Any:
    """A published pickle."""
    return load("cifar10", root=top / "cifar")[0].fingerprint()


def table(top: Path) -> Any:
    """A table of files and labels."""
    return load(top / "table.csv")[0].fingerprint()


def pictures(top: Path) -> Any:
    """Image files."""
    return [outcome if isinstance(outcome, str) else outcome.shape
            for outcome in decode_images(sorted((top / "photos").iterdir()), 8, 3)]  # fmt: skip


def store(top: Path) -> Any:
    """The runs that tables have counted."""
    return read_store(top / "store.jsonl")


KINDS: Mapping[str, Kind] = {
    "run.toml": Kind("run/run.toml", use_run, mutations.TOML),
    "run.toml, report": Kind("run/run.toml", report, mutations.TOML, slow=True),
    "metrics": Kind("run/metrics.jsonl", use_run, mutations.JSON),
    "metrics, report": Kind("run/metrics.jsonl", report, mutations.JSON, slow=True),
    "model.json": Kind("run/model/model.json", model, mutations.JSON, sealed=True),
    "weights": Kind("run/model/model.safetensors", model, mutations.BYTES, sealed=True),
    "evidence.json": Kind("run/evidence/evidence.json", evidence, mutations.JSON, sealed=True),
    "evidence": Kind("run/evidence/evidence.safetensors", evidence, mutations.BYTES, sealed=True),
    "trajectory": Kind("run/trajectory/00002.safetensors", trajectory, mutations.BYTES, sealed=True),
    "checkpoint": Kind("run/checkpoint/last.pt", checkpoint, mutations.BYTES, sealed=True),
    "labels.csv": Kind("run/labels.csv", labels, mutations.TABLE),
    "corrected.csv": Kind("run/corrected.csv", corrected, mutations.TABLE),
    "review log": Kind("run/review-log.jsonl", review_log, mutations.JSON),
    "noise.json": Kind("noise.json", noise("noise.json"), mutations.JSON, sealed=True),
    "noise.npy": Kind("noise.npy", noise("noise.npy"), mutations.BYTES),
    "recipe": Kind("recipe.toml", recipe, mutations.TOML),
    "artifact": Kind("cache/stage-key.safetensors", artifact, mutations.BYTES, sealed=True),
    "unfinished": Kind("unfinished.pt", unfinished, mutations.BYTES, sealed=True),
    "vectors": Kind("vectors.npy", vectors, mutations.BYTES),
    "labels of vectors": Kind("vectors.csv", vectors, mutations.TABLE),
    "probabilities": Kind("probs.npy", arrays, mutations.BYTES),
    "labels.npy": Kind("labels.npy", arrays, mutations.BYTES),
    "cifar": Kind("cifar/cifar-10-batches-py/data_batch_1", cifar, mutations.BYTES),
    "table": Kind("table.csv", table, mutations.TABLE),
    "png": Kind("photos/0.png", pictures, mutations.BYTES),
    "jpeg": Kind("photos/0.jpg", pictures, mutations.BYTES),
    "store": Kind("store.jsonl", store, mutations.JSON),
    "onnx": Kind("given/model.onnx", onnx, mutations.BYTES, sealed=True),
}


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@functools.cache
def _digits() -> Examples:
    return scanmix.load("digits", per_class=4)[0]


@functools.cache
def _audit(top: Path) -> Audit:
    return score_labels(open_run(top / "run").evidence())


def _training_data() -> Any:
    from scanmix.data.batches import TrainingData
    from scanmix.data.views import ViewSettings, make_views

    examples, engine = _digits(), Engine()
    views = make_views(ViewSettings(), examples.images, flip=False)
    return TrainingData(examples.images, examples.labels, 10, views, engine.generator)


def _stage(path: Path) -> Any:
    linear = torch.nn.Linear(3, 2)
    with torch.no_grad():
        linear.weight.fill_(1.0)
        linear.bias.fill_(0.0)
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.1, momentum=0.9)

    def epoch(number: int) -> None:
        optimizer.zero_grad()
        inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(number))
        torch.autograd.backward(linear(inputs).square().sum())
        optimizer.step()

    resumable(Engine(), path, {"network": linear, "optimizer": optimizer}, 4, epoch)
    return linear.weight.tolist()


def _plain(value: Any) -> Any:
    """Values that compare with ==."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.flatten().tolist()
    if isinstance(value, Evidence):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
