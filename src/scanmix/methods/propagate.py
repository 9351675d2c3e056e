"""Classes that labels and frozen features tell together, then logistic regression on them: the default for features.

The noise model, in rounds where that helps (`blocks.inferred_classes`), says how probable each class of each example
is; a linear classifier learns these. Legend: N examples, C classes, D features, K neighbors.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from scanmix.blocks.inferred_classes import infer_classes
from scanmix.blocks.label_quality import self_confidence
from scanmix.blocks.logistic import logistic_regression
from scanmix.blocks.neighbors import nearest_neighbors
from scanmix.blocks.ridge import principal_components
from scanmix.config import STRICT, About, Count
from scanmix.data.batches import TrainingData
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import same_every_epoch, sum_of_peers
from scanmix.methods.steps.frozen import frozen_features, no_gradients, one_network, set_classifier
from scanmix.networks.peer import Heads, Networks


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Propagate:
    """The penalty is the one under which held-out posteriors are likeliest.

    Held-out given labels would ask for the penalty that suits the noise, which the posteriors are rid of.
    """

    State: ClassVar[type[Networks]] = Networks
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = 0.5
    epochs: ClassVar[int] = 1
    about: ClassVar[About] = About(
        "labels spread over neighbors in frozen features, then logistic regression on what they say",
        "The first choice for vectors of a pretrained network: seconds, whatever the noise. The network stays as it\n"
        "is; one without pretrained weights gives features that tell little.",
        labels="all, as they explain each other", forward_backward=0.0, forward_only=1.0, weak=0.0, rows=0, searches=1,
        group="frozen features", measured=True,
    )  # fmt: skip
    start = one_network
    predictor = sum_of_peers
    passes = same_every_epoch
    largest_batch = no_gradients

    num_neighbors: Count = 10  # K

    def epoch(self, state: Networks, data: TrainingData, epoch: int) -> dict[str, float]:
        """Spread the labels, then fit the classifier to the posteriors."""
        (peer,) = state.peers
        meter = Meter()
        folds, probes, basis = data.generators("learn", epoch, "folds", "probes", "basis")
        with meter.timed("propagate"):
            features = frozen_features(peer, data)
            neighbors = nearest_neighbors(features, min(self.num_neighbors, len(data) - 1))
            components = principal_components(features, basis)
            inferred = infer_classes(neighbors, components, data.labels, data.num_classes, probes, data.trusted)
            class_probs = peer.engine.broadcast(inferred.posterior)
            state.p_clean = self_confidence(class_probs, data.labels).unsqueeze(0)
        with meter.timed("learn"):
            found = logistic_regression(features, class_probs, folds)
            set_classifier(peer, found)
        relabeled = float((class_probs.argmax(1) != data.labels).float().mean())
        more = {"learn/penalty": found.penalty, "in_rounds": float(inferred.in_rounds), "relabeled": relabeled}
        meter.add("learn", loss=-found.held_out)
        return meter.results() | more
