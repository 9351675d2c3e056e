"""Tiny copies of published data sets in exactly their layouts: right names, right formats, few and small pictures."""

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from scanmix.data.noise.mappings import CIFAR100_COARSE

CLOTHES = 14


def picture(path: Path, label: int, side: int = 40) -> None:
    """Write a JPEG whose color tells its label."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(str(path)) + label)
    pixels = rng.integers(0, 60, size=(side, side + 8, 3)) + np.array([label * 37 % 190, label * 91 % 190, label % 190])
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def lines(path: Path, rows: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")


def cifar10(top: Path, count: int = 8) -> list[int]:
    """Five training batches of so many images each, and a test batch; returns the training labels."""
    rng = np.random.default_rng(0)
    labels: list[int] = []
    (top / "cifar-10-batches-py").mkdir(parents=True, exist_ok=True)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        own = [(len(labels) + i) % 10 for i in range(count)]
        data = rng.integers(0, 256, size=(count, 3072), dtype=np.uint8)
        content = {b"data": data, b"labels": own, b"filenames": [b"x"] * count}
        (top / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(content, protocol=2))
        labels += own if name != "test_batch" else []
    return labels


def cifar100(top: Path, count: int = 200) -> list[int]:
    rng = np.random.default_rng(0)
    (top / "cifar-100-python").mkdir(parents=True, exist_ok=True)
    labels = [i % 100 for i in range(count)]
    for name in ("train", "test"):
        data = rng.integers(0, 256, size=(count, 3072), dtype=np.uint8)
        content = {
            b"data": data,
            b"fine_labels": labels,
            b"coarse_labels": [CIFAR100_COARSE[label] for label in labels],
        }
        (top / "cifar-100-python" / name).write_bytes(pickle.dumps(content, protocol=2))
    return labels


def human(path: Path, content: Mapping[str, object]) -> None:
    """Write the labels of people as published: a dictionary of NumPy arrays, by torch.save or np.save."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, np.array(dict(content), dtype=object), allow_pickle=True)
    else:
        torch.save(dict(content), path)


def red_mini_imagenet(top: Path, *, by_label: bool = False, annotated: bool = True, classes: int = 100) -> list[str]:
    """Two training pictures of each class at noise 0.4, the second of every other class from the web; one to test.

    Returns the ids of the pictures from the web.
    """
    inside = top / "mini-imagenet"
    rows, tested, web = [], [], []
    for label in range(classes):
        for number in range(2):
            from_web = number == 1 and label % 2 == 0
            name = f"{label:015x}f.jpg" if from_web else f"n{label:08d}{number:08d}.jpg"
            web += [Path(name).stem] if from_web else []
            picture(inside / (str(label) if by_label else "all_images") / name, label)
            rows.append(f"{name} {label}")
        name = f"ILSVRC2012_val_{label:08d}.jpg"
        picture(inside / (str(label) if by_label else f"validation/{label}") / name, label)
        tested.append(f"{name} {label}")
    lines(inside / "split/red_noise_nl_0.4", rows)
    lines(inside / "split/clean_validation", tested)
    lines(inside / "class_name.txt", [f"class {label}" for label in range(classes)])
    if annotated:
        data = [[{"image/id": name, "image/uri": "https://"}, {"class": "red"}] for name in web]
        (top / "mini-imagenet-annotations.json").write_text(json.dumps({"data": data}))
    return web


def clothing1m(top: Path, *, stripped: bool = False, annotations: bool = False, each: int = 3) -> None:
    """Noisy training pictures of each class and one clean test picture; some training pictures are in both lists."""
    lists = top / "annotations" if annotations else top
    noisy, clean, train, tests = [], [], [], []
    for label in range(CLOTHES):
        for number in range(each + 1):
            name = f"images/{number}/{label:02d}/{label}_{number}.jpg"
            picture(top / (name.removeprefix("images/") if stripped else name), label)
            if number < each:
                noisy.append(f"{name} {label if number else (label + 1) % CLOTHES}")
                train.append(name)
            if number in (0, each):
                clean.append(f"{name} {label}")
            if number == each:
                tests.append(name)
    lines(lists / "noisy_label_kv.txt", noisy)
    lines(lists / "clean_label_kv.txt", clean)
    lines(lists / "noisy_train_key_list.txt", train)
    lines(lists / "clean_test_key_list.txt", tests)
    for name in ("clean_train_key_list.txt", "clean_val_key_list.txt"):
        lines(lists / name, [])


def synset(label: int) -> str:
    return f"n{label:08d}"


def webvision(top: Path, *, classes: int = 52, each: int = 2) -> None:
    """Google's and Flickr's pictures, the validation set and the names of the synsets."""
    google, flickr, tested = [], [], []
    for label in range(classes):
        for number in range(each):
            name = f"google/q{label:04d}/{number}.jpg"
            picture(top / name, label)
            google.append(f"{name} {label}")
        name = f"flickr/q{label:04d}/0.jpg"
        picture(top / name, label)
        flickr.append(f"{name} {label}")
        name = f"val{label:06d}.jpg"
        picture(top / "val_images_256" / name, label)
        tested.append(f"{name} {label}")
    lines(top / "info/train_filelist_google.txt", google)
    lines(top / "info/train_filelist_flickr.txt", flickr)
    lines(top / "info/val_filelist.txt", tested)
    lines(top / "info/synsets.txt", [f"{synset(label)} thing {label}" for label in range(1000)])


def ilsvrc12(top: Path, layout: str, *, classes: int = 52) -> None:
    """One picture of each class: in folders by `synset` or by `number`, or `flat` with labels or with a `list`."""
    names = []
    for label in range(classes):
        folder = {"synset": f"val/{synset(label)}/", "number": f"val/{label}/"}.get(layout, "val/")
        name = f"{folder}ILSVRC2012_val_{label:08d}.JPEG"
        picture(top / name, label)
        names.append(name)
    if layout == "synset":
        lines(top / "info/synsets.txt", [f"{synset(label)} thing {label}" for label in range(1000)])
    if layout == "flat":
        lines(top / "ILSVRC2012_validation_to_webvision_labels_ground_truth.txt", [str(i) for i in range(classes)])
    if layout == "list":
        lines(top / "imagenet_val.txt", [f"{name} {label}" for label, name in enumerate(names)])
