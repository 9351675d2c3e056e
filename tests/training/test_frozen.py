"""Runs on pictures that learn from features of a frozen encoder."""

import dataclasses
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import scanmix
from scanmix.audit import Audit
from scanmix.config import UserError
from scanmix.data.examples import Examples
from scanmix.features import RunEncoder, embed, open_encoder, record_of, reopened
from scanmix.model import load_model
from scanmix.networks.mlp import MlpSettings
from scanmix.networks.no_layers import NoLayersSettings
from scanmix.training import Run, open_run, resolve
from scanmix.training.loop import resume, train
from tests.encoders import WIDTH, write_encoder
from tests.interrupted import Order, Victim

SHORT: Mapping[str, Any] = {"method": "cross_entropy", "epochs": 3, "threads": 1, "progress": False}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "cache"))
    write_encoder(Path("tiny.onnx"))


@pytest.fixture(scope="module")
def parts() -> tuple[Examples, Examples]:
    first, second = scanmix.load("digits", per_class=10, limit_test=60)
    assert second is not None
    return scanmix.add_noise(first, "symmetric", rate=0.3, seed=0), second


def weights(run: Run) -> dict[str, Tensor]:
    return run.model.predictor.state_dict()


def equal(first: Run, second: Run) -> bool:
    one, two = weights(first), weights(second)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def same_audit(first: Audit, second: Audit) -> bool:
    return all(np.array_equal(first[name], second[name]) for name in first)


def test_such_a_run_is_a_run_on_the_vectors_of_embed(parts: tuple[Examples, Examples]) -> None:
    noisy, test = parts
    run = train(noisy, test=test, features="onnx:tiny.onnx", out="run", **SHORT)
    encoder = open_encoder("onnx:tiny.onnx")
    first, second = (
        dataclasses.replace(each, images=torch.from_numpy(embed(each, encoder).astype(np.float32))[:, :, None, None],
                            name="vectors")
        for each in parts
    )  # fmt: skip
    plain = train(first, test=second, **SHORT)
    assert equal(run, plain) and run.accuracies == plain.accuracies
    assert isinstance(run.settings.network, MlpSettings) and run.settings.recipe == plain.settings.recipe
    assert np.array_equal(run.predict_proba(test), plain.predict_proba(second))


def test_without_a_method_labels_are_propagated_over_features(parts: tuple[Examples, Examples]) -> None:
    noisy, test = parts
    run = train(noisy, test=test, features="onnx:tiny.onnx", threads=1, progress=False)
    assert (run.settings.method, run.settings.recipe) == ("propagate", "vectors/any/propagate")
    assert isinstance(run.settings.network, NoLayersSettings)


def test_one_place_says_which_method_is_taken(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text('method = "ssr"\n')
    for features, default in ((True, "propagate"), (False, "scanmix")):
        assert resolve(None, "photos", features=features).method == default
        assert resolve("ssr", "photos", features=features).method == "ssr"
        assert resolve(None, "photos", tmp_path / "my.toml", features=features).method == "ssr"
    assert resolve(None, "vectors", kind="vector").method == "scanmix"
    for method in ("dividemix", "c2d"):
        assert resolve(method, "photos", features=True).recipe == f"features/any/{method}"
        assert resolve(method, "photos", kind="vector").recipe == f"vectors/any/{method}"
    # C2D with its features given is DivideMix.
    inner = resolve("c2d", "photos", features=True).settings["dividemix"]
    assert inner == resolve("dividemix", "photos", features=True).settings
    assert resolve("scan_dividemix", "photos", features=True).recipe == "vectors/any/scan_dividemix"
    for name in ("photos", "digits"):
        assert resolve("ssr", name, features=True) == resolve("ssr", "vectors", kind="vector")


def test_the_pictures_stay(parts: tuple[Examples, Examples]) -> None:
    noisy, test = parts
    run = train(noisy, test=test, features="onnx:tiny.onnx", out="run", **SHORT)
    again = open_run("run")
    assert (again.settings.kind, again.settings.given, again.model.kind) == ("vector", "image", "image")
    assert (again.model.channels, again.model.size, again.model.inputs) == (1, (8, 8), WIDTH)
    assert torch.equal(again.training_data().images, noisy.images)
    assert torch.equal(torch.as_tensor(again.pictures(again.evidence())), noisy.images)
    probs = again.predict_proba(test.images.numpy())
    assert np.array_equal(probs, run.predict_proba(test)) and again.model.measure(test).accuracy == run.last_accuracy
    rows = embed(test, open_encoder("onnx:tiny.onnx"))
    assert np.array_equal(again.predict_proba(rows), probs)  # features instead of pictures
    with pytest.raises(UserError, match=r"images must be uint8 of shape \(N, 1, 8, 8\)"):
        again.predict_proba(rows[:, :-1])


def test_neighbors_of_the_audit_are_those_of_the_features(parts: tuple[Examples, Examples]) -> None:
    noisy, _ = parts
    run = train(noisy, features="onnx:tiny.onnx", out="run", **SHORT)
    rows = embed(noisy, open_encoder("onnx:tiny.onnx")).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    likeness = rows @ rows.T
    np.fill_diagonal(likeness, -2)
    evidence = run.evidence()
    assert evidence.neighbors is not None and evidence.components is not None and evidence.image_neighbors is None
    kept = np.take_along_axis(likeness, evidence.neighbors.numpy(), 1)
    assert np.allclose(kept, -np.sort(-likeness, 1)[:, :10], atol=1e-5)
    assert torch.allclose(
        evidence.components.T @ evidence.components, torch.diag(evidence.components.square().sum(0)), atol=1e-4
    )
    in_memory = train(noisy, features="onnx:tiny.onnx", **SHORT)
    assert same_audit(run.audit(), in_memory.audit()) and same_audit(run.audit(), run.audit(noisy))
    assert same_audit(open_run("run").audit(), run.audit())


class Killer:
    name = "killer"

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        """Do nothing."""

    def finalize(self, status: str) -> None:
        """Do nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if step == 2:
            os.kill(os.getpid(), signal.SIGKILL)


def to_be_killed(folder: Path) -> None:
    train_set, test_set = scanmix.load("digits", per_class=10, limit_test=60)
    noisy = scanmix.add_noise(train_set, "symmetric", rate=0.3, seed=0)
    scanmix.train(
        noisy, test=test_set, features="onnx:tiny.onnx", out="killed", method="cross_entropy", epochs=3, threads=1,
        progress=False, loggers=[Killer()],
    )  # fmt: skip


def test_a_killed_run_goes_on_with_the_same_bits(
    parts: tuple[Examples, Examples], victim: Victim, tmp_path: Path
) -> None:
    noisy, test = parts
    done = victim.do(Order("tests.training.test_frozen.to_be_killed", str(Path.cwd())))
    assert done.signal == signal.SIGKILL, done.said
    assert 0 < len(open_run("killed").metrics) < 3
    os.mkdir("elsewhere")
    os.chdir("elsewhere")  # the encoder was named from another folder
    ended = resume(tmp_path / "killed", progress=False)
    os.chdir("..")
    whole = train(noisy, test=test, features="onnx:tiny.onnx", out="whole", **SHORT)
    assert equal(ended, whole) and ended.accuracies == whole.accuracies
    assert Path("killed/labels.csv").read_bytes() == Path("whole/labels.csv").read_bytes()


class StopsAfterOne:
    name = "stops"

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        """Do nothing."""

    def finalize(self, status: str) -> None:
        """Do nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        raise KeyboardInterrupt


def stopped(noisy: Examples, folder: str, features: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(noisy, features=features, out=folder, loggers=[StopsAfterOne()], **SHORT)


def test_a_changed_file_is_refused_and_a_moved_one_is_named(parts: tuple[Examples, Examples]) -> None:
    noisy, test = parts
    stopped(noisy, "run", "onnx:tiny.onnx")
    Path("tiny.onnx").rename("moved.onnx")
    with pytest.raises(UserError, match=r"tiny\.onnx"):
        resume("run", progress=False)
    write_encoder(Path("tiny.onnx"), seed=1)
    with pytest.raises(UserError, match=r"has weights with the hash .*, and the run learned from features of those"):
        resume("run", progress=False)
    with pytest.raises(UserError, match=r"holds another run .its encoder had weights with the hash"):
        train(noisy, features="onnx:tiny.onnx", out="run", **SHORT)
    with pytest.raises(UserError, match="treats pictures in another way"):
        resume("run", features="onnx:moved.onnx:crop=0.5", progress=False)
    with pytest.raises(UserError, match="is another encoder than"):
        resume("run", features="onnx:moved.onnx+onnx:tiny.onnx", progress=False)
    run = resume("run", features="onnx:moved.onnx", progress=False)
    assert np.array_equal(open_run("run").predict_proba(test), run.predict_proba(test))  # the new place is noted
    Path("moved.onnx").rename("again.onnx")
    write_encoder(Path("moved.onnx"), seed=1)
    with pytest.raises(UserError, match="bring back the file that was used"):
        open_run("run").predict(test)
    model = load_model("run", encoder="onnx:again.onnx")
    assert np.array_equal(model.predict_proba(test), run.predict_proba(test))
    train(noisy, out="plain", network={"widths": [4], "blocks": [1], "stem_stride": 2}, **SHORT)
    with pytest.raises(UserError, match=r"holds another run .features of another number of encoders"):
        train(noisy, features="onnx:moved.onnx", out="plain", **SHORT)
    with pytest.raises(UserError, match="needs no encoder"):
        load_model("plain", encoder="onnx:moved.onnx")


def test_several_encoders_are_joined(parts: tuple[Examples, Examples]) -> None:
    write_encoder(Path("other.onnx"), seed=1)
    noisy, test = parts
    run = train(noisy, test=test, features="onnx:tiny.onnx+onnx:other.onnx", out="run", **SHORT)
    assert run.settings.features is not None and len(run.settings.features.parts) == 2
    assert run.model.inputs == 2 * WIDTH
    assert np.array_equal(open_run("run").predict_proba(test), run.predict_proba(test))


def brightness(images: Tensor) -> Tensor:
    return torch.stack([images.float().mean((1, 2, 3)), images.float().std((1, 2, 3))], 1)


def test_a_function_needs_a_digest_in_a_folder_and_is_given_again(parts: tuple[Examples, Examples]) -> None:
    noisy, test = parts
    in_memory = train(noisy, test=test, features=brightness, **SHORT)
    assert in_memory.predict_proba(test).shape == (60, 10) and len(in_memory.audit()["id"]) == 100
    with pytest.raises(UserError, match="nothing tells whether the function brightness is the same"):
        train(noisy, features=brightness, out="run", **SHORT)
    known = open_encoder(brightness, digest="brightness 1")
    stopped(noisy, "run", known)
    with pytest.raises(UserError, match="the function brightness, which no file holds"):
        resume("run", progress=False)
    with pytest.raises(UserError, match="has weights with the hash brightness 2"):
        resume("run", features=open_encoder(brightness, digest="brightness 2"), progress=False)
    assert np.array_equal(resume("run", features=known, progress=False).predict(test), in_memory.predict(test))
    assert np.array_equal(load_model("run", encoder=known).predict(test), in_memory.predict(test))


def test_a_run_that_was_stopped_while_features_are_computed_goes_on(parts: tuple[Examples, Examples]) -> None:
    noisy, test = parts

    def stops(images: Tensor) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"scanmix resume run. goes on: the features of 0 of"):
        train(noisy, test=test, features=open_encoder(stops, digest="brightness 1"), out="run", **SHORT)
    ended = resume("run", features=open_encoder(brightness, digest="brightness 1"), progress=False)
    assert equal(ended, train(noisy, test=test, features=brightness, **SHORT))
    train(noisy, out="plain", loggers=[], network={"widths": [4], "blocks": [1], "stem_stride": 2}, **SHORT)
    Path("plain/model/model.json").unlink()
    with pytest.raises(UserError, match="it has no encoder; leave it out"):
        resume("plain", features="onnx:tiny.onnx", progress=False)


def test_vectors_need_no_encoder(parts: tuple[Examples, Examples]) -> None:
    vectors = dataclasses.replace(parts[0], images=torch.rand(100, 5, 1, 1))
    with pytest.raises(UserError, match="holds vectors already"):
        train(vectors, features="onnx:tiny.onnx", **SHORT)


def test_a_record_knows_the_encoder_wherever_it_lies() -> None:
    record = record_of(open_encoder("onnx:tiny.onnx"))
    assert record.name == f"onnx:{Path('tiny.onnx').absolute()}"
    os.mkdir("there")
    Path("tiny.onnx").rename("there/net.onnx")
    moved = record_of(open_encoder("onnx:there/net.onnx"))
    assert moved.key == record.key and moved != record
    assert reopened(record, "onnx:there/net.onnx").digest == record.parts[0].digest
    settings = resolve("cross_entropy", "digits")
    one, two = (dataclasses.replace(settings, features=each).config_hash() for each in (record, moved))
    assert one == two != settings.config_hash()
    assert "features" not in settings.hashed_settings()


def test_features_of_another_number_are_refused(parts: tuple[Examples, Examples]) -> None:
    encoder = open_encoder("onnx:tiny.onnx")
    images = parts[1].images
    right = RunEncoder(record_of(encoder), WIDTH, opened=encoder)
    rows = embed(parts[1], encoder)
    assert np.array_equal(right.vectors(images)[:, :, 0, 0].numpy(), rows.astype(np.float32))
    assert right.vectors(images[:0]).shape == (0, WIDTH, 1, 1)
    with pytest.raises(UserError, match=f"returned {WIDTH} features of a picture"):
        RunEncoder(record_of(encoder), WIDTH + 1, opened=encoder).vectors(images)


def test_two_processes_share_what_the_first_has_computed(parts: tuple[Examples, Examples]) -> None:
    noisy, test = parts
    alone = train(noisy, test=test, features="onnx:tiny.onnx", out="alone", **SHORT)
    shared = train(noisy, test=test, features="onnx:tiny.onnx", out="shared", devices=2, **SHORT)
    assert shared.accuracies and shared.settings.processes.devices == 2
    assert np.allclose(shared.predict_proba(test), alone.predict_proba(test), atol=0.02)
