"""Weights on disk: the checkpoint that training continues from, and the model that is left when it is over.

Nothing here is ever unpickled: `torch.load(weights_only=True)`, safetensors and JSON only. Every file is
written aside and renamed, so the old one is there until the new one is whole.
Legend: N examples, B batch, C classes, D features, P networks.
"""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from scanmix.blocks.clusters import match_clusters
from scanmix.config import UserError, build, dump
from scanmix.data.examples import Examples, Kind
from scanmix.data.views import VIEW_SETTINGS, AnyViews, make_views
from scanmix.engine import ALONE, Engine
from scanmix.files import write_aside, write_text
from scanmix.methods import METHODS
from scanmix.networks.encoders import NetworkSettings, build_encoder, settings_class
from scanmix.networks.peer import SWEEP_BATCH, Peer, Predictor, guessing
from scanmix.networks.preact_resnet import PreActResNet
from scanmix.networks.resnet import ResNet

State = TypeVar("State")
Payload = dict[str, Any]
Pixels: TypeAlias = "Tensor | np.ndarray | Examples"

LAYERS = 3
"""Places at which RoG looks at a network."""
PLAIN = (Tensor, bool, int, float, type(None))


def pack(state: Any) -> Payload:
    """Turn a method's state into what `torch.save` writes and `weights_only` reads again.

    A peer becomes its weights and its optimizer's state; tensors, numbers and None stay what they are.

    Raises:
        TypeError: a field holds anything else.
    """
    payload: Payload = {}
    for field in dataclasses.fields(state):
        value = getattr(state, field.name)
        if isinstance(value, list) and all(isinstance(peer, Peer) for peer in value):
            value = [{"weights": p.state_dict(), "optimizer": p.optimizer.state_dict()} for p in value]
        elif not isinstance(value, PLAIN):
            raise TypeError(f"{type(state).__name__}.{field.name}: a {type(value).__name__} cannot be saved")
        payload[field.name] = value
    return payload


def unpack(state_class: type[State], payload: Payload, make_peer: Callable[[], Peer]) -> State:
    """Rebuild the state that `pack` was given; `make_peer` returns a peer of the right shape to load into.

    Momentum, weight decay and learning rate come back with the optimizer's state.
    """
    fields = dict(payload)
    for name, value in payload.items():
        if isinstance(value, list):
            fields[name] = [_loaded(make_peer(), saved) for saved in value]
    return state_class(**fields)


def _loaded(peer: Peer, saved: Payload) -> Peer:
    peer.load_state_dict(saved["weights"])
    peer.optimizer.load_state_dict(saved["optimizer"])
    return peer


def save_checkpoint(folder: Path, identity: str, epoch: int, state: Any) -> None:
    """Keep the state after `epoch` whole epochs in place of the one before.

    `identity` is a hash of the resolved settings and of the data.
    """
    (folder / "checkpoint").mkdir(exist_ok=True)
    content = {"identity": identity, "epoch": epoch, "state": pack(state)}
    write_aside(folder / "checkpoint" / "last.pt", lambda aside: torch.save(content, aside))


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a state to go on from."""
    return (folder / "checkpoint" / "last.pt").exists()


def load_checkpoint(folder: Path, identity: str, device: torch.device) -> tuple[int, Payload] | None:
    """Return (whole epochs, packed state) on `device`, or None where there is no checkpoint yet.

    Raises:
        UserError: it is damaged, or was written with other settings or other data.
    """
    path = folder / "checkpoint" / "last.pt"
    if not has_checkpoint(folder):
        return None
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        found, epoch, state = content["identity"], content["epoch"], content["state"]
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError, KeyError, TypeError, ValueError):
        raise UserError(f"{path} is damaged; delete the folder {folder} and train again") from None
    if found != identity:
        raise UserError(f"{path} belongs to other settings or other data than {folder}/run.toml; choose another folder")
    return epoch, state


def share_checkpoint(saved: tuple[int, Payload] | None, engine: Engine) -> tuple[int, Payload] | None:
    """Give every process the (whole epochs, packed state) that the first has loaded, if it has."""
    if engine.world == 1:
        return saved
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    content = io.BytesIO(engine.told(buffer.getvalue))
    shared: tuple[int, Payload] | None = torch.load(content, map_location=engine.device, weights_only=True)
    return shared


class Seen(NamedTuple):
    """What the networks of a model make of N images; on the CPU."""

    features: Tensor
    """(N, P x D): what each network's classifier stands on, L2-normalized and side by side."""
    logits: Tensor
    """(P, N, C), of each network alone."""


@dataclass(frozen=True, eq=False)
class Model:
    """A trained predictor with all it needs to look at new images."""

    predictor: Predictor
    views: AnyViews
    network: NetworkSettings
    method: str
    class_names: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    engine: Engine = ALONE
    """While it is trained: the processes that share its sweeps."""

    @property
    def kind(self) -> Kind:
        """What it was trained on: images or feature vectors."""
        return "vector" if self.views.dtype == torch.float32 else "image"

    @property
    def label_free(self) -> bool:
        """Whether its accuracy is measured after matching clusters with classes."""
        return METHODS[self.method].label_free

    def logits(self, images: Pixels) -> Tensor:
        """Summed logits of the plain views, on the CPU. Shape: (N, C, H, W) uint8, or (N, D) vectors -> (N, C).

        Raises:
            UserError: the images have another type, other channels or another size than in training.
        """
        return self._sweep(self.predictor, images)

    def member_logits(self, images: Pixels) -> Tensor:
        """Logits of each network alone, on the CPU. Shape: (N, C, H, W) uint8 -> (P, N, C)."""
        return torch.stack([self._sweep(member, images) for member in self.predictor.members])

    def look(self, images: Pixels) -> Seen:
        """Features and logits of each network from one sweep. Shape: (N, C, H, W) uint8, or (N, D) vectors.

        Raises:
            UserError: as `logits`.
        """
        members = self._members()

        def both(views: Tensor) -> Tensor:
            features = [encoder(views) for encoder, _ in members]
            logits = [classifier(seen) for (_, classifier), seen in zip(members, features, strict=True)]
            return torch.cat([torch.stack(features, 1), torch.stack(logits, 1)], 2)

        features, logits = self._sweep(both, images).tensor_split([-len(self.class_names)], 2)
        return Seen(F.normalize(features, dim=2).flatten(1), logits.transpose(0, 1).contiguous())

    def layers(self, images: Pixels) -> list[Tensor]:
        """Features of each network at its last blocks, means over places, and last what its classifier stands on.

        A network without blocks has that alone. Shape: (N, C, H, W) uint8 -> P x `LAYERS` times (N, D_l).
        """
        widths: list[int] = []

        def all_of(views: Tensor) -> Tensor:
            found = [seen for encoder, _ in self._members() for seen in _at_blocks(encoder, views)]
            widths[:] = [seen.shape[1] for seen in found]
            return torch.cat(found, 1)

        together = self._sweep(all_of, images)
        return list(together.split(widths, 1))

    def predict_proba(self, images: Pixels) -> np.ndarray:
        """Class probabilities. Shape: (N, C, H, W) uint8 -> (N, C) float32."""
        return self.logits(images).softmax(1).numpy()

    def predict(self, images: Pixels) -> np.ndarray:
        """Likeliest class. Shape: (N, C, H, W) uint8 -> (N,) int64."""
        return self.logits(images).argmax(1).numpy()

    def accuracy(self, examples: Examples) -> float:
        """Share of right predictions (0..1), against true labels where they are known, else the given ones.

        The clusters of a label-free method are first matched one to one with the classes as suits them best.
        Images known to be of no class are left out.
        """
        examples = examples.without_foreign()
        prediction, truth = torch.from_numpy(self.predict(examples)), truth_of(examples)
        if self.label_free:
            prediction = match_clusters(prediction, truth, len(self.class_names))[prediction]
        return (prediction == truth).double().mean().item()

    def _members(self) -> list[nn.Sequential]:
        """Encoder and classifier of each network."""
        return [cast(nn.Sequential, member) for member in self.predictor.members]

    def _sweep(self, network: Callable[[Tensor], Tensor], images: Pixels) -> Tensor:
        pixels, device = self._checked(images), self.views.mean.device

        def batch(part: slice) -> Tensor:
            return network(self.views.plain(pixels[part].to(device)))

        with guessing(self.predictor, batch_statistics=False):
            return torch.cat([rows.cpu() for rows in self.engine.in_turns(len(pixels), SWEEP_BATCH, batch)])

    def _checked(self, images: Pixels) -> Tensor:
        if isinstance(images, Examples):
            images = images.images
        pixels = torch.tensor(images) if isinstance(images, np.ndarray) else images
        if self.kind == "vector" and pixels.ndim == 2:
            pixels = pixels.float()[:, :, None, None]
        wanted = (self.channels, *self.size)
        if pixels.dtype != self.views.dtype or pixels.ndim != 4 or tuple(pixels.shape[1:]) != wanted:
            channels, height, width = wanted
            kinds = {"image": "images must be uint8", "vector": "vectors must be float32"}
            raise UserError(
                f"{kinds[self.kind]} of shape (N, {channels}, {height}, {width}) as in training, "
                f"not {pixels.dtype} of shape {tuple(pixels.shape)}"
            )
        return pixels


def _at_blocks(encoder: nn.Module, views: Tensor) -> list[Tensor]:
    """Means over places of what the last blocks give, and the features. Shape: (B, C, H, W) -> each (B, D_l)."""
    found: list[Tensor] = []
    blocks = list(encoder.stages)[-LAYERS:-1] if isinstance(encoder, PreActResNet | ResNet) else []
    hooks = [block.register_forward_hook(lambda _, __, maps: found.append(maps.mean((2, 3)))) for block in blocks]
    features = encoder(views)
    for hook in hooks:
        hook.remove()
    return [*found, features]


def truth_of(examples: Examples) -> Tensor:
    """Labels to measure against: the true ones where they are known, else the given. Shape: (N,) int64."""
    return (examples.labels if examples.true_labels is None else examples.true_labels).cpu()


def save_model(model: Model, folder: Path) -> None:
    """Write weights and description to `folder`/model; the description last, so that it vouches for both."""
    folder = folder / "model"
    folder.mkdir(exist_ok=True)
    weights = {name: tensor.cpu().contiguous() for name, tensor in model.predictor.state_dict().items()}
    about = {
        "method": model.method,
        "kind": model.kind,
        "members": len(model.predictor.members),
        "class_names": list(model.class_names),
        "channels": model.channels,
        "size": list(model.size),
        "network": dump(model.network),
        "views": dump(model.views.measured()),
    }
    write_aside(folder / "model.safetensors", lambda aside: save_file(weights, aside))
    text = json.dumps(about, indent=2) + "\n"
    write_text(folder / "model.json", text)


def load_model(folder: str | Path, device: torch.device | str = "cpu") -> Model:
    """Read the model of a run folder (or a copy of its `model` folder); nothing else is needed to predict.

    Raises:
        UserError: there is none, or its files do not fit together.
    """
    folder = Path(folder)
    folder = folder / "model" if (folder / "model").is_dir() else folder
    if not (folder / "model.json").is_file():
        raise UserError(f"{folder} holds no finished model; `scanmix resume {folder}` finishes a run")
    try:
        about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "model.safetensors", device=str(device))
        kind: Kind = about.get("kind", "image")  # models of before there were others do not say
        network = build(settings_class(kind, about["network"]), about["network"], where=f"{folder}/model.json")
        views = build(VIEW_SETTINGS[kind], about["views"], where=f"{folder}/model.json")
        names, channels = tuple(about["class_names"]), int(about["channels"])
        height, width = about["size"]
        predictor = _empty_predictor(network, channels, len(names), about["members"])
        predictor.load_state_dict(weights)
        method = str(about["method"])
    except (KeyError, TypeError, ValueError, RuntimeError, OSError, SafetensorError) as error:
        raise UserError(f"the model in {folder} cannot be read: {error}") from error
    blank = torch.zeros(1, channels, height, width, dtype=torch.uint8, device=device)
    return Model(
        predictor=predictor.to(device),
        views=make_views(views, blank, flip=True),  # mean, std and flip are all given in the file
        network=network,
        method=method,
        class_names=names,
        channels=channels,
        size=(height, width),
    )


def _empty_predictor(network: NetworkSettings, channels: int, num_classes: int, members: int) -> Predictor:
    """Networks shaped as `classify` leaves them; weights about to be replaced must not use up global draws."""
    with torch.random.fork_rng(devices=[]):
        encoders = [build_encoder(network, channels) for _ in range(members)]
        return Predictor([nn.Sequential(encoder, nn.Linear(encoder.num_features, num_classes)) for encoder in encoders])
