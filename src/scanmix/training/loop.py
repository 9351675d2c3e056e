"""The one loop: every method starts, runs its epochs, is measured and saved here, and nowhere else.

A run that is killed at any moment goes on from its last whole epoch and ends with the same bits (on a CPU, with the
same number of threads). Legend: N examples, P peers.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from scanmix.audit import collect, save_evidence
from scanmix.config import UserError, build, check_type, file_path
from scanmix.data.batches import CountedImages, TrainingData
from scanmix.data.examples import Examples
from scanmix.data.store import default_cache, on_device
from scanmix.data.views import make_views
from scanmix.distributed.engine import BatchNorm, Engine, Parallel, Precision, find_device
from scanmix.distributed.process_group import (
    Processes,
    RankInfo,
    choose_processes,
    is_first,
    launched,
    limited_threads,
    products_in,
)
from scanmix.features import AnyEncoder, record_of
from scanmix.model import save_model
from scanmix.networks.passes import Passes
from scanmix.progress import Bar, watched_stages
from scanmix.training import (
    Run,
    RunSettings,
    describe,
    open_or_create,
    open_run,
    resolve,
    source_of,
    writer,
)  # fmt: skip
from scanmix.training.consensus import with_consensus
from scanmix.training.epochs import run_epochs
from scanmix.training.finetune import opened_for, resolve_finetuned, suited_to
from scanmix.training.frozen import AnySource, as_given, embedded, learned_from, opened, reopened_for
from scanmix.training.inputs import (
    WANTED,
    Inputs,
    check_data,
    check_length,
    check_trusted,
    reload_data,
    trusted_fingerprint,
    trusted_labels,
)
from scanmix.training.launch import launch
from scanmix.training.loggers import Logger, catch_up, check_loggers, logged
from scanmix.training.stops import explained, lost


def train(
    examples: Examples, *, test: Examples | None = None, method: str | None = None, seed: int = 0,
    out: str | Path | None = None, recipe: str | None = None, features: AnySource | None = None,
    finetune: AnySource | None = None, device: str = "auto", threads: int | None = None,
    cache: str | Path | None = None, progress: bool | Bar = True,
    loggers: Sequence[str | Logger] = (), devices: int | None = None, nodes: int | None = None,
    precision: Precision = "32-true", batch_norm: BatchNorm = "synchronized", parallel: Parallel = "rows",
    compiled: bool = False, **overrides: Any,
) -> Run:  # fmt: skip
    """Train a method on examples whose labels may be wrong.

    Args:
        examples: images with given labels; their true labels, where known, are only measured against. Labels that a
            person has decided, or that came as trusted ones, are taken for right, unless `labels.trust_decided` is off.
        test: images with right labels; accuracy is measured on them after every epoch.
        method: a name in `METHODS`; else the recipe's, else "scanmix" (features: "propagate", finetune: cross-entropy).
        seed: decides every draw of the training.
        out: folder of the run. One that holds the same run goes on where it stopped. None keeps nothing.
        recipe: name or path; when not given, the one shipped for this data and method, if there is one.
        features: a pretrained encoder, as `open_encoder` takes it. The method learns from its features of the images,
            by the recipes for vectors.
        finetune: a pretrained network of timm, "timm:NAME" or "timm:NAME@FILE", that the method's networks begin with,
            by the recipes in `finetune`.
        device: "auto", "cpu", "cuda" ...
        threads: of PyTorch while training; its own choice when not given.
        cache: folder of self-supervised results and features; `SCANMIX_CACHE` or ~/.cache/scanmix when not given.
        progress: whether to show bars if there is a terminal; or the bar to report to.
        loggers: what the numbers of each epoch are sent to: "tensorboard", "mlflow", "wandb", or objects with the
            methods of Lightning Fabric's `Logger`. They change nothing; one that fails is left out with a warning.
        devices: processes on each machine, one for each device. By default as many as torchrun or SLURM has launched,
            else one.
        nodes: number of machines. By default as torchrun or SLURM says, else one.
        precision: "32-true"; "bf16-mixed": encoders compute in bfloat16; or "tf32": a GPU multiplies in TF32.
        batch_norm: statistics of the whole batch ("synchronized") or of each process's rows ("split").
        parallel: processes share the rows of each batch ("rows"), or two processes have a network each ("peers").
        compiled: compile encoders by `torch.compile`, which takes minutes and a compiler of C++, and may pay on a GPU.
        overrides: fields of the method; sections `network={...}`, `views={...}`, `labels`, `draw` and `monitor`.

    Raises:
        UserError: settings, data and folder do not fit together, or a loss became NaN or infinite.
    """
    check_type("examples", examples, Examples, WANTED)
    shared = {"precision": precision, "batch_norm": batch_norm, "parallel": parallel, "compiled": compiled}
    processes = build(Processes, shared, where="scanmix.train")
    encoder = opened(features, examples, out, device)
    if finetune is not None:
        _check_finetuned(examples, features)
        settings = resolve_finetuned(
            opened_for(finetune, device), method, recipe, overrides, seed=seed, device=device, threads=threads,
            processes=processes,
        )  # fmt: skip
    else:
        settings = resolve(
            method, examples.name, recipe, overrides, kind=examples.kind, features=encoder is not None, seed=seed,
            device=device, threads=threads, processes=processes,
        )  # fmt: skip
    return train_resolved(
        settings, examples, test=test, out=out, encoder=encoder, cache=cache, progress=progress, loggers=loggers,
        devices=devices, nodes=nodes,
    )  # fmt: skip


def _check_finetuned(examples: Examples, features: AnySource | None) -> None:
    """Refuse to train a network of pictures on vectors, or one beside features."""
    if features is not None:
        raise UserError("features= learns from a network as it is, and finetune= trains it: give one of them")
    if examples.kind == "vector":
        raise UserError(f"{examples.name!r} holds vectors; finetune= trains a network that reads pictures")


def train_resolved(
    settings: RunSettings, examples: Examples, *, test: Examples | None = None, out: str | Path | None = None,
    encoder: AnyEncoder | None = None, cache: str | Path | None = None, progress: bool | Bar = True,
    loggers: Sequence[str | Logger] = (), devices: int | None = None, nodes: int | None = None,
) -> Run:  # fmt: skip
    """Train as `train` does, with settings that are resolved already: the command line needs them before the data.

    Args:
        settings: as `resolve` returns them for data of this name and kind; for features those of vectors.
        examples: as for `train`, and so are all others.
        test: images with right labels.
        out: folder of the run.
        encoder: an open one, whose features are learned from.
        cache: folder of self-supervised results.
        progress: whether to show bars, or the bar to report to.
        loggers: names of loggers, or loggers.
        devices: processes on each machine.
        nodes: machines.

    Raises:
        UserError: as `train`.
    """
    out = None if out is None else file_path("out", out)
    cache = None if cache is None else file_path("cache", cache).expanduser()
    check_loggers(loggers, out)
    check_data(examples, test)
    find_device(settings.device)
    settings.network.check()
    examples = with_consensus(examples)
    settings = dataclasses.replace(
        suited_to(settings, examples),
        source=source_of(examples, test),
        fingerprint=examples.fingerprint(),
        trusted_fingerprint=trusted_fingerprint(examples) if settings.labels.trust_decided else None,
        test_fingerprint=test.fingerprint() if test else "",
        features=None if encoder is None else record_of(encoder),
        processes=choose_processes(devices, nodes, settings.processes),
    )
    check_trusted(settings, examples)
    check_length(settings, len(examples))
    folder = out if is_first(nodes) else None
    with writer(folder, "in training"):
        run = open_or_create(settings, examples, folder)
        return _start(run, Inputs(examples, test, cache, encoder), progress, loggers)


def resume(
    folder: str | Path, *, features: AnySource | None = None, cache: str | Path | None = None,
    progress: bool | Bar = True, loggers: Sequence[str | Logger] = (), devices: int | None = None,
    nodes: int | None = None, threads: int | None = None,
) -> Run:  # fmt: skip
    """Go on with a run where it stopped; a finished one is returned as it is.

    Args:
        folder: of the run.
        features: its pretrained encoder where that is a function, or a file that has been moved.
        cache: as for `train`, as are the next two.
        progress: whether to show bars, or the bar to report to.
        loggers: named ones are also sent the epochs they lack, of a finished run too.
        devices: processes on each machine, by default as many as before; any number may go on.
        nodes: machines, by default as many as before.
        threads: of PyTorch, by default as many as before. Sums of other numbers may differ in their last bits.

    Raises:
        UserError: no such run or logger, its data cannot be loaded again as it was, or its encoder is another.
    """
    folder = file_path("the run folder", folder)
    cache = None if cache is None else file_path("cache", cache).expanduser()
    check_loggers(loggers, folder)
    run = open_run(folder)
    if run.finished:
        catch_up(run, loggers)
        return run
    before = run.settings.processes
    if launched() is None:
        devices = before.devices if devices is None else devices
        nodes = before.nodes if nodes is None else nodes
    processes = choose_processes(devices, nodes, before)
    first = is_first(processes.nodes)
    with writer(folder if first else None, "in training"):
        run = open_run(folder)  # another process may have gone on with it in between
        run.settings = dataclasses.replace(
            run.settings, processes=processes, threads=run.settings.threads if threads is None else threads
        )
        examples, test = reload_data(run, folder)
        encoder = reopened_for(run, features) if first else None
        mine = run if first else Run(run.settings, run.about, [])
        return _start(mine, Inputs(examples, test, cache, encoder), progress, loggers)


def run_worker(
    settings: RunSettings, examples: Examples, test: Examples | None, group: AbstractContextManager[RankInfo]
) -> None:
    """Run in one of the other processes of a training: compute, and leave files and messages to the first.

    `group` is the process group that this process joins; `test` is None where there is no test data.
    """
    _finish(Run(settings, describe(examples), []), Inputs(examples, test), group)


def _start(run: Run, inputs: Inputs, progress: bool | Bar, loggers: Sequence[str | Logger]) -> Run:
    """Finish a run with the processes it asks for."""
    if run.finished and launched() is None and run.settings.processes.nodes == 1:
        catch_up(run, loggers)
        return run  # not if others were launched: they wait for this news, which `_finish` sends
    explain = functools.partial(lost, run)
    first = is_first(run.settings.processes.nodes)
    inputs = inputs if first else dataclasses.replace(inputs, encoder=None)
    group = launch(run.settings, inputs.examples, inputs.test, explain)
    return _finish(run, inputs, group, progress if first else False, loggers if first else ())


def _finish(
    run: Run, inputs: Inputs, group: AbstractContextManager[RankInfo], progress: bool | Bar = False,
    loggers: Sequence[str | Logger] = (),
) -> Run:  # fmt: skip
    """Run the epochs that are missing and write the model."""
    method, settings, examples = run.settings.build_method(), run.settings, inputs.examples
    guess = method.passes(len(examples), 0.5).get("training", Passes())
    images = max(guess.weak + guess.strong, len(examples) * method.epochs) / method.epochs
    with (
        limited_threads(settings.threads, settings.processes),
        products_in(settings.processes.precision),
        explained(run),
        watched_stages(settings.method, method.epochs, progress, images) as watched,
    ):
        rows = embedded(run, inputs, watched.stages)  # before the processes meet, who would wait for it
        with group as (rank, world, device):
            engine = Engine(
                seed=settings.seed,
                device=device,
                rank=rank,
                world=world,
                parallel=settings.processes.parallel,
                precision=settings.processes.precision,
                compiled=settings.processes.compiled,
                batch_norm=settings.processes.batch_norm,
                cache=None if rank > 0 else inputs.cache or default_cache(),
                tick=watched.stages,
            )
            if bool(engine.broadcast(torch.tensor(run.finished, device=device))):
                catch_up(run, loggers)
                return run
            if engine.broadcast_bytes(settings.config_hash().encode) != settings.config_hash().encode():
                raise UserError(f"process {rank} has other settings or other data than process 0; give all the same")
            learned = learned_from(run, inputs, rows, engine)
            data = _training_data(learned.examples, settings, engine, watched.images)
            with logged(run, loggers) as log:
                model, outputs = run_epochs(run, method, engine, data, learned, watched.epochs, log)
        encoded = None if rows is None else rows.train
        found = None if run.folder is None else collect(outputs, examples, encoded, watched.stages)
    with explained(run):
        run.adopt(as_given(run, model, inputs), examples, encoded)
        if run.folder is not None and found is not None:
            # The audit reads back the evidence that is written here, though it is in memory: so labels.csv is, to the
            # last digit, what `scanmix audit` makes of the folder on any later day.
            save_evidence(run.folder, found)
            run.write_labels(run.folder)
            save_model(run.model, run.folder)
    return run


def _training_data(
    examples: Examples, settings: RunSettings, engine: Engine, read: Callable[[int], None]
) -> TrainingData:
    """Return the training examples on the device, as methods see them; `read` is told how many a batch has."""
    trusted = trusted_labels(examples, settings)
    return TrainingData(
        images=CountedImages(on_device(examples.images, engine.device), read),
        labels=examples.labels.to(engine.device),
        num_classes=examples.num_classes,
        views=make_views(settings.views, examples.images, flip=examples.flip, device=engine.device),
        generator=engine.generator,
        trusted=None if trusted is None else trusted.to(engine.device),
    )
