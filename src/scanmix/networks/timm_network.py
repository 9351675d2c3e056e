"""Any image network of timm, such as the paper's InceptionResNet-v2; needs the extra `timm`.

Legend: B batch, C channels in, D features out.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic.dataclasses import dataclass
from safetensors.torch import load
from torch import Tensor, nn

from scanmix.config import STRICT, UserError, unknown_name
from scanmix.data.examples import Kind
from scanmix.files import reading
from scanmix.networks.contract import Encoder, EncoderSettings


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TimmSettings(EncoderSettings):
    """Which network of timm, and where its first weights come from."""

    reads: ClassVar[Kind] = "image"

    kind: Literal["timm"]
    """Tells these settings from those of other networks."""
    name: str
    """As timm calls it: `inception_resnet_v2`, `resnet50`, `convnext_tiny`."""
    pretrained: bool = False
    """Begin with the weights that timm names for it, from its cache or the Hugging Face Hub. They have seen labels."""
    weights: str | None = None
    """Begin with the weights in this `.safetensors` file, named as timm names them; a classifier in it is left out."""

    def build(self, channels: int) -> TimmNetwork:
        """Return the network with fresh weights for images of `channels` channels.

        Raises:
            UserError: timm is not installed, or has no such network.
        """
        return TimmNetwork(self, channels)

    def build_first(self, channels: int) -> TimmNetwork:
        """Return the network with the weights that `pretrained` or `weights` name, else with fresh ones.

        Raises:
            UserError: as `build`; or the weights cannot be fetched or read, or are of another network.
        """
        encoder = self.build(channels)
        begin_with(encoder, self, channels)
        return encoder

    def untrained(self) -> Self:
        """Return settings of the same network without `pretrained` and `weights`."""
        return dataclasses.replace(self, pretrained=False, weights=None)


class TimmNetwork(Encoder):
    """A network of timm without its classifier. Shape: (B, C, H, W) -> (B, D)."""

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
        """Return the module that makes the last of the feature maps which timm lists for the network."""
        return [self.network.get_submodule(self.network.feature_info[-1]["module"])]

    def forward(self, examples: Tensor) -> Tensor:
        """Return pooled features of images. Shape: (B, C, H, W) -> (B, D).

        Raises:
            UserError: the network does not take images of that size.
        """
        try:
            features: Tensor = self.network(examples)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError) as error:
            height, width = examples.shape[-2:]
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"{self.name} cannot take images of {width}x{height} pixels ({reason}); choose another --size"
            ) from error
        return features


def begin_with(encoder: TimmNetwork, settings: TimmSettings, channels: int) -> None:
    """Load the weights that the settings ask for, if any.

    Raises:
        UserError: the weights cannot be fetched or read, or are of another network.
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
    fresh = encoder.network.state_dict()
    found = {name: tensor for name, tensor in tensors.items() if name in fresh and tensor.shape == fresh[name].shape}
    missing = [name for name in fresh if name not in found]
    if missing:
        raise UserError(f"network.weights: {path} lacks {missing[0]} of {encoder.name} ({len(missing)} tensors in all)")
    encoder.network.load_state_dict(found)
