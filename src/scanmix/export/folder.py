"""The exported folder: one way to write it for each kind of file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scanmix.config import UserError
from scanmix.export.card import made_with, model_card, onnx_use, safetensors_use
from scanmix.export.classifier import INPUTS, ONNX_FILE, OUTPUT
from scanmix.export.onnx_file import OPSET, Agreement, about, check_onnx, require_onnx, write_onnx
from scanmix.runs import open_run

MODEL_FILES = ("model.safetensors", "model.json")


def export_onnx(run_folder: Path, out: Path) -> Agreement:
    """Write `model.onnx`, `model.json` and `README.md` to a new folder, once the file is seen to do as the network.

    Raises:
        UserError: the run is unfinished, `out` is there already, a package is missing, or the check fails.
    """
    require_onnx()
    run = open_run(run_folder)
    model = run.model
    with _new_folder(out) as folder:
        write_onnx(model, folder / ONNX_FILE)
        agreement = check_onnx(run, folder / ONNX_FILE)
        description = {**about(model), "input": INPUTS[model.kind], "output": OUTPUT, "opset": OPSET}
        (folder / "model.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(
            model_card(run, made_with(run_folder), onnx_use(model, agreement)), encoding="utf-8"
        )
    return agreement


def export_safetensors(run_folder: Path, out: Path) -> None:
    """Copy the weights and their description to a new folder, with `README.md`.

    Raises:
        UserError: the run is unfinished or damaged, or `out` is there already.
    """
    run = open_run(run_folder)
    model = run.model
    with _new_folder(out) as folder:
        for name in MODEL_FILES:
            shutil.copyfile(run_folder / "model" / name, folder / name)
        (folder / "README.md").write_text(
            model_card(run, made_with(run_folder), safetensors_use(model)), encoding="utf-8"
        )


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Hand out a folder that becomes `out` when the block ends, and is gone if it fails."""
    if out.exists():
        raise UserError(f"{out} is there already; choose another --out")
    aside = out.absolute().with_name(f".{out.name}.{os.getpid()}")
    try:
        aside.mkdir(parents=True)
        yield aside
        aside.rename(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
