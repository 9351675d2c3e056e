"""`scanmix train` and `scanmix resume`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scanmix.cli.embed import encoder_name
from scanmix.cli.inputs import check_inputs, is_table, name_parts, plain_name, relabeled, size_for
from scanmix.cli.options import (
    BatchNormName,
    Compiled,
    Data,
    Device,
    Devices,
    Encoder,
    Features,
    Finetune,
    Labels,
    LimitTest,
    Loggers,
    MethodName,
    Nodes,
    Noise,
    ParallelName,
    PerClass,
    PrecisionName,
    Recipe,
    Root,
    RunFolder,
    Seed,
    Set,
    Size,
    TestData,
    Threads,
)
from scanmix.cli.pretrained import planned
from scanmix.cli.shell import check_run, say, settings_from, shape_of, show_skipped, watched
from scanmix.cli.summary import show_labels, show_results
from scanmix.config import UserError, as_typed, build
from scanmix.data.sources import is_known, kind_of

if TYPE_CHECKING:
    from scanmix.data.examples import Examples
    from scanmix.training import Run


def train(
    data: Data,
    method: MethodName = None,
    noise: Noise = "none",
    labels: Labels = None,
    test: TestData = None,
    recipe: Recipe = None,
    set_: Set = None,
    features: Features = None,
    finetune: Finetune = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Run folder; by default runs/DATA-NOISE-METHOD-SEED.")] = None,
    device: Device = "auto",
    threads: Threads = None,
    devices: Devices = None,
    nodes: Nodes = None,
    precision: PrecisionName = "32-true",
    compiled: Compiled = False,
    batch_norm: BatchNormName = "synchronized",
    parallel: ParallelName = "rows",
    per_class: PerClass = None,
    limit_test: LimitTest = None,
    size: Size = None,
    root: Root = None,
    loggers: Loggers = None,
) -> None:
    """Train on images whose labels may be wrong.

    The same line goes on with a run that was stopped.
    """
    overrides = settings_from(set_ or ())
    check_inputs(data, noise=noise, recipe=recipe, test=test, files=[labels])
    from scanmix.distributed.process_group import Processes, is_first
    from scanmix.training.loop import train_resolved

    _check_words(device, loggers or ())
    shared = {"precision": precision, "batch_norm": batch_norm, "parallel": parallel, "compiled": compiled}
    encoder, settings, side = planned(
        data, features, finetune, method, recipe, overrides, seed=seed, device=device, threads=threads,
        processes=build(Processes, shared, where="scanmix train"),
    )  # fmt: skip
    given, corrections = (labels, None) if kind_of(data) == "vector" else (None, labels)
    size = size if size is not None else size_for(data, root, side)
    examples, test_set = _load_both(
        data, test, root, limit_test, size=size, per_class=per_class, seed=seed, labels=given
    )
    examples = relabeled(examples, noise, seed, corrections)
    folder = out or Path("runs") / run_name(data, noise, settings.method, seed, corrections, features, finetune)
    finished = (folder / "model" / "model.json").is_file()
    if is_first(nodes):
        _show_data(examples, test_set, folder)
    run = train_resolved(
        settings, examples, test=test_set, out=folder, encoder=encoder, progress=watched(settings.method),
        loggers=loggers or (), devices=devices, nodes=nodes,
    )  # fmt: skip
    if finished:
        _show_finished(run, folder, examples)
    if is_first(nodes):
        _show_end(run, folder)


def resume(
    run: RunFolder, devices: Devices = None, nodes: Nodes = None, threads: Threads = None, loggers: Loggers = None,
    encoder: Encoder = None,
) -> None:  # fmt: skip
    """Go on with a run that was stopped.

    It ends as if it had not been: on a CPU, with the same weights, bit for bit. By default with as many processes
    and threads as before; any other number may go on, with sums that round differently.
    """
    check_run(run)
    from scanmix.distributed.process_group import is_first
    from scanmix.training import open_run
    from scanmix.training.loop import resume as go_on

    before = open_run(run)
    if before.finished:
        say(f"{run} is finished already.")
    ended = go_on(
        run, features=encoder, progress=watched(before.settings.method), devices=devices, nodes=nodes,
        threads=threads, loggers=loggers or (),
    )  # fmt: skip
    if is_first(ended.settings.processes.nodes):
        _show_end(ended, run)


def run_name(
    data: str, noise: str, method: str, seed: int, labels: Path | None = None, features: str | None = None,
    finetune: str | None = None,
) -> str:  # fmt: skip
    """Return the name of a run folder, such as `digits-symmetric-0.8-scanmix-0` or `photos-corrected-scanmix-0`.

    A run on features has the name of its encoder behind that of the data: `photos-resnet50.a1_in1k-ssr-0`; one that
    trains a pretrained network on, `photos-resnet50.a1_in1k-tuned-ssr-0`.
    """
    found = [] if features is None else [encoder_name(features)]
    found += [] if finetune is None else [encoder_name(finetune), "tuned"]
    return plain_name([*name_parts(data, noise, labels), *found, method, str(seed)])


def _check_words(device: str, loggers: Sequence[str]) -> None:
    """Refuse what is mistyped before a million images are read, and before anything is written."""
    from scanmix.distributed.engine import find_device
    from scanmix.training.loggers import check_loggers

    find_device(device)
    check_loggers(loggers, Path("runs"))


def _load_both(
    data: str, test: str | None, root: Path | None, limit_test: int | None, **loading: Any
) -> tuple[Examples, Examples | None]:
    """Load training data, and the test data that comes with it or is named apart; `loading`: arguments of `load`."""
    from scanmix.data.readers import load

    root_of_data, root_of_test = _roots(data, test, root)
    examples, test_set = load(data, root=root_of_data, limit_test=limit_test, **loading)
    if test is not None:
        test_set = _labeled_test(test, examples, limit_test, root_of_test)
    return examples, test_set


def _roots(data: str, test: str | None, root: Path | None) -> tuple[Path | None, Path | None]:
    """Return the root of DATA and that of the test data: --root is for both tables, else for the one that takes it."""
    if root is None or not is_table(test) or is_known(data):
        return root, None
    return root if is_table(data) else None, root


def _labeled_test(source: str, examples: Examples, limit: int | None, root: Path | None) -> Examples:
    """Load test images in the training images' classes, size and channels."""
    from scanmix.data.readers import load, match

    height, width = examples.size
    size = height if height == width and examples.kind == "image" else None
    first, second = load(source, root=root, size=size, limit_test=limit, least_classes=1)
    if second is None and limit is not None:
        raise UserError(f"--limit-test is for data with a test part of its own; {source} is taken whole")
    return match(second or first, examples.class_names, examples.size, examples.channels)


def _show_data(examples: Examples, test: Examples | None, folder: Path) -> None:
    what = f"{examples.kind}s"
    tested = f"no test {what}" if test is None else f"{len(test)} test {what}"
    say(
        f"{examples.name}: {len(examples)} {what} of {examples.num_classes} classes ({shape_of(examples)}), "
        f"{tested}. Run folder: {folder}"
    )
    if examples.votes is not None:
        say(f"{len(examples.annotators)} annotators; a label is the consensus of the votes on its {examples.kind}.")
    show_skipped(examples.skipped)


def _show_finished(run: Run, folder: Path, examples: Examples) -> None:
    say(f"{folder} was finished already, with these settings; to train anew, choose another --out.")
    if run.store_decisions(examples):
        say("What was decided since is kept with it, and counts in its list of labels.")


def _show_end(run: Run, folder: Path) -> None:
    show_results(f"{run.about['name']}, seed {run.settings.seed}", [run])
    show_labels(folder, run.last_audit)
    place = as_typed([str(folder)])
    vectors = run.settings.given == "vector"
    say(f"Run folder: {folder}. Next:")
    say(f"  for clean labels  scanmix {'report' if vectors else 'review'} {place}")
    say(f"  for a classifier  scanmix predict {place} {'new.npy' if vectors else 'path/to/images'}")
