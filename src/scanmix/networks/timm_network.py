"""Any image network of timm, such as the paper's InceptionResNet-v2; needs the extra `timm`.

Legend: B batch, C channels in, D features out.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from scanmix.config import STRICT, Count, Rate, UserError
from scanmix.data.examples import Kind
from scanmix.files.tensors import digest
from scanmix.networks.contract import Encoder, EncoderSettings
from scanmix.networks.timm_weights import begun, created, in_gray, with_network

AT_ONCE = 32
"""Images that are resized and looked at together where no gradient is needed: the maps of more take gigabytes."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TimmSettings(EncoderSettings):
    """Which network of timm, where its first weights come from, and how it is trained on from them."""

    reads: ClassVar[Kind] = "image"

    kind: Literal["timm"]
    """Tells these settings from those of other networks."""
    name: str
    """As timm calls it: `inception_resnet_v2`, `resnet50`, `convnext_tiny`."""
    pretrained: bool = False
    """Begin with the weights that timm names for it, from its cache or the Hugging Face Hub. They have seen labels."""
    weights: str | None = None
    """Begin with the weights in this file (`.safetensors`, or a PyTorch state), named as timm names them; a classifier
    in it is left out."""
    digest: str | None = None
    """Hash of these weights as a network of color pictures has them: any others are refused. Gray pictures are then
    seen as color."""
    side: Count | None = None
    """Side in pixels to which a batch is resized (bilinear) before the network sees it; by default it stays."""
    head_first: Annotated[int, Field(ge=0)] = 0
    """Epochs in which the encoder rests: its weights and batch statistics stay, and heads alone are trained."""
    encoder_rate: Rate = 1.0
    """Factor of the learning rates of a method for the encoder; heads learn with the whole rate."""
    feature_length: Rate | None = None
    """Length (Euclidean) to which features are scaled, so that one learning rate suits the heads on any network: those
    of a vision transformer and of an EfficientNet differ tenfold, and on long ones heads diverge or memorize. By
    default they stay."""
    keep_statistics: bool = False
    """Batch norms always compute with the statistics that came with the weights, instead of those of batches: some of
    timm follow the batches too slowly for a few epochs, and small batches tell little."""

    def build(self, channels: int) -> TimmNetwork:
        """Return the network with fresh weights for images of `channels` channels.

        Raises:
            UserError: timm is not installed, or has no such network.
        """
        return TimmNetwork(self, channels)

    def build_first(self, channels: int) -> TimmNetwork:
        """Return the network with the weights that `pretrained` or `weights` name, else with fresh ones.

        Raises:
            UserError: as `build`; or the weights cannot be fetched or read, are of another network, or have another
                hash than `digest`.
        """
        encoder = self.build(channels)
        begin_with(encoder, self, channels)
        return encoder

    def check(self) -> None:
        """Refuse a name that timm does not have, or to go on without timm."""
        with_network(self.name)

    def untrained(self) -> Self:
        """Return settings of the same network without `pretrained` and `weights`."""
        return dataclasses.replace(self, pretrained=False, weights=None)

    def starts_trained(self) -> bool:
        """Return whether `build_first` loads weights that have seen pictures."""
        return self.pretrained or self.weights is not None

    def resting_epochs(self) -> int:
        """Return `head_first`."""
        return self.head_first

    def share_of_rate(self) -> float:
        """Return `encoder_rate`."""
        return self.encoder_rate


class TimmNetwork(Encoder):
    """A network of timm without its classifier. Shape: (B, C, H, W) -> (B, D)."""

    def __init__(self, settings: TimmSettings, channels: int) -> None:
        """Build it with fresh weights; `begin_with` loads others.

        Raises:
            UserError: timm is not installed, or has no such network.
        """
        super().__init__()
        self.name, self.side, self.keep_statistics = settings.name, settings.side, settings.keep_statistics
        self.feature_length = settings.feature_length
        self.network = created(settings.name, channels)
        self.num_features = int(self.network.num_features)

    def train(self, mode: bool = True) -> Self:
        """Set train mode, or eval mode, which batch norms stay in where they keep their statistics."""
        super().train(mode)
        for part in self.modules() if self.keep_statistics else ():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eval()
        return self

    def blocks(self) -> list[nn.Module]:
        """Return no blocks: timm does not name them alike in all networks."""
        return []

    def last_stage(self) -> list[nn.Module]:
        """Return the module that makes the last of the feature maps which timm lists for the network."""
        return [self.network.get_submodule(self.network.feature_info[-1]["module"])]

    def forward(self, examples: Tensor) -> Tensor:
        """Return pooled features of images, resized if `side` is set. Shape: (B, C, H, W) -> (B, D).

        Raises:
            UserError: the network does not take images of that size.
        """
        alone = not self.training and not torch.is_grad_enabled()  # each image is computed without the others
        if self.side is None or not alone or torch.jit.is_tracing():  # type: ignore[no-untyped-call, attr-defined]
            return self._features(examples)
        return torch.cat([self._features(part) for part in examples.split(AT_ONCE)])

    def _features(self, examples: Tensor) -> Tensor:
        if self.side is not None:
            examples = F.interpolate(examples, size=(self.side, self.side), mode="bilinear")
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
        return features if self.feature_length is None else self.feature_length * F.normalize(features, dim=1)


def begin_with(encoder: TimmNetwork, settings: TimmSettings, channels: int) -> None:
    """Load the weights that the settings ask for, if any.

    Raises:
        UserError: the weights cannot be fetched or read, are of another network, or have another hash.
    """
    if not settings.starts_trained():
        return
    file = "" if settings.weights is None else settings.weights
    if settings.digest is None:
        encoder.network.load_state_dict(begun(settings.name, file, channels).state_dict())
        return
    donor = begun(settings.name, file)
    weights = donor.state_dict()
    if (found := digest(weights)) != settings.digest:
        raise UserError(
            f"the weights of {settings.name} have the hash {found[:16]}, and the run began with those of "
            f"{settings.digest[:16]}; bring back the file that was used, or train anew with this one"
        )
    encoder.network.load_state_dict(weights if channels == 3 else in_gray(weights, _first_layer(donor)))


def _first_layer(network: Any) -> str:
    """Return the name of the convolution that reads the picture."""
    found = network.pretrained_cfg["first_conv"]
    return str(found if isinstance(found, str) else found[0])
