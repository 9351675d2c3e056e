"""Probabilities for cleanlab; PyTorch and Hugging Face data sets in and out."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from scanmix.audit import Evidence, score_labels
from scanmix.audit.arrays import evidence_from_arrays
from scanmix.config import UserError
from scanmix.data.examples import Examples
from scanmix.data.readers import load
from scanmix.data.readers.vectors import to_vectors
from scanmix.integrations import conversions as interop
from scanmix.integrations.conversions import (
    cross_validated,
    datalab_columns,
    from_dataset,
    from_hugging_face,
    to_dataset,
)

SMALL: dict[str, Any] = {"network": {"widths": [4, 8], "blocks": [1, 1]}, "threads": 1}


class Pairs(Dataset[Any]):
    """What a map-style data set is: a length and items."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class ClassLabel:
    """What is asked of the feature of this name in `datasets`."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)


class PictureFeature:
    """Stands for `datasets.Image`."""


PictureFeature.__name__ = "Image"


class Rows(Pairs):
    """What is asked of a `datasets.Dataset`."""

    def __init__(self, items: list[Any], **features: Any) -> None:
        super().__init__(items)
        self.features = features


def pictures(count: int = 4, color: bool = False) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (8, 10, 3) if color else (8, 10), dtype=np.uint8) for _ in range(count)]


def test_nobody_is_judged_by_a_model_that_saw_it(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1).repeat(1, 1, 8, 8)
    examples = Examples(images, torch.arange(40) % 2, ("a", "b"), tuple(map(str, range(40))))

    class Told:
        def __init__(self, seen: Examples) -> None:
            self.seen = set(seen.ids)

        def predict_proba(self, asked: Examples) -> np.ndarray:
            assert not self.seen & set(asked.ids) and len(self.seen) + len(asked) == 40
            return np.array([[int(i), 1] for i in asked.ids], dtype=np.float32)

    monkeypatch.setattr(interop, "train", lambda seen, **settings: Told(seen))
    probs = cross_validated(examples, 5, seed=3)
    assert probs[:, 0].tolist() == list(range(40))


def test_probabilities_are_what_cleanlab_takes() -> None:
    examples, _ = load("digits", per_class=6)
    probs = cross_validated(examples, 2, method="cross_entropy", epochs=2, **SMALL)
    assert probs.shape == (60, 10) and probs.dtype == np.float32
    assert probs.sum(1) == pytest.approx(np.ones(60), abs=1e-5)
    filters = pytest.importorskip("cleanlab.filter")
    issues = filters.find_label_issues(examples.labels.numpy(), probs, return_indices_ranked_by="self_confidence")
    assert set(issues.tolist()) <= set(range(60))


@pytest.mark.parametrize("folds", [1, 61])
def test_folds_must_be_possible(folds: int) -> None:
    with pytest.raises(UserError, match=f"{folds} folds of 60 examples"):
        cross_validated(load("digits", per_class=6)[0], folds)


THEIRS = pytest.mark.filterwarnings("ignore")
"""Warnings inside of other packages are theirs."""


def doubtful(count: int = 90) -> tuple[Evidence, np.ndarray]:
    """Evidence and the features behind it.

    Every sixth label is wrong; 0 and 1 are one picture under two labels; 2 is none of the classes.
    """
    draw = np.random.default_rng(0)
    true = np.arange(count) % 3
    labels = np.where(np.arange(count) % 6 == 5, (true + 1) % 3, true)
    features = np.eye(3)[true] * 5 + draw.normal(size=(count, 3)) * 0.3
    probs = np.full((count, 3), 0.05)
    probs[np.arange(count), true] = 0.9
    probs[2], features[2] = [0.4, 0.4, 0.2], [-5, -5, -5]
    evidence = evidence_from_arrays(labels, probs, features, ["cat", "dog", "owl"])
    pictures = torch.arange(count)
    pictures[1] = 0
    return dataclasses.replace(evidence, pictures=pictures), features


def test_columns_for_datalab_lie_as_the_data_does() -> None:
    evidence, _ = doubtful()
    found = score_labels(evidence)
    columns = datalab_columns(found)
    for row, i in enumerate(found.order.tolist()):
        assert columns["given_label"][i] == evidence.class_names[evidence.labels[i]] == found["given"][row]
        assert columns["predicted_label"][i] == found["suggested"][row]
        wrong = found["p_clean"][row] < 0.5 and found["suggested"][row] != found["given"][row]
        assert columns["is_label_issue"][i] == wrong
        assert columns["label_score"][i] == found["p_clean"][row]
        assert columns["outlier_score"][i] == found["confidence"][row]
    assert columns["is_label_issue"].nonzero()[0].tolist() == [*range(5, 90, 6)]
    assert (np.diff(columns["label_score"][found.order]) >= 0).all()
    assert columns["is_outlier_issue"].nonzero()[0].tolist() == [2]
    assert columns["is_near_duplicate_issue"].nonzero()[0].tolist() == [0, 1]
    assert columns["near_duplicate_score"].tolist() == [0, 0] + [1] * 88


@THEIRS
def test_columns_for_datalab_have_its_names_types_and_rows() -> None:
    pytest.importorskip("datasets")
    cleanlab, pandas = pytest.importorskip("cleanlab"), pytest.importorskip("pandas")
    evidence, features = doubtful()
    assert evidence.probs is not None
    labels = [evidence.class_names[label] for label in evidence.labels.tolist()]
    lab = cleanlab.Datalab({"label": labels}, label_name="label", verbosity=0)
    lab.find_issues(pred_probs=evidence.probs.double().numpy(), features=features)
    ours = pandas.DataFrame(datalab_columns(score_labels(evidence)))
    names: list[str] = []
    for issue in ("label", "outlier", "near_duplicate"):
        theirs = lab.get_issues(issue)
        shared = [name for name in theirs if name in ours]
        names += shared
        assert ours.index.equals(theirs.index) and ours[shared].dtypes.equals(theirs[shared].dtypes)
    assert names == list(ours)
    assert ours["given_label"].tolist() == lab.get_issues("label")["given_label"].tolist() == labels


@THEIRS
def test_the_check_in_the_docs_shows_an_audit_in_a_datalab(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("datasets")
    cleanlab, pandas = pytest.importorskip("cleanlab"), pytest.importorskip("pandas")
    page = (Path(__file__).parents[2] / "docs" / "interop.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "IssueManager" in block]
    found = score_labels(doubtful()[0])
    lab = cleanlab.Datalab({"label": found["given"][found.order.argsort()]}, label_name="label", verbosity=0)
    names = {"lab": lab, "audit": found, "pandas": pandas, "datalab_columns": datalab_columns}
    exec(compile(code, "interop.md", "exec"), names)
    assert "scanmix issues" in (shown := capsys.readouterr().out) and "does not believe" in shown
    columns = datalab_columns(found)
    issues = lab.get_issues("scanmix")
    assert issues["is_scanmix_issue"].tolist() == columns["is_label_issue"].tolist()
    assert issues["scanmix_score"].tolist() == columns["label_score"].tolist()


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("form", ["picture", "array", "floats", "tensor", "scaled tensor"])
def test_any_form_of_image_keeps_its_pixels(form: str, color: bool) -> None:
    images = pictures(color=color)

    def formed(image: np.ndarray) -> Any:
        chw = torch.from_numpy(image if image.ndim == 2 else image.transpose(2, 0, 1).copy())
        return {
            "picture": Image.fromarray(image), "array": image, "floats": image / 255, "tensor": chw,
            "scaled tensor": chw / 255,
        }[form]  # fmt: skip

    examples = from_dataset(Pairs([(formed(image), i % 2) for i, image in enumerate(images)]), ["a", "b"], name="made")
    assert examples.images.shape == (4, 3 if color else 1, 8, 10)
    for got, image in zip(examples.images.numpy(), images, strict=True):
        assert np.array_equal(got.transpose(1, 2, 0).squeeze(), image)
    assert (examples.labels.tolist(), examples.class_names) == ([0, 1, 0, 1], ("a", "b"))
    assert examples.ids == ("made/0", "made/1", "made/2", "made/3")


def test_gray_pictures_among_those_in_color_are_color() -> None:
    items = [(Image.new("L", (8, 8), 9), 0), (Image.new("RGB", (8, 8), (1, 2, 3)), 1), (Image.new("P", (8, 8)), 1)]
    images = from_dataset(Pairs(items)).images
    assert images.shape == (3, 3, 8, 8) and set(images[0].flatten().tolist()) == {9}


def test_class_names_come_from_the_data_set_or_are_numbers() -> None:
    data = Pairs([(image, np.int64(2 * (i % 2))) for i, image in enumerate(pictures())])
    assert from_dataset(data).class_names == ("0", "1", "2")
    data.classes = ["x", "y", "z"]  # type: ignore[attr-defined]
    assert from_dataset(data).class_names == ("x", "y", "z")
    with pytest.raises(UserError, match=r"must lie in 0\.\.1"):
        from_dataset(data, ["only", "two"])


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "there is none"),
        ([1, 2], "item 0 is no pair"),
        ([(pictures()[0], "cat")], "item 0 is no pair"),
        ([("text", 0)], "neither a picture nor numbers"),
        ([(np.zeros((2, 2, 2, 2)), 0)], "neither a picture nor numbers"),
        ([(np.zeros((8, 8)), 0), (np.zeros((8, 9)), 1)], r"\(8, 8\) and \(8, 9\)"),
        ([(np.full((8, 8), 256.0), 0)], "pixels must lie in"),
        ([(np.full((8, 8), np.nan), 0)], "pixels are NaN, infinite or too large in 1 row, first row 0"),
        ([(pictures()[0], 2**70)], "too large for the number of a class"),
        ([(pictures()[0], 0.5)], "item 0 is no pair .* 0.5 is no whole number"),
        ([(pictures()[0], 0), (pictures()[1] / 255, 1)], "not uint8 and float64"),
        (
            [(Image.fromarray(np.full((8, 8), 300, dtype="float32")), 0)],
            "image of item 0 cannot be read: floating point",
        ),
    ],
)
def test_other_items_are_refused(items: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_dataset(Pairs(items))


def test_examples_go_out_and_come_back() -> None:
    examples, _ = load("digits", per_class=3)
    images, labels = next(iter(DataLoader(to_dataset(examples), batch_size=30)))
    assert torch.equal(images, examples.images) and torch.equal(labels, examples.labels)
    back = from_dataset(to_dataset(examples), examples.class_names, name="digits")
    assert back.fingerprint() == examples.fingerprint()
    vectors = to_vectors(np.eye(3), [0, 1, 0], ["a", "b"], ids=["x", "y", "z"], name="made")
    assert to_dataset(vectors)[1][0].tolist() == [0, 1, 0]


@pytest.fixture
def rows() -> Iterator[Rows]:
    items = [{"picture": Image.fromarray(image), "kind": i % 2, "n": i} for i, image in enumerate(pictures())]
    yield Rows(items, picture=PictureFeature(), kind=ClassLabel("cat", "dog"), n=object())


def test_columns_are_found_by_their_features(rows: Rows) -> None:
    for examples in (from_hugging_face(rows), from_hugging_face(rows, image="picture", label="kind")):
        assert (examples.class_names, examples.labels.tolist()) == (("cat", "dog"), [0, 1, 0, 1])
        assert np.array_equal(examples.images[2, 0].numpy(), pictures()[2])
    assert from_hugging_face(rows, label="n").class_names == ("0", "1", "2", "3")


def test_missing_columns_are_told(rows: Rows) -> None:
    with pytest.raises(UserError, match="no column 'label'; it has picture, kind, n"):
        from_hugging_face(rows, label="label")
    rows.features["other"] = ClassLabel("a")
    with pytest.raises(UserError, match="2 ClassLabel columns among picture, kind, n, other; name one"):
        from_hugging_face(rows)
    with pytest.raises(UserError, match="no features; take dataset"):
        from_hugging_face({"train": rows})


def test_a_real_hugging_face_data_set() -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"]))
    columns = {"image": [Image.fromarray(image) for image in pictures()], "label": [0, 1, 1, 0]}
    examples = from_hugging_face(datasets.Dataset.from_dict(columns, features=features))
    assert (examples.class_names, examples.labels.tolist()) == (("a", "b"), [0, 1, 1, 0])
    assert np.array_equal(examples.images[3, 0].numpy(), pictures()[3])
