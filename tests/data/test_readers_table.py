from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scanmix.config import UserError
from scanmix.data.readers import load, reload


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
    with pytest.raises(UserError, match=r"scanmix\[parquet\]"):
        load(tmp_path / "t.parquet")
