"""The EM of ScanMix (Sachdeva et al., Pattern Recognition 2023, section 3.2) before its approximations.

It takes all pairs of a few hundred images. It shows what Eq. 5 and 6 and Lemmas 1 and 2 mean, and does not train a good
classifier. `docs/theory.md` reports what it shows. Legend: N examples, C classes.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from scanmix.blocks.ascent import ascend
from scanmix.blocks.em import (
    MOST_EXAMPLES,
    em_terms,
    expectation,
    in_metrics,
    log_joint,
    log_posterior,
    log_probabilities,
)
from scanmix.config import STRICT, About, Count, Rate, UserError
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import sum_of_peers
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import classify
from scanmix.networks.passes import Passes, Stages
from scanmix.networks.peer import Heads, Networks, make_peer


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExactEM:
    """An epoch is one E-step and one M-step; every gradient is of the eval views of all images."""

    State: ClassVar[type[Networks]] = Networks
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = None
    about: ClassVar[About] = About(
        "the EM of ScanMix's theory on all pairs of a few hundred images: for study, not for use",
        "The EM that the ScanMix paper starts from, before its approximations: every pair of up to 2,000\n"
        "images, gradients of all of them at once. It trusts every label and memorizes the wrong ones.\n"
        "Use it to study [the theory](theory.md), not to train a classifier.",
        "Sachdeva et al., Pattern Recognition 2023, section 3.2", cost_in_words="14 and more",
        group="scanmix",
    )  # fmt: skip
    predictor = sum_of_peers

    epochs: Count = 100  # E: turns of EM
    steps: Count = 10  # of gradient ascent in an M-step
    learning_rate: Rate = 1.0  # of a step that is not halved
    halvings: Annotated[int, Field(ge=0)] = 20  # of a step until Eq. 6 rises; 0 takes each as it is, and may lower it

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> Networks:
        """Return one fresh network.

        Raises:
            UserError: there are too many images for tables of all pairs.
        """
        if len(data) > MOST_EXAMPLES:
            raise UserError(
                f"exact_em holds every pair of images in memory, so it takes up to {MOST_EXAMPLES:,} images, "
                f"not {len(data):,}; give fewer (--per-class 20), or take the method scanmix"
            )
        return Networks([make_peer(network, data, engine, "a")])

    def epoch(self, state: Networks, data: TrainingData, epoch: int) -> dict[str, float]:
        """Take one E-step and one M-step."""
        (peer,) = state.peers
        network = classify(peer).eval()  # batch norm keeps its initial statistics, so that p is one function of theta
        weights = list(network.parameters())
        theta_old = [weight.detach().clone() for weight in weights]
        images, labels = data.eval_view(data.everything), data.labels.cpu()
        meter = Meter()

        # E-step: q(z_ji) = p_theta_old(z_ji | y_i, x_i), Eq. 5, so that KL[q || p_theta_old] = 0.
        with torch.no_grad():
            before = log_probabilities(network(images))
        q = log_posterior(before, labels).exp()

        # M-step: maximize E_q[log p_theta(y, z | x)], Eq. 6: classification term and semantic clustering term.
        def objective() -> Tensor:
            return expectation(q, log_joint(log_probabilities(network(images)), labels))

        rate = self.learning_rate
        with meter.timed("learn"):
            for _ in range(self.steps):
                step = ascend(weights, objective, rate, self.halvings)
                meter.add("learn", loss=-step.value)
                rate = min(2 * step.rate, self.learning_rate)

        with torch.no_grad():
            now = log_probabilities(network(images))
            moved = sum((new - old).square().sum().item() for new, old in zip(weights, theta_old, strict=True))
        terms = in_metrics(em_terms(before, now, labels)) | {"elbo/moved": moved}
        return meter.results() | terms | {"rate/learn": step.rate}

    def passes(self, count: int, clean: float) -> Stages:
        """Count every image in every step, once more forward where steps are halved, and before and after an epoch.

        Steps that are halved more than once are not counted.
        """
        forward = 2 + (self.steps if self.halvings else 0)
        epoch = Passes(forward_backward=self.steps * count, forward_only=forward * count)
        return {"training": epoch * self.epochs}

    def largest_batch(self, count: int) -> int:
        """Return all images: every gradient is of all of them."""
        return count
