"""EM on 200 digits: its E-step is Eq. 5, log p = ELBO + KL in every epoch, Lemma 1 holds where its assumption does."""

import dataclasses
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import scanmix
from scanmix.blocks.ascent import SUFFICIENT
from scanmix.blocks.em import em_terms, expectation, log_joint, log_posterior, log_probabilities
from scanmix.config import UserError
from scanmix.data.batches import TrainingData
from scanmix.data.examples import Examples
from scanmix.data.views import ViewSettings, make_views
from scanmix.distributed.engine import Engine
from scanmix.methods import exact_em
from scanmix.methods.exact_em import ExactEM
from scanmix.networks.inference import classify
from scanmix.networks.preact_resnet import PreActResNetSettings

NETWORK = PreActResNetSettings(widths=(8, 16), blocks=(1, 1), stem_stride=2, stem_norm=False)


@pytest.fixture(scope="module")
def digits() -> TrainingData:
    """200 digits, two in five labels drawn anew."""
    examples: Examples = scanmix.add_noise(scanmix.load("digits", per_class=20)[0], "symmetric", rate=0.4, seed=0)
    views = make_views(ViewSettings(), examples.images, flip=False)
    assert isinstance(examples.images, Tensor) and len(examples) == 200
    return TrainingData(examples.images, examples.labels, 10, views, Engine().generator)


def probabilities(state: Any, data: TrainingData) -> Tensor:
    with torch.no_grad():
        return log_probabilities(classify(state.peers[0]).eval()(data.eval_view(data.everything)))


def trained(method: ExactEM, data: TrainingData) -> tuple[list[Tensor], list[dict[str, float]]]:
    """Log-probabilities before each epoch and after the last, and what each epoch wrote down."""
    state = method.start(data, NETWORK, Engine())
    seen, lines = [probabilities(state, data)], []
    for epoch in range(method.epochs):
        lines.append(method.epoch(state, data, epoch))
        seen.append(probabilities(state, data))
    return seen, lines


@pytest.fixture(scope="module")
def careful(digits: TrainingData) -> tuple[list[Tensor], list[dict[str, float]]]:
    return trained(ExactEM(epochs=6, steps=5), digits)


Careful = tuple[list[Tensor], list[dict[str, float]]]


def test_the_e_step_is_eq_5(digits: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Tensor] = []

    def spy(q: Tensor, values: Tensor) -> Tensor:
        used.append(q)
        return expectation(q, values)

    monkeypatch.setattr(exact_em, "expectation", spy)
    method = ExactEM(epochs=2, steps=2)
    state = method.start(digits, NETWORK, Engine())
    for epoch in range(2):
        probs, labels = probabilities(state, digits).exp(), digits.labels
        used.clear()
        method.epoch(state, digits, epoch)
        dots = (probs.unsqueeze(0) * probs.unsqueeze(1)).sum(2)
        alike = (labels.unsqueeze(0) == labels.unsqueeze(1)).double()
        assert all(torch.allclose(q[1], alike * dots, rtol=1e-9, atol=0) for q in used)
        assert all(torch.allclose(q[0], 1 - alike * dots, rtol=1e-9, atol=0) for q in used)
        assert len(used) >= 4, "each step looks at least twice"


def test_log_p_is_elbo_plus_kl_in_every_epoch(careful: Careful, digits: TrainingData) -> None:
    seen, lines = careful
    for log_probs, line in zip(seen[1:], lines, strict=True):
        honest = log_probs[torch.arange(200), digits.labels].mean().item()
        assert line["elbo/log_likelihood"] == pytest.approx(honest, abs=1e-9)
        assert line["elbo/bound"] + line["elbo/kl"] == pytest.approx(honest, abs=1e-5)
        assert line["elbo/bound"] + line["elbo/kl"] == pytest.approx(honest, abs=1e-9), "and much closer"


def test_with_the_line_search_the_lemma_holds_in_every_epoch(careful: Careful, digits: TrainingData) -> None:
    seen, lines = careful
    found = [log_probs[torch.arange(200), digits.labels].mean().item() for log_probs in seen]
    assert all(line["elbo/gain"] >= 0 for line in lines)
    for (old, new), line in zip(pairwise(found), lines, strict=True):
        assert new - old >= line["elbo/gain"] - 1e-12
    assert found[-1] > found[0] + 0.1


def test_with_the_line_search_the_assumption_of_lemma_2_holds_too(careful: Careful) -> None:
    """Each of five steps brings SUFFICIENT / rate of its square; that of their sum is at most five times theirs."""
    lines = careful[1]
    assert all(line["elbo/gain"] >= SUFFICIENT / (1.0 * 5) * line["elbo/moved"] > 0 for line in lines)


def test_one_small_step_is_enough_and_a_long_one_breaks_the_assumption(digits: TrainingData) -> None:
    small = trained(ExactEM(epochs=6, steps=1, learning_rate=0.01, halvings=0), digits)[1]
    assert all(line["elbo/gain"] > 0 for line in small)
    long = trained(ExactEM(epochs=24, steps=1, learning_rate=1.0, halvings=0), digits)[1]
    assert any(line["elbo/gain"] < 0 for line in long)
    found = [line["elbo/log_likelihood"] for line in long]
    falls = [i for i, (old, new) in enumerate(pairwise(found), 1) if new < old]
    assert falls and all(long[i]["elbo/gain"] < 0 for i in falls), "it never falls where the assumption holds"


def test_the_gradient_of_the_m_step_is_that_of_finite_differences(digits: TrainingData) -> None:
    """In float64 and through the whole network, along random directions."""
    state = ExactEM().start(digits, NETWORK, Engine())
    network, labels = classify(state.peers[0]).eval().double(), digits.labels
    images, weights = digits.eval_view(digits.everything).double(), list(network.parameters())
    with torch.no_grad():  # away from theta_old, where the clustering term pulls too
        q = log_posterior(log_probabilities(4 * network(images)), labels).exp()

    def objective() -> Tensor:
        return expectation(q, log_joint(log_probabilities(network(images)), labels))

    gradients = torch.autograd.grad(objective(), weights)
    generator, tiny = torch.Generator().manual_seed(0), 1e-6
    for _ in range(3):
        way = [torch.randn(weight.shape, generator=generator, dtype=torch.float64) for weight in weights]
        slope = sum((gradient * part).sum().item() for gradient, part in zip(gradients, way, strict=True))
        values = []
        for sign in (1, -2):
            with torch.no_grad():
                for weight, part in zip(weights, way, strict=True):
                    weight.add_(part, alpha=sign * tiny)
                values.append(objective().item())
        with torch.no_grad():
            for weight, part in zip(weights, way, strict=True):
                weight.add_(part, alpha=tiny)
        assert (values[0] - values[1]) / (2 * tiny) == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_batch_norm_stays_as_it_started(digits: TrainingData) -> None:
    """Else p_theta of the E-step, of the M-step and of predictions would be three functions."""
    method = ExactEM(epochs=1, steps=2)
    state = method.start(digits, NETWORK, Engine())
    before = {name: value.clone() for name, value in state.peers[0].named_buffers()}
    method.epoch(state, digits, 0)
    assert before and all(torch.equal(value, before[name]) for name, value in state.peers[0].named_buffers())


def test_terms_are_measured_against_the_epoch_before(careful: Careful, digits: TrainingData) -> None:
    seen, lines = careful
    for (old, new), line in zip(pairwise(seen), lines, strict=True):
        assert line["elbo/kl"] == pytest.approx(em_terms(old, new, digits.labels).kl, rel=1e-6)


def test_too_many_images_are_refused(digits: TrainingData) -> None:
    many = dataclasses.replace(digits, images=digits.images[:1].expand(2001, -1, -1, -1))
    with pytest.raises(UserError, match=r"up to 2,000 images, not 2,001; give fewer \(--per-class 20\)"):
        ExactEM().start(many, NETWORK, Engine())
