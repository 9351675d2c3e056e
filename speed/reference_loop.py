"""The baseline: epochs of ScanMix and related methods, written as published code is.

Images are transformed one by one by the loaders of PyTorch, with worker processes if that is quicker here. Every
guessed label has a forward of its own, and losses are stored example by example. The two networks take turns, with
channels first (`plain_network`). The network, the batch sizes, the number of images and the first weights are those of
scanmix, and nothing is slower than it would be in such code. Nothing here comes from `scanmix.blocks` or
`scanmix.methods`: the baseline must stay as it is when they become faster.

Legend: N examples, B batch, C classes, K neighbors.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from scanmix.networks.peer import Peer
from scanmix.networks.preact_resnet import PreActResNet
from speed.pil_views import SingleViews, View
from speed.plain_network import PlainPreActResNet

INFERENCE_BATCH = 512
"""As in scanmix's passes over all images."""
Batches = DataLoader[Any]


@dataclass(frozen=True, eq=False)
class ReferenceData:
    """Pixels as `Image.fromarray` takes them, (N, H, W, 3) or (N, H, W); given labels (N,); and the views."""

    pixels: np.ndarray
    labels: Tensor
    num_classes: int
    views: SingleViews
    workers: int = 0
    """Processes of every loader."""

    def __len__(self) -> int:
        return len(self.labels)


class Net:
    """A network of scanmix's, with an optimizer of its own."""

    def __init__(self, peer: Peer) -> None:
        assert isinstance(peer.encoder, PreActResNet)
        self.encoder = PlainPreActResNet(peer.encoder)
        self.classifier, self.clusterer = copy.deepcopy(peer.classifier), copy.deepcopy(peer.clusterer)
        self.parts = nn.ModuleList([self.encoder, self.classifier, self.clusterer])
        self.optimizer = torch.optim.SGD(self.parts.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)

    def classify(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.encoder(images))
        return logits

    def cluster(self, images: Tensor) -> Tensor:
        logits: Tensor = self.clusterer(self.encoder(images))
        return logits

    def step(self, loss: Tensor, learning_rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class ImageDataset(Dataset[Any]):
    """Some of the images: each as a number of views, and its index."""

    def __init__(self, pixels: np.ndarray, index: Sequence[int], view: View, views: int = 1) -> None:
        self.pixels, self.index, self.view, self.views = pixels, index, view, views

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, place: int) -> tuple[list[Tensor], int]:
        index = self.index[place]
        image = Image.fromarray(self.pixels[index])
        return [self.view(image) for _ in range(self.views)], index


class PairDataset(Dataset[Any]):
    """Every image and a random one of its allowed neighbors."""

    def __init__(self, pixels: np.ndarray, candidates: np.ndarray, allowed: np.ndarray, view: View) -> None:
        self.pixels, self.candidates, self.allowed, self.view = pixels, candidates, allowed, view

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        neighbors = self.candidates[index][self.allowed[index]]
        neighbors = neighbors if len(neighbors) else self.candidates[index]
        neighbor = np.random.choice(neighbors)
        first, second = Image.fromarray(self.pixels[index]), Image.fromarray(self.pixels[neighbor])
        return self.view(first), self.view(second)


def scanmix_epoch(nets: tuple[Net, Net], data: ReferenceData, candidates: Tensor, settings: Any) -> None:
    """The epoch for severe noise, strong views: losses and mixtures, semi-supervised learning, clustering of both."""
    view, rate = data.views.strong, settings.severe_cluster_rate
    found = [predict_all(net, data) for net in nets]
    p_clean = [clean_probability(losses) for losses, _ in found]
    for side in (0, 1):
        learn(nets[side], nets[1 - side], p_clean[1 - side], data, view, settings)
    for side in (0, 1):
        predictions = found[1 - side][1]
        allowed = predictions[candidates] == predictions.unsqueeze(1)
        cluster(nets[side], nets[side].optimizer, candidates, allowed, data, view, settings.cluster_batch_size, rate)


def dividemix_epoch(nets: tuple[Net, Net], data: ReferenceData, settings: Any) -> None:
    """Losses and mixtures of both, semi-supervised learning of both. `settings`: of `DivideMix`."""
    p_clean = [clean_probability(predict_all(net, data)[0]) for net in nets]
    for side in (0, 1):
        learn(nets[side], nets[1 - side], p_clean[1 - side], data, data.views.weak, settings)


def warm_up_epoch(nets: tuple[Net, Net], data: ReferenceData, batch_size: int, rate: float) -> None:
    """Cross-entropy of the whole network on all given labels, weak views."""
    for net in nets:
        net.parts.train()
        everything = ImageDataset(data.pixels, range(len(data)), data.views.weak)
        for (images,), index in loader(everything, batch_size, data):
            net.step(F.cross_entropy(net.classify(images), data.labels[index]), rate)


def head_warm_up_epoch(nets: tuple[Net, Net], data: ReferenceData, batch_size: int, rate: float) -> None:
    """Cross-entropy of the classifier on features without gradients, strong views."""
    for net in nets:
        net.parts.train()
        for (images,), index in loader(
            ImageDataset(data.pixels, range(len(data)), data.views.strong), batch_size, data
        ):
            with torch.no_grad():
                features = net.encoder(images)
            net.step(F.cross_entropy(net.classifier(features), data.labels[index]), rate)


def scan_epoch(net: Net, data: ReferenceData, candidates: Tensor, batch_size: int, rate: float) -> None:
    """Consistency with a neighbor, all neighbors allowed, by Adam."""
    parameters = [*net.encoder.parameters(), *net.clusterer.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=rate, weight_decay=1e-4)
    allowed = torch.ones_like(candidates, dtype=torch.bool)
    cluster(net, optimizer, candidates, allowed, data, data.views.strong, batch_size, rate)


def simclr_epoch(
    encoder: nn.Module, projector: nn.Module, data: ReferenceData, batch_size: int, temperature: float, symmetric: bool
) -> Tensor:
    """Train on two views of each image against all others; then return all embeddings, for neighbors. Shape: -> (N, D).

    Args:
        encoder: maps images to features.
        projector: maps features to embeddings (D).
        data: the images and their views.
        batch_size: images in a batch.
        temperature: of NT-Xent.
        symmetric: both views are anchors, not the first alone.
    """
    network = nn.Sequential(encoder, projector)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.4, momentum=0.9, weight_decay=1e-4)
    network.train()
    everything = ImageDataset(data.pixels, range(len(data)), data.views.contrastive, 2)
    for (first, second), _ in loader(everything, batch_size, data, drop_last=True):
        one, two = network(torch.cat([first, second])).chunk(2)
        loss = contrast(one, two, temperature)
        loss = (loss + contrast(two, one, temperature)) / 2 if symmetric else loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    bank: Tensor | None = None
    with torch.no_grad():
        plain = ImageDataset(data.pixels, range(len(data)), data.views.plain)
        for (images,), index in loader(plain, INFERENCE_BATCH, data, shuffle=False):
            found = network(images)
            bank = torch.empty(len(data), found.shape[1]) if bank is None else bank
            bank[index] = found
    assert bank is not None
    return bank


def predict_all(net: Net, data: ReferenceData) -> tuple[Tensor, Tensor]:
    """Loss of each given label and prediction of each image, written down one by one. Shape: -> (N,), (N,)."""
    losses, predictions = torch.zeros(len(data)), torch.zeros(len(data), dtype=torch.int64)
    net.parts.eval()
    plain = ImageDataset(data.pixels, range(len(data)), data.views.plain)
    with torch.no_grad():
        for (images,), index in loader(plain, INFERENCE_BATCH, data, shuffle=False):
            logits = net.classify(images)
            loss = F.cross_entropy(logits, data.labels[index], reduction="none")
            predicted = logits.argmax(1)
            for b in range(len(images)):
                losses[index[b]] = loss[b]
                predictions[index[b]] = predicted[b]
    return losses, predictions


def clean_probability(losses: Tensor) -> Tensor:
    """Posterior of the component with the lower mean, by scikit-learn. Shape: (N,) -> (N,)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    points = ((losses - losses.min()) / (losses.max() - losses.min())).double().view(-1, 1).numpy()
    mixture = GaussianMixture(n_components=2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(points)
    low = mixture.means_.argmin()
    # Read between the means, as scanmix does: otherwise the two might not divide the images in the same way.
    between = points.clip(mixture.means_.min(), mixture.means_.max())
    return torch.from_numpy(mixture.predict_proba(between)[:, low]).float()


def learn(net: Net, other: Net, p_clean: Tensor, data: ReferenceData, view: View, settings: Any) -> None:
    """MixMatch over one pass of the clean set; each view and each network that guesses labels has its own forward.

    Args:
        net: is trained.
        other: guesses labels with it.
        p_clean: (N,) probability that each label is right.
        data: the images.
        view: of one image.
        settings: of `DivideMix` or `ScanMix`.
    """
    clean = p_clean > settings.clean_threshold
    labeled_set = ImageDataset(data.pixels, clean.nonzero().squeeze(1).tolist(), view, 2)
    unlabeled_set = ImageDataset(data.pixels, (~clean).nonzero().squeeze(1).tolist(), view, 2)
    labeled_loader = loader(labeled_set, settings.batch_size, data)
    unlabeled = forever(loader(unlabeled_set, settings.batch_size, data))
    net.parts.train()
    other.parts.eval()
    for step, ((x1, x2), index) in enumerate(labeled_loader):
        (u1, u2), _ = next(unlabeled)
        labels = torch.zeros(len(x1), data.num_classes).scatter_(1, data.labels[index].view(-1, 1), 1)
        w = p_clean[index].view(-1, 1)
        with torch.no_grad():
            guesses = [one.classify(u).softmax(1) for one in (net, other) for u in (u1, u2)]
            guess = sharpened(sum(guesses[1:], guesses[0]) / 4, settings.sharpen_temperature)
            probs = (net.classify(x1).softmax(1) + net.classify(x2).softmax(1)) / 2
            refined = sharpened(w * labels + (1 - w) * probs, settings.sharpen_temperature)
        inputs = torch.cat([x1, x2, u1, u2])
        targets = torch.cat([refined, refined, guess, guess])
        weight = float(np.random.beta(settings.mixup_alpha, settings.mixup_alpha))
        weight = max(weight, 1 - weight)
        partner = torch.randperm(len(inputs))
        mixed = weight * inputs + (1 - weight) * inputs[partner]
        mixed_targets = weight * targets + (1 - weight) * targets[partner]
        logits = net.classify(mixed)
        lambda_u = settings.unlabeled_weight * min(step / len(labeled_loader) / settings.unlabeled_ramp, 1.0)
        net.step(mixmatch_loss(logits, mixed_targets, 2 * len(x1), lambda_u), settings.learning_rate)


def cluster(
    net: Net, optimizer: torch.optim.Optimizer, candidates: Tensor, allowed: Tensor, data: ReferenceData, view: View,
    batch_size: int, rate: float,
) -> None:  # fmt: skip
    """One pass over all images, each with a neighbor, in two forwards.

    Args:
        net: is trained.
        optimizer: of its parameters.
        candidates: (N, K) neighbors of each image.
        allowed: (N, K) bool, neighbors that may be drawn.
        data: the images.
        view: of one image.
        batch_size: images in a batch.
        rate: learning rate.
    """
    net.parts.train()
    for group in optimizer.param_groups:
        group["lr"] = rate
    pairs = PairDataset(data.pixels, candidates.numpy(), allowed.numpy(), view)
    for images, neighbors in loader(pairs, batch_size, data, drop_last=True):
        loss = consistency_loss(net.cluster(images), net.cluster(neighbors))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def loader(
    dataset: Dataset[Any], size: int, data: ReferenceData, *, shuffle: bool = True, drop_last: bool = False
) -> Batches:
    return DataLoader(dataset, size, shuffle=shuffle, drop_last=drop_last, num_workers=data.workers)


def forever(batches: Batches) -> Iterator[Any]:
    while len(batches):
        yield from batches


def sharpened(probs: Tensor, temperature: float) -> Tensor:
    powered = probs ** (1 / temperature)
    return powered / powered.sum(1, keepdim=True)


def mixmatch_loss(logits: Tensor, targets: Tensor, num_labeled: int, unlabeled_weight: float) -> Tensor:
    labeled = -(F.log_softmax(logits[:num_labeled], 1) * targets[:num_labeled]).sum(1).mean()
    probs = logits.softmax(1)
    unlabeled = ((probs[num_labeled:] - targets[num_labeled:]) ** 2).mean()
    mean, prior = probs.mean(0), 1 / probs.shape[1]
    return labeled + unlabeled_weight * unlabeled + (prior * torch.log(prior / mean)).sum()


def consistency_loss(anchors: Tensor, neighbors: Tensor, entropy_weight: float = 5.0) -> Tensor:
    probs = anchors.softmax(1)
    consistency = -(probs * neighbors.softmax(1)).sum(1).log().clamp(min=-100).mean()
    mean = probs.mean(0)
    return consistency + entropy_weight * (mean * mean.clamp(min=1e-8).log()).sum()


def contrast(anchors: Tensor, positives: Tensor, temperature: float) -> Tensor:
    """NT-Xent of the anchors. Shape: (B, D), (B, D) -> ()."""
    everything = torch.cat([anchors, positives])
    similarity = anchors @ everything.T / temperature
    others = torch.exp(similarity) * (1 - torch.eye(len(anchors), len(everything)))
    positive = (anchors * positives).sum(1) / temperature
    return (others.sum(1).log() - positive).mean()
