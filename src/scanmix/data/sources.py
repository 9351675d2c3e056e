"""What DATA names: a known data set, a folder, a table or a file of vectors. Judged without reading it."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from scanmix.config import UserError

if TYPE_CHECKING:
    from scanmix.data.examples import Kind

VARIANTS = {
    "digits": "", "fashion-mnist": "", "cifar10": "", "cifar100": "", "cifar10n": "worse", "cifar100n": "fine",
    "red-mini-imagenet": "0.4", "clothing1m": "", "webvision": "50", "ilsvrc12": "50",
}  # fmt: skip
"""Name of a known data set -> example of a variant, or "" if it has none. `readers.KNOWN` says how each is read; the
names stand here, as the readers need PyTorch, for which a mistyped name should not wait."""

FILES = (".csv", ".parquet", ".npy")
"""Endings of data that are one file: tables of images, and vectors."""


def is_known(source: str | Path) -> TypeGuard[str]:
    """Whether a source names a known data set, with any variant or none."""
    return isinstance(source, str) and source.partition(":")[0] in VARIANTS


def kind_of(source: str | Path) -> Kind:
    """Return what a source holds, images or vectors, judged by its name alone."""
    return "vector" if not is_known(source) and Path(source).suffix.lower() == ".npy" else "image"


def name_of(source: str | Path) -> str:
    """Return `Examples.name` of what `load` will read, known before it is read: recipes are looked up by it."""
    if is_known(source):
        return source.partition(":")[0]
    path = Path(source).expanduser().absolute()
    return path.stem if path.is_file() else path.name


def check_source(source: str | Path) -> None:
    """Refuse a source that is not there.

    Raises:
        UserError: it names neither a known data set, in a form that it comes in, nor a file or folder.
    """
    if is_known(source):
        name, _, variant = source.partition(":")
        if bool(variant) != bool(example := VARIANTS[name]):
            known = f"name one after a colon, such as {name}:{example}" if example else f"there is but {name!r}"
            raise UserError(f"{source!r}: {name} comes in {'several variants' if example else 'one form'}; {known}")
    elif not Path(source).expanduser().exists():
        if Path(source).suffix.lower() in FILES:
            raise UserError(f"{source}: no such file")
        near = difflib.get_close_matches(str(source).lower().replace("_", "-"), VARIANTS, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(f"no folder, table or known data set {str(source)!r}; known: {', '.join(VARIANTS)}.{hint}")
