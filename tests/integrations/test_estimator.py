"""The scikit-learn estimator: what it takes, what it learns, and scikit-learn's own checks."""

import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import cross_val_predict
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import Tensor

from scanmix import ScanMixClassifier
from scanmix.config import UserError
from scanmix.features import open_encoder
from scanmix.training.finetune import METHOD
from tests import standin_timm
from tests.encoders import write_encoder

TINY: dict[str, Any] = {
    "epochs": 2, "warmup": 1, "mild_warmup": 0, "batch_size": 16, "minimum_steps": 0, "num_neighbors": 5,
    "pretrain": {"epochs": 1, "batch_size": 32}, "clustering": {"epochs": 1, "batch_size": 32},
    "network": {"widths": [4, 8], "blocks": [1, 1]},
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "cache"))


def made(count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Gray 8x8 images, bright above or below, as uint8; labels "low" and "top" are right."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 100, (count, 8, 8))
    labels = np.where(np.arange(count) % 2, "top", "low")
    images[labels == "top", :4] += 150
    images[labels == "low", 4:] += 150
    return images.astype(np.uint8), labels


def tiny(method: str = "scanmix", **more: Any) -> ScanMixClassifier:
    return ScanMixClassifier(method, **{"settings": TINY, **more})


# Ten epochs of a hundred vectors are all warm-up, and a run says so.
@pytest.mark.filterwarnings("ignore:in all 10 epochs scanmix may learn the labels as they are")
@parametrize_with_checks([ScanMixClassifier(settings={"epochs": 10})])  # type: ignore[untyped-decorator]  # none is expected to fail
def test_scikit_learns_checks_on_vectors(estimator: Any, check: Any) -> None:
    check(estimator)


def test_attributes_stand_in_the_order_of_the_training_data() -> None:
    images, labels = made()
    fitted = tiny().fit(images, labels)
    assert fitted.classes_.tolist() == ["low", "top"]
    assert fitted.p_clean_.shape == labels.shape and fitted.suggested_labels_.shape == labels.shape
    assert set(fitted.suggested_labels_) <= {"low", "top"}
    rows = {int(name): row for row, name in enumerate(fitted.audit_["id"])}
    for i in range(len(labels)):
        assert fitted.audit_["given"][rows[i]] == labels[i]
        assert fitted.audit_["suggested"][rows[i]] == fitted.suggested_labels_[i]
        assert fitted.audit_["p_clean"][rows[i]] == fitted.p_clean_[i]
    assert 0 <= fitted.noise_rate_ <= 1 and fitted.transition_.shape == (2, 2)
    assert fitted.predict_proba(images).sum(1) == pytest.approx(np.ones(len(images)), abs=1e-12)
    assert not hasattr(fitted, "n_features_in_")


def test_it_learns_and_names_the_wrong_labels() -> None:
    images, labels = made(80)
    given = labels.copy()
    given[:16] = np.where(labels[:16] == "top", "low", "top")
    fitted = ScanMixClassifier("cross_entropy", settings={**NETWORK, "epochs": 15, "batch_size": 16})
    fitted.fit(images, given)
    assert fitted.score(images, labels) > 0.9
    assert fitted.p_clean_[:16].mean() < fitted.p_clean_[16:].mean()


NETWORK = {"network": TINY["network"]}


@pytest.mark.parametrize("scale", [lambda x: x / 255, lambda x: x.astype(np.int64), lambda x: x.astype(np.float32)])
@pytest.mark.parametrize("with_channel", [False, True])
def test_the_same_pixels_in_other_types_are_the_same_images(scale: Any, with_channel: bool) -> None:
    images, labels = made()
    first, again = tiny().fit(images, labels), scale(images)[..., None] if with_channel else scale(images)
    second = tiny().fit(again, labels)
    assert np.array_equal(first.predict_proba(images), second.predict_proba(again))
    assert second.white_ == (1 if again.max() <= 1 else 255)


def test_white_is_that_of_the_training() -> None:
    images, labels = made()
    fitted = tiny().fit(images / 255, labels)
    dark = images[:4] / 2550
    assert np.array_equal(fitted.predict_proba(dark), fitted.predict_proba(np.stack([*dark, images[4] / 255])[:4]))
    with pytest.raises(UserError, match="made 1 white"):
        fitted.predict(images)


def test_files_are_learned_from_and_predicted(tmp_path: Path) -> None:
    images, labels = made()
    paths = [tmp_path / f"{i}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(np.kron(image, np.ones((2, 2), dtype=np.uint8))).save(path)
    fitted = tiny().fit([str(path) for path in paths], labels)
    assert fitted.audit_["path"][0] in {str(path) for path in paths}
    assert fitted.predict(paths[:3]).shape == (3,)
    paths[1].write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"1\.png: not an image"):
        fitted.predict(paths)
    with pytest.raises(ValueError, match=r"1\.png: not an image"), pytest.warns(UserWarning, match="set aside"):
        fitted.fit(paths, labels)


def test_a_pickle_holds_weights_and_no_code_of_torch() -> None:
    images, labels = made()
    fitted = tiny().fit(images, labels)
    stored = pickle.dumps(fitted)
    texts = [str(value) for code, value, _ in pickletools.genops(stored) if code.name.endswith(("GLOBAL", "UNICODE"))]
    assert not [text for text in texts if text.startswith("torch")]
    back = pickle.loads(stored)
    assert np.array_equal(back.predict_proba(images), fitted.predict_proba(images))
    assert back.run_.metrics == fitted.run_.metrics and back.run_.settings == fitted.run_.settings
    assert np.array_equal(back.audit_["id"], fitted.audit_["id"])
    assert pickle.loads(pickle.dumps(tiny())).get_params() == tiny().get_params()


def test_features_of_a_pretrained_encoder(tmp_path: Path) -> None:
    spec = f"onnx:{write_encoder(tmp_path / 'tiny.onnx')}"
    images, labels = made()
    paths = [str(tmp_path / f"{i}.png") for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(np.kron(image, np.ones((3, 3), dtype=np.uint8))).save(path)
    plain = ScanMixClassifier("cross_entropy", features=spec, settings={"epochs": 20, "batch_size": 8})
    fitted = clone(plain).fit(paths, labels)
    assert fitted.run_.model.size == (16, 16) and fitted.run_.settings.given == "image"  # not 24, as they are
    assert (fitted.predict(paths) == labels).mean() > 0.8
    back = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(back.predict_proba(paths), fitted.predict_proba(paths))
    assert clone(plain).fit(images, labels).run_.model.size == (8, 8)
    assert ScanMixClassifier(features=spec).fit(images, labels).run_.settings.method == "propagate"
    by_function = clone(plain).set_params(features=_halves).fit(images, labels)
    assert (by_function.predict(images) == labels).all()
    opened = clone(ScanMixClassifier("cross_entropy", features=open_encoder(spec), settings={"epochs": 2}))
    assert opened.fit(images, labels).predict(images).shape == (40,)
    with pytest.raises(ValueError, match="holds vectors already"):
        clone(plain).fit(np.zeros((40, 3)), labels)
    with pytest.raises(ValueError, match="unknown kind of encoder 'tim'"):
        clone(plain).set_params(features="tim:resnet50").fit(images, labels)


def test_a_pretrained_network_is_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    standin_timm.install(monkeypatch)
    model = f"timm:{standin_timm.NAME}@{standin_timm.write_weights(tmp_path / 'tiny.safetensors')}"
    images, labels = made()
    paths = [str(tmp_path / f"{i}.png") for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(np.kron(image, np.ones((3, 3), dtype=np.uint8))).save(path)
    short = {"epochs": 6, "batch_size": 8, "learning_rate": 0.1, "network.encoder_rate": 1.0}
    plain = ScanMixClassifier("cross_entropy", finetune=model, settings=short)
    fitted = clone(plain).fit(paths, labels)
    assert fitted.run_.settings.recipe == "finetune/any/cross_entropy" and fitted.run_.settings.finetuned is not None
    assert fitted.run_.model.size == (standin_timm.SIDE, standin_timm.SIDE)  # not 24, as they are
    assert (fitted.predict(paths) == labels).mean() > 0.8
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).predict_proba(paths), fitted.predict_proba(paths))
    by_image = clone(plain).fit(images, labels)
    assert by_image.run_.model.size == (8, 8)
    assert by_image.set_params(method=None).fit(images, labels).run_.settings.method == METHOD
    with pytest.raises(ValueError, match="trains a network that reads images, and X holds vectors; leave it out"):
        clone(plain).fit(np.zeros((40, 3)), labels)


def test_features_and_a_network_to_train_are_not_asked_for_together(tmp_path: Path) -> None:
    both = ScanMixClassifier(features=_halves, finetune="timm:resnet50")
    with pytest.raises(
        ValueError, match=r"^features= learns from a network as it is, and finetune= trains it: give one of them$"
    ):
        both.fit(*made())
    with pytest.raises(ValueError, match="cannot be trained on: only a single network of timm can"):
        ScanMixClassifier(finetune=f"onnx:{write_encoder(tmp_path / 'tiny.onnx')}").fit(*made())


def _halves(images: Tensor) -> Tensor:
    return torch.stack([images[:, :, :4].float().mean((1, 2, 3)), images[:, :, 4:].float().mean((1, 2, 3))], 1)


@pytest.mark.parametrize("missing", ["settings", "about", "metrics", "files"])
def test_a_pickle_without_a_part_is_told(missing: str) -> None:
    state = tiny().fit(*made()).__getstate__()
    del state["run_"][missing]
    with pytest.raises(UserError, match=f"the pickled run lacks {missing}"):
        tiny().__setstate__(state)


def test_labels_that_are_known_are_given_as_a_mask() -> None:
    images, labels = made()
    labels[:2], known = labels[:2][::-1], np.arange(40) < 2  # wrong, but believed
    fitted = tiny("bootstrap", settings={"epochs": 2, "network": TINY["network"]}).fit(images, labels, trusted=known)
    rows = {name: row for row, name in enumerate(fitted.audit_["id"])}
    assert [fitted.audit_["decided"][rows[str(i)]] for i in (0, 1, 2)] == ["trusted", "trusted", ""]
    assert fitted.run_.settings.trusted_fingerprint is not None
    for wrong in (known[:-1], np.arange(40), "all"):
        with pytest.raises(ValueError, match="trusted labels must be given as a mask of 40 booleans"):
            tiny().fit(images, labels, trusted=wrong)


def test_clone_and_cross_validation() -> None:
    images, labels = made()
    assert clone(tiny(random_state=3)).get_params() == tiny(random_state=3).get_params()
    probs = cross_val_predict(
        tiny("cross_entropy", settings={**NETWORK, "epochs": 2}), images, labels, cv=2, method="predict_proba"
    )
    assert probs.shape == (40, 2)


@pytest.mark.parametrize("network", ["auto", "mlp"])
def test_tables_are_vectors(network: str) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    vectors = rng.normal(size=(60, 5)) + 4 * np.eye(5)[labels]
    fitted = ScanMixClassifier(network=network, settings={"epochs": 5, "warmup": 1}).fit(vectors, labels)
    assert fitted.n_features_in_ == 5 and fitted.run_.model.kind == "vector"
    assert fitted.score(vectors, labels) > 0.9
    back = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(back.predict_proba(vectors), fitted.predict_proba(vectors))
    with pytest.raises(ValueError, match="images cannot be predicted by what was learned from vectors"):
        fitted.predict(made()[0])


def test_random_state_decides() -> None:
    images, labels = made()
    settings = {**NETWORK, "epochs": 1}
    first, again, other, free = (
        tiny("cross_entropy", settings=settings, random_state=state).fit(images, labels).predict_proba(images)
        for state in (1, np.int64(1), 2, np.random.RandomState(1))
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other) and not np.array_equal(first, free)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "resnet"}, '"auto", "image" or "mlp" is expected'),
        ({"network": "mlp"}, "network='mlp' does not take images"),
        ({"settings": {"seed": 3}}, r"settings\['seed'\]"),
        ({"settings": {"epoch": 3}}, "did you mean 'epochs'"),
        ({"method": "scanmixx"}, "did you mean 'scanmix'"),
    ],
)
def test_wrong_parameters_are_explained(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny(**change).fit(*made())


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (made()[0], None, "requires y to be passed"),
        (made()[0], made()[1][:-1], "inconsistent numbers of samples"),
        (made()[0], ["same"] * 40, "the class 'same' only"),
        (made()[0] - 300.0, made()[1], "run from -300"),
        (np.full((40, 8, 8), np.nan), made()[1], "pixels are NaN, infinite or too large in 40 rows, first row 0"),
        (
            np.where(np.arange(200).reshape(40, 5) == 12, np.inf, 1.0),
            made()[1],
            "features are NaN.* in 1 row, first row 2",
        ),
        (np.where(np.arange(200).reshape(40, 5) == 12, 1e300, 1.0), made()[1], "too large in 1 row, first row 2"),
        ([*made()[0][:39], np.zeros((8, 9))], made()[1], r"\(8, 8\) in row 0 and \(8, 9\) in row 39"),
        ([Image.new("L", (8, 8 + i // 39)) for i in range(40)], made()[1], r"not \(8, 8\) and \(9, 8\)"),
        ([["a.png"]] * 40, made()[1], "in a column: if these are file names"),
        (made()[0], ["a", None] * 20, "y has 20 missing labels, first row 1"),
        (made()[0], [0.5, 1] * 20, r"y has 0\.5 in row 0"),
        (made()[0], ["a", 1] * 20, "y mixes texts and numbers"),
        (np.zeros((40, 3, 8, 8)), made()[1], r"X\.transpose\(0, 2, 3, 1\)"),
    ],
)
def test_wrong_data_is_explained(images: Any, labels: Any, message: str) -> None:
    with pytest.raises((UserError, ValueError), match=message):
        tiny().fit(images, labels)


def test_another_scale_than_in_training_is_refused() -> None:
    images, labels = made()
    fitted = tiny("cross_entropy", settings={**NETWORK, "epochs": 1}).fit(images, labels)
    assert fitted.white_ == 255
    for asked in (images / 255, (images > 100).astype(float), images > 100):
        with pytest.raises(
            ValueError, match="as if 1 were white, but those of training made 255 white; multiply by 255"
        ):
            fitted.predict(asked)
    assert fitted.predict(images.astype(float)).tolist() == fitted.predict(images).tolist()
    holed = images.astype(float)
    holed[7, 3, 3] = np.nan
    with pytest.raises(ValueError, match="in 1 row, first row 7"):
        fitted.predict(holed)


def test_pictures_are_looked_at_as_files_are(tmp_path: Path) -> None:
    arrays, labels = made()
    pictures = [Image.fromarray(np.kron(image, np.ones((2, 2), dtype=np.uint8))) for image in arrays]
    mixed = [picture.convert("P" if i % 2 else "L") for i, picture in enumerate(pictures)]  # a palette is no brightness
    paths = [tmp_path / f"{i}.png" for i in range(len(mixed))]
    for path, picture in zip(paths, mixed, strict=True):
        picture.save(path)
    settings = {**NETWORK, "epochs": 1}
    by_file = tiny("cross_entropy", settings=settings).fit(paths, labels)
    by_picture = tiny("cross_entropy", settings=settings).fit(mixed, labels)
    assert np.array_equal(by_file.predict_proba(paths), by_picture.predict_proba(mixed))
    assert np.array_equal(by_file.predict_proba(paths), by_file.predict_proba(pictures))  # gray ones, as color
