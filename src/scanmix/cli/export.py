"""`scanmix export`: write a finished run as a folder that needs nothing else."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from scanmix.cli.options import Encoder, RunFolder
from scanmix.cli.shell import check_run, say
from scanmix.config import as_typed


class Format(StrEnum):
    """File format of the classifier."""

    onnx = "onnx"
    safetensors = "safetensors"


def export(
    run: RunFolder,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to make.")],
    format_: Annotated[
        Format, typer.Option("--format", help="onnx runs without PyTorch; safetensors is the network as it is.")
    ] = Format.onnx,
    encoder: Encoder = None,
) -> None:
    """Make a folder to give away: the classifier of a finished run and its model card.

    The ONNX file is compared with the network on what the run was trained on before anything is kept.
    """
    check_run(run)
    from scanmix.export.folder import export_onnx, export_safetensors
    from scanmix.training import open_run

    checked = ""
    if format_ is Format.onnx:
        agreement = export_onnx(run, out, encoder)
        checked = f"\nChecked on {agreement.inputs}: probabilities differ by {agreement.difference:.1e} at most."
    else:
        export_safetensors(run, out)
    new = "new.npy" if open_run(run).settings.given == "vector" else "new_images/"
    say(f"Wrote {out}: {', '.join(sorted(path.name for path in out.iterdir()))}.{checked}")
    say(f"Next: scanmix predict {as_typed([str(out)])} {new}")
