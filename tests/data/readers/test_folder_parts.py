"""What is a class and what a part of the data; nothing that lies in a class folder is lost without a word."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from PIL import Image

from scanmix.config import DataError, UserError
from scanmix.data.decoding import find_images, sort_files
from scanmix.data.readers import load, reload
from scanmix.data.readers.folder import LostClassError, find_parts, part_of
from scanmix.doctor.layout import check_layout, other_files


def lay(top: Path, *files: str) -> Path:
    for i, name in enumerate(files):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = {"jfif": "JPEG", "jpe": "JPEG", "jif": "JPEG", "": "PNG", "001": "PNG", "odd": "GIF"}
        Image.new("L", (16, 16), 20 + 9 * i).save(path, kind.get(path.suffix[1:], None))
    return top


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"), ("Train", "Test"), ("train", "testing"), ("TRAIN", "DEV"), ("train", "eval"),
        ("training_set", "test_set"), ("trainset", "valset"), ("Train Images", "Validation-Images"), ("train", "Valid"),
    ],
)  # fmt: skip
def test_parts_by_any_name(train: str, test: str, tmp_path: Path) -> None:
    lay(tmp_path, f"{train}/cat/1.png", f"{train}/dog/2.png", f"{test}/cat/3.png")
    first, second = load(tmp_path)
    assert first.class_names == ("cat", "dog") and len(first) == 2
    assert second is not None and second.ids == (f"{test}/cat/3.png",)
    assert check_layout(tmp_path) == []


def test_of_several_test_parts_the_first_is_read(tmp_path: Path) -> None:
    lay(tmp_path, "train/a/1.png", "train/b/2.png", "val/a/3.png", "Test/a/4.png", "dev/a/5.png")
    second = load(tmp_path)[1]
    assert second is not None and second.ids == ("Test/a/4.png",)
    (finding,) = check_layout(tmp_path)
    assert finding.where == ("dev", "val")


@pytest.mark.parametrize("name", ["trains", "tested", "value", "evaluate_me", "contest", "test1", "dataset", "cat"])
def test_other_names_are_no_parts(name: str) -> None:
    assert part_of(name) is None


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("train/1.png", "test/2.png"), "whether test, train in .* are classes or parts of the data"),
        (("cat/1.png", "dog/2.png", "Test/3.png"), "whether Test in .* is a class .* to Test_class"),
        (("cat/1.png", "dog/2.png", "val/3.png"), "whether val in"),
        (("cat/1.png", "training/3.png"), "whether training in"),
        (("cat/1.png", "valid/3.png"), "whether valid in"),
        (("cat/1.png", "dog/2.png", "Test/cat/3.png"), "has Test with class folders inside, but no train"),
        (("val/cat/1.png", "test/cat/2.png"), "has test, val with class folders inside"),
        (("Train/a/1.png", "training/b/1.png"), "several training parts, Train, training; make them one"),
    ],
)
def test_what_cannot_be_told_is_refused_in_one_sentence(files: tuple[str, ...], words: str, tmp_path: Path) -> None:
    lay(tmp_path, *files)
    with pytest.raises(DataError, match=words):
        load(tmp_path)
    check_layout(tmp_path)  # tells what it can


@pytest.mark.parametrize("files", [("train/1.png", "car/2.png"), ("Train/1.png", "car/2.png"),
                                   ("valid/1.png", "invalid/2.png")])  # fmt: skip
def test_words_that_name_things_are_classes(files: tuple[str, ...], tmp_path: Path) -> None:
    assert len(load(lay(tmp_path, *files))[0].class_names) == 2


def test_folders_beside_the_parts_are_told(tmp_path: Path) -> None:
    lay(tmp_path, "train/steam/1.png", "train/diesel/2.png", "car/3.png", "bus/4.png")
    with pytest.warns(UserWarning, match="train is taken for the training images; bus, car beside it are not read"):
        assert load(tmp_path)[0].class_names == ("diesel", "steam")


def test_a_test_folder_without_classes_is_told(tmp_path: Path) -> None:
    lay(tmp_path, "train/a/1.png", "train/b/2.png", "Test/3.png")
    with pytest.warns(UserWarning, match="Test holds images and no class folders, so there are no test images"):
        assert load(tmp_path)[1] is None


def test_every_suffix_of_an_image_is_read_and_names_without_one(tmp_path: Path) -> None:
    names = ("1.jfif", "2.JPE", "3.jif", "4.tga", "5.avif", "6", "7.001", "8.tiff", "9 of mine. last one")
    lay(tmp_path, *(f"a/{name}" for name in names[:-1]), "b/x.png")
    Image.new("L", (9, 9)).save(tmp_path / "a" / names[-1], "PNG")
    (tmp_path / "a" / "README").write_text("no image")
    (tmp_path / "a" / "BM").write_text("BM begins a bitmap, and this is none")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train, _ = load(tmp_path)
    assert train.ids == (*(f"a/{name}" for name in names), "b/x.png")
    assert [path.name for path in find_images(tmp_path / "a")] == list(names)


def test_what_looks_like_an_image_and_is_not_read_is_counted_once(tmp_path: Path) -> None:
    lay(tmp_path, "a/1.png", "b/2.png", "a/3.odd", "b/4.odd")
    for name in ("a/x.heic", "b/.x.heic", "a/Thumbs.db", "a/notes.txt", "a/x.json", "b/x.csv", "b/x.dat"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"passed over: 2 \.odd, 1 \.heic; convert them") as told:
        train, _ = load(tmp_path)
    assert len(told) == 1 and len(train) == 2
    assert [path.name for path in sort_files(tmp_path / "a").unread] == ["3.odd", "x.heic"]
    assert other_files(tmp_path) == {".csv": 1, ".dat": 1, ".db": 1, ".json": 1, ".txt": 1}


def test_a_class_of_unread_files_is_an_error(tmp_path: Path) -> None:
    lay(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "fox").mkdir()
    for i in range(3):
        (tmp_path / "fox" / f"{i}.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"class 'fox' of .* would be lost: it holds 3 \.heic alone"):
        load(tmp_path)


def test_a_class_of_broken_files_is_an_error_that_keeps_the_rest(tmp_path: Path) -> None:
    lay(tmp_path, "a/1.png", "b/2.png", "c/3.png")
    for i in range(2):
        (tmp_path / "b" / f"{i}.png").write_bytes(b"x")
    (tmp_path / "b" / "2.png").write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="3 of 5"),
        pytest.raises(
            LostClassError, match=r"'b' of .* none of its 3 images can be read; the first: .*b/0\.png"
        ) as told,
    ):
        load(tmp_path)
    assert told.value.pair[0].ids == ("a/1.png", "c/3.png") and told.value.pair[1] is None


def test_a_table_loses_no_class_either(tmp_path: Path) -> None:
    lay(tmp_path, "1.png", "2.png")
    (tmp_path / "t.csv").write_text("path,label\n1.png,a\n2.png,b\n3.png,c\n")
    with (
        pytest.warns(UserWarning, match="1 of 3"),
        pytest.raises(DataError, match=r"'c' of 't' would be lost: its one image cannot be read; the first: .*3\.png"),
    ):
        load(tmp_path / "t.csv")


def test_one_class_is_enough_to_measure_on(tmp_path: Path) -> None:
    lay(tmp_path, "t1/cat/1.png", "t1/cat/2.png")
    with pytest.raises(DataError, match="at least two of them"):
        load(tmp_path / "t1")
    for source in ("t1", "t.csv"):
        (tmp_path / "t.csv").write_text("path,label\nt1/cat/1.png,cat\n")
        train, _ = load(tmp_path / source, least_classes=1)
        assert train.class_names == ("cat",) and train.source is not None
        assert reload(train.source).fingerprint() == train.fingerprint()
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="at least one of them"):
        load(tmp_path / "none", least_classes=1)


def test_what_was_moved_is_named_with_a_way_back(tmp_path: Path) -> None:
    lay(tmp_path, "data/a/1.png", "data/b/2.png")
    (tmp_path / "t.csv").write_text("path,label\na/1.png,a\nb/2.png,b\n")
    folder, table = load(tmp_path / "data")[0], load(tmp_path / "t.csv", root=tmp_path / "data")[0]
    (tmp_path / "data").rename(tmp_path / "moved")
    for examples in (folder, table):
        assert examples.source is not None
        with pytest.raises(
            UserError, match=r"data is gone, and these examples were loaded from there; move it back, or"
        ):
            reload(examples.source)
    (tmp_path / "data").symlink_to(tmp_path / "moved")
    assert folder.source is not None and reload(folder.source).fingerprint() == folder.fingerprint()


def test_parts_are_found_without_reading(tmp_path: Path) -> None:
    lay(tmp_path, "Train/a/1.png", "test/b/1.png")
    assert find_parts(tmp_path) == (tmp_path / "Train", tmp_path / "test", "")
