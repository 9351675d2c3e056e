"""Which encoder a run learned from: written down with its hash, and opened again for new pictures.

Legend: B batch, C channels, H height, W width, D features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pydantic.dataclasses
import torch
from torch import Tensor

from scanmix.config import STRICT, Table, UserError
from scanmix.data.examples import Examples
from scanmix.features.embedding import batch_size, embed
from scanmix.features.encoder import AnyEncoder, FrozenEncoder
from scanmix.features.opening import open_encoder, placed

FUNCTION = "function"
"""`kind` of an encoder that is a function: no text opens it again."""


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class EncoderPart:
    """One of the encoders whose features are joined; the fields are those of `FrozenEncoder`."""

    name: str
    """As `open_encoder` takes it, with the whole path of a file."""
    kind: str
    digest: str | None = None
    """Hash of its weights; None for a function without one."""
    license: str | None = None
    preparation: Table | None = None
    """How it wants its pictures: the fields of `Preparation`."""

    @property
    def short(self) -> str:
        """Its name without folders of this machine."""
        kind, _, rest = self.name.partition(":")
        before, at, file = rest.rpartition("@")
        is_file = kind == "onnx" or at or rest.startswith("/")
        return f"{kind}:{before}{at}{file.rpartition('/')[2]}" if is_file else self.name


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class EncoderRecord:
    """The encoder of a run."""

    parts: list[EncoderPart]

    @property
    def name(self) -> str:
        """What `open_encoder` takes."""
        return "+".join(part.name for part in self.parts)

    @property
    def is_function(self) -> bool:
        """Whether no text opens it again."""
        return any(part.kind == FUNCTION for part in self.parts)

    @property
    def key(self) -> Table:
        """All that decides the features, by part: neither the place of a file nor a license."""
        return {
            str(number): {"kind": part.kind, "digest": part.digest or "", "preparation": part.preparation or {}}
            for number, part in enumerate(self.parts, 1)
        }


def record_of(encoder: AnyEncoder) -> EncoderRecord:
    """Write down what an encoder is."""
    return EncoderRecord(parts=[_part(part) for part in encoder.parts])


def reopened(
    record: EncoderRecord, source: str | Callable[[Tensor], Any] | AnyEncoder | None = None, device: str = "auto"
) -> AnyEncoder:
    """Open the encoder of a run again.

    Args:
        record: what was written down.
        source: where it is now, as `open_encoder` takes it; by default where it was. A function has to be given.
        device: where it computes.

    Shape: a function takes (B, C, H, W) uint8 and returns (B, D).

    Raises:
        UserError: it cannot be opened, or is not the one of the run.
    """
    if source is None and record.is_function:
        raise UserError(
            f"the features came from the function {record.name}, which no file holds; give it again, opened with the "
            "same digest: open_encoder(function, digest=...)"
        )
    encoder = open_encoder(record.name if source is None else source, device=device)
    check_same(record, encoder)
    return encoder


def check_same(record: EncoderRecord, encoder: AnyEncoder) -> None:
    """Refuse an encoder that computes other features than the one of a run.

    Raises:
        UserError: its weights have another hash, or it prepares pictures in another way; says which.
    """
    found = record_of(encoder)
    if found.key == record.key:
        return
    if len(found.parts) != len(record.parts):
        raise UserError(
            f"{found.name} is another encoder than {record.name}, from which the run learned; name that one"
        )
    for now, then in zip(found.parts, record.parts, strict=True):
        if now.digest != then.digest:
            raise UserError(
                f"{now.name} has weights with the hash {_short(now)}, and the run learned from features of those with "
                f"{_short(then)}; bring back the file that was used, or train anew with this one"
            )
        if now.kind != then.kind or now.preparation != then.preparation:
            raise UserError(
                f"{now.name} ({now.kind}) treats pictures in another way than {then.name} ({then.kind}) did when the "
                f"run began: {now.preparation}, not {then.preparation}; name it with the same options"
            )


class RunEncoder:
    """The encoder of a trained model. It is opened when pictures come for the first time."""

    def __init__(
        self, record: EncoderRecord, features: int, *, opened: AnyEncoder | None = None,
        source: str | Callable[[Tensor], Any] | AnyEncoder | None = None, device: str = "auto",
    ) -> None:  # fmt: skip
        """Store what opens it.

        Args:
            record: what was written down of it.
            features: their number, D.
            opened: the encoder, where it is open already.
            source: where it is now, by default where it was. Shape: a function takes (B, C, H, W) and returns (B, D).
            device: where it computes.
        """
        self.record = record
        self.features = features
        self._opened, self._source, self._device = opened, source, device

    @property
    def opened(self) -> AnyEncoder:
        """The encoder.

        Raises:
            UserError: as `reopened`.
        """
        if self._opened is None:
            self._opened = reopened(self.record, self._source, self._device)
        return self._opened

    def vectors(self, images: Tensor) -> Tensor:
        """Return features as a run learns from them: rounded to half precision. Shape: (B, C, H, W) -> (B, D, 1, 1).

        Raises:
            UserError: the encoder is not the one of the run, fails on the pictures or returns something else.
        """
        encoder, found = self.opened, [np.empty((0, self.features), np.float16)]
        for part in images.cpu().split(batch_size(images, encoder)) if len(images) else ():
            with np.errstate(over="ignore"):
                found.append(encoder.encode(part).numpy().astype(np.float16))
            if found[-1].shape[1] != self.features or not np.isfinite(found[-1]).all():
                raise UserError(
                    f"{encoder.name} returned {found[-1].shape[1]} features of a picture, or numbers that half "
                    f"precision cannot hold; the run learned from {self.features} finite ones"
                )
        return as_vectors(np.concatenate(found))

    def rows(self, examples: Examples) -> np.ndarray:
        """Return the features of a whole data set, from the cache where they are there. Shape: -> (N, D) float16.

        Raises:
            UserError: the encoder is not the one of the run, or as of `embed`.
        """
        found = embed(examples, self.opened)
        if found.shape[1] != self.features:
            raise UserError(
                f"{self.opened.name} returned {found.shape[1]} features; the run learned from {self.features}"
            )
        return found


def as_vectors(rows: np.ndarray) -> Tensor:
    """Return features as `Examples` keep vectors. Shape: (N, D) float16 -> (N, D, 1, 1) float32."""
    return torch.from_numpy(rows.astype(np.float32))[:, :, None, None]


def _part(part: FrozenEncoder) -> EncoderPart:
    prepared = None
    if part.preparation is not None:
        fields = dataclasses.asdict(part.preparation).items()
        prepared = {key: list(value) if isinstance(value, tuple) else value for key, value in fields}
    name = part.name if part.kind == FUNCTION else placed(part.name)
    return EncoderPart(name=name, kind=part.kind, digest=part.digest, license=part.license, preparation=prepared)


def _short(part: EncoderPart) -> str:
    return "unknown" if part.digest is None else part.digest[:16]
