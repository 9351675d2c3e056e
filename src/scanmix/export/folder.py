"""Writing of the exported folder, as ONNX or as safetensors."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scanmix.config import UserError
from scanmix.export.card import apart_use, made_with, model_card, onnx_use, safetensors_use
from scanmix.export.classifier import ENCODER_FILE, INPUTS, ONNX_FILE, OUTPUT
from scanmix.export.encoded import save_front
from scanmix.export.merged import write_merged
from scanmix.export.onnx_file import Agreement, about, check_onnx, opset_of, require_onnx, write_onnx
from scanmix.files import aside_of, locked, remove_leftovers, write_text, writing
from scanmix.files.sums import write_sums
from scanmix.model import load_model
from scanmix.training import open_run

MODEL_FILES = ("model.safetensors", "model.json")


def export_onnx(run_folder: Path, out: Path, encoder: str | None = None) -> Agreement:
    """Write `model.onnx`, `model.json` and `README.md` to a new folder, after comparing the file with the network.

    Of a run on pretrained features the encoder is in the file where it allows it; else the file is the head alone, and
    `encoder.json` says whose features it takes. `encoder` says where that is now, if it has been moved.

    Raises:
        UserError: the run is unfinished, `out` exists, a package is missing, or file and network disagree.
    """
    require_onnx()
    run = open_run(run_folder)
    model = run.model if encoder is None else load_model(run_folder, encoder=encoder)
    with locked(run_folder, "being exported"), _new_folder(out) as folder:
        path, apart = folder / ONNX_FILE, ""
        if model.encoder is not None:
            apart = write_merged(model, path)
        if apart or model.encoder is None:
            write_onnx(model.head, path)
        if apart:
            save_front(model, folder / ENCODER_FILE)
        agreement, inside = check_onnx(run, model, path), model.head if apart else model
        description = {**about(inside), "input": INPUTS[inside.kind], "output": OUTPUT, "opset": opset_of(path)}
        write_text(folder / "model.json", json.dumps(description, indent=2) + "\n")
        use = onnx_use(inside, agreement) + (f"\n\n{apart_use(model, apart)}" if apart else "")
        write_text(folder / "README.md", model_card(run, made_with(run_folder), use))
    return agreement


def export_safetensors(run_folder: Path, out: Path) -> None:
    """Write `model.safetensors`, `model.json` and `README.md` to a new folder.

    Raises:
        UserError: the run is unfinished or damaged, or `out` exists.
    """
    run = open_run(run_folder)
    model = run.model
    with locked(run_folder, "being exported"), _new_folder(out) as folder:
        for name in MODEL_FILES:
            shutil.copyfile(run_folder / "model" / name, folder / name)
        write_text(folder / "README.md", model_card(run, made_with(run_folder), safetensors_use(model)))


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `out` when the block ends, and is removed if the block fails.

    Hashes of its files are written last, in the format of `sha256sum -c SHA256SUMS`.

    Raises:
        UserError: `out` exists.
    """
    if out.exists():
        raise UserError(f"{out} is there already; choose another --out")
    aside = aside_of(out.absolute())
    with writing(out):
        try:
            remove_leftovers(aside.parent, [re.escape(out.name)])
            aside.mkdir(parents=True)
            yield aside
            write_sums(aside)
            aside.rename(out)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
