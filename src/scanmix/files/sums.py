"""`SHA256SUMS`: the hashes of the files of a folder, in the format of the tool `sha256sum`."""

from __future__ import annotations

import hashlib
from pathlib import Path

from scanmix.files.atomic import write_text
from scanmix.files.errors import reading

SUMS = "SHA256SUMS"


def write_sums(folder: Path) -> None:
    """Hash every file of a folder and write the hashes to `SHA256SUMS`.

    Raises:
        CannotWrite: as `write_text`.
    """
    paths = sorted(path for path in folder.iterdir() if path.name != SUMS)
    write_text(folder / SUMS, "".join(f"{_hash(path)}  {path.name}\n" for path in paths))


def check_sum(path: Path) -> None:
    """Compare a file with its hash in `SHA256SUMS` beside it; do nothing if there is none, as in earlier versions.

    Raises:
        UserError: the hash is another.
    """
    sums = path.with_name(SUMS)
    if not sums.is_file():
        return
    with reading(sums):
        known = {
            name: digest
            for digest, _, name in (line.partition("  ") for line in sums.read_text(encoding="utf-8").splitlines())
        }
    with reading(path, "copy the folder anew"):
        if path.name in known and known[path.name] != _hash(path):
            raise ValueError(f"its checksum is another than in {SUMS}")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
