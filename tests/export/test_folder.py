"""What `scanmix export` writes is the same classifier, or nothing is written."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import scanmix
from scanmix.config import UserError, install
from scanmix.data.examples import Examples
from scanmix.data.readers.vectors import to_vectors
from scanmix.export import onnx_file
from scanmix.export.classifier import OnnxClassifier, load_onnx
from scanmix.export.folder import export_onnx, export_safetensors
from scanmix.export.loading import load_classifier
from scanmix.model import load_model
from scanmix.networks import neighbor_vote

SMALL = {"widths": [8, 16], "blocks": [1, 1], "stem_stride": 2, "final_norm": True}


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with two networks, small enough to be trained in seconds."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    train, test = scanmix.load("digits", per_class=60)
    noisy = scanmix.add_noise(train, "symmetric", rate=0.4, seed=0)
    settings = {"epochs": 5, "warmup": 4, "batch_size": 16, "warmup_rate": 0.1, "learning_rate": 0.01}
    scanmix.train(noisy, test=test, method="dividemix", seed=5, out=folder, network=SMALL, settings=settings)
    return folder


@pytest.fixture(scope="module")
def exported(digits_run: Path) -> Path:
    out = digits_run.parent / "onnx"
    agreement = export_onnx(digits_run, out)
    assert agreement.inputs == "200 training images" and agreement.difference <= 1e-5
    return out


def onnx_model(folder: Path) -> OnnxClassifier:
    model = load_classifier(folder)
    assert isinstance(model, OnnxClassifier)
    return model


def test_onnx_says_what_predict_says_on_200_real_images(digits_run: Path, exported: Path) -> None:
    _, test = scanmix.load("digits")
    assert test is not None
    images = test.images[:200]
    assert len(load_model(digits_run).predictor.members) == 2  # the sum of logits is put to the test
    expected = load_model(digits_run).predict_proba(images)
    found = onnx_model(exported).predict_proba(images.numpy())
    assert found.shape == (200, 10) and found.dtype == np.float32
    assert np.abs(found - expected).max() <= 1e-4
    assert expected.max() > 0.3  # a network that says nothing would agree with anything


@pytest.mark.parametrize("count", [0, 1, 3, 200, 1025])
def test_any_number_of_images(digits_run: Path, exported: Path, count: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)
    found = onnx_model(exported).predict_proba(images)
    assert found.shape == (count, 10)
    if count:
        assert found == pytest.approx(load_model(digits_run).predict_proba(images), abs=1e-5)


def test_names_size_and_channels_lie_in_the_file_and_beside_it(exported: Path) -> None:
    names = tuple(str(digit) for digit in range(10))
    model = onnx_model(exported)
    assert (model.class_names, model.channels, model.size) == (names, 1, (8, 8))
    beside = json.loads((exported / "model.json").read_text())
    assert beside["class_names"] == list(names) and beside["size"] == [8, 8] and beside["channels"] == 1
    (given,), (result,) = model.session.get_inputs(), model.session.get_outputs()
    assert (given.name, given.type, given.shape) == (beside["input"], "tensor(uint8)", ["N", 1, 8, 8])
    assert (result.name, result.shape) == (beside["output"], ["N", 10])
    assert sorted(os.listdir(exported)) == ["README.md", "SHA256SUMS", "model.json", "model.onnx"]


def test_other_images_than_those_of_the_training_are_refused(exported: Path) -> None:
    for shape, kind in (((2, 1, 9, 8), np.uint8), ((2, 3, 8, 8), np.uint8), ((2, 1, 8, 8), np.float32)):
        with pytest.raises(UserError, match=r"images must be uint8 of shape \(N, 1, 8, 8\)"):
            onnx_model(exported).predict_proba(np.zeros(shape, kind))


def test_safetensors_are_the_model_folder(digits_run: Path, tmp_path: Path) -> None:
    export_safetensors(digits_run, tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["README.md", "SHA256SUMS", "model.json", "model.safetensors"]
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (digits_run / "model" / name).read_bytes()
    images = np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8), dtype=np.uint8)
    same = load_classifier(tmp_path / "out", "cpu").predict_proba(images)
    assert np.array_equal(same, load_model(digits_run).predict_proba(images))


@pytest.mark.parametrize("chunk", [64, 1 << 16])
@pytest.mark.parametrize(("method", "settings"), [("neighbors", {}), ("wann", {}), ("wann", {"discriminant": 0.9})])
def test_a_vote_of_training_rows_is_in_the_file(
    method: str, settings: dict[str, Any], chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the rows are there twice, with other labels: which of equal ones vote is the same in both."""
    monkeypatch.setattr(neighbor_vote, "CHUNK", chunk)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    vectors = np.tile(rng.normal(size=(100, 8)).astype(np.float32) + np.eye(8, dtype=np.float32)[labels[:100]], (2, 1))
    data = to_vectors(vectors, labels.tolist(), "abc", ids=[str(i) for i in range(200)], name="made")
    run = scanmix.train(data, method=method, out=tmp_path / "run", progress=False, **settings)
    assert export_onnx(tmp_path / "run", tmp_path / "out").difference <= 1e-5
    new = np.concatenate([vectors, rng.normal(size=(500, 8)).astype(np.float32)])
    found = onnx_model(tmp_path / "out").predict_proba(new)
    assert np.abs(found - run.predict_proba(new)).max() <= 1e-5
    assert np.array_equal(load_model(tmp_path / "run").predict_proba(new), run.predict_proba(new))
    assert len({*found.argmax(1)}) == 3


@pytest.mark.parametrize(("method", "wrong", "refused"), [("wann", 5, False), ("wann", 40, True), ("linear", 5, True)])
def test_few_inputs_may_have_other_neighbors_in_the_file(
    method: str, wrong: int, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = np.random.default_rng(0).normal(size=(90, 4))
    data = to_vectors(vectors, [i % 3 for i in range(90)], "abc", ids=[str(i) for i in range(90)], name="made")
    scanmix.train(data, method=method, out=tmp_path / "run", progress=False)
    honest = OnnxClassifier.predict_proba

    def another(self: OnnxClassifier, inputs: np.ndarray) -> np.ndarray:
        found = honest(self, inputs)
        found[:wrong] += 0.02
        return found

    monkeypatch.setattr(OnnxClassifier, "predict_proba", another)
    if refused:
        with pytest.raises(UserError, match=r"ONNX and PyTorch disagree by 2\.0e-02"):
            export_onnx(tmp_path / "run", tmp_path / "out")
    else:
        agreement = export_onnx(tmp_path / "run", tmp_path / "out")
        assert agreement.difference <= 1e-5 and agreement.inputs.startswith("95% of 200 random vectors")


def test_color_not_square_and_from_memory(tmp_path: Path) -> None:
    """Without images to load again, drawn ones are compared, and it is said."""
    images = torch.randint(0, 256, (40, 3, 12, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    names = ("a | b", "c\n*d*")
    data = Examples(images=images, labels=torch.arange(40) % 2, class_names=names, ids=tuple(map(str, range(40))))
    scanmix.train(data, method="cross_entropy", out=tmp_path / "run", network=SMALL, epochs=1)
    agreement = export_onnx(tmp_path / "run", tmp_path / "out")
    assert agreement.inputs == "200 random images (the training images cannot be loaded again)"
    model = onnx_model(tmp_path / "out")
    assert model.class_names == names
    assert model.predict_proba(images.numpy()) == pytest.approx(load_model(tmp_path / "run").predict_proba(images))
    card = (tmp_path / "out" / "README.md").read_text()
    assert r"| classes (2) | a \| b, c \*d\* |" in card and "there were no test images" in card
    assert agreement.inputs in card and "12x10 pixels, color" in card


@pytest.mark.parametrize("tolerance", [-1.0, float("nan")])
def test_a_file_that_disagrees_is_not_kept(
    digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tolerance: float
) -> None:
    monkeypatch.setattr(onnx_file, "TOLERANCE", tolerance)
    with pytest.raises(
        UserError, match=r"ONNX and PyTorch disagree by .* on 200 training images .*nothing was written"
    ):
        export_onnx(digits_run, tmp_path / "out")
    assert not os.listdir(tmp_path)


def test_what_is_there_is_not_touched(digits_run: Path, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    for export in (export_onnx, export_safetensors):
        with pytest.raises(UserError, match="is there already"):
            export(digits_run, tmp_path)
    assert os.listdir(tmp_path) == ["note.txt"]


def test_an_unfinished_or_damaged_run_is_refused(digits_run: Path, tmp_path: Path) -> None:
    shutil.copytree(digits_run, tmp_path / "run")
    (tmp_path / "run" / "model" / "model.safetensors").write_bytes(b"cut")
    for export in (export_onnx, export_safetensors):
        with pytest.raises(UserError, match="cannot be read"):
            export(tmp_path / "run", tmp_path / "out")
    shutil.rmtree(tmp_path / "run" / "model")
    with pytest.raises(UserError, match="unfinished"):
        export_safetensors(tmp_path / "run", tmp_path / "out")
    assert os.listdir(tmp_path) == ["run"]


def test_a_damaged_file_is_told(exported: Path, tmp_path: Path) -> None:
    import onnx

    path = tmp_path / "model.onnx"
    whole = (exported / "model.onnx").read_bytes()
    for content in (b"", b"no model", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"model\.onnx is damaged and cannot be read"):
            load_onnx(path)
    graph = onnx.load_from_string(whole)
    del graph.metadata_props[:]
    onnx.save(graph, path)
    with pytest.raises(UserError, match="was not written by scanmix"):
        load_onnx(path)


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named_with_its_extra(
    digits_run: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=re.escape(f"ONNX needs {missing}; install it with: {install('onnx')}, or")):
        export_onnx(digits_run, tmp_path / "out")
    assert not os.listdir(tmp_path)
    if missing == "onnxruntime":
        with pytest.raises(UserError, match=re.escape(f"needs onnxruntime; install it with: {install('onnx')}")):
            load_classifier(exported)


def test_a_device_is_refused_for_onnx(exported: Path) -> None:
    with pytest.raises(UserError, match="runs on the CPU"):
        load_classifier(exported, "cuda")


def test_the_card_has_the_figures(digits_run: Path, exported: Path) -> None:
    card, run = (exported / "README.md").read_text(), scanmix.open_run(digits_run)
    noise = run.noise
    assert noise.actual is not None and noise.estimated is not None and run.last10_accuracy is not None
    for figure in (
        "digits, 600 training images", "8x8 pixels, gray", "0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
        "| noise added | symmetric |", "asked for | 40.0 % |", f"actual | {100 * noise.actual:.1f} % |",
        f"estimated | {100 * noise.estimated:.1f} % |", "| method | dividemix |", "| recipe | digits/any/dividemix |",
        "| seed | 5 |", "| networks | 2 |", "| epochs | 5 |", f"torch {torch.__version__}",
        f"last epoch | {100 * run.accuracies[-1]:.1f} % (this model)", f"{100 * run.last10_accuracy:.1f} %",
        f"best epoch | {100 * max(run.accuracies):.1f} % (chosen by the test images", "200 training images",
    ):  # fmt: skip
        assert figure in card, figure


def test_the_code_in_the_cards_runs(digits_run: Path, exported: Path, tmp_path: Path) -> None:
    export_safetensors(digits_run, tmp_path / "bare")
    source = str(Path(scanmix.__file__).parents[1])
    for folder in (exported, tmp_path / "bare"):
        (code,) = re.findall(r"^```python\n(.*?)^```$", (folder / "README.md").read_text(), re.DOTALL | re.MULTILINE)
        code += "assert probabilities.shape == (1, 10) and abs(probabilities.sum() - 1) < 1e-5"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": source},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
