"""The model that a training ends with: how it predicts, and how it is stored.

Nothing here is ever unpickled: safetensors and JSON only.
Legend: N examples, B batch, C classes, D features, P networks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias, cast

import numpy as np
import pydantic
import pydantic.dataclasses
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scanmix.blocks.clusters import match_clusters
from scanmix.config import STRICT, Count, Table, UserError, build, check_type, dump
from scanmix.data.examples import Examples, Kind
from scanmix.data.views import VIEW_SETTINGS, AnyViews, make_views
from scanmix.distributed.engine import SINGLE_PROCESS, Engine
from scanmix.features import AnyEncoder, EncoderRecord, RunEncoder, as_vectors
from scanmix.files import read_json, reading, write_json, writing
from scanmix.files.tensors import read_tensors, write_tensors
from scanmix.model.measured import Measured, measured
from scanmix.networks.encoders import Encoder, NetworkSettings, settings_class, stored_network
from scanmix.networks.inference import INFERENCE_BATCH, Predictor, inference
from scanmix.networks.neighbor_vote import NeighborVote, VoteShape, empty_vote

Pixels: TypeAlias = "Tensor | np.ndarray | Examples"

LAYERS = 3
"""Layers of a network that RoG takes features from."""
MOST_MEMBERS = 64
"""More networks than any method has: a damaged file must not ask for millions."""
NO_MODEL = "delete the folder of the model, then `scanmix resume RUN` makes it again from the checkpoint"


class Outputs(NamedTuple):
    """Features and logits of N images, on the CPU."""

    features: Tensor
    """(N, P x D): the features before each network's classifier, L2-normalized and side by side."""
    logits: Tensor
    """(P, N, C), of each network alone."""


@dataclass(frozen=True, eq=False)
class Model:
    """A trained predictor with all it needs to predict new images."""

    predictor: Predictor
    views: AnyViews
    network: NetworkSettings
    method: str
    class_names: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    """Height and width of an image in pixels."""
    self_supervised: bool = False
    """The method saw no label: accuracy is measured after matching its clusters with the classes."""
    engine: Engine = SINGLE_PROCESS
    """During training, the processes that share a pass over the data; later a single one."""
    encoder: RunEncoder | None = None
    """What turns images into the vectors that the networks take; `channels` and `size` are of the images then."""

    @property
    def kind(self) -> Kind:
        """What it takes: images or feature vectors."""
        return "image" if self.encoder is not None or self.views.dtype == torch.uint8 else "vector"

    @property
    def inputs(self) -> int:
        """What the networks take: channels of images, or the number of features."""
        return self.channels if self.encoder is None else self.encoder.features

    @property
    def head(self) -> Model:
        """The networks alone, which take the features of the encoder as vectors; without an encoder this model."""
        if self.encoder is None:
            return self
        return dataclasses.replace(self, encoder=None, channels=self.encoder.features, size=(1, 1))

    def logits(self, images: Pixels) -> Tensor:
        """Summed logits of the center views, on the CPU. Shape: (N, C, H, W) uint8, or (N, D) vectors -> (N, C).

        Raises:
            UserError: the images have another type, other channels or another size than in training.
        """
        return self._predict_all(self.predictor, images)

    def member_logits(self, images: Pixels) -> Tensor:
        """Logits of each network alone, on the CPU. Shape: (N, C, H, W) uint8 -> (P, N, C)."""
        return torch.stack([self._predict_all(member, images) for member in self.predictor.members])

    def outputs(self, images: Pixels) -> Outputs:
        """Features and logits of each network from one pass. Shape: (N, C, H, W) uint8, or (N, D) vectors.

        Raises:
            UserError: as `logits`.
        """
        members = self.parts()

        def both(views: Tensor) -> Tensor:
            features = [encoder(views) for encoder, _ in members]
            logits = [classifier(rows) for (_, classifier), rows in zip(members, features, strict=True)]
            return torch.cat([torch.stack(features, 1), torch.stack(logits, 1)], 2)

        features, logits = self._predict_all(both, images).tensor_split([-len(self.class_names)], 2)
        return Outputs(F.normalize(features, dim=2).flatten(1), logits.transpose(0, 1).contiguous())

    def layers(self, images: Pixels) -> list[Tensor]:
        """Features of each network: of its last blocks, averaged over positions, then those before its classifier.

        A network without blocks has the last ones alone. Shape: (N, C, H, W) uint8 -> P x `LAYERS` times (N, D_l).
        """
        widths: list[int] = []

        def all_of(views: Tensor) -> Tensor:
            found = [layer for encoder, _ in self.parts() for layer in _at_blocks(encoder, views)]
            widths[:] = [layer.shape[1] for layer in found]
            return torch.cat(found, 1)

        together = self._predict_all(all_of, images)
        return list(together.split(widths, 1))

    def predict_proba(self, images: Pixels) -> np.ndarray:
        """Class probabilities. Shape: (N, C, H, W) uint8 -> (N, C) float32."""
        return self.logits(images).softmax(1).numpy()

    def predict(self, images: Pixels) -> np.ndarray:
        """Most probable class. Shape: (N, C, H, W) uint8 -> (N,) int64."""
        return self.logits(images).argmax(1).numpy()

    def measure(self, examples: Examples) -> Measured:
        """Compare predictions with true labels where they are known, else with the given ones.

        The clusters of a self-supervised method are first matched one to one with the classes, in the best way.
        Images known to be of no class are left out.
        """
        examples = examples.without_open_set()
        prediction, truth = torch.from_numpy(self.predict(examples)), truth_of(examples)
        if self.self_supervised:
            prediction = match_clusters(prediction, truth, len(self.class_names))[prediction]
        return measured(prediction, truth, len(self.class_names))

    def parts(self) -> list[tuple[Encoder, nn.Module]]:
        """Encoder and classifier of each network."""
        pairs = [cast(nn.Sequential, member) for member in self.predictor.members]
        return [(cast(Encoder, encoder), classifier) for encoder, classifier in pairs]

    def _predict_all(self, network: Callable[[Tensor], Tensor], images: Pixels) -> Tensor:
        """Apply a network to the center views in batches; the rows come back on the CPU. Shape: -> (N, ...)."""
        pixels, device = self._checked(images), self.views.mean.device

        def batch(part: slice) -> Tensor:
            rows = pixels[part]
            if self.encoder is not None and rows.dtype == torch.uint8:
                rows = self.encoder.vectors(rows)
            return network(self.views.eval_view(rows.to(device)))

        with inference(self.predictor, batch_statistics=False):
            return torch.cat([rows.cpu() for rows in self.engine.sharded_map(len(pixels), INFERENCE_BATCH, batch)])

    def _checked(self, images: Pixels) -> Tensor:
        """Return the pixels or vectors as they are taken. Shape: -> (N, C, H, W), vectors (N, D, 1, 1).

        A model of images with an encoder takes features of it as well, as vectors. Those of `Examples` are looked up in
        the cache, and kept there.
        """
        examples = images if isinstance(images, Examples) else None
        if isinstance(images, Examples):
            images = images.images
        check_type("images", images, (Tensor, np.ndarray), "an array, a tensor or Examples")
        if isinstance(images, np.ndarray) and images.dtype.kind not in "fiub":
            raise UserError(f"images must be numbers, not {images.dtype}")
        pixels = torch.tensor(images) if isinstance(images, np.ndarray) else images
        if self.views.dtype == torch.float32 and pixels.ndim == 2:
            pixels = pixels.float()[:, :, None, None]
        if self.encoder is not None and pixels.dtype == torch.float32 and pixels.shape[1:] == (self.inputs, 1, 1):
            return pixels
        wanted = (self.channels, *self.size)
        if (
            pixels.dtype != (torch.uint8 if self.kind == "image" else torch.float32)
            or pixels.ndim != 4
            or tuple(pixels.shape[1:]) != wanted
        ):
            channels, height, width = wanted
            kinds = {"image": "images must be uint8", "vector": "vectors must be float32"}
            raise UserError(
                f"{kinds[self.kind]} of shape (N, {channels}, {height}, {width}) as in training, "
                f"not {pixels.dtype} of shape {tuple(pixels.shape)}"
            )
        if self.encoder is not None and examples is not None and len(examples):
            return as_vectors(self.encoder.rows(examples))
        return pixels


def _at_blocks(encoder: Encoder, views: Tensor) -> list[Tensor]:
    """Return maps of the last blocks, averaged over positions, then the features.

    Shape: (B, C, H, W) -> each (B, D_l).
    """
    found: list[Tensor] = []
    blocks = encoder.blocks()[-LAYERS:-1]
    hooks = [block.register_forward_hook(lambda _, __, maps: found.append(maps.mean((2, 3)))) for block in blocks]
    features = encoder(views)
    for hook in hooks:
        hook.remove()
    return [*found, features]


def truth_of(examples: Examples) -> Tensor:
    """Labels to measure against: the true ones where they are known, else the given. Shape: (N,) int64."""
    return (examples.labels if examples.true_labels is None else examples.true_labels).cpu()


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class Description:
    """The content of `model.json`: what the weights beside it need to predict."""

    method: str
    class_names: list[str]
    channels: Count
    size: tuple[Count, Count]
    """Height and width."""
    network: Table
    views: Table
    members: Annotated[int, pydantic.Field(ge=1, le=MOST_MEMBERS)]
    """Networks whose logits are added up."""
    kind: Kind = "image"
    """Absent from files that are older than models of vectors."""
    self_supervised: bool | None = None
    """As in `Model`; absent from files of version 0.1.0."""
    encoder: EncoderRecord | None = None
    """What turns images into vectors; None for networks that take the images."""
    features: Count | None = None
    """Number of features of the encoder."""
    vote: VoteShape | None = None
    """Of methods whose classifier is a vote of training rows; None for a linear classifier."""


def save_model(model: Model, folder: Path) -> None:
    """Write weights and description to `folder`/model; the description last, so that a model with one is whole.

    Raises:
        CannotWrite: the disk is full, or may not be written to.
    """
    folder = folder / "model"
    with writing(folder):
        folder.mkdir(exist_ok=True)
    about = Description(
        method=model.method,
        kind=model.kind,
        members=len(model.predictor.members),
        class_names=list(model.class_names),
        channels=model.channels,
        size=model.size,
        self_supervised=model.self_supervised,
        network=dump(model.network),
        views=dump(model.views.measured()),
        encoder=None if model.encoder is None else model.encoder.record,
        features=None if model.encoder is None else model.encoder.features,
        vote=next((head.shape for _, head in model.parts() if isinstance(head, NeighborVote)), None),
    )
    write_tensors(folder / "model.safetensors", model.predictor.state_dict())
    write_json(folder / "model.json", dump(about), indent=2)


def load_model(
    folder: str | Path, device: torch.device | str = "cpu",
    encoder: str | Callable[[Tensor], Any] | AnyEncoder | None = None,
) -> Model:  # fmt: skip
    """Read the model of a run folder (or a copy of its `model` folder); nothing else is needed to predict.

    A run that learned from pretrained features needs their encoder as well. It is opened when pictures come, from
    where it was, or from where `encoder` says that it is now, as `open_encoder` takes it.
    Shape: a function as encoder takes (B, C, H, W) uint8 and returns (B, D).

    Raises:
        UserError: there is no model, its files are damaged or do not fit together, or weights are NaN or infinite.
    """
    folder = Path(folder)
    folder = folder / "model" if (folder / "model").is_dir() else folder
    path, weights_path = folder / "model.json", folder / "model.safetensors"
    if not path.is_file():
        raise UserError(f"{folder} holds no finished model; `scanmix resume {folder}` finishes a run")
    about = read_json(path, Description, NO_MODEL)
    weights = read_tensors(weights_path, NO_MODEL, device)
    for name, tensor in weights.items():
        if not bool(tensor.isfinite().all()):
            raise UserError(f"{weights_path} has weights that are not numbers ({name}); {NO_MODEL}")
    with reading(path, NO_MODEL):
        opened = _run_encoder(about, str(device), encoder)
        kind: Kind = about.kind if opened is None else "vector"
        inputs = about.channels if opened is None else opened.features
        table = stored_network(about.network)
        network = build(settings_class(kind, table), table, where=str(path))
        settings = build(VIEW_SETTINGS[kind], about.views, where=str(path))
        predictor = _empty_predictor(network, inputs, len(about.class_names), about.members, about.vote)
        predictor.load_state_dict(weights)
        blank = torch.zeros(1, inputs, *about.size, dtype=torch.uint8, device=device)
        views = make_views(settings, blank, flip=True)  # mean, std and flip are all given in the file
    return Model(
        predictor=predictor.to(device),
        views=views,
        network=network,
        method=about.method,
        class_names=tuple(about.class_names),
        channels=about.channels,
        size=about.size,
        # Files of version 0.1.0 do not say; "scan" was then the only method that sees no label.
        self_supervised=about.method == "scan" if about.self_supervised is None else about.self_supervised,
        encoder=opened,
    )


def _run_encoder(about: Description, device: str, source: Any) -> RunEncoder | None:
    """Return the encoder of a model, not opened yet; None where the networks take what is given.

    Raises:
        ValueError: there is an encoder without its number of features, or for vectors.
        UserError: `source` names an encoder, and the model has none.
    """
    if about.encoder is None:
        if source is not None:
            raise UserError("the run learned from the pictures themselves: it needs no encoder; leave it out")
        return None
    if about.features is None or about.kind != "image":
        raise ValueError(f"an encoder of {about.kind}s with {about.features} features")
    return RunEncoder(about.encoder, about.features, source=source, device=device)


def _empty_predictor(
    network: NetworkSettings, channels: int, num_classes: int, members: int, vote: VoteShape | None
) -> Predictor:
    """Return networks shaped as `classify` returns them, with any weights: the caller replaces them."""

    def head(width: int) -> nn.Module:
        return nn.Linear(width, num_classes) if vote is None else empty_vote(vote, width, num_classes)

    # Fresh weights draw from the global generator, which belongs to the user.
    with torch.random.fork_rng(devices=[]):
        encoders = [network.build(channels) for _ in range(members)]
        return Predictor([nn.Sequential(encoder, head(encoder.num_features)) for encoder in encoders])
