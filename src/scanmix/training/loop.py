"""The one loop: every method starts, runs its epochs, is measured and saved here, and nowhere else.

Killed at any moment, a run goes on from its last whole epoch and ends with the same bits (CPU, same threads).
Legend: N examples, P peers.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scanmix.audit import collect, save_evidence
from scanmix.config import UserError, build, check_type, file_path, whole_number
from scanmix.data.batches import TrainingData
from scanmix.data.examples import Examples
from scanmix.data.readers import reload
from scanmix.data.store import default_cache, on_device
from scanmix.data.subset import draw_pool
from scanmix.data.views import make_views
from scanmix.distributed.engine import SINGLE_PROCESS, BatchNorm, Engine, Parallel, Precision, find_device
from scanmix.distributed.meter import Diverged
from scanmix.distributed.process_group import Processes, RankInfo, choose_processes, is_first, launched, limited_threads
from scanmix.methods import Method, State
from scanmix.model import Model, Outputs, save_model
from scanmix.model.dynamics import Snapshot, clean_set_metrics, is_due, save_snapshot, take_snapshot
from scanmix.networks.encoders import untrained
from scanmix.networks.peer import make_peer
from scanmix.progress import Bar, watched_stages
from scanmix.training import (
    EpochMetrics,
    Run,
    RunSettings,
    describe,
    open_or_create,
    open_run,
    resolve,
    source_of,
    writer,
)
from scanmix.training.checkpoint import load_checkpoint, save_checkpoint, share_checkpoint, unpack
from scanmix.training.launch import launch
from scanmix.training.loggers import Logger, catch_up, check_loggers, logged
from scanmix.training.monitor import bound_monitor
from scanmix.training.stops import explained, lost

MOST_THREADS = 4096


def train(
    examples: Examples, *, test: Examples | None = None, method: str | None = None, seed: int = 0,
    out: str | Path | None = None, recipe: str | None = None, device: str = "auto",
    threads: int | None = None, cache: str | Path | None = None, progress: bool | Bar = True,
    loggers: Sequence[str | Logger] = (), devices: int | None = None, nodes: int | None = None,
    precision: Precision = "32-true", batch_norm: BatchNorm = "synchronized", parallel: Parallel = "rows",
    **overrides: Any,
) -> Run:  # fmt: skip
    """Train a method on examples whose labels may be wrong.

    Args:
        examples: images with given labels; their true labels, where known, are only measured against.
        test: images with right labels; accuracy is measured on them after every epoch.
        method: a name in `METHODS`; when not given the recipe's, else "scanmix".
        seed: decides every draw of the training.
        out: folder of the run. One that holds the same run goes on where it stopped. None keeps nothing.
        recipe: name or path; when not given, the one shipped for this data and method, if there is one.
        device: "auto", "cpu", "cuda" ...
        threads: of PyTorch while training; its own choice when not given.
        cache: folder of label-free results; `SCANMIX_CACHE` or ~/.cache/scanmix when not given.
        progress: show bars, if there is a terminal; or the bar to report to.
        loggers: who is told the numbers of each epoch: "tensorboard", "mlflow", "wandb", or objects with the
            methods of Lightning Fabric's `Logger`. They change nothing; one that fails is left out with a warning.
        devices: processes on each machine, one a device; what torchrun or SLURM has launched, else one.
        nodes: machines; the same.
        precision: "32-true", or "bf16-mixed": encoders compute in bfloat16.
        batch_norm: statistics of the whole batch ("synchronized") or of each process's rows ("split").
        parallel: processes share the rows of each batch, or, being two, the two networks ("peers").
        overrides: fields of the method, and the sections `network={...}`, `views={...}`, `draw` and `monitor`.

    Raises:
        UserError: settings, data and folder do not fit together, or a loss stopped being a number.
    """
    out = None if out is None else file_path("out", out)
    cache = None if cache is None else file_path("cache", cache)
    recipe = None if recipe is None else str(file_path("recipe", recipe))
    check_loggers(loggers, out)
    seed = whole_number("seed", seed)
    check_data(examples, test)
    asked = {"precision": precision, "batch_norm": batch_norm, "parallel": parallel}
    how = build(Processes, asked, where="scanmix.train")
    find_device(device)
    threads = None if threads is None else whole_number("threads", threads, 1, MOST_THREADS)
    settings = resolve(
        method, examples.name, recipe, overrides, kind=examples.kind, seed=seed, device=device, threads=threads
    )
    settings = dataclasses.replace(
        settings,
        source=source_of(examples, test),
        fingerprint=examples.fingerprint(),
        test_fingerprint=test.fingerprint() if test else "",
        processes=choose_processes(devices, nodes, how),
    )
    folder = out if is_first(nodes) else None
    with writer(folder, "in training"):
        run = open_or_create(settings, examples, folder)
        return _start(run, examples, test, cache, progress, loggers)


def resume(
    folder: str | Path, *, cache: str | Path | None = None, progress: bool | Bar = True,
    loggers: Sequence[str | Logger] = (), devices: int | None = None, nodes: int | None = None,
) -> Run:  # fmt: skip
    """Go on with a run where it stopped; a finished one is returned as it is.

    Named loggers are sent the epochs they lack in either case. `devices` and `nodes` as for `train`, by default what
    they were; any number may go on.

    Raises:
        UserError: no such run or logger, or its data cannot be loaded again as it was.
    """
    folder = file_path("the run folder", folder)
    cache = None if cache is None else file_path("cache", cache)
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
        run.settings = dataclasses.replace(run.settings, processes=processes)
        examples, test = _reloaded(run, folder)
        return _start(run if first else Run(run.settings, run.about, []), examples, test, cache, progress, loggers)


def _reloaded(run: Run, folder: str | Path) -> tuple[Examples, Examples | None]:
    """Load the training and test data of a run again.

    Raises:
        UserError: it came from memory, or is not what it was.
    """
    source = run.settings.source
    if source is None:
        raise UserError(
            f"the data of {folder} came from memory and cannot be loaded again; "
            f"call scanmix.train(examples, ..., out={str(folder)!r}) with the same data and settings"
        )
    examples, test = reload(source["train"]), reload(source["test"]) if "test" in source else None
    found = (examples.fingerprint(), test.fingerprint() if test else "")
    if found != (run.settings.fingerprint, run.settings.test_fingerprint):
        raise UserError(f"the data of {folder} is not what it was when the run began; bring it back or train anew")
    return examples, test


def run_worker(
    settings: RunSettings, examples: Examples, test: Examples | None, place: AbstractContextManager[RankInfo]
) -> None:
    """Be one of the other processes of a run: compute, and leave files and messages to the first."""
    _finish(Run(settings, describe(examples), []), examples, test, None, False, (), place)


def _start(
    run: Run, examples: Examples, test: Examples | None, cache: str | Path | None, progress: bool | Bar,
    loggers: Sequence[str | Logger],
) -> Run:  # fmt: skip
    """Finish a run with the processes it asks for."""
    if run.finished and launched() is None and run.settings.processes.nodes == 1:
        catch_up(run, loggers)
        return run  # elsewhere, others wait to be told so
    explain = functools.partial(lost, run)
    first = is_first(run.settings.processes.nodes)
    place = launch(run.settings, examples, test, explain)
    return _finish(run, examples, test, cache, progress if first else False, loggers if first else (), place)


def _finish(
    run: Run, examples: Examples, test: Examples | None, cache: str | Path | None, progress: bool | Bar,
    loggers: Sequence[str | Logger], place: AbstractContextManager[RankInfo],
) -> Run:  # fmt: skip
    """Run the epochs that are missing and write the model."""
    method, settings = run.settings.build_method(), run.settings
    with (
        limited_threads(settings.threads, settings.processes),
        explained(run),
        watched_stages(settings.method, method.epochs, progress) as (bar, tick),
        place as (rank, world, device),
    ):
        engine = Engine(
            seed=settings.seed,
            device=device,
            rank=rank,
            world=world,
            parallel=settings.processes.parallel,
            precision=settings.processes.precision,
            batch_norm=settings.processes.batch_norm,
            cache=None if rank > 0 else Path(cache).expanduser() if cache is not None else default_cache(),
            tick=tick,
        )
        if bool(engine.broadcast(torch.tensor(run.finished, device=device))):
            catch_up(run, loggers)
            return run
        if engine.broadcast_bytes(settings.identity().encode) != settings.identity().encode():
            raise UserError(f"process {rank} has other settings or other data than process 0; give all the same")
        data = TrainingData(
            images=on_device(examples.images, engine.device),
            labels=examples.labels.to(engine.device),
            num_classes=examples.num_classes,
            views=make_views(settings.views, examples.images, flip=examples.flip, device=engine.device),
            generator=engine.generator,
        )
        with logged(run, loggers) as log:
            model, seen = _run_epochs(run, method, engine, data, examples, test, bar, log)
    with explained(run):
        run.adopt(dataclasses.replace(model, engine=SINGLE_PROCESS), examples)
        if run.folder is not None:
            save_evidence(run.folder, collect(seen, examples))
            run.audit().to_csv(run.folder / "labels.csv")
            save_model(model, run.folder)
    return run


def _run_epochs(
    run: Run, method: Method, engine: Engine, data: TrainingData, examples: Examples, test: Examples | None,
    bar: Bar, log: Callable[[EpochMetrics], None],
) -> tuple[Model, Outputs]:  # fmt: skip
    """Epoch, measure, write down, save, again; then a last look. A line is on disk before the checkpoint counts it."""
    clock = time.perf_counter()
    state, done = _begin(run, method, data, engine)
    seconds = {"seconds/start": time.perf_counter() - clock}
    model = _model(run, method, state, data, engine)
    measure_bound = bound_monitor(model, examples, run.settings.monitor.elbo, engine)
    for epoch in range(done, method.epochs):
        bar.set(epoch, method.epochs, _note(run))
        clock = time.perf_counter()
        pool = draw_pool(data, run.settings.draw.per_epoch, epoch)
        line: EpochMetrics = {"epoch": epoch + 1, **method.epoch(state, pool.data, epoch)}
        _check_weights(state, engine)
        p_clean = _current_p_clean(run, state, data, epoch)
        if p_clean is not None and method.clean_threshold is not None:
            line |= clean_set_metrics(p_clean, method.clean_threshold, examples)
        measured = time.perf_counter()
        if test is not None:
            line["accuracy"] = model.accuracy(test)
            line |= {"accuracy_after_matching": True} if method.self_supervised else {}
        line |= measure_bound()
        line |= {"seconds/evaluate": time.perf_counter() - measured, "seconds/epoch": measured - clock}
        run.record(line | seconds)
        log(run.metrics[-1])
        seconds = {}
        if epoch + 1 < method.epochs and is_due(epoch + 1, method.epochs):
            _keep(run, take_snapshot(model.member_logits(examples), examples.labels, epoch + 1, p_clean))
        if run.folder is not None:
            save_checkpoint(run.folder, run.settings.identity(), epoch + 1, state)
    bar.set(method.epochs, method.epochs, _note(run))
    seen = model.look(examples)
    p_clean = _current_p_clean(run, state, data, method.epochs - 1)
    _keep(run, take_snapshot(seen.logits, examples.labels, method.epochs, p_clean))
    return model, seen


def _current_p_clean(run: Run, state: State, data: TrainingData, epoch: int) -> Tensor | None:
    """What the peers believe of each label, (P, N), after an epoch; no number where the epoch did not draw it."""
    if state.p_clean is None:
        return None
    return draw_pool(data, run.settings.draw.per_epoch, epoch).scatter(state.p_clean, len(data))


def _keep(run: Run, snapshot: Snapshot) -> None:
    if run.folder is None:
        run.snapshots.append(snapshot)
    else:
        save_snapshot(run.folder, snapshot)


def _begin(run: Run, method: Method, data: TrainingData, engine: Engine) -> tuple[State, int]:
    """Return the last saved state and its number of epochs, or start and save that: it may take hours."""
    saved = load_checkpoint(run.folder, run.settings.identity(), engine.device) if run.folder else None
    saved = share_checkpoint(saved, engine)
    network = run.settings.network
    if not saved:
        run.keep_epochs(0)
        state: State = method.start(data, network, engine)
        _check_weights(state, engine)
        if run.folder is not None:
            save_checkpoint(run.folder, run.settings.identity(), 0, state)
        return state, 0
    done, payload = saved
    if run.folder is not None and len(run.metrics) < done:
        raise UserError(f"{run.folder}/metrics.jsonl lacks epochs before {done}; delete it all and train again")
    run.keep_epochs(done)
    heads = type(method).heads
    return unpack(method.State, payload, lambda: make_peer(untrained(network), data, engine, "", heads=heads)), done


def _model(run: Run, method: Method, state: State, data: TrainingData, engine: Engine) -> Model:
    """Look at a state as a model; the weights are shared, so it stays the current one."""
    _, channels, height, width = data.images.shape
    return Model(
        predictor=method.predictor(state),
        views=data.views,
        network=run.settings.network,
        method=run.settings.method,
        class_names=run.class_names,
        channels=channels,
        size=(height, width),
        engine=engine,
    )


def check_data(examples: Examples, test: Examples | None) -> None:
    """Refuse what cannot be trained or tested on.

    Raises:
        UserError: says what is wrong with which of both.
    """
    wanted = "Examples, as the parts of the pair that scanmix.load returns"
    check_type("examples", examples, Examples, wanted)
    if test is not None:
        check_type("test", test, Examples, wanted)
    if test is not None and len(test) == 0:
        raise UserError(f"the test set {test.name!r} is empty; leave test out, or give some images")
    if len(examples) < 2 or examples.num_classes < 2:
        has = f"{len(examples)} images of {examples.num_classes} classes"
        raise UserError(f"{examples.name!r} has {has}; it needs at least two of each")
    if test is None:
        return
    for what, ours, theirs in (
        ("kind", examples.kind, test.kind),
        ("class names", examples.class_names, test.class_names),
        ("channels", examples.channels, test.channels),
        ("image size", examples.size, test.size),
    ):
        if ours != theirs:
            raise UserError(f"training and test images differ in their {what}: {ours} and {theirs}")


def _check_weights(state: State, engine: Engine) -> None:
    """The last step may leave weights that only the next loss would show: never save them as good ones."""
    for peer in state.peers:
        engine.check_equal(peer)
        for name, weight in peer.named_parameters():
            if not bool(weight.isfinite().all()):
                raise Diverged(f"the weights {name} are no longer numbers; lower the learning rate")


def _note(run: Run) -> str:
    return "" if run.last_accuracy is None else f"accuracy {run.last_accuracy:.1%}"
