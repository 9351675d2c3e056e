"""Options that several commands take, in one place so that they mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="digits, fashion-mnist, cifar10 or cifar100; a folder with one sub-folder per class; "
        "a .csv or .parquet table with the columns path and label; or a .npy of feature vectors.",
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of every draw: the noise, --per-class, training.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; by default what PyTorch takes.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")]
Noise = Annotated[
    str, typer.Option(help="Noise to add: symmetric:0.8, symmetric-exclusive:0.5, asymmetric:0.4 or file:PATH.")
]
Root = Annotated[
    Path | None, typer.Option(help="Where a known data set lies, or what the paths of a table are relative to.")
]
Labels = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Corrected labels, such as `scanmix review` writes. Of a .npy: its labels, a table with a column "
        "label, or .npy; by default the .csv beside it.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting, such as pretrain.epochs=50; repeatable."),
]
Size = Annotated[int | None, typer.Option(help="Side of the images in pixels; by default what suits them.")]
PerClass = Annotated[int | None, typer.Option(help="Keep so many training images of each class.")]
LimitTest = Annotated[int | None, typer.Option(help="Keep the first so many test images.")]
Loggers = Annotated[
    list[str] | None,
    typer.Option(
        "--logger", metavar="NAME", help="Send each epoch's numbers to tensorboard, mlflow or wandb too; repeatable."
    ),
]
