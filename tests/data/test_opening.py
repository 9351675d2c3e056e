"""What is opened as an image: formats on a list, files alone; and how much at a time."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scanmix.cli.inputs import find_files
from scanmix.config import UserError
from scanmix.data import decoding, modes
from scanmix.data.decoding import decode_images, open_image
from scanmix.data.readers import load
from scanmix.data.readers.images import preview, read_headers
from scanmix.review.thumbnails import Thumbnails

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\n"
FITS = b"SIMPLE  =                    T".ljust(80) + b"END".ljust(2800)


@pytest.mark.parametrize("content", [EPS, FITS, b"\x89HDF\r\n\x1a\n" + bytes(90), b"GRIB" + bytes(90)])
@pytest.mark.parametrize("name", ["x.png", "x.eps", "x.fits", "x.tga", "x"])
def test_formats_that_are_not_listed_are_never_opened(content: bytes, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert decode_images([path], 16, 3) == ["not an image"]
    assert read_headers([path]) == ["not an image"]
    with pytest.raises(UserError, match="not an image"):
        preview(path, 16)


def test_every_way_to_an_image_names_its_formats(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Image.new("L", (16, 16)).save(tmp_path / "x.png")
    asked: list[Any] = []
    really = Image.open

    def opened(path: Any, mode: Any = "r", formats: Any = None) -> Image.Image:
        asked.append(formats)
        return really(path, formats=formats)

    monkeypatch.setattr(Image, "open", opened)
    decode_images([tmp_path / "x.png"], 16, 1)
    read_headers([tmp_path / "x.png"])
    preview(tmp_path / "x.png", 16)
    assert len(asked) == 3
    assert all(set(formats) <= set(decoding.FORMATS) and "EPS" not in formats for formats in asked)


@pytest.fixture(params=["pipe", "socket", "device", "folder"])
def no_file(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "x.png"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "socket":
        monkeypatch.chdir(tmp_path)  # the path of a socket must be short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("x.png")
    elif request.param == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    return path


@pytest.mark.timeout(20)
def test_what_is_no_file_is_never_opened(no_file: Path, tmp_path: Path) -> None:
    (why,) = decode_images([no_file], 16, 3)
    assert isinstance(why, str) and why.startswith("a ") and why.endswith("; a file is needed")
    assert read_headers([no_file]) == [why]
    with pytest.raises(UserError, match=why):
        preview(no_file, 16)
    assert Thumbnails([str(no_file)], [0]).get(0).missing
    with pytest.raises(UserError, match=why):
        open_image(no_file)
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("L", (16, 16)).save(tmp_path / "data" / name / "1.png")
    (tmp_path / "t.csv").write_text("path,label\ndata/a/1.png,a\ndata/b/1.png,b\nx.png,a\n")
    with pytest.warns(UserWarning, match=rf"1 of 3 images could not be read .*x\.png: {why}"):
        assert len(load(tmp_path / "t.csv")[0]) == 2


@pytest.mark.timeout(20)
def test_pipes_in_folders_and_in_place_of_tables(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("L", (16, 16)).save(tmp_path / "data" / name / "1.png")
    os.mkfifo(tmp_path / "data" / "a" / "2.png")
    os.mkfifo(tmp_path / "data" / "a" / "3")
    os.mkfifo(tmp_path / "list.csv")
    assert len(load(tmp_path / "data")[0]) == 2
    with pytest.raises(UserError, match=r"list\.csv is a named pipe; a file is needed"):
        find_files([tmp_path / "list.csv"])


def test_lists_from_standard_input_end_their_lines_with_line_feeds_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Given:
        class buffer:
            @staticmethod
            def read() -> bytes:
                return "a\u2028b.png\nc\x0cd.png\r\n\ne.png".encode()

    monkeypatch.setattr("sys.stdin", Given)
    assert [str(path) for path in find_files([Path("-")])] == ["a\u2028b.png", "c\x0cd.png", "e.png"]


def test_huge_images_are_decoded_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(8)]
    for i, path in enumerate(paths):
        Image.new("L", (100, 100) if i else (300, 300), i).save(path)
    monkeypatch.setattr(decoding, "PIXELS_AT_ONCE", 20_000)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    now, most, alone = [0], [0], []
    lock, really = threading.Lock(), modes.to_8_bit

    def slow(image: Image.Image, channels: int, deep: bool = False) -> Image.Image:
        size = image.width * image.height
        with lock:
            now[0] += size
            most[0] = max(most[0], now[0] if size < 20_000 else 0)
        time.sleep(0.02)
        if size > 20_000:
            alone.append(now[0] == size)
        with lock:
            now[0] -= size
        return really(image, channels, deep)

    monkeypatch.setattr(decoding, "to_8_bit", slow)
    read = decode_images(paths, 16, 1)
    assert all(isinstance(pixels, np.ndarray) for pixels in read)
    assert most[0] <= 20_000 and alone == [True]


def test_room_is_given_back_after_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Image.new("L", (100, 100)).save(tmp_path / "x.png")
    whole = (tmp_path / "x.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) - 30])
    monkeypatch.setattr(decoding, "PIXELS_AT_ONCE", 10_000)
    found = decode_images([tmp_path / "cut.png", tmp_path / "x.png"] * 3, 16, 1)
    assert [isinstance(one, str) for one in found] == [True, False] * 3
    assert decoding._pixel_limit._taken == 0
