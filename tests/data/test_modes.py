"""An image has the same pixels wherever it is read, and its white is known or the image is refused."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from scanmix.cli.inputs import image_chunks
from scanmix.config import DataError, UserError
from scanmix.data.decoding import decode_images, open_image, pixels_of, upright
from scanmix.data.given import decoded
from scanmix.data.modes import UnknownRangeError, to_8_bit
from scanmix.data.readers import load
from scanmix.data.readers.images import preview
from scanmix.integrations.conversions import from_dataset, from_hugging_face

SIDE = 16
RAMP = np.linspace(0, 1, SIDE * SIDE).reshape(SIDE, SIDE)


def deep_png(values: np.ndarray, transparent: tuple[int, ...] = ()) -> bytes:
    """Write 16 bits for each channel, which Pillow itself does for gray alone. Shape: (H, W, 1 to 4)."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    high, wide, channels = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    seen_through = chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)) if transparent else b""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", wide, high, 16, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + seen_through + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def color() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def see_through(mode: str) -> Image.Image:
    image = color().convert(mode)
    image.putalpha(Image.fromarray((RAMP * 255).astype(np.uint8)))
    return image


def saved(image: Image.Image, kind: str, **saving: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **saving)
    return buffer.getvalue()


def turned(kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(color(), kind, exif=exif)


def wide(top: float, dtype: str) -> Image.Image:
    return Image.fromarray((RAMP * top).astype(dtype))


PALETTE = color().quantize(16)
FILES: dict[str, Callable[[], bytes]] = {
    "bilevel.png": lambda: saved(color().convert("1"), "PNG"),
    "gray.png": lambda: saved(color().convert("L"), "PNG"),
    "gray.jpg": lambda: saved(color().convert("L"), "JPEG"),
    "gray-alpha.png": lambda: saved(see_through("L"), "PNG"),
    "palette.png": lambda: saved(PALETTE, "PNG"),
    "palette-clear.png": lambda: saved(PALETTE, "PNG", transparency=3),
    "palette-alpha.png": lambda: saved(PALETTE, "PNG", transparency=bytes(range(0, 256, 16))),
    "palette-alpha.tif": lambda: saved(PALETTE.convert("PA"), "TIFF"),
    "animated.gif": lambda: saved(PALETTE, "GIF", save_all=True, append_images=[PALETTE.rotate(90)]),
    "color.png": lambda: saved(color(), "PNG"),
    "color-clear.png": lambda: saved(color(), "PNG", transparency=color().getpixel((3, 3))),
    "color.jpg": lambda: saved(color(), "JPEG"),
    "color.webp": lambda: saved(color(), "WEBP", lossless=True),
    "color.tga": lambda: saved(color(), "TGA"),
    "color.avif": lambda: saved(color(), "AVIF"),
    "color.jp2": lambda: saved(color(), "JPEG2000"),
    "color-alpha.png": lambda: saved(see_through("RGB"), "PNG"),
    "cmyk.jpg": lambda: saved(color().convert("CMYK"), "JPEG"),
    "cmyk.tif": lambda: saved(color().convert("CMYK"), "TIFF"),
    "ycbcr.tif": lambda: saved(color().convert("YCbCr"), "TIFF"),
    "lab.tif": lambda: saved(Image.merge("LAB", color().split()), "TIFF"),
    "whole-32.tif": lambda: saved(wide(65535, "int32"), "TIFF"),
    "whole-16.png": lambda: saved(wide(65535, "uint16"), "PNG"),
    "whole-16.tif": lambda: saved(wide(65535, "uint16"), "TIFF"),
    "whole-16-big.tif": lambda: saved(wide(65535, ">u2"), "TIFF"),
    "whole-16-clear.png": lambda: deep_png((RAMP * 65535).astype(int)[..., None], (65535,)),
    "deep-color.png": lambda: deep_png(np.repeat((RAMP * 65535).astype(int)[..., None], 3, axis=2)),
    "deep-alpha.png": lambda: deep_png(np.dstack([(RAMP * 65535).astype(int)] * 3 + [np.full((SIDE, SIDE), 65535)])),
    "float-1.tif": lambda: saved(wide(1, "float32"), "TIFF"),
    "float-255.tif": lambda: saved(wide(255, "float32"), "TIFF"),
    "float.pfm": lambda: saved(wide(1, "float32"), "PPM"),
    "turned.jpg": lambda: turned("JPEG"),
    "turned.png": lambda: turned("PNG"),
    "turned.webp": lambda: turned("WEBP"),
}


class Rows(list[Any]):
    """What is asked of a Hugging Face data set."""

    features: ClassVar = {"image": type("Image", (), {})(), "label": type("ClassLabel", (), {"names": ["a", "b"]})()}


def ways(path: Path) -> dict[str, np.ndarray]:
    """The pixels of one file by every door, (channels, SIDE, SIDE)."""
    data = path.parent / "data"
    for name in "ab":
        (data / name).mkdir(parents=True, exist_ok=True)
        (data / name / path.name).write_bytes(path.read_bytes())
    (path.parent / "t.csv").write_text(f"path,label\na/{path.name},a\nb/{path.name},b\n")
    folder, _ = load(data, size=SIDE)
    table, _ = load(path.parent / "t.csv", root=data, size=SIDE)
    channels = folder.channels
    (chunk,) = image_chunks([path], SimpleNamespace(size=(SIDE, SIDE), channels=channels))
    found = {"folder": folder.images[0].numpy(), "table": table.images[1].numpy(), "predict": chunk.inputs[0]}
    found["preview"] = pixels_of(preview(path, SIDE))
    with Image.open(path) as lazy:
        found["opened"] = pixels_of(upright(lazy))
    with Image.open(path) as image:
        image.load()
        found["hugging face"] = from_hugging_face(Rows([{"image": image, "label": 1}])).images[0].numpy()
        found["data set"] = from_dataset([(image, 0)]).images[0].numpy()
        found["fit"] = np.atleast_3d(decoded([image])[0]).transpose(2, 0, 1)
        found["asked"] = np.atleast_3d(decoded([image], channels)[0]).transpose(2, 0, 1)
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_door_sees_the_same_pixels(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name]())
    found = ways(path)
    assert {door for door, pixels in found.items() if not np.array_equal(pixels, found["folder"])} == set()
    assert int(found["folder"].max()) > 200 and int(found["folder"].min()) < 60  # neither black nor white


def test_what_is_white_by_the_file_is_white() -> None:
    ramp = np.rint(RAMP * 255)
    for name in ("whole-32.tif", "whole-16.png", "whole-16.tif", "whole-16-big.tif", "float-1.tif", "float-255.tif"):
        with Image.open(io.BytesIO(FILES[name]())) as image:
            assert np.abs(np.asarray(upright(image)) - ramp).max() <= 1, name
    with Image.open(io.BytesIO(FILES["whole-16-clear.png"]())) as image:  # white is seen through, on white
        assert np.asarray(upright(image))[-1, -1] == 255
    with Image.open(io.BytesIO(deep_png((RAMP * 65535).astype(int)[..., None], (0,)))) as image:
        assert np.asarray(upright(image))[0, :2].tolist() == [255, 1]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full((9, 9), np.nan, "float32"), "infinite or not a number"),
        (RAMP.astype("float32") / 0.5 - 1, "floating point pixels from -1 to 1; save them as 8 bit, 0 to 255"),
        (RAMP.astype("float32") * 4096 - 3, "floating point pixels from -3 to 4093"),
        (RAMP.astype("float32") * 65535, "from 0 to 65535"),
        (RAMP.astype("float32") * 1.5, "from 0 to 1.5"),
        (RAMP.astype("float32") * 15, "from 0 to 15"),
        (RAMP.astype("float32") * 0.05, "from 0 to 0.05"),
        ((RAMP * 4095).astype("uint16"), "16 bit pixels from 0 to 4095, of which white cannot be told; save them"),
        ((RAMP * 1023).astype("uint16"), "16 bit pixels from 0 to 1023, of which white cannot"),
        ((RAMP * 255).astype("uint16"), "16 bit pixels from 0 to 255, of which white cannot"),
        ((RAMP * 255).astype("int32"), "32 bit pixels from 0 to 255, of which white cannot"),
        ((RAMP * 70000).astype("int32"), "32 bit pixels from 0 to 70000; save them"),
        ((RAMP * 60000).astype("int32") - 5, "32 bit pixels from -5 to 59995; save them"),
    ],
)  # fmt: skip
def test_a_range_that_cannot_be_known_is_set_aside_everywhere(values: np.ndarray, words: str, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.fromarray(values).save(tmp_path / name / "x.tif")
    (why,) = decode_images([tmp_path / "a" / "x.tif"], 16, 1)
    assert isinstance(why, str) and words in why and ": " not in why
    with pytest.raises(DataError) as told:
        load(tmp_path)
    assert words in str(told.value) and "not one of 2 images" in str(told.value)
    with pytest.raises(UserError) as told_of_item:
        from_dataset([(Image.fromarray(values), 0)])
    assert words in str(told_of_item.value) and "item 0" in str(told_of_item.value)


def test_black_is_black_whatever_the_range() -> None:
    for dtype in ("float32", "int32", "uint16"):
        assert np.asarray(to_8_bit(Image.fromarray(np.zeros((4, 4), dtype)), 1)).max() == 0


def test_rounding_of_floats_is_forgiven() -> None:
    values = np.array([[-1e-5, 0.5, 1.00002]], dtype="float32")
    assert np.asarray(to_8_bit(Image.fromarray(values), 1)).tolist() == [[0, 128, 255]]


def test_a_tiff_may_tell_its_range(tmp_path: Path) -> None:
    values = (RAMP * 4095).astype("uint16")
    Image.fromarray(values).save(tmp_path / "x.tif", tiffinfo={281: 4095})
    (told,) = decode_images([tmp_path / "x.tif"], SIDE, 1)
    assert isinstance(told, np.ndarray) and np.abs(told[0] - np.rint(RAMP * 255)).max() <= 1
    Image.fromarray(values).save(
        tmp_path / "y.tif", tiffinfo={281: 4000}
    )  # the largest in it, not the largest there is
    assert isinstance(decode_images([tmp_path / "y.tif"], SIDE, 1)[0], str)


def test_twelve_bits_packed_are_known(tmp_path: Path) -> None:
    row = bytes([0xFF, 0xF8, 0x00]) * 8  # 4095, 2048: two numbers in three bytes
    tags = [(256, 4, 16), (257, 4, 2), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 4, 2),
            (279, 4, 48)]  # fmt: skip
    body = row * 2
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = b"II*\0" + struct.pack("<I", 8 + len(body))
    (tmp_path / "x.tif").write_bytes(head + body + struct.pack("<H", len(tags)) + entries + bytes(4))
    with open_image(tmp_path / "x.tif") as image:
        assert image.mode == "I;16"
        assert np.asarray(to_8_bit(image, 1))[0, :2].tolist() == [255, 128]


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("top", [4095, 255])
def test_dark_16_bit_colors_are_set_aside(channels: int, top: int, tmp_path: Path) -> None:
    values = np.repeat((RAMP * top).astype(int)[..., None], channels, axis=2)
    if channels in (2, 4):
        values[..., -1] = 65535
    (tmp_path / "x.png").write_bytes(deep_png(values))
    (why,) = decode_images([tmp_path / "x.png"], SIDE, 3)
    assert isinstance(why, str) and "16 bit colors, none above" in why
    (tmp_path / "x.ppm").write_bytes(b"P6 16 16 65535\n" + (RAMP * top).astype(">u2").repeat(3).tobytes())
    assert isinstance(decode_images([tmp_path / "x.ppm"], SIDE, 3)[0], str)


def test_a_portable_graymap_says_what_is_white(tmp_path: Path) -> None:
    (tmp_path / "x.pgm").write_bytes(b"P5 16 16 4095\n" + (RAMP * 4095).astype(">u2").tobytes())
    (read,) = decode_images([tmp_path / "x.pgm"], SIDE, 1)
    assert isinstance(read, np.ndarray) and np.abs(read[0] - np.rint(RAMP * 255)).max() <= 1


def test_some_of_a_folder_are_set_aside_with_a_warning(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        wide(255, "uint8").save(tmp_path / name / "good.png")
    wide(4095, "uint16").save(tmp_path / "b" / "twelve.png")
    with pytest.warns(UserWarning, match="1 of 3 images could not be read .* 16 bit pixels from 0 to 4095"):
        train, _ = load(tmp_path)
    assert len(train) == 2


def test_unknown_range_is_a_value_error() -> None:
    with pytest.raises(UnknownRangeError):
        to_8_bit(wide(300, "float32"), 1)


def test_a_premultiplied_image_is_laid_on_white() -> None:
    image = see_through("L").convert("La")
    assert np.asarray(upright(image)).max() == 255
