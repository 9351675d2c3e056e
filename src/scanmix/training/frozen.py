"""Runs on pictures that learn from features of a frozen encoder: the pictures stay, and vectors take their place.

Legend: N examples, D features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from scanmix.config import UserError
from scanmix.data.examples import Examples
from scanmix.distributed.engine import SINGLE_PROCESS, Engine
from scanmix.features import AnyEncoder, RunEncoder, as_vectors, embed, open_encoder, record_of, reopened
from scanmix.model import Model
from scanmix.progress import StageTick
from scanmix.training import Run
from scanmix.training.inputs import Inputs

AnySource: TypeAlias = "str | Callable[[Tensor], Any] | AnyEncoder"
"""What `open_encoder` takes."""


class Rows(NamedTuple):
    """Features of the pictures of a run."""

    train: np.ndarray
    """(N, D) float16."""
    test: np.ndarray | None


def opened(features: AnySource | None, examples: Examples, out: str | Path | None, device: str) -> AnyEncoder | None:
    """Open the encoder of a new run, or of one that goes on; None where none is asked for.

    Raises:
        UserError: it cannot be opened, the examples are vectors, or a function without a hash is to be kept in `out`.
    """
    if features is None:
        return None
    if examples.kind == "vector":
        raise UserError(f"{examples.name!r} holds vectors already; an encoder turns pictures into features")
    encoder = open_encoder(features, device=device)
    if out is not None and encoder.digest is None:
        raise UserError(
            f"nothing tells whether the function {encoder.name} is the same when the run in {out} goes on; give it as "
            "open_encoder(function, digest=...), with a text that you change when it does"
        )
    return encoder


def reopened_for(run: Run, features: AnySource | None) -> AnyEncoder | None:
    """Open the encoder of a run that goes on; `features` says where it is now, if not as it was. The run notes that.

    Shape: a function takes (B, C, H, W) uint8 and returns (B, D).

    Raises:
        UserError: it is not the one of the run, or one is given to a run without.
    """
    record = run.settings.features
    if record is None:
        if features is not None:
            raise UserError(f"the run in {run.folder} learns from what it was given: it has no encoder; leave it out")
        return None
    encoder = reopened(record, features, run.settings.device)
    run.settings = dataclasses.replace(run.settings, features=record_of(encoder))
    return encoder


def embedded(run: Run, inputs: Inputs, tick: StageTick) -> Rows | None:
    """Compute the features of the pictures, or find them in the cache.

    None for a finished run, where pictures themselves are learned from, and in all processes but the first.

    Raises:
        UserError: as of `embed`.
    """
    if inputs.encoder is None or run.finished:
        return None
    train = embed(inputs.examples, inputs.encoder, inputs.cache, tick)
    return Rows(train, None if inputs.test is None else embed(inputs.test, inputs.encoder, inputs.cache, tick))


def learned_from(run: Run, inputs: Inputs, rows: Rows | None, engine: Engine) -> Inputs:
    """Return what the networks see: the examples as they are, or with vectors in the place of their pictures.

    Every process holds the vectors in memory, 4 x D bytes an example; the first sends them to the others.
    """
    if run.settings.features is None:
        return inputs
    train = _with_vectors(inputs.examples, None if rows is None else rows.train, engine)
    test = None if inputs.test is None else _with_vectors(inputs.test, None if rows is None else rows.test, engine)
    return dataclasses.replace(inputs, examples=train, test=test)


def as_given(run: Run, model: Model, inputs: Inputs) -> Model:
    """Return a trained model for a single process, with the encoder in front where the run has one."""
    alone, record = dataclasses.replace(model, engine=SINGLE_PROCESS), run.settings.features
    if record is None:
        return alone
    encoder = RunEncoder(record, model.channels, opened=inputs.encoder, device=run.settings.device)
    return dataclasses.replace(alone, encoder=encoder, channels=inputs.examples.channels, size=inputs.examples.size)


def _with_vectors(examples: Examples, rows: np.ndarray | None, engine: Engine) -> Examples:
    """Return the examples with their features as vectors; `rows` are None in all processes but the first."""

    def width() -> bytes:
        assert rows is not None  # this is process 0
        return str(rows.shape[1]).encode()

    count = int(engine.broadcast_bytes(width))
    vectors = torch.empty(len(examples), count, 1, 1) if rows is None else as_vectors(rows)
    if engine.world > 1:
        vectors = engine.broadcast(vectors.to(engine.device)).cpu()
    return dataclasses.replace(examples, images=vectors)
