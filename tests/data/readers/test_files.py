from __future__ import annotations

import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from scanmix.config import UserError
from scanmix.data.decoding import find_images
from scanmix.data.readers import load, reload
from scanmix.data.readers.folder import sort_names
from scanmix.data.readers.images import default_size, read_images


def paint(path: Path, color: Any = 128, mode: str = "L", size: tuple[int, int] = (24, 24), **saving: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path, **saving)


def noise_jpeg() -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, size=(40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def test_folder_per_class(tmp_path: Path) -> None:
    for name, shade in (("cat", 10), ("ant", 200)):
        for i in range(3):
            paint(tmp_path / name / f"{i}.png", shade)
    paint(tmp_path / "cat" / "deep" / "x.PNG", 10)
    paint(tmp_path / "cat" / ".hidden.png", 99)
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    train, test = load(str(tmp_path))
    assert test is None
    assert train.class_names == ("ant", "cat")
    assert train.ids == ("ant/0.png", "ant/1.png", "ant/2.png", "cat/0.png", "cat/1.png", "cat/2.png", "cat/deep/x.PNG")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert train.images[:, 0, 0, 0].tolist() == [200, 200, 200, 10, 10, 10, 10]
    assert (train.name, train.channels, train.size, train.skipped) == (tmp_path.name, 1, (24, 24), ())
    assert train.paths is not None and Path(train.paths[0]) == tmp_path / "ant" / "0.png"
    assert load(tmp_path, flip=False)[0].flip is False


@pytest.mark.parametrize("other", ["test", "val"])
def test_folder_with_splits_shares_size_and_channels(tmp_path: Path, other: str) -> None:
    for name in ("1", "2", "10"):
        paint(tmp_path / "train" / name / "a.png", int(name))
    paint(tmp_path / other / "10" / "b.png", (255, 0, 0), "RGB", (60, 90))
    train, test = load(tmp_path, limit_test=5)
    assert test is not None
    assert train.class_names == test.class_names == ("1", "2", "10")  # by number, not by text
    assert train.labels.tolist() == [0, 2, 1]
    assert train.images[:, 0, 0, 0].tolist() == [1, 10, 2]  # in the order of the files
    assert (train.channels, test.channels, test.size) == (3, 3, (24, 24))
    assert test.labels.tolist() == [2] and test.ids == (f"{other}/10/b.png",)
    for part in (train, test):
        assert part.source is not None
        again = reload(json.loads(json.dumps(part.source)))
        assert again.fingerprint() == part.fingerprint() and again.ids == part.ids


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    paint(tmp_path / "train" / "a.png")
    paint(tmp_path / "car" / "b.png")
    assert load(tmp_path)[0].class_names == ("car", "train")


def test_folder_refusals(tmp_path: Path) -> None:
    paint(tmp_path / "flat" / "a.png")
    with pytest.raises(UserError, match="one sub-folder of images for each class"):
        load(tmp_path / "flat")
    for name in ("a", "b"):
        paint(tmp_path / "new" / "train" / name / "a.png")
    paint(tmp_path / "new" / "test" / "c" / "a.png")
    with pytest.raises(UserError, match="class 'c', which no training image has"):
        load(tmp_path / "new")
    with pytest.raises(UserError, match="needs none"):
        load(tmp_path / "new", root=tmp_path)
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(UserError, match="neither a folder nor"):
        load(tmp_path / "x.txt")


def test_unreadable_images_are_set_aside_with_a_count(tmp_path: Path) -> None:
    good = noise_jpeg()
    for name in ("a", "b"):
        paint(tmp_path / name / "good.png", (9, 9, 9), "RGB")
    bad = {
        "cut.jpg": good[: len(good) // 2],
        "cut.png": (tmp_path / "a" / "good.png").read_bytes()[:50],
        "empty.jpg": b"",
        "text.png": b"hello",
        "zeros.gif": bytes(100),
    }
    for name, content in bad.items():
        (tmp_path / "b" / name).write_bytes(content)
    (tmp_path / "b" / "fine.jpg").write_bytes(good)
    with pytest.warns(UserWarning, match="5 of 8 images could not be read"):
        train, _ = load(tmp_path, size=16)
    assert train.ids == ("a/good.png", "b/fine.jpg", "b/good.png")
    assert train.labels.tolist() == [0, 1, 1]
    assert [entry.split(": ")[0] for entry in train.skipped] == [str(tmp_path / "b" / name) for name in sorted(bad)]
    assert "not an image" in train.skipped[-2]
    assert all(entry.split(": ", 1)[1] for entry in train.skipped)


@pytest.mark.skipif(sys.platform == "darwin", reason="the file system refuses such names")
def test_names_that_are_no_text_are_set_aside_or_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        paint(tmp_path / name / "good.png")
    odd = os.fsdecode(b"d\xe9j\xe0.png")
    paint(tmp_path / "b" / odd)
    with pytest.warns(UserWarning, match="1 of 3 images"):
        train, _ = load(tmp_path, size=16)
    assert train.ids == ("a/good.png", "b/good.png")
    assert train.skipped == (f"{tmp_path / 'b'}/d\\xe9j\\xe0.png: its name is not UTF-8; rename it",)
    paint(tmp_path / os.fsdecode(b"\xff") / "good.png")
    with pytest.raises(UserError, match=r"name of class \\xff of .* is not UTF-8; rename its folder"):
        load(tmp_path, size=16)


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(b"no")
    with pytest.raises(UserError, match="not one of 2 images could be read"):
        load(tmp_path)
    paint(tmp_path / "good.png")
    with pytest.raises(UserError, match="not one of 0"):
        read_images([])


# Half-transparent black over white is mid gray; 16 bits keep their upper byte.
MODES: list[tuple[str, Any, str, tuple[int, int, int]]] = [
    ("RGB", (10, 20, 30), "png", (10, 20, 30)),
    ("RGBA", (0, 0, 0, 128), "png", (127, 127, 127)),
    ("RGBA", (200, 0, 0, 0), "png", (255, 255, 255)),
    ("LA", (0, 128), "png", (127, 127, 127)),
    ("L", 77, "png", (77, 77, 77)),
    ("1", 1, "png", (255, 255, 255)),
    ("P", 1, "png", (40, 50, 60)),
    ("I;16", 257 * 90, "png", (90, 90, 90)),
    ("I", 65535, "tiff", (255, 255, 255)),
    ("CMYK", (0, 255, 255, 0), "tiff", (255, 0, 0)),
    ("F", 33.0, "tiff", (33, 33, 33)),
]


@pytest.mark.parametrize(("mode", "color", "suffix", "wanted"), MODES)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, color: Any, suffix: str, wanted: tuple[int, ...]) -> None:
    image = Image.new(mode, (16, 16), color)
    if mode == "P":
        image.putpalette([0, 0, 0, 40, 50, 60])
    image.save(tmp_path / f"x.{suffix}")
    read = read_images([tmp_path / f"x.{suffix}"], channels=3)
    assert read.images.shape == (1, 3, 16, 16) and read.images.dtype == torch.uint8
    assert read.images[0, :, 5, 5].tolist() == pytest.approx(wanted, abs=1)


def test_a_transparent_color_is_white(tmp_path: Path) -> None:
    paint(tmp_path / "x.png", 0, "P", transparency=0)
    paint(tmp_path / "y.png", (1, 2, 3), "RGB", transparency=(1, 2, 3))
    read = read_images([tmp_path / "x.png", tmp_path / "y.png"])
    assert int(read.images.min()) == 255


def test_gray_only_if_all_are_gray(tmp_path: Path) -> None:
    paint(tmp_path / "gray.png", 50)
    paint(tmp_path / "alpha.png", (50, 255), "LA")
    paint(tmp_path / "deep.png", 50 * 257, "I;16")
    paint(tmp_path / "color.png", (50, 50, 50), "RGB")
    gray = [tmp_path / name for name in ("gray.png", "alpha.png", "deep.png")]
    assert read_images(gray).images.shape[1] == 1
    assert set(read_images(gray).images.flatten().tolist()) == {50}
    assert read_images([*gray, tmp_path / "color.png"]).images.shape[1] == 3
    assert read_images([tmp_path / "color.png"], channels=1).images.shape[1] == 1


def test_exif_rotation_is_undone(tmp_path: Path) -> None:
    pixels = np.zeros((32, 32), dtype=np.uint8)
    pixels[:16] = 255  # white above
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    read = read_images([tmp_path / "x.png"]).images[0, 0]
    assert read[0, 0] == 0 and read[31, 0] == 255


def test_shorter_side_is_resized_and_the_center_kept(tmp_path: Path) -> None:
    pixels = np.zeros((40, 120, 3), dtype=np.uint8)
    pixels[:, 40:80] = 200  # the center square of a wide image, and of the tall one below
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    Image.fromarray(pixels.transpose(1, 0, 2).copy()).save(tmp_path / "tall.png")
    read = read_images([tmp_path / "wide.png", tmp_path / "tall.png"], size=20)
    assert read.images.shape == (2, 3, 20, 20)
    assert set(read.images[:, :, 2:-2, 2:-2].flatten().tolist()) == {200}
    assert int(read.images.min()) >= 180


def test_one_crop_equals_resize_then_crop(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, size=(48, 96), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    fast = read_images([tmp_path / "x.png"], size=24).images[0, 0].numpy().astype(int)
    slow = Image.fromarray(pixels).resize((48, 24), Image.Resampling.BICUBIC).crop((12, 0, 36, 24))
    difference = np.abs(fast - np.asarray(slow).astype(int))
    assert difference[:, 2:-2].max() <= 1  # edges see what lies outside the box, or do not


def test_large_jpegs_are_decoded_small_and_alike(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 255, 1024), (1024, 1)).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "x.jpg", quality=95)
    read = read_images([tmp_path / "x.jpg"], size=32).images[0, 0].numpy().astype(int)
    exact = np.asarray(Image.fromarray(ramp).resize((32, 32), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(read - exact).max() <= 2


@pytest.mark.parametrize(
    ("sides", "size"),
    [([28, 28, 28], 32), ([24], 24), ([19], 16), ([20], 24), ([8], 16), ([2000, 1], 64), ([30, 34], 32), ([], 32)],
)
def test_default_size(sides: list[int], size: int) -> None:
    assert default_size(sides) == size


def test_sorted_names() -> None:
    assert sort_names({"10", "9", "-1"}) == ("-1", "9", "10")
    assert sort_names({"10", "9", "a"}) == ("10", "9", "a")
    assert sort_names({"01", "1", "2"}) == ("01", "1", "2")
    assert sort_names({"²", "3"}) == ("3", "²")  # a digit to Python's isdigit, no number to int


def test_bar_only_on_a_terminal_and_only_when_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        paint(path)
    ticks = iter(range(0, 1000, 3))
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks))
    assert find_images(tmp_path) == paths
    read_images(paths)
    quiet = capsys.readouterr()
    assert quiet.err == "" and quiet.out == ""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", screen := Terminal())
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    read_images(paths)
    assert screen.getvalue() == ""
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks))
    read_images(paths)
    assert "reading images" in screen.getvalue()
    assert capsys.readouterr().out == ""
