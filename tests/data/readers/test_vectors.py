"""Feature vectors from `.npy` files, with labels beside them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from scanmix.config import UserError
from scanmix.data.readers import load, match, reload
from scanmix.data.readers.vectors import to_vectors

LABELS = ["b", "a", "b", "c"]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Four vectors of three features, and their labels in a CSV of the same name."""
    path = tmp_path / "made.npy"
    np.save(path, np.arange(12.0).reshape(4, 3))
    path.with_suffix(".csv").write_text("label\n" + "\n".join(LABELS))
    return path


def test_rows_become_examples_of_one_pixel(saved: Path) -> None:
    examples, test = load(saved)
    assert test is None and examples.kind == "vector" and (examples.channels, examples.size) == (3, (1, 1))
    assert examples.images.dtype == torch.float32
    assert torch.equal(examples.images.flatten(1), torch.arange(12.0).view(4, 3))
    assert [examples.class_names[i] for i in examples.labels] == LABELS
    assert (examples.ids, examples.name) == (("made/0", "made/1", "made/2", "made/3"), "made")


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.uint16, bool])
def test_any_numbers_will_do(tmp_path: Path, dtype: type) -> None:
    np.save(tmp_path / "x.npy", np.array([[0, 1], [1, 1]], dtype=dtype))
    np.save(tmp_path / "y.npy", np.array([10, 9]))
    examples, _ = load(tmp_path / "x.npy", labels=tmp_path / "y.npy")
    assert examples.images.flatten().tolist() == [0, 1, 1, 1]
    assert (examples.class_names, examples.labels.tolist()) == (("9", "10"), [1, 0])


def test_a_column_id_names_the_rows(saved: Path) -> None:
    table = saved.parent / "other.csv"
    table.write_text("id,label,more\n" + "\n".join(f"row {i},{label},x" for i, label in enumerate(LABELS)))
    assert load(saved, labels=table)[0].ids == ("row 0", "row 1", "row 2", "row 3")


def test_they_load_again_noise_and_choice_included(saved: Path) -> None:
    from scanmix import add_noise

    examples = add_noise(load(str(saved), per_class=1)[0], "symmetric", rate=0.5, seed=3)
    assert examples.source is not None
    assert reload(examples.source).fingerprint() == examples.fingerprint()
    table = saved.with_suffix(".csv").rename(saved.parent / "y.csv")
    named = load(saved, labels=table)[0]
    assert named.source is not None and reload(named.source).fingerprint() == named.fingerprint()


def test_vectors_fit_a_model_of_as_many_features_only(saved: Path) -> None:
    examples, _ = load(saved)
    assert match(examples, ["c", "b", "a"], (1, 1), 3).labels.tolist() == [1, 2, 1, 0]
    with pytest.raises(UserError, match="takes 4x1x1 numbers"):
        match(examples, ["a", "b", "c"], (1, 1), 4)
    with pytest.raises(UserError, match="has 3x1x1"):
        match(examples, ["a", "b", "c"], (8, 8), 3)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(4), r"numbers of shape \(N, features\)"),
        (np.zeros((4, 2, 2)), r"numbers of shape \(N, features\)"),
        (np.zeros((4, 0)), r"numbers of shape \(N, features\)"),
        (np.array([["a"]] * 4), r"numbers of shape \(N, features\)"),
        (np.zeros((3, 2)), "has 3 rows, but .* has 4 labels"),
        (np.full((4, 2), np.nan), "infinite or not a number"),
        (np.full((4, 2), 1e300), "infinite or not a number"),
    ],
)
def test_what_is_no_table_of_numbers_is_refused(saved: Path, array: np.ndarray, message: str) -> None:
    np.save(saved, array)
    with pytest.raises(UserError, match=message):
        load(saved)


def test_pickled_objects_and_damaged_files_are_refused(saved: Path) -> None:
    np.save(saved, np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(UserError, match="without pickled objects"):
        load(saved)
    saved.write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read"):
        load(saved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class\na\nb\na\nb", "no column 'label'; it has class"),
        ("label,x\na,1\n,2\na,3\nb,4", "row 2 of .* has no label"),
        ("id,label\n1,a\n1,b\n2,a\n3,b", "different ids"),
    ],
)
def test_tables_that_say_too_little_are_refused(saved: Path, text: str, message: str) -> None:
    saved.with_suffix(".csv").write_text(text)
    with pytest.raises(UserError, match=message):
        load(saved)


def test_missing_labels_and_options_for_images_are_told(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="are for images"):
        load(saved, size=8)
    with pytest.raises(UserError, match="is for vectors"):
        load("digits", labels=saved)
    with pytest.raises(UserError, match=r"none\.npy: no such file"):
        load(saved, labels=tmp_path / "none.npy")
    np.save(tmp_path / "y.npy", np.zeros(4))
    with pytest.raises(UserError, match="one text or whole number"):
        load(saved, labels=tmp_path / "y.npy")
    saved.with_suffix(".csv").unlink()
    with pytest.raises(UserError, match=r"name them with --labels, or put them into made\.csv"):
        load(saved)


def test_made_vectors_need_parts_that_fit() -> None:
    with pytest.raises(UserError, match="must lie in"):
        to_vectors(np.zeros((2, 2)), [0, 2], ["a", "b"], ids=["x", "y"], name="made")


@pytest.mark.parametrize("labels", ["1.0\n2\n1\n2.0", '"1",\n"2.0",\n"1.0",\n"2",'])
def test_a_class_of_vectors_has_one_name(saved: Path, labels: str) -> None:
    saved.with_suffix(".csv").write_text(("label,x\n" if "," in labels else "label\n") + labels)
    examples, _ = load(saved)
    assert examples.class_names == ("1", "2") and examples.labels.tolist() == [0, 1, 0, 1]


def test_a_word_for_a_missing_label_of_a_vector_is_refused(saved: Path) -> None:
    saved.with_suffix(".csv").write_text("label\na\nnan\na\nb")
    with pytest.raises(UserError, match=r"row 2 of .* has the label 'nan', which stands for a missing one"):
        load(saved)
    np.save(saved.parent / "y.npy", np.array(["a", "b", "None", "a"]))
    with pytest.raises(UserError, match=r"row 3 of .* has the label 'None'"):
        load(saved, labels=saved.parent / "y.npy")
