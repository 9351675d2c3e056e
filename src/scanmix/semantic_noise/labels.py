"""Semantic noise (Lee et al. 2019, "Robust inference via generative classifiers"): the mistakes of a weak network.

A network learns from few images with right labels. Its predictions for all images become their labels. Which images
it gets wrong depends on what they look like, as with people. Small networks take seconds on a CPU; two networks are
those of the published code, trained as there, and want a GPU. Legend: N examples, M known images, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scanmix.blocks.schedules import cosine, step_decay
from scanmix.config import UserError
from scanmix.data.batches import TrainingData, batches
from scanmix.data.examples import OPEN_SET, Examples
from scanmix.data.noise_report import NoiseReport, changed_share, measure_transition
from scanmix.data.views import ViewSettings, make_views
from scanmix.distributed.engine import Engine
from scanmix.networks.inference import predict_all
from scanmix.networks.resnet import ResNet, ResNetSettings
from scanmix.progress import Bar
from scanmix.semantic_noise.networks import DenseNet, Vgg

STEPS, BATCH, RATE = 300, 64, 0.05
"""Steps, batch size and learning rate of each network: enough to fit few images, and quick enough for several tries."""
PUBLISHED_EPOCHS, PUBLISHED_DROPS, PUBLISHED_BATCH, PUBLISHED_RATE = 120, (40, 80), 128, 0.1
"""Epochs, those at which the rate is divided by ten, batch size and learning rate of Lee et al.'s code for CIFAR-10."""
TRIES, WITHIN = 9, 0.01
"""Fractions that are tried at most, and the distance from the wanted rate that is near enough."""

LABELLERS: dict[str, Callable[[int], Vgg | DenseNet | ResNet]] = {
    "vgg": lambda channels: Vgg(channels, (16, 32, 64)),
    "densenet": lambda channels: DenseNet(channels, 8, (3, 3, 3)),
    "resnet": lambda channels: ResNet(
        ResNetSettings(
            kind="resnet", widths=(16, 32, 64), blocks=(1, 1, 1), bottleneck=False, stem_kernel=3, stem_stride=1,
            stem_pool=False,
        ),
        channels,
    ),
    "densenet100": lambda channels: DenseNet(channels, 12, (16, 16, 16), bottleneck=True),
    "resnet34": lambda channels: ResNet(
        ResNetSettings(
            kind="resnet", widths=(64, 128, 256, 256), blocks=(3, 4, 6, 3), bottleneck=False, stem_kernel=3,
            stem_stride=1, stem_pool=False,
        ),
        channels,
    ),
}  # fmt: skip
"""Name -> a network on images of so many channels. Small ones of the kinds in the paper's Table 2, and two of Lee et
al.: DenseNet-BC-100 with a growth of 12, and a ResNet-34 whose last stage has 256 maps."""
PUBLISHED = ("densenet100", "resnet34")
"""Those of Lee et al., which are trained as in their code."""


@dataclass(frozen=True)
class Labeling:
    """The predictions of a network for all images, as labels.

    Attributes:
        labels: (N,) int64.
        network: which network, as `LABELLERS` names it.
        asked: the share (0..1) of wrong labels that was wanted; None if the fraction was given.
        fraction: the share (0..1) of images, with right labels, that the network was trained on.
        seed: of its draws.
    """

    labels: Tensor
    network: str
    asked: float | None
    fraction: float
    seed: int

    def put_on(self, examples: Examples) -> Examples:
        """Return the examples with these labels and a report on the noise."""
        truth = _truth(examples)
        report = NoiseReport(
            kind=f"semantic-{self.network}",
            asked_rate=self.asked,
            actual_rate=changed_share(truth, self.labels),
            seed=self.seed,
            transition=measure_transition(truth, self.labels, examples.num_classes),
        )
        return examples.with_labels(self.labels, noise=report)


def semantic_labels(examples: Examples, network: str, rate: float, seed: int, bar: Bar) -> Labeling:
    """Find the number of right labels with which a network gets a share (0..1) of about `rate` of all images wrong.

    The search halves the interval of the logarithm, from one image of each class to all images, and returns the try
    that came nearest. The images of a smaller number are among those of a larger one.

    Raises:
        UserError: the examples are no images, or no try came within 3 percentage points of the rate.
    """
    low, high = examples.num_classes, len(examples)
    found: list[tuple[float, Labeling]] = []
    for turn in range(TRIES):
        middle = round((low * high) ** 0.5)
        bar.set(turn, TRIES, f"labels of a {network} that knows {middle} images")
        labeling = labels_of(examples, network, middle / len(examples), seed, rate)
        wrong = changed_share(_truth(examples), labeling.labels)
        found.append((abs(wrong - rate), labeling))
        if abs(wrong - rate) <= WITHIN or high - low <= 1:
            break
        low, high = (middle, high) if wrong > rate else (low, middle)
    bar.set(TRIES, TRIES)
    missed, best = min(found, key=lambda pair: pair[0])
    if missed > 0.03:
        raise UserError(
            f"no {network} that was tried gets {rate:.0%} of {examples.name!r} wrong (nearest: "
            f"{changed_share(_truth(examples), best.labels):.1%}); ask for another rate or network"
        )
    return best


def labels_of(examples: Examples, network: str, fraction: float, seed: int, asked: float | None = None) -> Labeling:
    """Train a network on a share (0..1) of the images with their right labels; return its predictions for all.

    Raises:
        UserError: the examples are no images, or there is no such network.
    """
    if examples.kind != "image" or network not in LABELLERS:
        raise UserError(f"semantic noise needs images and one of {', '.join(LABELLERS)}, not {network!r} on vectors")
    truth = _truth(examples)
    if bool((truth == OPEN_SET).any()):
        raise UserError(f"semantic noise needs a right label for every image; {examples.name!r} has images of no class")
    # The small networks stay on the CPU, so that their labels are the same on every machine.
    device = torch.device("cuda" if network in PUBLISHED and torch.cuda.is_available() else "cpu")
    engine, images = Engine(seed=seed, device=device), examples.images.to(device)
    views = make_views(ViewSettings(), images, flip=examples.flip)
    data = TrainingData(images, truth.to(device), examples.num_classes, views, engine.generator)
    order = torch.randperm(len(data), generator=engine.generator("semantic", 0, "choice"), device=device)
    known = order[: max(2, round(fraction * len(data)))]
    model = _trained(network, data, known, engine)
    return Labeling(predict_all(model, data, engine).argmax(1).cpu(), network, asked, len(known) / len(data), seed)


def _trained(network: str, data: TrainingData, known: Tensor, engine: Engine) -> nn.Module:
    """Train with cross-entropy on the known images (M,), with weak views."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(engine.generator("semantic", 0, network).initial_seed())
        encoder = LABELLERS[network](data.images.shape[1])
        model = nn.Sequential(encoder, nn.Linear(encoder.num_features, data.num_classes)).to(engine.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4)
    order, draws = data.generators("semantic", 0, "order", "views")
    done = epoch = 0
    model.train()
    while epoch < PUBLISHED_EPOCHS if network in PUBLISHED else done < STEPS:
        for index in batches(known, PUBLISHED_BATCH if network in PUBLISHED else BATCH, order):
            for group in optimizer.param_groups:
                group["lr"] = _rate(network, done, epoch)
            loss = F.cross_entropy(model(data.views.weak(data.images[index], draws)), data.labels[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            done += 1
        epoch += 1
    return model


def _rate(network: str, done: int, epoch: int) -> float:
    """Return the learning rate: Lee et al.'s steps for their networks, half a cosine over the steps for the others."""
    if network in PUBLISHED:
        return step_decay(PUBLISHED_RATE, 0.1, epoch, PUBLISHED_DROPS)
    return cosine(RATE, 0.0, min(done, STEPS) / STEPS)


def _truth(examples: Examples) -> Tensor:
    """Return the true labels, or the given ones if those are not known. Shape: (N,)."""
    return examples.labels if examples.true_labels is None else examples.true_labels
