"""Any image network of timm, such as the paper's InceptionResNet-v2; needs the extra `timm`.

Shape: B batch, C channels in, D features out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic.dataclasses import dataclass
from safetensors.torch import load
from torch import Tensor, nn

from scanmix.config import STRICT, UserError, unknown_name
from scanmix.files import reading


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TimmSettings:
    """Which network, and where its first weights come from."""

    kind: Literal["timm"]
    """Tells these settings from those of other networks."""
    name: str
    """As timm calls it: `inception_resnet_v2`, `resnet50`, `convnext_tiny`."""
    pretrained: bool = False
    """Begin with the weights that timm names for it, from its cache or the Hugging Face Hub. They have seen labels."""
    weights: str | None = None
    """Begin with the weights in this `.safetensors` file, named as timm names them; a classifier in it is left out."""


class TimmNetwork(nn.Module):
    """Images to pooled features, without the classifier. Shape: (B, C, H, W) -> (B, D)."""

    def __init__(self, settings: TimmSettings, channels: int) -> None:
        """Build it with fresh weights; `begin_with` loads others.

        Raises:
            UserError: timm is not installed, or has no such network.
        """
        super().__init__()
        self.name = settings.name
        self.network = _created(settings.name, channels, pretrained=False)
        self.num_features = int(self.network.num_features)

    def blocks(self) -> list[nn.Module]:
        """Return no blocks: timm does not name them alike in all networks."""
        return []

    def last_stage(self) -> list[nn.Module]:
        """Return what timm calls the last of the network's feature maps."""
        return [self.network.get_submodule(self.network.feature_info[-1]["module"])]

    def forward(self, images: Tensor) -> Tensor:
        """Return pooled features.

        Raises:
            UserError: the network does not take images of that size.
        """
        try:
            features: Tensor = self.network(images)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError) as error:
            height, width = images.shape[-2:]
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"{self.name} cannot take images of {width}x{height} pixels ({reason}); choose another --size"
            ) from error
        return features


def begin_with(encoder: TimmNetwork, settings: TimmSettings, channels: int) -> None:
    """Load the weights that the settings ask for, if any.

    Raises:
        UserError: they cannot be had, or are of another network.
    """
    if settings.weights is not None:
        _load(encoder, Path(settings.weights).expanduser())
    elif settings.pretrained:
        encoder.network.load_state_dict(_created(settings.name, channels, pretrained=True).state_dict())


def _created(name: str, channels: int, *, pretrained: bool) -> Any:
    try:
        import timm
    except ImportError:
        raise UserError(f"the network {name!r} needs timm: pip install 'scanmix[timm]'") from None
    if name.partition(".")[0] not in timm.list_models():
        raise unknown_name("network of timm", name, timm.list_models())
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, in_chans=channels)
    except Exception as error:
        if not pretrained:
            raise
        raise UserError(
            f"timm could not fetch weights of {name!r} ({type(error).__name__}: {error}); "
            "download them elsewhere and name the file with network.weights"
        ) from None


def _load(encoder: TimmNetwork, path: Path) -> None:
    with reading(path, "network.weights names a file of safetensors"):
        tensors = load(path.read_bytes())
    own = encoder.network.state_dict()
    found = {name: tensor for name, tensor in tensors.items() if name in own and tensor.shape == own[name].shape}
    missing = [name for name in own if name not in found]
    if missing:
        raise UserError(f"network.weights: {path} lacks {missing[0]} of {encoder.name} ({len(missing)} tensors in all)")
    encoder.network.load_state_dict(found)
