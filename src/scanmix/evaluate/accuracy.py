"""How good a model is: overall accuracy, accuracy of each class, the confusion matrix, and accuracies over a run.

Legend: N examples, C classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from scanmix.blocks.clusters import match_clusters
from scanmix.blocks.rog import fit_rog
from scanmix.config import UserError
from scanmix.data.examples import Examples
from scanmix.data.readers import reload
from scanmix.distributed.engine import derived_seed
from scanmix.evaluate.significance import wilson
from scanmix.files.npy import finite_rows
from scanmix.model import Model, truth_of
from scanmix.model.measured import measured
from scanmix.training import Run, open_run

FIVE = 5
"""Top-5 accuracy counts an example as right if one of its five likeliest classes is."""


def evaluate(run_or_model: Run | Model, examples: Examples) -> dict[str, Any]:
    """Measure a model on labeled examples: by their true labels where these are known, else by the given ones.

    Images that are known to belong to no class (open set) are left out.

    Returns:
        `accuracy` and `balanced_accuracy` (0..1), the latter the mean over classes; `accuracy_interval`, of 95 %;
        `class_accuracy` {name: share, or None without an example} and `class_interval` {name: interval of 95 %, or
        None}; `never_predicted`, names of classes with examples of which none is predicted; `confusion`, C rows (true
        classes) of C counts (predicted classes); `num_examples`. With more than five classes `top5_accuracy`. For a
        self-supervised model no `top5_accuracy`, but `accuracy_after_matching` (True): its clusters were matched with
        classes by these very labels. For a run with a test set also `best_accuracy`, `last_accuracy` and
        `last10_accuracy`.

    Raises:
        UserError: there are no examples, their classes or images are not those of the model, or its probabilities are
            not finite.
    """
    model = run_or_model.model if isinstance(run_or_model, Run) else run_or_model
    if examples.class_names != model.class_names:
        raise UserError(
            f"{examples.name!r} has the classes {', '.join(examples.class_names)}, "
            f"but the model was trained on {', '.join(model.class_names)}"
        )
    examples = examples.without_open_set()
    if len(examples) == 0:
        raise UserError(f"{examples.name!r} has no examples to measure on")
    truth, likely = truth_of(examples), torch.from_numpy(probabilities_of(model, examples))
    prediction, count = likely.argmax(1), len(model.class_names)
    if model.self_supervised:
        prediction = match_clusters(prediction, truth, count)[prediction]
    found = measured(prediction, truth, count)
    confusion = torch.bincount(truth * count + prediction, minlength=count**2).view(count, count)
    right, of_class = confusion.diagonal().tolist(), confusion.sum(1).tolist()
    classes = list(zip(model.class_names, right, of_class, strict=True))
    result: dict[str, Any] = {
        "accuracy": found.accuracy,
        "accuracy_interval": wilson(sum(right), len(examples)),
        "balanced_accuracy": found.balanced,
        "class_accuracy": {name: hits / total if total else None for name, hits, total in classes},
        "class_interval": {name: wilson(hits, total) if total else None for name, hits, total in classes},
        "never_predicted": [model.class_names[c] for c in found.never_predicted],
        "confusion": confusion.tolist(),
        "num_examples": len(examples),
    }
    if model.self_supervised:
        result["accuracy_after_matching"] = True
    elif count > FIVE:
        result["top5_accuracy"] = (likely.topk(FIVE, 1).indices == truth.unsqueeze(1)).any(1).double().mean().item()
    if isinstance(run_or_model, Run) and run_or_model.accuracies:
        result |= {
            "best_accuracy": run_or_model.best_accuracy,
            "last_accuracy": run_or_model.last_accuracy,
            "last10_accuracy": run_or_model.last10_accuracy,
        }
    return result


def probabilities_of(model: Model, examples: Examples) -> np.ndarray:
    """Return the model's class probabilities (0..1) for examples. Shape: -> (N, C).

    Raises:
        UserError: probabilities are not finite, so the model is damaged.
    """
    probs = model.predict_proba(examples)
    bad = ~finite_rows(probs)
    if bad.any():
        raise UserError(
            f"the model is damaged: its probabilities for {int(bad.sum())} of {len(bad)} examples of "
            f"{examples.name!r} are not numbers; copy it anew or train again"
        )
    return probs


def evaluate_run(folder: str | Path) -> dict[str, Any]:
    """Measure a finished run on its own test set, which is loaded again; returns what `evaluate` does.

    Raises:
        UserError: the run is unfinished, or its test set cannot be loaded again as it was.
    """
    return evaluate(open_run(folder), test_set_of(folder))


def evaluate_rog(folder: str | Path, examples: Examples) -> float:
    """Return the accuracy (0..1) of RoG on the features of a finished run, fitted to the run's given labels.

    RoG is the robust generative classifier of Lee et al., ICML 2019. The run itself stays as it is. The features of
    all training images are held in memory, which grows with N.

    Raises:
        UserError: the run is unfinished, or its training data cannot be loaded again as it was.
    """
    run = open_run(folder)
    if run.settings.source is None:
        raise UserError(f"the training data of {folder} came from memory; RoG's head has to be fitted to it")
    train_set = run.training_data()
    generator = torch.Generator().manual_seed(derived_seed(run.settings.seed, "rog"))
    head = fit_rog(run.model.layers(train_set), train_set.labels, len(train_set.class_names), generator)
    examples = examples.without_open_set()
    prediction = head.predict_proba(run.model.layers(examples)).argmax(1)
    return (prediction == truth_of(examples)).double().mean().item()


def right_ones(folder: str | Path, examples: Examples) -> np.ndarray:
    """Return which test examples a run predicts correctly; a self-supervised run's clusters are matched first.

    Shape: -> (N,) bool.

    Raises:
        UserError: the run is unfinished, or was trained on other classes or images.
    """
    model, truth = open_run(folder).model, truth_of(examples)
    if examples.class_names != model.class_names:
        raise UserError(f"{folder} was trained on other classes than {examples.name!r} has")
    prediction = torch.from_numpy(model.predict(examples))
    if model.self_supervised:
        prediction = match_clusters(prediction, truth, len(model.class_names))[prediction]
    right: np.ndarray = (prediction == truth).numpy()
    return right


def test_set_of(folder: str | Path) -> Examples:
    """Load the test set of a run again.

    Raises:
        UserError: it cannot be loaded again, or is not what it was.
    """
    run = open_run(folder)
    source = run.settings.source
    if source is None or "test" not in source:
        reason = "came from memory" if run.settings.test_fingerprint else "is missing"
        raise UserError(f"the test set of {folder} {reason}; name labeled images to measure on")
    test = reload(source["test"])
    if test.fingerprint() != run.settings.test_fingerprint:
        raise UserError(f"the test set of {folder} is not what it was when the run was trained")
    return test
