"""Encoders in ONNX files: `onnx:FILE`, with options after colons; needs the extra `onnx`.

Legend: B batch, C channels, h height, w width, D features.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scanmix.config import UserError, file_path, install, unknown_name
from scanmix.features.encoder import FrozenEncoder
from scanmix.features.preparation import INTERPOLATIONS, Preparation
from scanmix.files import reading

OPTIONS = ("size", "mean", "std", "crop", "interpolation", "output")
OPTION = re.compile(r"^(.*):([a-z]+)=([^:=]*)$", re.DOTALL)
CHUNK = 1 << 24
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


def open_onnx(text: str, device: torch.device) -> FrozenEncoder:
    """Return the encoder in a file: one input of pictures, and an output of vectors, maps or tokens.

    The size is that of the graph, else `size=`. Mean and deviation, of pixels from 0 to 1, are given after the file, or
    in the file's metadata under the same names. Of an output of maps (B, D, h, w) the mean is taken, of tokens
    (B, T, D) the first.

    Args:
        text: what follows `onnx:`: a file, then options: `net.onnx:size=224:mean=0.485,0.456,0.406:std=0.5`.
        device: a GPU is used if the installed onnxruntime can.

    Raises:
        UserError: onnxruntime is not installed, the file cannot be read or is no encoder of pictures, or an option is
            missing or wrong.
    """
    place, options = split_options(text)
    path = file_path("the ONNX file", place)
    session, metadata = _session(path, text, device)
    given = {**{key: value for key, value in metadata.items() if key in OPTIONS}, **options}
    (entry, *others) = session.get_inputs()
    if others or len(entry.shape) != 4 or entry.type not in TYPES:
        takes = ", ".join(f"{each.type} {each.shape}" for each in (entry, *others))
        raise UserError(
            f"{path} is no encoder of pictures: it takes {takes}, and one input of float numbers of shape (B, C, H, W) "
            "is needed"
        )
    last = entry.shape[1] not in (1, 3) and entry.shape[3] in (1, 3)
    output = _output(session, given.get("output"), path)
    network = _network(session, entry, output, last)
    prepared = _preparation(path, given, entry.shape, last)
    weights = _hash(path)
    return FrozenEncoder(
        f"onnx:{text}", f"onnx {output}", weights, network, prepared, metadata.get("license"), torch.device("cpu")
    )


def split_options(text: str) -> tuple[str, dict[str, str]]:
    """Return the file and the options that follow it."""
    options: dict[str, str] = {}
    while found := OPTION.match(text):
        text, name, value = found.groups()
        if name not in OPTIONS:
            raise unknown_name("option of an ONNX encoder", name, OPTIONS)
        options[name] = value
    return text, options


def _session(path: Path, text: str, device: torch.device) -> tuple[Any, dict[str, str]]:
    """Open a file with onnxruntime; return its metadata, too."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"onnx:{text} needs onnxruntime: {install('onnx')}") from None
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    settings.log_severity_level = 3
    on_gpu = device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    providers = [*(["CUDAExecutionProvider"] if on_gpu else []), "CPUExecutionProvider"]
    with reading(path, "name an ONNX file of an image encoder"):
        session = onnxruntime.InferenceSession(str(path), settings, providers)
        return session, dict(session.get_modelmeta().custom_metadata_map)


def _output(session: Any, wanted: str | None, path: Path) -> str:
    """Return the name of the output that is asked for; by default the first of two dimensions, else the first."""
    found: dict[str, Any] = {output.name: output for output in session.get_outputs()}
    if wanted is not None:
        if wanted not in found:
            raise unknown_name(f"output of {path}", wanted, found)
        return wanted
    flat = [name for name, output in found.items() if len(output.shape) == 2]
    return [*flat, *found][0]


def _network(session: Any, entry: Any, output: str, channels_last: bool) -> Callable[[Tensor], Tensor]:
    """Return a function from prepared pictures to features, which fills up batches where the graph fixes their size."""
    fixed = entry.shape[0] if isinstance(entry.shape[0], int) and entry.shape[0] > 0 else None

    def run(images: np.ndarray) -> np.ndarray:
        count = len(images)
        if fixed is not None:
            images = np.concatenate([images, np.repeat(images[:1], fixed - count, 0)])
        (found,) = session.run([output], {entry.name: images})
        return np.asarray(found[:count], dtype=np.float32)

    def network(images: Tensor) -> Tensor:
        pixels = images.permute(0, 2, 3, 1) if channels_last else images
        rows = np.ascontiguousarray(pixels.numpy(), dtype=TYPES[entry.type])
        step = fixed or len(rows)
        found = np.concatenate([run(rows[start : start + step]) for start in range(0, len(rows), step)])
        if found.ndim == 3:
            return torch.from_numpy(found[:, 0])
        return torch.from_numpy(found.mean((2, 3)) if found.ndim == 4 else found)

    return network


def _preparation(path: Path, given: Mapping[str, str], shape: list[Any], channels_last: bool) -> Preparation:
    """Return how the file wants its pictures, from the shape of its input and the options."""
    channels = shape[3] if channels_last else shape[1]
    channels = channels if isinstance(channels, int) else 3
    missing = [name for name in ("mean", "std") if name not in given]
    if missing:
        raise UserError(
            f"{path} does not say its {' and '.join(missing)}: give them after the file, for most networks trained on "
            f"ImageNet as onnx:{path}:mean=0.485,0.456,0.406:std=0.229,0.224,0.225, for one that takes pixels from 0 "
            "to 1 as mean=0:std=1"
        )
    mean, std = (_numbers(given[name], name, (1, channels)) for name in ("mean", "std"))
    (crop,) = _numbers(given.get("crop", "1"), "crop", (1,))
    if not 0 < crop <= 1 or min(std) <= 0:
        raise UserError(f"crop must be above 0 and at most 1, and std above 0, not crop={crop:g} and std={min(std):g}")
    way = next((known for known in INTERPOLATIONS if known == given.get("interpolation", "bicubic")), None)
    if way is None:
        raise unknown_name("interpolation", given["interpolation"], INTERPOLATIONS)
    mean, std = ((values * channels)[:channels] for values in (mean, std))
    return Preparation(
        _size(path, given, shape[1:3] if channels_last else shape[2:]), tuple(mean), tuple(std), crop, way
    )


def _size(path: Path, given: Mapping[str, str], lengths: list[Any]) -> tuple[int, int]:
    """Return (h, w): of the graph, else as asked for."""
    fixed = [side if isinstance(side, int) and side > 0 else None for side in lengths]
    asked = [int(side) for side in _numbers(given["size"], "size", (1, 2)) * 2] if "size" in given else fixed
    height, width = asked[:2]
    if height is None or width is None:
        raise UserError(f"{path} takes pictures of any size; say which after the file: onnx:{path}:size=224")
    if fixed[0] not in (None, height) or fixed[1] not in (None, width) or min(height, width) < 1:
        raise UserError(f"{path} takes pictures of {fixed[0]}x{fixed[1]} pixels; size={given['size']} does not fit")
    return height, width


def _numbers(text: str, name: str, counts: tuple[int, ...]) -> list[float]:
    """Read numbers between commas."""
    try:
        found = [float(number) for number in text.strip("[] ").split(",")]
    except ValueError:
        found = []
    if len(found) not in counts or not all(map(np.isfinite, found)):
        many = " or ".join(map(str, counts))
        raise UserError(f"{name}={text}: {many} number(s) between commas are needed")
    return found


def _hash(path: Path) -> str:
    """Return the SHA-256 of a file, or of it and the files beside it that hold its large tensors."""
    with reading(path):
        digest = _file_hash(path)
        beside = sorted(_external(path))
    if not beside:
        return digest
    parts = [digest, *(f"{name} {_file_hash(path.parent / name)}" for name in beside)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _external(path: Path) -> set[str]:
    """Return the names of the files beside an ONNX file that hold tensors of it."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False)
    entries = (entry for tensor in graph.graph.initializer for entry in tensor.external_data)
    return {entry.value for entry in entries if entry.key == "location"}
