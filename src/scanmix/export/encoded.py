"""An exported head in an ONNX file, and the encoder beside whose features it takes.

Legend: N pictures, C classes, D features, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydantic.dataclasses
import torch

from scanmix.config import STRICT, Count, UserError, dump
from scanmix.data.examples import Kind
from scanmix.export.classifier import Classifier
from scanmix.features import EncoderRecord, RunEncoder
from scanmix.files import read_json, write_json
from scanmix.model import Model


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class Front:
    """The content of `encoder.json`: what stands in front of the head."""

    encoder: EncoderRecord
    features: Count
    """D."""
    channels: Count
    """Of the pictures."""
    size: tuple[Count, Count]
    """Their height and width."""


@dataclass(frozen=True, eq=False)
class EncodedClassifier:
    """A head behind the encoder, which is opened when pictures come."""

    head: Classifier
    encoder: RunEncoder
    channels: int
    size: tuple[int, int]
    kind: Kind = "image"

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names."""
        return self.head.class_names

    def predict_proba(self, inputs: np.ndarray, /) -> np.ndarray:
        """Class probabilities. Shape: (N, channels, H, W) uint8 -> (N, C) float32.

        Raises:
            UserError: the pictures are of another shape than in training, or the encoder is not that of the run.
        """
        wanted = (self.channels, *self.size)
        if inputs.dtype != np.uint8 or inputs.shape[1:] != wanted:
            raise UserError(
                f"images must be uint8 of shape (N, {', '.join(map(str, wanted))}) as in training, "
                f"not {inputs.dtype} of shape {inputs.shape}"
            )
        return self.head.predict_proba(self.encoder.vectors(torch.from_numpy(inputs)).numpy())


def save_front(model: Model, path: Path) -> None:
    """Write what stands in front of the head of a model.

    Raises:
        CannotWrite: it cannot be written.
    """
    assert model.encoder is not None  # such models alone are exported in two parts
    front = Front(
        encoder=model.encoder.record, features=model.encoder.features, channels=model.channels, size=model.size
    )
    write_json(path, dump(front), indent=2)


def load_encoded(path: Path, head: Classifier, encoder: str | None = None) -> EncodedClassifier:
    """Return a head with what `save_front` wrote; `encoder` says where the encoder is now, if it has been moved.

    Raises:
        UserError: the file is damaged, or head and encoder do not fit together.
    """
    front = read_json(path, Front)
    if (head.kind, head.channels) != ("vector", front.features):
        raise UserError(f"{path} names an encoder of {front.features} features, which the file beside it does not take")
    return EncodedClassifier(
        head, RunEncoder(front.encoder, front.features, source=encoder), front.channels, front.size
    )
