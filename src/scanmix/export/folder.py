"""The exported folder: one way to write it for each kind of file."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scanmix.config import UserError
from scanmix.export.card import made_with, model_card, onnx_use, safetensors_use
from scanmix.export.classifier import INPUTS, ONNX_FILE, OUTPUT
from scanmix.export.onnx_file import OPSET, Agreement, about, check_onnx, require_onnx, write_onnx
from scanmix.files import aside_of, locked, remove_leftovers, write_text, writing
from scanmix.files.sums import write_sums
from scanmix.training import open_run

MODEL_FILES = ("model.safetensors", "model.json")


def export_onnx(run_folder: Path, out: Path) -> Agreement:
    """Write `model.onnx`, `model.json` and `README.md` to a new folder, once the file is seen to do as the network.

    Raises:
        UserError: the run is unfinished, `out` is there already, a package is missing, or the check fails.
    """
    require_onnx()
    run = open_run(run_folder)
    model = run.model
    with locked(run_folder, "being exported"), _new_folder(out) as folder:
        write_onnx(model, folder / ONNX_FILE)
        agreement = check_onnx(run, folder / ONNX_FILE)
        description = {**about(model), "input": INPUTS[model.kind], "output": OUTPUT, "opset": OPSET}
        write_text(folder / "model.json", json.dumps(description, indent=2) + "\n")
        write_text(folder / "README.md", model_card(run, made_with(run_folder), onnx_use(model, agreement)))
    return agreement


def export_safetensors(run_folder: Path, out: Path) -> None:
    """Copy the weights and their description to a new folder, with `README.md`.

    Raises:
        UserError: the run is unfinished or damaged, or `out` is there already.
    """
    run = open_run(run_folder)
    model = run.model
    with locked(run_folder, "being exported"), _new_folder(out) as folder:
        for name in MODEL_FILES:
            shutil.copyfile(run_folder / "model" / name, folder / name)
        write_text(folder / "README.md", model_card(run, made_with(run_folder), safetensors_use(model)))


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Hand out a folder that becomes `out` when the block ends, and is gone if it fails.

    The hashes of its files are written last, as `sha256sum -c SHA256SUMS` reads them.
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
