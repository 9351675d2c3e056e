"""Options that several commands take, in one place so that they mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="digits, fashion-mnist, cifar10, cifar100, cifar10n:worse, cifar100n:fine, red-mini-imagenet:0.4, "
        "clothing1m or webvision:50; a folder with one sub-folder per class; "
        "a .csv or .parquet table with the columns path and label; or a .npy of feature vectors.",
    ),
]
MethodName = Annotated[
    str | None,
    typer.Option(help="See `scanmix methods`; by default the recipe's, else scanmix, with --features propagate."),
]
TestData = Annotated[
    str | None, typer.Option(help="Labeled test images, where DATA has none of its own: folder or table.")
]
Recipe = Annotated[
    str | None, typer.Option(help="Name (digits/any/scanmix) or .toml file; by default the one for DATA.")
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of every draw: the noise, --per-class, training.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; by default what PyTorch takes.")]
Devices = Annotated[
    int | None,
    typer.Option(min=1, help="Processes on each machine, one a device; by default one, or those torchrun started."),
]
PrecisionName = Annotated[
    Literal["32-true", "tf32", "bf16-mixed"],
    typer.Option(help="bf16-mixed: encoders compute in bfloat16; tf32: a GPU multiplies in TF32."),
]
Compiled = Annotated[bool, typer.Option("--compile", help="Compile encoders by torch.compile: minutes first.")]
BatchNormName = Annotated[
    Literal["synchronized", "split"], typer.Option(help="Statistics of the whole batch, or of each process's rows.")
]
ParallelName = Annotated[
    Literal["rows", "peers"], typer.Option(help="What processes share: rows of each batch, or the two networks.")
]
Nodes = Annotated[int | None, typer.Option(min=1, help="Machines; see docs/scaling.md.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")]
Noise = Annotated[
    str,
    typer.Option(
        help="Noise to add: symmetric:0.8, symmetric-exclusive:0.5, asymmetric:0.4, instance:0.4, "
        "openset:fashion-mnist:0.4, semantic:resnet:0.35 or file:PATH."
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(help="Where a known data set lies, or what the paths of a table, of --test, too, are relative to."),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Corrected labels, such as `scanmix review` writes. Of a .npy: its labels, a table with a column "
        "label, or .npy; by default the .csv beside it.",
    ),
]
Features = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="Learn from features of a pretrained encoder, named as for `scanmix embed`."),
]
Finetune = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL", help="Begin with a pretrained network of timm and train it on: timm:NAME or timm:NAME@FILE."
    ),
]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="File to write all of it to, for a script.")]
Encoder = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="Of a run on features: where its encoder is now, named as for `scanmix embed`."),
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
