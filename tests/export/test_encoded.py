"""Export of runs that learned from features of a pretrained encoder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import scanmix
from scanmix.config import UserError
from scanmix.data.examples import Examples
from scanmix.export.classifier import OnnxClassifier, load_onnx
from scanmix.export.encoded import EncodedClassifier
from scanmix.export.folder import export_onnx, export_safetensors
from scanmix.export.loading import load_classifier
from scanmix.export.merged import write_merged
from scanmix.features import FrozenEncoder, Preparation, open_encoder
from scanmix.model import load_model
from tests.encoders import METADATA, write_encoder


def pictures(side: int = 16, count: int = 80) -> Examples:
    """Two classes: bright and dark above."""
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 120, (count, 3, side, side), dtype=torch.uint8, generator=draws)
    labels = torch.arange(count) % 2
    images[labels == 1, :, : side // 2] += 120
    return Examples(images=images, labels=labels, class_names=("dark", "light"), ids=tuple(map(str, range(count))))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "cache"))


def trained(features: str, examples: Examples) -> np.ndarray:
    run = scanmix.train(
        examples, method="cross_entropy", epochs=12, features=features, out="run", progress=False, batch_size=16
    )
    return run.predict_proba(examples)


@pytest.mark.parametrize("shape", ["plain", "channels last", "maps", "external"])
def test_one_file_holds_encoder_and_head(shape: str) -> None:
    write_encoder(
        Path("tiny.onnx"), channels_last=shape == "channels last", pooled=shape != "maps", external=shape == "external",
        metadata={**METADATA, "license": "CC0-1.0"},
    )  # fmt: skip
    examples = pictures()
    expected = trained("onnx:tiny.onnx", examples)
    agreement = export_onnx(Path("run"), Path("out"))
    assert agreement.difference <= 2e-3 and expected.max(1).mean() > 0.6
    assert sorted(os.listdir("out")) == ["README.md", "SHA256SUMS", "model.json", "model.onnx"]
    for name in list(Path().glob("tiny.onnx*")):
        name.unlink()  # the file needs nothing else
    model = load_classifier(Path("out"))
    assert isinstance(model, OnnxClassifier) and (model.kind, model.channels, model.size) == ("image", 3, (16, 16))
    for count in (0, 1, 80):
        found = model.predict_proba(examples.images[:count].numpy())
        assert found.shape == (count, 2) and np.abs(found - expected[:count]).max(initial=0) <= 2e-3
    card = Path("out/README.md").read_text()
    assert "| pretrained encoder | onnx:tiny.onnx (weights " in card and "license CC0-1.0) |" in card
    assert "So is the pretrained encoder." in card and "One that has seen the test images" in card
    assert str(Path.cwd()) not in card
    with pytest.raises(UserError, match="needs no encoder beside it"):
        load_classifier(Path("out"), encoder="onnx:tiny.onnx")


def test_one_file_holds_encoder_and_the_pictures_that_vote() -> None:
    write_encoder(Path("tiny.onnx"))
    examples = pictures()
    run = scanmix.train(examples, method="wann", features="onnx:tiny.onnx", out="run", progress=False)
    assert export_onnx(Path("run"), Path("out")).difference <= 2e-3
    found = load_classifier(Path("out")).predict_proba(examples.images.numpy())
    assert np.abs(found - run.predict_proba(examples)).max() <= 2e-3 and len({*found.argmax(1)}) == 2


def test_the_center_is_cut_inside_the_file() -> None:
    write_encoder(Path("tiny.onnx"))
    examples = pictures(20)
    expected = trained("onnx:tiny.onnx:crop=0.8", examples)
    export_onnx(Path("run"), Path("out"))
    model = load_classifier(Path("out"))
    assert isinstance(model, OnnxClassifier) and model.size == (20, 20)
    assert np.abs(model.predict_proba(examples.images.numpy()) - expected).max() <= 2e-3


@pytest.mark.parametrize("why", ["resized", "fixed", "joined"])
def test_otherwise_the_head_is_written_with_a_line_that_names_the_encoder(why: str) -> None:
    write_encoder(Path("tiny.onnx"), batch=4 if why == "fixed" else "B")
    write_encoder(Path("other.onnx"), seed=1)
    examples = pictures(12 if why == "resized" else 16)
    expected = trained("onnx:tiny.onnx" + ("+onnx:other.onnx" if why == "joined" else ""), examples)
    export_onnx(Path("run"), Path("out"))
    assert sorted(os.listdir("out")) == ["README.md", "SHA256SUMS", "encoder.json", "model.json", "model.onnx"]
    model = load_classifier(Path("out"))
    assert isinstance(model, EncodedClassifier) and model.kind == "image" and model.class_names == ("dark", "light")
    assert np.abs(model.predict_proba(examples.images.numpy()) - expected).max() <= 1e-4
    reason = {
        "resized": "pictures of 12x12 pixels have to be resized for the encoder",
        "fixed": "it takes batches of 4 pictures alone",
        "joined": "several encoders are joined",
    }[why]
    card = Path("out/README.md").read_text()
    assert reason in card and "are features of onnx:tiny.onnx (weights " in card
    about = json.loads(Path("out/model.json").read_text())
    assert (about["input"], about["kind"], about["channels"]) == ("vectors", "vector", 12 if why == "joined" else 6)
    with pytest.raises(UserError, match="images must be uint8 of shape"):
        model.predict_proba(examples.images[:, :, :4].numpy())
    if why == "resized":
        Path("tiny.onnx").rename("moved.onnx")
        write_encoder(Path("tiny.onnx"), seed=2)
        with pytest.raises(UserError, match="bring back the file that was used"):
            load_classifier(Path("out")).predict_proba(examples.images.numpy())
        moved = load_classifier(Path("out"), encoder="onnx:moved.onnx")
        assert np.abs(moved.predict_proba(examples.images.numpy()) - expected).max() <= 1e-4


def test_safetensors_name_the_encoder() -> None:
    write_encoder(Path("tiny.onnx"))
    examples = pictures()
    expected = trained("onnx:tiny.onnx", examples)
    export_safetensors(Path("run"), Path("out"))
    found = load_classifier(Path("out"), "cpu").predict_proba(examples.images.numpy())
    assert np.array_equal(found, expected)
    assert "| pretrained encoder | onnx:tiny.onnx (weights " in Path("out/README.md").read_text()


def test_a_network_of_pytorch_is_traced_into_the_file() -> None:
    """As one of timm, without timm: the encoder of the run is put in its place."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    prepared = Preparation((16, 16), (0.5,) * 3, (0.25,) * 3)
    encoder = FrozenEncoder("timm:made", "timm:made", "made 1", network, prepared)
    examples = pictures()
    run = scanmix.train(examples, method="cross_entropy", epochs=3, features=encoder, progress=False, batch_size=16)
    assert write_merged(run.model, Path("whole.onnx")) == ""
    found = load_onnx(Path("whole.onnx")).predict_proba(examples.images.numpy())
    assert np.abs(found - run.predict_proba(examples)).max() <= 2e-3
    scanmix.train(
        examples, method="cross_entropy", epochs=1, features=open_encoder(lambda images: images.float().mean((2, 3)),
        digest="mean"), out="function", progress=False,
    )  # fmt: skip
    assert load_model("function").encoder is not None


def test_filters_without_weights_are_in_the_file_and_take_any_number_of_pictures() -> None:
    examples = pictures(side=32)
    expected = trained("patches:8", examples)
    assert export_onnx(Path("run"), Path("out")).difference <= 2e-3
    found = load_onnx(Path("out/model.onnx")).predict_proba(examples.images.numpy())
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_predict_with_one_file_needs_no_pytorch() -> None:
    write_encoder(Path("tiny.onnx"))
    trained("onnx:tiny.onnx", pictures())
    export_onnx(Path("run"), Path("out"))
    code = (
        "import sys; import numpy as np; from pathlib import Path; from scanmix.export.loading import "
        "load_classifier; print(load_classifier(Path('out')).predict_proba(np.zeros((2, 3, 16, 16), np.uint8)).shape, "
        "'torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "(2, 2) False\n"
