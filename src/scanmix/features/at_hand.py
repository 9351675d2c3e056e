"""Pretrained encoders whose weights lie on this machine already: found by the names of files, without opening any."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SUGGESTED = "timm:vit_base_patch32_clip_224.openai"
"""For whoever has none: it has seen 400 million pictures with their captions, and cuts a picture into 49 patches only,
so that a processor does in minutes what takes most others an hour. 350 MB, Apache-2.0."""
FAMILIES = (("dinov3", "dinov2"), ("clip",))
"""Words in the names of the encoders that tell natural pictures apart best, the best first; all others come after."""
WEIGHTS = "model.safetensors"


class AtHand(NamedTuple):
    """An encoder whose weights are here."""

    name: str
    """As `open_encoder` takes it: `timm:resnet50.a1_in1k`. The library that opens it may ask the hub for news."""
    place: str
    """The same by its files, which opens without a network."""
    bytes: int
    """Of the weights."""


def at_hand() -> list[AtHand]:
    """Return the encoders in the local cache of the Hugging Face hub that can be opened here, the best first.

    Of one family the smallest comes first. Those whose library (timm or transformers) is missing are left out.
    """
    found = [encoder for folder in sorted(_hub().glob("models--*--*")) for encoder in _in_repository(folder)]
    return sorted(found, key=lambda encoder: (_family(encoder.name), encoder.bytes))


def _family(name: str) -> int:
    ranks = [rank for rank, words in enumerate(FAMILIES) if any(word in name.lower() for word in words)]
    return min(ranks, default=len(FAMILIES))


def _hub() -> Path:
    """Return the folder of the hub's cache, as its library looks for it."""
    if found := os.environ.get("HF_HUB_CACHE"):
        return Path(found).expanduser()
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(os.environ.get("HF_HOME") or caches / "huggingface").expanduser() / "hub"


def _in_repository(folder: Path) -> Iterator[AtHand]:
    """Yield the encoder of a repository's folder, `models--OWNER--NAME`, if it is one of pictures."""
    _, owner, name = folder.name.split("--", 2)
    library = "timm" if owner == "timm" else "transformers"
    if importlib.util.find_spec(library) is None:
        return
    for snapshot in _snapshots(folder):
        weights = snapshot / WEIGHTS
        if not weights.is_file():
            continue
        if owner == "timm":
            yield AtHand(f"timm:{name}", f"timm:{name}@{weights}", weights.stat().st_size)
            return
        if _is_of_pictures(snapshot):
            yield AtHand(f"hf:{owner}/{name}", f"hf:{snapshot}", weights.stat().st_size)
            return


def _snapshots(folder: Path) -> list[Path]:
    """Return the versions of a repository that are here, that of its main branch first."""
    try:
        main = (folder / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        main = ""
    return sorted((folder / "snapshots").glob("*"), key=lambda path: path.name != main)


def _is_of_pictures(snapshot: Path) -> bool:
    """Whether a folder says how its model wants its pictures."""
    try:
        processor = json.loads((snapshot / "preprocessor_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(processor, dict) and "image_mean" in processor and (snapshot / "config.json").is_file()
