"""`scanmix demo`: two trainings on digits of which four fifths had their label drawn at random."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from scanmix.cli.options import Noise, Seed, Threads
from scanmix.cli.shell import say, watched
from scanmix.cli.summary import show_labels, show_results
from scanmix.config import Table, as_typed, percent

METHODS: Mapping[str, Table] = {"cross_entropy": {"epochs": 60}, "scanmix": {"recipe": "digits/fast/scanmix"}}
"""What is trained, and how it differs from `scanmix train digits`, to save time: half of the control's epochs, and
ScanMix's fast recipe."""
OUT = Path("runs/demo")


def demo(
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Each demo gets a new folder in this one.")] = OUT,
    threads: Threads = None,
    noise: Noise = "symmetric:0.8",
) -> None:
    """Learn digits from labels of which most are wrong.

    A plain classifier first, then ScanMix, on the same images and labels.
    """
    demonstrate(seed, out, threads, noise, {})


def demonstrate(seed: int, out: Path, threads: int | None, noise: str, settings: Mapping[str, Table]) -> None:
    """Run the demo; `settings` are overrides of the recipes, by method."""
    from scanmix.data.readers import load
    from scanmix.semantic_noise import apply_noise
    from scanmix.training.loop import train

    train_set, test_set = load("digits")
    noisy = apply_noise(train_set, noise, seed)
    right = train_set.labels
    folder = _new_folder(out)
    height, width = noisy.size
    say(f"{len(noisy)} handwritten digits, {height}x{width} pixels, {len(test_set or ())} more to test on.")
    if noisy.noise is not None:
        say(
            f"Noise {noise}: {percent(noisy.noise.actual_rate)} of the training labels are wrong now. "
            "No method is told which, or how many."
        )
    runs = []
    for method, short in METHODS.items():
        say(f"\nTraining {method} ...")
        run = train(
            noisy, test=test_set, method=method, seed=seed, out=folder / method, threads=threads,
            progress=watched(method), **{**short, **settings.get(method, {})},
        )  # fmt: skip
        say(f"{method}: {percent(run.last_accuracy)} of the test digits right.")
        runs.append(run)
    say("")
    show_results(f"Accuracy on {len(test_set or ())} test digits, labels {noise}, seed {seed}", runs)
    say("")
    names = noisy.class_names
    truth = {key: names[label] for key, label in zip(noisy.ids, right.tolist(), strict=True)}
    show_labels(folder / "scanmix", runs[-1].last_audit, truth)
    say("\nPre-training is kept and shared: a second demo finds it and is quicker.")
    say(f"The run is in {folder / 'scanmix'}. Next:")
    place = as_typed([str(folder / "scanmix")])
    for line, purpose in (
        (f"scanmix report {place}", "all of it as one page"),
        (f"scanmix review {place}", "look at the doubtful labels and decide"),
        (f"scanmix evaluate {place}", "class by class"),
        (f"scanmix predict {place} path/to/images", "classify your own pictures of digits"),
        ("scanmix train path/to/folder", "your images: one sub-folder for each class"),
    ):
        say(f"  {line:<{len(place) + 32}}  # {purpose}")


def _new_folder(out: Path) -> Path:
    """Make the first folder of out/1, out/2 ... that does not exist: no demo overwrites another."""
    for number in itertools.count(1):
        folder = out / str(number)
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            continue
    return folder
