from __future__ import annotations

import builtins
import os
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scanmix.config import DataError, UserError, install
from scanmix.data.readers import load, match, reload
from scanmix.data.readers.table import read_table
from scanmix.files.cells import csv_line


def paint(path: Path, color: Any = 128, mode: str = "L", size: tuple[int, int] = (24, 24), **saving: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path, **saving)


def write_table(folder: Path, text: str) -> Path:
    for name, shade in (("a", 10), ("b", 20), ("c", 30)):
        paint(folder / "pictures" / f"{name}.png", shade)
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return folder / "labels.csv"


def test_csv_table(tmp_path: Path) -> None:
    table = write_table(
        tmp_path,
        "\ufeffpath,label,split,remark\npictures/a.png,dog,train,x\npictures/b.png,cat,,\npictures/c.png,dog,test,\n",
    )
    train, test = load(str(table))
    assert test is not None
    assert train.class_names == ("cat", "dog") and train.name == "labels"
    assert train.labels.tolist() == [1, 0] and test.labels.tolist() == [1]
    assert train.ids == ("pictures/a.png", "pictures/b.png")
    assert train.images[:, 0, 0, 0].tolist() == [10, 20] and test.images[0, 0, 0, 0] == 30
    assert train.source is not None
    assert reload(train.source).fingerprint() == train.fingerprint()


def test_table_with_root_absolute_paths_gaps_and_no_test(tmp_path: Path) -> None:
    table = write_table(tmp_path, f"label,path\n2,a.png\n10,{tmp_path}/pictures/b.png\n,c.png\n2,gone.png\n")
    with pytest.warns(UserWarning, match="1 of 3"):
        train, test = load(table, root=tmp_path / "pictures")
    assert test is None
    assert train.class_names == ("2", "10") and train.labels.tolist() == [0, 1]
    assert [entry.rpartition(": ")[2] for entry in train.skipped] == ["no label", "no such file"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,label\na,b\n", "has no column 'path'; it has file, label"),
        ("", "has no column 'path'; it has none"),
        ("path,label\npictures/a.png,x\npictures/a.png,y\n", "twice, in rows 1 and 2"),
        ("path,label\n,x\n", "row 1 of .* has no path"),
        ("path,label,split\npictures/a.png,x,dev\n", "split 'dev'; use train or test"),
        ("path,label\npictures/a.png,x\n", "at least two classes"),
        ("path,label,split\npictures/a.png,x,\npictures/b.png,y,\npictures/c.png,z,test\n", "class 'z'"),
    ],
)
def test_table_refusals(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load(write_table(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label\npictures/a, b.png,x\n", "row 1 of .* has 3 cells, but there are 2 columns; put quotation marks"),
        ("path,label\npictures/a.png,x\npictures/b.png,y,\n", "row 2 of .* has 3 cells"),
        ("path,label\npictures/a.png,x\npictures/b.png\n", "row 2 of .* ends before its column 'label'; complete it"),
        ('path,label\npictures/a.png,x\n"pictures/b.png,y\npictures/c.png,z\n', "row 2 of .*quotation mark"),
        ('path,label\n"pictures/a.png,x\npictures/b.png",y\npictures/c.png,z\n', "row 1 .* path that runs over a line"),
        ('path,label\npictures/a.png,"x\npictures/b.png,y"\npictures/c.png,z\n', "row 1 .* label that runs over"),
        ("path,label,label\npictures/a.png,x,y\n", "has the column 'label' 2 times; keep one"),
        ("path, path ,label\npictures/a.png,b.png,y\n", "has the column 'path' 2 times"),
        ("path;label\npictures/a.png;x\n", "Its cells stand between semicolons; save it with commas"),
        ("path\tlabel\npictures/a.png\tx\n", "Its cells stand between tabs"),
        ("path,label\npictures/a.png,x\n./pictures/a.png,y\n", r"twice, in rows 1 \(pictures/a.png\) and 2;"),
        ("path,label\npictures/a.png,x\nno/../pictures//a.png,y\n", "twice, in rows 1 .* and 2"),
        ("path,label,split\npictures/a.png,x,\n./pictures/a.png,x,test\n", "and 2, for train and for test; keep"),
        ("path,label,decision\npictures/a.png,x,exlude\n", "row 1 of .* has the decision 'exlude'; use one of"),
        ("path,label,split,decision\npictures/a.png,x,train,keep,\n", "row 1 of .* has 5 cells"),
    ],
)  # fmt: skip
def test_what_a_table_does_not_say_clearly_is_refused_by_its_row(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load(write_table(tmp_path, text))


def test_an_absolute_and_a_relative_path_are_one_file(tmp_path: Path) -> None:
    table = write_table(tmp_path, f"path,label\npictures/a.png,x\n{tmp_path}/pictures/a.png,y\npictures/b.png,y\n")
    with pytest.raises(DataError, match=r"twice, in rows 1 .* and 2"):
        load(table)


def test_excluded_rows_are_left_out_and_other_decisions_are_not(tmp_path: Path) -> None:
    rows = "pictures/a.png,dog, Excluded\npictures/b.png,cat,unsure\npictures/c.png,dog,KEEP\n"
    table = write_table(tmp_path, f"path,label,decision\n{rows}")
    with pytest.warns(UserWarning, match="1 of 3 rows of .* are left out: their decision is to exclude"):
        train, _ = load(table)
    assert train.ids == ("pictures/b.png", "pictures/c.png")
    assert [train.class_names[label] for label in train.labels] == ["cat", "dog"]


@pytest.mark.parametrize("word", ["nan", "NaN", "None", "null", "NA", "N/A", "<NA>"])
def test_a_word_for_a_missing_label_is_no_class(tmp_path: Path, word: str) -> None:
    table = write_table(tmp_path, f"path,label\npictures/a.png,dog\npictures/b.png,cat\npictures/c.png,{word}\n")
    with pytest.warns(UserWarning, match=f"1 of 3 rows of .* set aside: their label \\({word}\\) stands for a missing"):
        train, _ = load(table)
    assert train.class_names == ("cat", "dog")
    assert train.skipped == (f"{tmp_path}/pictures/c.png: the label {word!r} stands for none",)


def test_none_in_small_letters_is_a_class(tmp_path: Path) -> None:
    train, _ = load(write_table(tmp_path, "path,label\npictures/a.png,none\npictures/b.png,crack\n"))
    assert train.class_names == ("crack", "none")


def test_numbers_with_and_without_a_point_are_one_class_in_both_parts(tmp_path: Path) -> None:
    rows = "pictures/a.png,0.0,\npictures/b.png,1,\npictures/c.png,0,test\n"
    train, test = load(write_table(tmp_path, f"path,label,split\n{rows}"))
    assert test is not None
    assert train.class_names == ("0", "1") and train.labels.tolist() == [0, 1] and test.labels.tolist() == [0]


def test_a_point_stays_where_labels_are_no_numbers(tmp_path: Path) -> None:
    train, _ = load(write_table(tmp_path, "path,label\npictures/a.png,1.0\npictures/b.png,v1.0\n"))
    assert train.class_names == ("1.0", "v1.0")


def test_a_model_of_classes_with_a_point_is_measured_on_numbers_without(tmp_path: Path) -> None:
    train, _ = load(write_table(tmp_path, "path,label\npictures/a.png,0\npictures/b.png,1\n"))
    assert match(train, ["1.0", "0.0"], train.size, 1).labels.tolist() == [1, 0]
    with pytest.raises(UserError, match=r"has the class '0'; the model knows 1.0, 2.0"):
        match(train, ["1.0", "2.0"], train.size, 1)


def test_cells_that_were_kept_from_a_spreadsheet_come_back(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for name in ("=a.png", "@b\r.png"):
        Image.new("L", (8, 8), 9).save(tmp_path / "pictures" / name)
    rows = [["pictures/=a.png", "=1+1"], ["pictures/@b\r.png", "'@x"]]
    text = "path,label\n" + "".join(map(csv_line, rows))
    assert "'=1+1" in text and "''@x" in text
    (tmp_path / "t.csv").write_text(text, newline="")
    train, _ = load(tmp_path / "t.csv")
    assert train.class_names == ("'@x", "=1+1") and train.ids == ("pictures/=a.png", "pictures/@b\r.png")


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_named_pipe_is_refused_before_it_is_opened(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match="is a named pipe; a file is needed"):
        read_table(tmp_path / name)


def test_parquet_knows_decisions_missing_words_and_numbers(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    write_table(tmp_path, "")
    paths = ["pictures/a.png", "pictures/b.png", "pictures/c.png"]
    columns = {"path": paths, "label": ["1.0", "2", "None"], "decision": [None, "keep", ""]}
    parquet.write_table(arrow.table(columns), tmp_path / "t.parquet")
    with pytest.warns(UserWarning, match=r"label \(None\) stands for a missing"):
        assert load(tmp_path / "t.parquet")[0].class_names == ("1", "2")
    parquet.write_table(arrow.table(columns | {"label": [["a"], ["b"], ["c"]]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"row 1 of .* has a list as its label; one value is needed"):
        load(tmp_path / "t.parquet")
    parquet.write_table(arrow.table(columns | {"path": [name.encode() for name in paths]}), tmp_path / "t.parquet")
    with pytest.warns(UserWarning):
        assert load(tmp_path / "t.parquet")[0].ids == ("pictures/a.png", "pictures/b.png")


def test_table_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"path,label\n\xff\xfe,1\n")
    with pytest.raises(UserError, match="UTF-8"):
        load(tmp_path / "x.csv")


def test_parquet_table(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    write_table(tmp_path, "")
    columns = {
        "path": ["pictures/a.png", "pictures/b.png", "pictures/c.png"],
        "label": arrow.array([3.0, None, 12.0]),
        "more": [1, 2, 3],
    }
    parquet.write_table(arrow.table(columns), tmp_path / "t.parquet")
    train, test = load(tmp_path / "t.parquet")
    assert test is None
    assert train.class_names == ("3", "12") and train.ids == ("pictures/a.png", "pictures/c.png")
    assert len(train.skipped) == 1
    (tmp_path / "bad.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        load(tmp_path / "bad.parquet")
    parquet.write_table(arrow.table({"path": ["a"]}), tmp_path / "short.parquet")
    with pytest.raises(UserError, match="no column 'label'"):
        load(tmp_path / "short.parquet")


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    (tmp_path / "t.parquet").write_bytes(b"")
    with pytest.raises(UserError, match=re.escape(install("parquet"))):
        load(tmp_path / "t.parquet")
