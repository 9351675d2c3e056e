"""Tables of several annotators: a column for each, or a row for each vote."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from scanmix.config import DataError, UserError
from scanmix.data.examples import NO_VOTE
from scanmix.data.noise import add_noise
from scanmix.data.readers import load, match, reload
from scanmix.data.readers.open_set import add_open_set

NAMES = ("a", "b", "c", "d")
WIDE = """path,label_2,label_10,label_1,split
a.png,cat,dog,dog,
b.png,cat,,cat,
c.png,dog,cat,,train
d.png,cat,cat,dog,test
"""
LONG = """path,label,annotator
a.png,cat,bo
a.png,dog,al
./a.png,dog,cy
b.png,cat,al
b.png,,cy
b.png,cat,bo
c.png,dog,bo
c.png,cat,cy
"""


def write(folder: Path, text: str, name: str = "votes.csv") -> Path:
    for number, each in enumerate(NAMES):
        Image.new("L", (16, 16), 40 * number).save(folder / f"{each}.png")
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_column_for_each_annotator(tmp_path: Path) -> None:
    train, test = load(write(tmp_path, WIDE))
    assert train.annotators == ("label_1", "label_2", "label_10")  # by their numbers
    assert train.class_names == ("cat", "dog")
    assert train.votes is not None
    assert train.votes.tolist() == [[1, 0, 1], [0, 0, NO_VOTE], [NO_VOTE, 1, 0]]
    assert train.labels.tolist() == [1, 0, 0]  # the majority; a tie goes to the first class
    assert test is not None and test.votes is None and test.labels.tolist() == [0]
    assert train.source is not None
    again = reload(train.source)
    assert again.fingerprint() == train.fingerprint() and again.annotators == train.annotators


def test_a_row_for_each_vote(tmp_path: Path) -> None:
    train, test = load(write(tmp_path, LONG))
    assert test is None
    assert train.ids == ("a.png", "b.png", "c.png")
    assert train.annotators == ("al", "bo", "cy")
    assert train.votes is not None
    assert train.votes.tolist() == [[1, 0, 1], [0, 0, NO_VOTE], [NO_VOTE, 1, 0]]
    assert train.labels.tolist() == [1, 0, 0]


def test_parquet_has_votes_too(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    write(tmp_path, "")
    table = {"path": ["a.png", "b.png", "c.png"], "label_1": [0, 1, 1], "label_2": [0, None, 2]}
    parquet.write_table(pyarrow.table(table), tmp_path / "votes.parquet")
    train, _ = load(tmp_path / "votes.parquet")
    assert train.class_names == ("0", "1", "2") and train.labels.tolist() == [0, 1, 1]
    assert train.votes is not None and train.votes.tolist() == [[0, 0], [1, NO_VOTE], [1, 2]]


def test_numbers_and_words_for_nothing(tmp_path: Path) -> None:
    train, _ = load(write(tmp_path, "path,label_1,label_2\na.png,1.0,1\nb.png,2,nan\nc.png,10,10.0\n"))
    assert train.class_names == ("1", "2", "10")
    assert train.votes is not None and train.votes.tolist() == [[0, 0], [1, NO_VOTE], [2, 2]]


def test_an_image_without_a_vote_is_set_aside(tmp_path: Path) -> None:
    train, _ = load(write(tmp_path, "path,label_1,label_2\na.png,x,x\nb.png,y,y\nc.png,,\n"))
    assert train.ids == ("a.png", "b.png") and train.skipped == (f"{tmp_path}/c.png: no label",)


def test_a_class_that_never_has_the_majority_is_a_class(tmp_path: Path) -> None:
    train, _ = load(write(tmp_path, "path,label_1,label_2,label_3\na.png,x,x,z\nb.png,y,y,z\n"))
    assert train.class_names == ("x", "y", "z") and train.labels.tolist() == [0, 1]


def test_one_vote_each_is_one_label_each(tmp_path: Path) -> None:
    train, _ = load(write(tmp_path, "path,label,annotator\na.png,x,al\nb.png,y,bo\n"))
    assert train.votes is None and train.annotators == () and train.labels.tolist() == [0, 1]


def test_a_column_label_is_read_and_others_are_told(tmp_path: Path) -> None:
    table = write(tmp_path, "path,label,label_1,label_2\na.png,x,y,y\nb.png,y,x,x\n")
    with pytest.warns(UserWarning, match="the column label of .* is read, and label_1, label_2 are not"):
        train, _ = load(table)
    assert train.votes is None and train.labels.tolist() == [0, 1]


def test_decisions_of_a_review_stand_in_such_a_table(tmp_path: Path) -> None:
    table = write(tmp_path, "path,label_1,label_2,decision\na.png,x,x,keep\nb.png,y,y,\nc.png,y,x,exclude\n")
    with pytest.warns(UserWarning, match="1 of 3 rows of .* are left out"):
        train, _ = load(table)
    assert train.decided is not None and train.decided.tolist() == [1, 0]
    assert train.excluded[0][0] == "c.png"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label_1,label_1\na.png,x,y\n", "has the column 'label_1' 2 times"),
        ("path,label_1,label_2\na.png,x,x\n./a.png,y,y\nb.png,y,y\n", r"./a.png twice, in rows 1 \(a.png\) and 2"),
        ("path,label_1,label_2\na.png,x,x\nb.png,,x\n", "at least two classes"),
        ("path,label_1,label_2,split\na.png,x,x,\nb.png,y,y,\nc.png,z,z,test\n", "class 'z', which no training image"),
        ("label_1,label_2\nx,x\n", "no column 'path'"),
        ("path,label,annotator\na.png,x,al\na.png,y,al\n", "rows 1 and 2 of .* votes of 'al' on a.png; keep one"),
        ("path,label,annotator\na.png,x,\n", "row 1 of .* has no annotator"),
        ("path,label,annotator,split\na.png,x,al,\na.png,x,bo,test\n", "rows 1 and 2 .* differ in split, decision or"),
        ("path,label,annotator\na.png,x,al\n,x,bo\n", "row 2 of .* has no path"),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_refused_in_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as error:
        load(write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_votes_go_where_their_images_go_and_not_with_other_labels(tmp_path: Path) -> None:
    train, _ = load(write(tmp_path, WIDE))
    assert train.votes is not None
    part = train.select([2, 0])
    assert part.votes is not None and part.votes.tolist() == train.votes[[2, 0]].tolist()
    assert part.annotators == train.annotators
    assert add_noise(train, "symmetric", 0.5).votes is None
    assert match(train, ("dog", "cat"), (16, 16), 1).votes is None
    assert add_open_set(train, train, 0.5, 0).votes is None


def test_votes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    import dataclasses

    train, _ = load(write(tmp_path, WIDE))
    for changes, words in (
        ({"votes": None}, "3 annotators but no votes"),
        ({"votes": torch.zeros(3, 2, dtype=torch.int64)}, r"int64 of shape \(3, 3\), not .* \(3, 2\)"),
        ({"votes": torch.zeros(3, 3)}, r"not torch.float32"),
        ({"votes": torch.full((3, 3), 2)}, r"must lie in -1..1, but run from 2 to 2"),
        ({"annotators": ("x", "x", "y")}, "3 annotators, but 2 different names"),
    ):
        with pytest.raises(UserError, match=words):
            dataclasses.replace(train, **changes)
