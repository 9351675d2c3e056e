"""Multinomial logistic regression on frozen features: the given labels as they are, one strong enough penalty.

What Zhu et al. (NeurIPS 2024, "NI-ERM") find hard to beat on features that no label shaped: noise-ignorant
empirical risk minimization. Legend: N examples, C classes, D features.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from scanmix.blocks.logistic import logistic_regression
from scanmix.config import STRICT, About
from scanmix.data.batches import TrainingData
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import same_every_epoch, sum_of_peers
from scanmix.methods.steps.frozen import frozen_features, no_gradients, one_network, set_classifier
from scanmix.networks.peer import Heads, Networks


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Linear:
    """The penalty is the one under which held-out given labels are likeliest; there is nothing to set."""

    State: ClassVar[type[Networks]] = Networks
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = None
    epochs: ClassVar[int] = 1
    about: ClassVar[About] = About(
        "logistic regression on frozen features and the given labels: the baseline for features",
        "For vectors of a pretrained network: seconds. Its penalty grows with the noise, so that it memorizes little.\n"
        "The network stays as it is; one without pretrained weights gives features that tell little.",
        "Zhu et al., NeurIPS 2024", forward_backward=0.0, forward_only=1.0, weak=0.0, rows=0,
        group="frozen features", measured=True,
    )  # fmt: skip
    start = one_network
    predictor = sum_of_peers
    passes = same_every_epoch
    largest_batch = no_gradients

    def epoch(self, state: Networks, data: TrainingData, epoch: int) -> dict[str, float]:
        """Fit the classifier to the features of all eval views."""
        (peer,) = state.peers
        meter = Meter()
        with meter.timed("learn"):
            features = frozen_features(peer, data)
            (folds,) = data.generators("learn", epoch, "folds")
            found = logistic_regression(features, data.one_hot(data.everything), folds)
            set_classifier(peer, found)
        meter.add("learn", loss=-found.held_out)
        return meter.results() | {"learn/penalty": found.penalty}
