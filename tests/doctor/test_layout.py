"""What lies where it is not read is named; what lies where it should is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from scanmix.doctor.layout import check_layout


def lay(top: Path, *files: str) -> Path:
    for name in files:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            Image.new("L", (8, 8)).save(path)
        else:
            path.write_bytes(b"x")
    return top


FLAT = ("cat/1.png", "dog/1.png")
SPLIT = ("train/cat/1.png", "train/dog/1.png", "test/cat/2.png")


@pytest.mark.parametrize("files", [FLAT, SPLIT, (*FLAT, ".hidden.png", "cat/notes.txt", ".cache/a.png", "README")])
def test_a_folder_in_order(files: tuple[str, ...], tmp_path: Path) -> None:
    assert check_layout(lay(tmp_path, *files)) == []


@pytest.mark.parametrize(
    ("files", "level", "what", "where"),
    [
        ((*FLAT, "a.png", "b.png"), "warning", "2 images beside the class folders", ("a.png", "b.png")),
        ((*SPLIT, "test/a.png"), "warning", "1 image beside the class folders", ("test/a.png",)),
        ((*FLAT, "labels.csv"), "note", "1 table beside the class folders", ("labels.csv",)),
        ((*FLAT, "emu/readme.txt"), "warning", "1 folder without an image", ("emu",)),
        ((*SPLIT, "train/emu/readme.txt"), "warning", "1 folder without an image", ("train/emu",)),
        ((*FLAT, "cat/a.HEIC"), "warning", "1 image of a kind that is not read", ("cat/a.HEIC",)),
        ((*FLAT, "cat/in/a.png", "cat/in/x/b.png"), "warning", "1 folder inside class folders", ("cat/in (2)",)),
        (("all/cat/1.png", "all/dog/1.png"), "fault", "one class folder, and", ("all/cat (1)", "all/dog (1)")),
        ((*FLAT, "Test/1.png"), "warning", "1 folder named like a part of the data", ("Test",)),
        (("train/1.png", "test/1.png"), "warning", "2 folders named like a part of the data", ("test", "train")),
        ((*SPLIT, "val/cat/1.png", "cat/2.png"), "warning", "2 folders of images not read", ("cat", "val")),
    ],
)  # fmt: skip
def test_what_is_odd(files: tuple[str, ...], level: str, what: str, where: tuple[str, ...], tmp_path: Path) -> None:
    found = [finding for finding in check_layout(lay(tmp_path, *files)) if finding.what.startswith(what)]
    assert [(finding.level, finding.where) for finding in found] == [(level, where)]
    assert len(check_layout(tmp_path)) <= 2
