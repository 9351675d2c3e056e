"""A frozen encoder: a pretrained network from pictures to features, and what tells it from every other.

Legend: B batch, C channels, D features.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scanmix.config import UserError
from scanmix.features.preparation import Preparation


@dataclass(frozen=True, eq=False)
class FrozenEncoder:
    """One encoder; `open_encoder` makes it."""

    name: str
    """As it was asked for: `timm:resnet50.a1_in1k`."""
    kind: str
    """What it computes, without the place of its files: `timm:resnet50.a1_in1k`, `onnx output=0`."""
    digest: str | None
    """Hash of its weights; None for a function without one, whose features cannot be kept."""
    network: Callable[[Tensor], Any]
    """From prepared pictures on `device` to features, (B, C, h, w) float32 -> (B, D); without a preparation, from
    pictures as they are, uint8."""
    preparation: Preparation | None = None
    """None for a function that prepares pictures itself."""
    license: str | None = None
    """Of the weights, where it is known."""
    device: torch.device = torch.device("cpu")

    @property
    def key_parts(self) -> Mapping[str, Any]:
        """All that decides the features, in types that JSON has."""
        prepared = None if self.preparation is None else dataclasses.asdict(self.preparation)
        return {"kind": self.kind, "digest": self.digest, "preparation": prepared}

    @property
    def parts(self) -> tuple[FrozenEncoder, ...]:
        """This one."""
        return (self,)

    @property
    def side(self) -> int | None:
        """Shorter side in pixels of pictures that need no resizing; None for a function."""
        return None if self.preparation is None else self.preparation.side

    def __deepcopy__(self, memo: object) -> FrozenEncoder:
        """Return this one: it never changes, and sessions of onnxruntime cannot be copied."""
        return self

    def encode(self, images: Tensor) -> Tensor:
        """Return features of pictures, which are resized as the encoder asks. Shape: (B, C, H, W) uint8 -> (B, D).

        Raises:
            UserError: the encoder fails on such pictures, or does not return one vector for each.
        """
        with torch.inference_mode():
            found = self._run(images)
        if found.ndim != 2 or len(found) != len(images):
            raise UserError(
                f"{self.name} must return features of shape ({len(images)}, D) for {len(images)} pictures, not "
                f"{tuple(found.shape)}"
            )
        return found.detach().to("cpu", torch.float32)

    def _run(self, images: Tensor) -> Tensor:
        if self.preparation is not None:
            images = self.preparation.normalized(self.preparation.resized(images).to(self.device))
        try:
            return torch.as_tensor(self.network(images))
        except (UserError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # networks of others raise errors of any type
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"{self.name} fails on pictures of shape {tuple(images.shape[1:])}: {reason}") from error


@dataclass(frozen=True, eq=False)
class JoinedEncoder:
    """Several encoders as one: their features, each scaled to length 1, side by side."""

    parts: tuple[FrozenEncoder, ...]

    @property
    def name(self) -> str:
        """The names of the parts with "+" between them."""
        return "+".join(part.name for part in self.parts)

    @property
    def digest(self) -> str | None:
        """A hash of the hashes of the parts; None if one has none."""
        found = [part.digest for part in self.parts]
        return None if None in found else hashlib.sha256("\n".join(map(str, found)).encode()).hexdigest()

    @property
    def key_parts(self) -> Mapping[str, Any]:
        """All that decides the features, in types that JSON has."""
        return {"joined": [part.key_parts for part in self.parts]}

    @property
    def side(self) -> int | None:
        """The largest `side` of the parts."""
        return max((part.side for part in self.parts if part.side is not None), default=None)

    def encode(self, images: Tensor) -> Tensor:
        """Return the features of all parts. Shape: (B, C, H, W) uint8 -> (B, sum of D).

        Raises:
            UserError: as of a part.
        """
        return torch.cat([F.normalize(part.encode(images), dim=1) for part in self.parts], 1)


AnyEncoder = FrozenEncoder | JoinedEncoder
