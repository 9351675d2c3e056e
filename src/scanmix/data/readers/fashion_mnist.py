"""Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747, MIT license) from its four IDX files, with or without gzip."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import urllib.request
import zlib
from pathlib import Path

import numpy as np
import torch

from scanmix.config import UserError
from scanmix.data.examples import Examples
from scanmix.data.store import default_cache
from scanmix.files import reading

CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # the package dataset-fashion-mnist
ADDRESS = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
# SHA-256 of the unpacked files, because the packed files of different distributors differ.
CONTENT_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def read_fashion_mnist(root: str | Path | None = None, download: bool = False) -> tuple[Examples, Examples]:
    """Read the 60,000 training and 10,000 test images.

    Looks only in `root` if it is given, else in $SCANMIX_DATA/fashion-mnist, in the cache folder of downloads, and
    in the folder of Debian's package. `download=True` downloads the files (31 MB) if none of these has them.

    Shape: images (60000, 1, 28, 28) and (10000, 1, 28, 28) uint8.

    Raises:
        UserError: if the files are not found, damaged, or cannot be downloaded.
    """
    folders = _folders(root)
    found = next((folder for folder in folders if _complete(folder)), None)
    if found is None and download:
        found = folders[0]
        for name in CONTENT_SHA256:
            if _existing(found, name) is None:
                _download(name, found)
    if found is None:
        raise UserError(
            "Fashion-MNIST's four IDX files (train-images-idx3-ubyte.gz, ...) are not in "
            f"{' or '.join(str(folder) for folder in folders)}; give their folder as --root (root= in Python), "
            "install Debian's package dataset-fashion-mnist, or in Python, with a network, load with download=True."
        )
    return _split(found, "train"), _split(found, "t10k")


def _folders(root: str | Path | None) -> list[Path]:
    if root is not None:
        folder = Path(root).expanduser()
        return [folder, folder / "fashion-mnist", folder / "FashionMNIST" / "raw"]
    shared = os.environ.get("SCANMIX_DATA")
    first = [Path(shared).expanduser() / "fashion-mnist"] if shared else []
    return [*first, default_cache() / "data" / "fashion-mnist", DEBIAN_FOLDER]


def _existing(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def _complete(folder: Path) -> bool:
    return all(_existing(folder, name) is not None for name in CONTENT_SHA256)


def _split(folder: Path, prefix: str) -> Examples:
    images = read_idx(folder, f"{prefix}-images-idx3-ubyte")
    labels = read_idx(folder, f"{prefix}-labels-idx1-ubyte")
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise UserError(f"the {prefix} images and labels of Fashion-MNIST in {folder} do not fit together.")
    if len(images) == 0:
        raise UserError(f"the {prefix} files of Fashion-MNIST in {folder} hold no images; get them again.")
    if int(labels.max()) >= len(CLASS_NAMES):
        raise UserError(f"the {prefix} labels in {folder} run to {labels.max()}: they are not those of Fashion-MNIST.")
    split = "train" if prefix == "train" else "test"
    return Examples(
        images=torch.from_numpy(images[:, None]),
        labels=torch.from_numpy(labels.astype(np.int64)),
        class_names=CLASS_NAMES,
        ids=tuple(f"fashion-mnist/{split}/{i:05d}" for i in range(len(labels))),
        name="fashion-mnist",
    )


def read_idx(folder: Path, name: str) -> np.ndarray:
    """Read an IDX file of bytes, `name` or `name.gz`. Shape: -> (N, ...) uint8, as the file says.

    The format: two zero bytes, the type 8 (uint8), the number of axes, their sizes as big-endian uint32, the values.

    Raises:
        UserError: the file is missing, truncated or not an IDX file of bytes.
    """
    path = _existing(folder, name)
    if path is None:
        raise UserError(f"{name} (or {name}.gz) is missing in {folder}.")
    with reading(path, "get it again"):
        packed = path.read_bytes()
    try:
        content = gzip.decompress(packed) if path.suffix == ".gz" else packed
        zeros, kind, axes = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
    except (OSError, EOFError, zlib.error, struct.error):
        raise UserError(f"{path} is truncated or no IDX file; get it again.") from None
    if zeros != 0 or kind != 8 or len(content) - 4 - 4 * axes != math.prod(shape):
        raise UserError(f"{path} is truncated or no IDX file of bytes; get it again.")
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * axes).reshape(shape).copy()


def _download(name: str, folder: Path) -> None:
    address = f"{ADDRESS}{name}.gz"
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            packed: bytes = answer.read()
        content = gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{address} could not be downloaded ({error}); put the four IDX files into {folder} by hand, "
            "or install Debian's package dataset-fashion-mnist."
        ) from None
    if hashlib.sha256(content).hexdigest() != CONTENT_SHA256[name]:
        raise UserError(f"what {address} sent is not Fashion-MNIST (wrong SHA-256); try again.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f".{name}.{os.getpid()}"
        aside.write_bytes(packed)
        aside.replace(folder / f"{name}.gz")  # complete or not at all, even if the program is killed
    except OSError as error:
        raise UserError(f"Fashion-MNIST cannot be written to {folder}: {error.strerror or error}.") from None
