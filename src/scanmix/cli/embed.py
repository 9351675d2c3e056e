"""`scanmix embed`: pictures into features by a pretrained encoder, computed once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scanmix.cli.inputs import check_inputs, size_for
from scanmix.cli.options import Data, Device, PerClass, Root, Seed, Size
from scanmix.cli.shell import Written, check_writable, say, shape_of, show_skipped, stage_bars
from scanmix.config import UserError, as_typed
from scanmix.data.sources import kind_of

if TYPE_CHECKING:
    import numpy as np

    from scanmix.data.examples import Examples
    from scanmix.features import AnyEncoder


def _holds_features(path: Path) -> bool:
    """Whether a file is a `.npy` as this command writes it: half precision, of two dimensions."""
    import numpy as np

    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return False
    return bool(found.dtype == np.float16 and found.ndim == 2)


FEATURES = Written("a .npy of features", _holds_features)


def embed(
    data: Data,
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="timm:NAME (or timm:NAME@FILE), hf:NAME, onnx:FILE:mean=...:std=..., patches:256; several with +.",
        ),
    ],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="A .npy to copy the features to.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    per_class: PerClass = None,
    size: Size = None,
    root: Root = None,
) -> None:
    """Turn pictures into features by a pretrained encoder.

    They are kept in the cache: what was computed once is found again, and a command that was stopped goes on when it is
    given again. Needs one of the extras timm, hf and onnx.
    """
    if out is not None:
        if out.suffix != ".npy":
            raise UserError(f"{out} is no .npy; name the file as FILE.npy")
        check_writable(out, FEATURES, inputs=[data])
    check_inputs(data)
    from scanmix.data.readers import load

    if kind_of(data) == "vector":
        raise UserError(f"{data} holds vectors already; an encoder turns pictures into features")
    encoder = opened(model, device)
    size = size or size_for(data, root, encoder.side)
    examples, test = load(data, root=root, size=size, per_class=per_class, seed=seed, least_classes=1)
    apart = "" if test is None else f" Its test part ({len(test)}) is left out."
    say(f"{examples.name}: {len(examples)} images of {examples.num_classes} classes ({shape_of(examples)}).{apart}")
    show_skipped(examples.skipped)
    features = features_of(examples, encoder)
    if out is None:
        say(f"They lie in {getattr(features, 'filename', 'memory')}.")
        return
    _copy(features, out)
    say(f"Wrote {out}. Next: {as_typed(['scanmix', 'audit', data, '--features', str(out)])}")


def opened(model: str, device: str = "auto") -> AnyEncoder:
    """Open an encoder and say what it is: its hash, and the license of its weights where that is known."""
    from scanmix.features import open_encoder

    encoder = open_encoder(model, device=device)
    for part in encoder.parts:
        known = f", license {part.license}" if part.license else ""
        say(f"{part.name}: weights {str(part.digest)[:16]}{known}.")
    return encoder


def encoder_name(model: str) -> str:
    """Return a short name for folders: of `timm:resnet50` it is resnet50, of `onnx:models/net.onnx:std=1` net."""
    found = []
    for text in model.split("+"):
        place = text.partition(":")[2].partition(":")[0].partition("@")[0]
        found.append(Path(place).name.removesuffix(".onnx"))
    return "+".join(found)


def features_of(examples: Examples, encoder: AnyEncoder) -> np.ndarray:
    """Return the features of all examples; bars show the work, and a line says what it was. Shape: -> (N, D)."""
    from scanmix.features import embed

    done: list[tuple[int, float]] = []
    with stage_bars() as tick:

        def watch(stage: str, count: int, total: int, note: str) -> None:
            tick(stage, count, total, note)
            if stage.startswith("computing"):
                done.append((count, time.monotonic()))

        features = embed(examples, encoder, tick=watch)
    shape = f"Features: {features.shape[0]} x {features.shape[1]} in half precision"
    if not done:
        say(f"{shape}, found in the cache.")
        return features
    (begun, first), (count, last) = done[0], done[-1]
    before = f"{begun} pictures were there; " if begun else ""
    copies = f" ({len(examples) - count} copies of others were computed once)" if count < len(examples) else ""
    seconds = max(last - first, 1e-3)
    say(
        f"{shape}. {before}{count - begun} pictures took {seconds:.1f} seconds, "
        f"{(count - begun) / seconds:.1f} a second{copies}."
    )
    return features


def _copy(features: np.ndarray, out: Path) -> None:
    import numpy as np

    from scanmix.files import replacing, writing

    with replacing(out) as aside, writing(out), aside.open("wb") as file:
        np.save(file, features)
