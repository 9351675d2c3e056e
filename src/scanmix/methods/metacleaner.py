"""MetaCleaner (Zhang, Wang and Qiao, CVPR 2019). Legend: N examples, B images of a batch, G groups, K of a group, D.

Images of one given class are compared with each other, and the classifier learns their weighted mean in place of each:
where few of them are wrong, the mean is nearly clean. The cleaner is left out when the network predicts.

No code was published, and not all of the paper is at hand. What is open, and how it is filled: K is 5; the network that
scores the members of a group jointly has one hidden layer, as wide as the features, and ends in a sigmoid; a batch has
as many groups as fit, of whatever classes come; in an epoch every image is in a group, and the last group of a class is
filled with others of it; both parts are trained together from the start, with the optimizer of cross-entropy.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from scanmix.blocks.selection import groups_of_classes
from scanmix.blocks.trust import pinned
from scanmix.config import STRICT, About, Batch, Count, Duration, Rate, Share, Weight
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, same_every_epoch, sum_of_peers
from scanmix.methods.steps.schedule import decayed_rate
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.peer import Heads, Networks, make_peer

MEMBERS = 5
"""K: images of one class in a group."""


def _cleaner(num_features: int) -> dict[str, nn.Module]:
    """Return the network that scores the members of a group, seen together."""
    hidden = nn.Linear(MEMBERS * num_features, num_features)
    return {"cleaner": nn.Sequential(hidden, nn.ReLU(), nn.Linear(num_features, MEMBERS), nn.Sigmoid())}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MetaCleaner:
    """Optimizer as for cross-entropy."""

    State: ClassVar[type[Networks]] = Networks
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = staticmethod(_cleaner)
    clean_threshold: ClassVar[float | None] = None
    about: ClassVar[About] = About(
        "learns weighted means of images of one class, in which those that do not fit count less",
        "As cheap as `cross_entropy`. Under heavy noise a group may have no right label at all. After the published\n"
        "description: no code and few settings of the authors are known.",
        "Zhang et al., CVPR 2019", "all, those that fit their group more",
        group="meta",
    )  # fmt: skip
    predictor = sum_of_peers
    passes = same_every_epoch
    largest_batch = rows_of_a_step

    epochs: Count = 300  # E
    batch_size: Batch = 128  # B: images, in B / 5 groups
    learning_rate: Rate = 0.02  # of SGD
    lr_drop: Duration = "50%"  # when the learning rate is divided by ten
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 5e-4  # on all parameters

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> Networks:
        """Return one fresh network with its cleaner."""
        heads = type(self).heads
        return Networks([make_peer(network, data, engine, "a", self.momentum, self.weight_decay, heads)])

    def epoch(self, state: Networks, data: TrainingData, epoch: int) -> dict[str, float]:
        """Train on groups that together have all examples."""
        (peer,) = state.peers
        meter = Meter()
        rate = decayed_rate(self, data, epoch, self.lr_drop)
        order, draws = data.generators("learn", epoch, "order", "views")
        groups = groups_of_classes(data.labels, data.num_classes, MEMBERS, order)
        peer.train()
        with meter.timed("learn"):
            for group in groups.split(max(1, self.batch_size // MEMBERS)):
                index = peer.shard(group.flatten())
                features = peer.all_gather(peer.encoder(data.views.weak(data.images[index], draws)))
                members = features[: group.numel()].unflatten(0, group.shape)  # processes may have some rows twice
                trusted = data.trusts(group.flatten())
                weights = peer.heads["cleaner"](members.flatten(1))
                weights = pinned(weights.flatten(), trusted).view(group.shape)
                logits = peer.classifier(weighted_means(members, weights))
                loss = F.cross_entropy(logits, data.labels[group[:, 0]])
                meter.add("learn", loss=loss, weight=weights.mean())
                peer.step(loss, rate)
        return meter.results() | {"rate/learn": rate}


def weighted_means(members: Tensor, weights: Tensor) -> Tensor:
    """Return sum_k w_k v_k / sum_k w_k of each group. Shape: (G, K, D), (G, K) -> (G, D)."""
    shares = weights / weights.sum(1, keepdim=True).clamp(min=1e-6)
    return (shares.unsqueeze(2) * members).sum(1)
