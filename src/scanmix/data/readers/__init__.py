"""Load a data set by name, folder, table or array: `load`; and `reload` from the record of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from scanmix.config import UserError, check_type, file_path, whole_number
from scanmix.data.corrections import apply_corrections
from scanmix.data.examples import JSON, Examples
from scanmix.data.noise import add_noise
from scanmix.data.readers.cifar import read_cifar10, read_cifar100
from scanmix.data.readers.cifar_n import read_cifar10n, read_cifar100n
from scanmix.data.readers.clothing1m import read_clothing1m
from scanmix.data.readers.digits import read_digits
from scanmix.data.readers.fashion_mnist import read_fashion_mnist
from scanmix.data.readers.folder import read_folder
from scanmix.data.readers.images import resize_all
from scanmix.data.readers.matching import match
from scanmix.data.readers.open_set import add_open_set
from scanmix.data.readers.origin import check_origin
from scanmix.data.readers.pairs import Pair
from scanmix.data.readers.red_mini_imagenet import read_red_mini_imagenet
from scanmix.data.readers.table import read_table
from scanmix.data.readers.vectors import read_vectors
from scanmix.data.readers.votes import has_votes, read_votes
from scanmix.data.readers.webvision import read_ilsvrc12, read_webvision
from scanmix.data.sources import check_source, is_known, kind_of
from scanmix.files import check_regular

__all__ = ["KNOWN", "load", "match", "reload"]


class LoadOptions(NamedTuple):
    """Arguments of a reader of a known data set, as of `load`."""

    root: str | Path | None
    variant: str
    """The part after the colon: "50" of "webvision:50"."""
    size: int | None
    download: bool


MOST_PIXELS = 16_384
"""Largest side of an image in pixels that may be asked for."""
KNOWN: dict[str, Callable[[LoadOptions], Pair]] = {
    "digits": lambda options: read_digits(),
    "fashion-mnist": lambda options: read_fashion_mnist(options.root, options.download),
    "cifar10": lambda options: read_cifar10(options.root),
    "cifar100": lambda options: read_cifar100(options.root),
    "cifar10n": lambda options: read_cifar10n(options.root, options.variant),
    "cifar100n": lambda options: read_cifar100n(options.root, options.variant),
    "red-mini-imagenet": lambda options: read_red_mini_imagenet(options.root, options.variant, options.size),
    "clothing1m": lambda options: read_clothing1m(options.root, options.size),
    "webvision": lambda options: read_webvision(options.root, options.variant, options.size),
    "ilsvrc12": lambda options: read_ilsvrc12(options.root, options.variant, options.size),
}
"""Name -> reader, of the data sets of `sources.VARIANTS`."""


def load(
    source: str | Path,
    *,
    root: str | Path | None = None,
    size: int | None = None,
    per_class: int | None = None,
    seed: int = 0,
    limit_test: int | None = None,
    flip: bool | None = None,
    download: bool = False,
    labels: str | Path | None = None,
    least_classes: int = 2,
) -> Pair:
    """Load training and test examples; the second is None if a folder or table has no test images.

    Args:
        source: the name of a known data set (`KNOWN`), some with a variant after a colon ("webvision:50"); or a folder
            with a sub-folder per class; or a `.csv` or `.parquet` table; or a `.npy` of feature vectors. Write
            "./digits" for a folder of that name.
        root: the folder of a known data set, or the folder that the paths of a table are relative to.
        size: side of the square images in pixels; by default that of the data set, or one that suits the files.
        per_class: keep this many training images of each class, drawn with `seed`.
        seed: seed of that draw.
        limit_test: keep only this many test images, from the first on.
        flip: whether a mirrored image keeps its class; by default as known of the data set, else True.
        download: download Fashion-MNIST if it is not found on this machine.
        labels: file with the labels of the vectors in a `.npy`; by default the `.csv` of the same name.
        least_classes: least number of classes in a folder or a table; training needs two, measuring only one.

    Raises:
        UserError: there is no such data, it cannot be read, or an argument does not fit it.
    """
    source = source if isinstance(source, str) and is_known(source) else str(file_path("source", source))
    root = None if root is None else file_path("root", root)
    labels = None if labels is None else file_path("labels", labels)
    numbers = _numbers(size=size, per_class=per_class, limit_test=limit_test)
    size, per_class, limit_test = (numbers.get(name) for name in ("size", "per_class", "limit_test"))
    if flip is not None:
        check_type("flip", flip, bool, "True or False")
    train, test = _read(source, root, size, download, labels, least_classes)
    # Only arguments that were given: TOML cannot store None. Paths are absolute, because a run may be resumed from
    # another folder.
    recipe: dict[str, JSON] = {"source": source if is_known(source) else _absolute(source)}
    recipe |= {} if root is None else {"root": _absolute(root)}
    recipe |= {} if labels is None else {"labels": _absolute(labels)}
    recipe |= numbers | ({} if flip is None else {"flip": flip})
    recipe |= {} if per_class is None else {"seed": whole_number("seed", seed)}
    recipe |= {} if least_classes == 2 else {"least_classes": least_classes}
    if per_class is not None:
        train = train.per_class(per_class, seed)
    if test is not None and limit_test is not None:
        test = test.select(range(min(limit_test, len(test))))
    finished = _finish(train, recipe, "train", flip)
    return finished, None if test is None else _finish(test, recipe, "test", flip)


def _numbers(**given: object) -> dict[str, int]:
    """Return the numbers that are not None.

    Raises:
        UserError: one is not a whole number, or outside its bounds.
    """
    found = {name: whole_number(name, value) for name, value in given.items() if value is not None}
    if found.get("size", 8) < 8:
        raise UserError(f"size must be at least 8 pixels, not {found['size']}.")
    if found.get("size", 8) > MOST_PIXELS:
        raise UserError(f"size must be at most {MOST_PIXELS:,} pixels, not {found['size']}.")
    if found.get("limit_test", 1) < 1:
        raise UserError(f"limit_test must be at least 1, not {found['limit_test']}.")
    return found


def reload(source: Mapping[str, Any]) -> Examples:
    """Load the examples with this `Examples.source` again, and repeat all that was done with them, such as noise.

    Raises:
        UserError: `source` is empty or not such a record, or its data cannot be read any more.
    """
    if not source:
        raise UserError("these examples did not come from scanmix.load, so it cannot load them again.")
    check_origin(source, "what these examples were made of")
    recipe, split, steps = dict(source["load"]), source["split"], source.get("steps", [])
    gone = _gone(recipe)
    if gone is not None:
        raise UserError(
            f"{gone} is gone, and these examples were loaded from there; move it back, or put a link to it in its place"
        )
    pair = dict(zip(("train", "test"), load(**recipe), strict=True))
    examples = pair.get(split)
    if examples is None:
        raise UserError(f"{recipe.get('source')} has no {split!r} images any more.")
    for step in steps:
        examples = _apply(examples, step)
    return examples


def _gone(recipe: Mapping[str, Any]) -> str | None:
    """Return a file or folder that the examples were loaded from and that does not exist any more, if there is one."""
    source = recipe.get("source")
    places = [recipe.get("root"), recipe.get("labels"), None if is_known(str(source)) else source]
    return next((place for place in places if isinstance(place, str) and not Path(place).exists()), None)


def _apply(examples: Examples, step: Mapping[str, Any]) -> Examples:
    if "noise" in step:
        return add_noise(examples, **step["noise"])
    if "open_set" in step:
        noise = step["open_set"]
        return add_open_set(examples, reload(noise["foreign"]), noise["rate"], noise["seed"], step)
    if "corrections" in step:
        return apply_corrections(examples, **step["corrections"])
    if "per_class" in step:
        return examples.per_class(**step["per_class"])
    if "without_true_labels" in step:
        return examples.without_true_labels()
    return match(examples, **step["match"])


def _read(
    source: str | Path, root: str | Path | None, size: int | None, download: bool, labels: str | Path | None, least: int
) -> Pair:
    path = Path(source).expanduser()
    is_vectors = kind_of(source) == "vector"
    if labels is not None and not is_vectors:
        raise UserError(f"labels= is for vectors in a .npy file; {source} has labels of its own.")
    check_source(source)
    if is_known(source):
        return _read_known(source, LoadOptions(root, "", size, download))
    if path.is_dir():
        if root is not None:
            raise UserError(f"root= is for known data sets and tables; {source} is a folder and needs none.")
        return read_folder(path, size, least)
    check_regular(path)
    if is_vectors:
        if size is not None or root is not None:
            raise UserError(f"size= and root= are for images; {source} holds vectors.")
        return read_vectors(path, labels), None
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise UserError(f"{source} is neither a folder nor a .csv or .parquet table of path and label, nor a .npy.")
    return (read_votes if has_votes(path) else read_table)(path, root, size, least)


def _read_known(source: str, options: LoadOptions) -> Pair:
    name, _, variant = source.partition(":")
    train, test = KNOWN[name](options._replace(variant=variant))
    if options.size is None:
        return train, test
    return resize_all(train, options.size), None if test is None else resize_all(test, options.size)


def _absolute(path: str | Path) -> str:
    return str(Path(path).expanduser().absolute())


def _finish(examples: Examples, recipe: Mapping[str, JSON], split: str, flip: bool | None) -> Examples:
    keeps_class = examples.flip if flip is None else flip
    return dataclasses.replace(examples, flip=keeps_class, source={"load": recipe, "split": split})
