"""`ScanMixClassifier`: every method of the library as a scikit-learn estimator.

Legend: N examples, C classes, D features, H height, W width.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_array, check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from scanmix.audit import Audit
from scanmix.config import UserError, build, dump
from scanmix.data.arrays import WHITES, check_finite, find_white, to_images
from scanmix.data.decoding import decode_images, readable
from scanmix.data.examples import Examples
from scanmix.data.given import as_array, check_labels, decoded, file_names, form_of
from scanmix.data.readers.images import read_images, side_within
from scanmix.features import AnyEncoder, open_encoder
from scanmix.model import load_model, save_model
from scanmix.training import Run, RunSettings
from scanmix.training.finetune import opened_for, side_of
from scanmix.training.loop import train
from scanmix.training.settings import as_stored


class BadInput(UserError, ValueError):
    """Data or parameters that cannot be used; a `ValueError` too, which scikit-learn's tools know how to report."""


class ScanMixClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn carries no types
    """A classifier that learns from labels of which many may be wrong, and tells which.

    X is one of four things:

    - an array of images, uint8, float or integer, of shape (N, H, W) or (N, H, W, C) with 1 or 3 channels. Pixels run
      from 0 to white, which is the smallest of 1, 16 and 255 that no pixel of the training exceeds; other values are an
      error;
    - a list of N image files, which are scaled and cut to squares of one size;
    - a list of N PIL images of one size, which are decoded as files are;
    - a table of numbers (N, D): feature vectors, such as embeddings of texts. A multilayer perceptron learns from them.

    Errors count rows from 0. Images are never mirrored unless `settings={"views": {"flip": True}}` says that a
    mirrored image keeps its class.

    Attributes:
        classes_: (C,) the different labels in y.
        p_clean_: (N,) probability that each label of y is right.
        suggested_labels_: (N,) what each label should be, from `classes_`.
        noise_rate_: estimated share (0..1) of wrong labels.
        transition_: (C, C) estimated share of each true class (row) that was given each label (column).
        audit_: the audit of all labels, the most doubtful first (`scanmix.audit.Audit`).
        run_: the training (`scanmix.training.Run`).
        white_: the pixel value of white; for images only.
        n_features_in_: D; for feature vectors only, as is `feature_names_in_` of a data frame.
    """

    classes_: np.ndarray
    p_clean_: np.ndarray
    suggested_labels_: np.ndarray
    noise_rate_: float
    transition_: np.ndarray
    audit_: Audit
    run_: Run
    white_: int

    def __init__(
        self, method: str | None = None, *, recipe: str | None = None, network: str = "auto",
        settings: Mapping[str, Any] | None = None, random_state: Any = 0, device: str = "auto",
        threads: int | None = None, verbose: bool = False, features: Any = None, finetune: Any = None,
    ) -> None:  # fmt: skip
        """Store the parameters; `fit` checks them.

        Args:
            method: a name in `scanmix.METHODS`; when not given the recipe's, else "scanmix", or what `scanmix.train`
                takes with `features` and with `finetune`.
            recipe: name or path of a recipe; by default the shipped one for data of this kind.
            network: "image" or "mlp" refuses the other kind of X; "auto" takes both.
            settings: overrides of the recipe, as `scanmix.train` takes them: {"epochs": 40, "pretrain.epochs": 100}.
            random_state: decides every draw; None gives other draws in each fit.
            device: "auto", "cpu", "cuda" ...
            threads: of PyTorch while training; its own choice when not given.
            verbose: whether to show progress, if there is a terminal.
            features: a pretrained encoder of images, as `scanmix.features.open_encoder` takes it: "timm:resnet50". The
                method then learns from its features.
            finetune: a pretrained network of timm, "timm:NAME" or "timm:NAME@FILE", that the method's networks begin
                with and train on. Not together with `features`.
        """
        self.method = method
        self.recipe = recipe
        self.network = network
        self.settings = settings
        self.random_state = random_state
        self.device = device
        self.threads = threads
        self.verbose = verbose
        self.features = features
        self.finetune = finetune

    def fit(self, X: Any, y: Any, trusted: Any = None) -> ScanMixClassifier:
        """Train on examples and their labels, and audit the labels.

        Labels at `trusted` are known to be right: no method relabels them or leaves them out.
        Shape: X (N, H, W), (N, H, W, C), N files or PIL images, or (N, D); y (N,) texts or whole numbers; trusted (N,)
        bool, by default none.

        Raises:
            UserError: the data or a parameter cannot be used; says why. For X and y it is a ValueError too.
        """
        with _as_value_errors():
            features, finetune, side = self._pretrained()
            inputs, given, paths = self._training_inputs(X, y, side)
        self.classes_, labels = np.unique(given, return_inverse=True)
        if len(self.classes_) < 2:
            raise BadInput(f"y has the class {str(self.classes_[0])!r} only; a classifier needs two")
        examples = Examples(
            images=inputs,
            labels=torch.from_numpy(labels.astype(np.int64)),
            class_names=tuple(map(str, self.classes_)),
            ids=tuple(map(str, range(len(labels)))),
            paths=paths,
            name="arrays",
            flip=False,
        )
        if trusted is not None:
            with _as_value_errors():
                examples = examples.trusting(np.asarray(trusted))
        self.run_ = train(
            examples, method=self.method, seed=self._seed(), recipe=self.recipe, features=features, finetune=finetune,
            device=self.device, threads=self.threads, progress=bool(self.verbose), **self._overrides(),
        )  # fmt: skip
        self._adopt(self.run_.audit())
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each example. Shape: as in `fit` -> (N,), of `classes_`."""
        best = self.predict_proba(X).argmax(1)
        found: np.ndarray = self.classes_[best]
        return found

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities, columns as in `classes_`. Shape: as in `fit` -> (N, C) float64.

        Raises:
            UserError: X is of another kind, size or number of channels than in training.
        """
        check_is_fitted(self)
        with _as_value_errors():
            inputs = self._inputs(X)
        probs: np.ndarray = self.run_.predict_proba(inputs).astype(np.float64)
        probs /= probs.sum(1, keepdims=True)  # they add up to 1 in float64 too
        return probs

    def _pretrained(self) -> tuple[AnyEncoder | None, AnyEncoder | None, int | None]:
        """Open what `features` or `finetune` names; return both, and the side in pixels of the pictures it has seen.

        Raises:
            UserError: both are given, or what is cannot be opened, or not be trained on.
        """
        if self.features is not None and self.finetune is not None:
            raise BadInput("features= learns from a network as it is, and finetune= trains it: give one of them")
        if self.finetune is not None:
            network = open_encoder(self.finetune, device=self.device)
            return None, network, side_of(opened_for(network, self.device))
        encoder = None if self.features is None else open_encoder(self.features, device=self.device)
        return encoder, None, None if encoder is None else encoder.side

    def _training_inputs(
        self, X: Any, y: Any, side: int | None
    ) -> tuple[Tensor, np.ndarray, tuple[str, ...] | None]:  # fmt: skip
        """Check X and y, and store what white is or the number of features.

        Files are read at `side` pixels where a pretrained network wants that, and they have so many.
        Return inputs (N, C, H, W), labels (N,), and the paths of files, if there are any.
        """
        if y is None:
            raise BadInput("ScanMixClassifier requires y to be passed, but the target y is None")
        if self.network not in ("auto", "image", "mlp"):
            raise BadInput(f'network={self.network!r}: "auto", "image" or "mlp" is expected')
        form = form_of(X)
        if self.network == ("image" if form == "vectors" else "mlp"):
            raise BadInput(f'network={self.network!r} does not take {form}; "auto" takes what comes')
        if form == "vectors" and self.features is not None:
            raise BadInput("features= is an encoder of images, and X holds vectors already; leave it out")
        if form == "vectors" and self.finetune is not None:
            raise BadInput("finetune= trains a network that reads images, and X holds vectors; leave it out")
        if form == "vectors":
            vectors = self._vectors(X, ensure_min_samples=2)
            given = check_labels(y)
            check_consistent_length(vectors, given)
            return vectors, given, None
        given = check_labels(y)
        check_consistent_length(X, given)
        self.white_ = WHITES[-1]
        if form == "files":
            paths = file_names(X)
            files = [Path(path) for path in paths]
            read = read_images(files, None if side is None else side_within(files, side))
            if read.skipped:
                raise BadInput(f"{read.skipped[0]}; leave it out of X and y")
            return read.images, given, tuple(paths)
        if form == "PIL images":
            return to_images(decoded(X), self.white_), given, None
        pixels = _pixels(X)
        self.white_ = find_white(pixels)
        return to_images(pixels, self.white_), given, None

    def _inputs(self, X: Any) -> Tensor:
        """Return new data as the model takes it. Shape: -> (N, C, H, W), vectors (N, D, 1, 1)."""
        model = self.run_.model
        form = form_of(X)
        if (form == "vectors") != (model.kind == "vector"):
            raise BadInput(f"{form} cannot be predicted by what was learned from {model.kind}s")
        if form == "vectors":
            return self._vectors(X, reset=False)
        if form == "files":
            paths = file_names(X)
            images = decode_images([Path(path) for path in paths], model.size[0], model.channels)
            for path, image in zip(paths, images, strict=True):
                if isinstance(image, str):
                    raise BadInput(f"{readable(path)}: {image}")
            return torch.from_numpy(np.stack(images))
        if form == "PIL images":
            return to_images(decoded(X, model.channels), WHITES[-1])
        return to_images(_pixels(X), self.white_)

    def _vectors(self, X: Any, **checks: Any) -> Tensor:
        """Check rows of numbers as scikit-learn does. Shape: (N, D) -> (N, D, 1, 1) float32."""
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which the next line reports by row
            vectors = validate_data(self, as_array(X), dtype=np.float32, ensure_all_finite=False, **checks)
        check_finite(vectors, "features")
        return torch.from_numpy(vectors)[:, :, None, None]

    def _adopt(self, audit: Audit) -> None:
        """Store an audit, and its main columns in the order of the training data."""
        self.audit_ = audit
        self.noise_rate_ = float(audit.noise_rate.value)
        self.transition_ = audit.transition
        place = audit.order.argsort()
        number = {name: i for i, name in enumerate(audit.class_names)}
        self.p_clean_ = audit["p_clean"][place]
        self.suggested_labels_ = self.classes_[[number[name] for name in audit["suggested"][place]]]

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31))

    def _overrides(self) -> dict[str, Any]:
        overrides = dict(self.settings or {})
        for name in inspect.signature(train).parameters:
            if name in overrides:
                raise BadInput(f"settings[{name!r}]: that is no setting of a method; it is up to the estimator")
        return overrides

    def __getstate__(self) -> dict[str, Any]:
        """Pickle weights as the bytes of safetensors files, never as modules; the training data is left out."""
        state = dict(super().__getstate__())
        if "run_" in state:
            state["run_"] = _packed(state["run_"])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the model on the CPU, wherever the training was."""
        if "run_" in state:
            state = {**state, "run_": _unpacked(state["run_"])}
        super().__setstate__(state)


@contextmanager
def _as_value_errors() -> Iterator[None]:
    """Raise `UserError` as `BadInput`: scikit-learn expects a `ValueError` for a wrong X or y."""
    try:
        yield
    except BadInput:
        raise
    except UserError as error:
        raise BadInput(str(error)) from None


def _pixels(X: Any) -> np.ndarray:
    """Check an array as scikit-learn does: numbers, at least one row. NaN is reported later, by row."""
    pixels: np.ndarray = check_array(as_array(X), allow_nd=True, ensure_2d=False, ensure_all_finite=False)
    return pixels


def _packed(run: Run) -> dict[str, Any]:
    """Return a run as tables, numbers and the bytes of its model's files."""
    with tempfile.TemporaryDirectory() as folder:
        save_model(run.model, Path(folder))
        files = {path.name: path.read_bytes() for path in (Path(folder) / "model").iterdir()}
    return {"settings": dump(run.settings), "about": run.about, "metrics": run.metrics, "files": files}


def _unpacked(packed: Mapping[str, Any]) -> Run:
    """Return the run that `_packed` was given, without its training data.

    Raises:
        UserError: parts are missing, or its model is damaged.
    """
    missing = [name for name in ("settings", "about", "metrics", "files") if name not in packed]
    if missing:
        raise UserError(f"the pickled run lacks {', '.join(missing)}: it is damaged, or of another program")
    with tempfile.TemporaryDirectory() as folder:
        for name, content in packed["files"].items():
            (Path(folder) / Path(name).name).write_bytes(content)
        model = load_model(folder)
    settings = build(RunSettings, as_stored(packed["settings"]), where="the pickled run")
    return Run(settings, packed["about"], packed["metrics"], model=model)
