"""The epochs of a run: each is trained, measured and saved; a saved one is where the next training goes on.

Legend: N examples, P peers.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from torch import Tensor

from scanmix.config import UserError
from scanmix.data.batches import TrainingData
from scanmix.data.subset import draw_pool
from scanmix.distributed.engine import Engine
from scanmix.methods import Method, State
from scanmix.model import Model, Outputs
from scanmix.model.dynamics import clean_set_metrics, is_due, take_snapshot
from scanmix.networks.peer import make_peer, rest_encoders
from scanmix.progress import Tick
from scanmix.training import EpochMetrics, Run
from scanmix.training.checkpoint import check_weights, load_checkpoint, save_checkpoint, share_checkpoint, unpack
from scanmix.training.inputs import Inputs
from scanmix.training.metrics import PROCESSOR
from scanmix.training.monitor import bound_monitor


def run_epochs(
    run: Run, method: Method, engine: Engine, data: TrainingData, inputs: Inputs, tick: Tick,
    log: Callable[[EpochMetrics], None],
) -> tuple[Model, Outputs]:  # fmt: skip
    """Train an epoch, measure, write the metrics, save, and again; at the end predict all training examples once.

    The metrics of an epoch are on the disk before the checkpoint counts it.

    Args:
        run: takes the metrics and the snapshots.
        method: what is trained.
        engine: device, processes and random draws.
        data: the training examples on the device.
        inputs: the same examples on the CPU, and the test data.
        tick: is told of epochs and accuracy.
        log: sends the metrics of an epoch to the loggers.
    """
    examples, test = inputs.examples, inputs.test
    clock, worked = time.perf_counter(), time.process_time()
    state, done = _begin(run, method, data, engine)
    seconds = {"seconds/start": time.perf_counter() - clock}
    model = _model(run, method, state, data, engine)
    measure_bound = bound_monitor(model, examples, run.settings.monitor.elbo, engine)
    for epoch in range(done, method.epochs):
        tick(epoch, method.epochs, _note(run))
        clock = time.perf_counter()
        if resting := run.settings.network.resting_epochs():
            rest_encoders(state.peers, epoch < resting)
        pool = draw_pool(data, run.settings.draw.per_epoch, epoch)
        line: EpochMetrics = {"epoch": epoch + 1, **method.epoch(state, pool.data, epoch)}
        check_weights(state, engine)
        p_clean = _current_p_clean(run, state, data, epoch)
        if p_clean is not None and method.clean_threshold is not None:
            line |= clean_set_metrics(p_clean, method.clean_threshold, examples)
        measured = time.perf_counter()
        if test is not None:
            found = model.measure(test)
            line |= {"accuracy": found.accuracy, "balanced_accuracy": found.balanced}
            line |= {"classes_never_predicted": len(found.never_predicted)}
            line |= {"accuracy_after_matching": True} if method.self_supervised else {}
        line |= measure_bound()
        line |= {"seconds/evaluate": time.perf_counter() - measured, "seconds/epoch": measured - clock}
        if engine.device.type == "cpu":  # a GPU's work is not the processor's
            line |= {PROCESSOR: time.process_time() - worked}
            worked = time.process_time()
        run.record(line | seconds)
        log(run.metrics[-1])
        seconds = {}
        if epoch + 1 < method.epochs and is_due(epoch + 1, method.epochs):
            run.record_snapshot(take_snapshot(model.member_logits(examples), examples.labels, epoch + 1, p_clean))
        if run.folder is not None:
            save_checkpoint(run.folder, run.settings.config_hash(), epoch + 1, state)
    tick(method.epochs, method.epochs, _note(run))
    outputs = model.outputs(examples)
    p_clean = _current_p_clean(run, state, data, method.epochs - 1)
    run.record_snapshot(take_snapshot(outputs.logits, examples.labels, method.epochs, p_clean))
    return model, outputs


def _current_p_clean(run: Run, state: State, data: TrainingData, epoch: int) -> Tensor | None:
    """Return p_clean of each label after an epoch, (P, N); NaN where the epoch did not draw the example."""
    if state.p_clean is None:
        return None
    return draw_pool(data, run.settings.draw.per_epoch, epoch).scatter(state.p_clean, len(data))


def _begin(run: Run, method: Method, data: TrainingData, engine: Engine) -> tuple[State, int]:
    """Return the last saved state and its number of epochs. A new state is saved at once: its start may take hours."""
    saved = load_checkpoint(run.folder, run.settings.config_hash(), engine.device) if run.folder else None
    saved = share_checkpoint(saved, engine)
    network = run.settings.network
    if not saved:
        run.truncate(0)
        state: State = method.start(data, network, engine)
        check_weights(state, engine)
        if run.folder is not None:
            save_checkpoint(run.folder, run.settings.config_hash(), 0, state)
        return state, 0
    done, payload = saved
    if run.folder is not None and len(run.metrics) < done:
        raise UserError(f"{run.folder}/metrics.jsonl lacks epochs before {done}; delete it all and train again")
    run.truncate(done)
    heads = type(method).heads
    return unpack(method.State, payload, lambda: make_peer(network.untrained(), data, engine, "", heads=heads)), done


def _model(run: Run, method: Method, state: State, data: TrainingData, engine: Engine) -> Model:
    """Return a state as a model. It shares the weights, so it predicts with the current ones."""
    _, channels, height, width = data.images.shape
    return Model(
        predictor=method.predictor(state),
        views=data.views,
        network=run.settings.network,
        method=run.settings.method,
        class_names=run.class_names,
        channels=channels,
        size=(height, width),
        self_supervised=method.self_supervised,
        engine=engine,
    )


def _note(run: Run) -> str:
    return "" if run.last_accuracy is None else f"accuracy {run.last_accuracy:.1%}"
