"""WebVision 1.0 (Li et al. 2017), and ILSVRC12's validation images of the same classes.

`webvision:50`, known as mini-WebVision, has the first 50 classes of the images from Google.
"""

from __future__ import annotations

from pathlib import Path

from scanmix.config import UserError
from scanmix.data.decoding import find_images
from scanmix.data.readers.listed import is_label, read_list, read_names, require, top_folder, warn_unless
from scanmix.data.readers.pairs import Entry, Pair, to_examples

HOW = (
    "Get the resized images of WebVision 1.0 (https://data.vision.ee.ethz.ch/cvl/webvision) and unpack google/, "
    "flickr/ and val_images_256/ beside info/."
)
ALL, SIDE, OF_50 = 1000, 256, 2500
ILSVRC_LIST = "ILSVRC2012_validation_to_webvision_labels_ground_truth.txt"
ILSVRC_HOW = (
    "Get ILSVRC12's validation images from https://image-net.org: a folder for each synset with WebVision's "
    f"info/synsets.txt, folders 0, 1, ..., or all in one folder with a list of files and labels or {ILSVRC_LIST}."
)


def read_webvision(root: str | Path | None, variant: str, size: int | None = None) -> Pair:
    """Read the first classes: `50`, `1000`, or `50+flickr` with the images from Flickr too; 256x256 by default.

    The test set is the validation set of WebVision. Shape: images (N, 3, size, size) uint8.

    Raises:
        UserError: the variant is something else, a file is missing, or a line of a list is wrong.
    """
    count, flickr = _parse(variant)
    top = top_folder("webvision", root, HOW)
    lists = ["info/train_filelist_google.txt", *(["info/train_filelist_flickr.txt"] if flickr else [])]
    require("webvision", top, [*lists, "info/val_filelist.txt", "val_images_256"], HOW)
    train = [
        Entry(name, top / name, label)
        for path in lists
        for name, label in read_list(top / path, ALL) if label < count
    ]  # fmt: skip
    test = [
        Entry(f"val/{name}", top / "val_images_256" / name, label, label)
        for name, label in read_list(top / "info/val_filelist.txt", ALL) if label < count
    ]  # fmt: skip
    if count == 50:
        warn_unless("test images of 50 classes in info/val_filelist.txt", len(test), OF_50)
    return to_examples("webvision", class_names(top / "info", count), train, test, size or SIDE, channels=3)


def read_ilsvrc12(root: str | Path | None, variant: str, size: int | None = None) -> Pair:
    """Read ILSVRC12's validation images of WebVision's first classes (`50`), used as another test set.

    Three layouts are read: a folder for each synset (with synsets.txt); folders named by WebVision's labels; or one
    folder of all files with `imagenet_val.txt` (file and label) or a list of labels in the order of the files.
    Shape: images (N, 3, size, size) uint8.

    Raises:
        UserError: the folder has none of these layouts.
    """
    count, _ = _parse(variant)
    top = top_folder("ilsvrc12", root, ILSVRC_HOW)
    images = next((top / name for name in ("val", "imagenet/val", "ILSVRC2012_img_val") if (top / name).is_dir()), top)
    info = next((folder for folder in (top, top / "info", images) if (folder / "synsets.txt").is_file()), None)
    names = class_names(info, count) if info else tuple(str(label) for label in range(count))
    entries = _by_folder(images, info, count) or _by_list(top, images, count)
    if not entries:
        raise UserError(f"ilsvrc12: {top} holds none of the known layouts. {ILSVRC_HOW}")
    if count == 50:
        warn_unless("ILSVRC12 images of 50 classes", len(entries), OF_50)
    return to_examples("ilsvrc12", names, entries, (), size or SIDE, channels=3)


def class_names(info: Path, count: int) -> tuple[str, ...]:
    """Return synset and words of the first `count` labels from synsets.txt; their numbers if that does not fit."""
    path = info / "synsets.txt"
    lines = read_names(path)[:count] if path.is_file() else []
    whole = len(lines) == count and len(set(lines)) == count
    return tuple(lines) if whole else tuple(str(label) for label in range(count))


def _parse(variant: str) -> tuple[int, bool]:
    number, plus, other = variant.partition("+")
    if not is_label(number) or not 2 <= int(number) <= ALL or (plus and other != "flickr"):
        raise UserError(f"webvision:{variant}: say how many classes, 2 to {ALL}: webvision:50 or webvision:50+flickr")
    return int(number), bool(plus)


def _by_folder(images: Path, info: Path | None, count: int) -> list[Entry]:
    """Read folders named by label, or by synset; the label of a synset is its line in synsets.txt."""
    synsets = [line.split()[0] for line in read_names(info / "synsets.txt")] if info else []
    names = [str(label) for label in range(count)], synsets[:count]
    folders = next((found for found in names if found and (images / found[0]).is_dir()), [])
    return [
        Entry(f"val/{folder}/{path.name}", path, label, label)
        for label, folder in enumerate(folders)
        for path in find_images(images / folder)
    ]


def _by_list(top: Path, images: Path, count: int) -> list[Entry]:
    """Read a list of files and labels; or a list of labels alone, one for each file in the order of their names."""
    if listed := _find("imagenet_val.txt", top, images):
        pairs = [(images / Path(name).name, label) for name, label in read_list(listed, ALL)]
    elif ground := _find(ILSVRC_LIST, top, images):
        labels, files = read_names(ground), find_images(images)
        if len(labels) != len(files):
            raise UserError(f"{ground} has {len(labels)} labels, but {images} has {len(files)} images")
        pairs = [(path, _number(label, ground)) for path, label in zip(files, labels, strict=True)]
    else:
        return []
    return [Entry(f"val/{path.name}", path, label, label) for path, label in pairs if label < count]


def _find(name: str, top: Path, images: Path) -> Path | None:
    return next((place / name for place in (top, top / "info", images) if (place / name).is_file()), None)


def _number(text: str, path: Path) -> int:
    if not is_label(text):
        raise UserError(f"{path}: a label a line is expected, not {text!r}")
    return int(text)
