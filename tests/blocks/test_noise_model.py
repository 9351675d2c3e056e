"""The noise model on made mixtures whose noise is known, and its parts against sums written out."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

import scanmix.blocks.noise_model as module
from scanmix.blocks.label_likelihood import (
    asymmetry,
    highest_rate,
    log_likelihood,
    posterior,
    symmetric,
    symmetric_rate,
    transition_by_em,
)
from scanmix.blocks.label_quality import self_confidence
from scanmix.blocks.neighbors import nearest_neighbors
from scanmix.blocks.noise_model import TEMPERATURES, NoiseModel, fit, fit_neighbors
from scanmix.blocks.propagation import neighbor_graph, neighbor_scores, own_share, propagate, sinkhorn
from scanmix.blocks.ridge import principal_components


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def made(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed))


def mixture(noise: Tensor, seed: int, count: int = 1500, apart: float = 4.0) -> tuple[Tensor, Tensor, Tensor]:
    """Neighbors, given labels and classes of a mixture of Gaussians in 8 dimensions, labels by the rows of `noise`."""
    return spread(torch.arange(count) % len(noise), noise, seed, apart)


def spread(classes: Tensor, noise: Tensor, seed: int, apart: float) -> tuple[Tensor, Tensor, Tensor]:
    features = made(len(classes), 8, seed=seed) + apart * torch.eye(8)[classes]
    labels = noise[classes].multinomial(1, generator=seeded(seed + 1)).squeeze(1)
    return nearest_neighbors(features, 10), labels, classes


def pairs(rate: float, classes: int) -> Tensor:
    """Each class is taken for the next at this rate."""
    return torch.eye(classes) * (1 - rate) + rate * torch.eye(classes).roll(1, 1)


NOISE = {
    "symmetric 30 %": symmetric(torch.tensor(0.3), 5),
    "symmetric 70 %": symmetric(torch.tensor(0.7), 5),
    "asymmetric 30 %": pairs(0.3, 5),
}


@pytest.mark.parametrize("name", NOISE)
@pytest.mark.parametrize("seed", [0, 10])
def test_the_rate_and_p_clean_of_a_mixture(name: str, seed: int) -> None:
    neighbors, labels, classes = mixture(NOISE[name], seed)
    found = fit_neighbors(neighbors, labels, 5, seeded(0))
    right = (labels == classes).float()
    wrong = 1 - float(right.mean())
    assert abs(found.rate.value - wrong) < 0.04 and found.rate.low <= wrong <= found.rate.high
    assert float((found.p_clean - right).square().mean()) < wrong * (1 - wrong) / 3
    assert float((found.posterior.argmax(1) == classes).float().mean()) > 0.9
    truth = NOISE[name].diagonal().mean()
    assert abs(float(found.transition.diagonal().mean() - truth)) < 0.06


@pytest.mark.parametrize("name", ["symmetric 30 %", "symmetric 70 %"])
def test_the_interval_holds_the_truth_where_classes_overlap(name: str) -> None:
    """Neighbors are right in two thirds of the images: what they contradict is not all wrong."""
    for seed in range(5):
        neighbors, labels, classes = mixture(NOISE[name], 100 * seed, apart=2.5)
        found, wrong = fit_neighbors(neighbors, labels, 5, seeded(0)), float((labels != classes).float().mean())
        assert found.rate.low <= wrong <= found.rate.high
        assert abs(found.rate.value - wrong) < (0.08 if wrong < 0.5 else 0.2)  # much noise hides how soft v is


def test_ten_times_as_many_of_one_class_as_of_another() -> None:
    sizes = [1000, 560, 316, 178, 100]
    classes = torch.arange(5).repeat_interleave(torch.tensor(sizes))
    neighbors, labels, classes = spread(classes, NOISE["symmetric 30 %"], 0, 4.0)
    found, wrong = fit_neighbors(neighbors, labels, 5, seeded(0)), labels != classes
    assert abs(found.rate.value - float(wrong.float().mean())) < 0.06
    rarest = classes == 4
    assert float((found.posterior.argmax(1) == classes)[rarest].float().mean()) > 0.9


def test_labels_that_are_all_right() -> None:
    neighbors, labels, _ = mixture(torch.eye(5), 0, apart=8.0)
    found = fit_neighbors(neighbors, labels, 5, seeded(0))
    assert found.rate.value < 0.01 and found.rate.low == 0 and found.rate.high < 0.03


@pytest.mark.parametrize("classes", [3, 10, 100])
@pytest.mark.parametrize(("scale", "sureness"), [(2.0, 1.0), (4.0, 2.0), (12.0, 0.5)])
def test_right_labels_of_a_calibrated_model_are_right(classes: int, scale: float, sureness: float) -> None:
    """Whatever the model errs, and even if it is twice or half as sure as it should be."""
    probs = (scale * made(3000, classes)).softmax(1)
    labels = probs.multinomial(1, generator=seeded(1)).squeeze(1)
    told = (sureness * probs.log()).softmax(1)
    found = fit(told.clamp(min=1e-6).log(), labels, told.mean(0))
    contradicted = float((probs.argmax(1) != labels).float().mean())
    assert found.rate.value < 0.02 and found.rate.low == 0 and found.rate.high > contradicted - 0.01
    assert found.agreement is None and found.rate.value == pytest.approx(found.soft_rate, abs=1e-6)


def parts(neighbors: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """Scores, marginal and one pair of halves."""
    graph, given = neighbor_graph(neighbors), torch.eye(classes)[labels]
    own, half = own_share(graph, seeded(0)), torch.arange(len(labels)) % 2 == 0
    halves = [(neighbor_scores(graph, given, own, half), neighbor_scores(graph, given, own, ~half))]
    return neighbor_scores(graph, given, own), given.mean(0), halves


def test_what_is_returned_is_what_the_two_readings_say() -> None:
    """Written out: the profile over rates and temperatures, the agreement, the raised temperature, the weights."""
    neighbors, labels, _ = mixture(NOISE["asymmetric 30 %"], 0, count=600, apart=3.0)
    scores, marginal, halves = parts(neighbors, labels, 5)
    found = fit(scores, labels, marginal, halves)
    v = {t: sinkhorn(t * scores, marginal) for t in TEMPERATURES}
    rates = [(k / 40) ** 1.5 * highest_rate(5) for k in range(41)]
    table = {(t, e): log_likelihood(v[t], symmetric(torch.tensor(e), 5), labels) for t in TEMPERATURES for e in rates}
    profile = [max(table[t, e] for t in TEMPERATURES) for e in rates]
    likeliest = max(table, key=lambda place: table[place])[0]
    soft, total = torch.zeros(600, 5), 0.0
    for k, e in enumerate(rates):
        width = (rates[min(k + 1, 40)] - rates[max(k - 1, 0)]) / 2
        weight = math.exp((profile[k] - max(profile)) / module.TEMPER) * width
        t = max(TEMPERATURES, key=lambda each: table[each, e])
        soft += weight * posterior(v[t], symmetric(torch.tensor(e), 5), labels)
        total += weight
    soft /= total

    def matrices(rows: Tensor) -> tuple[Tensor, Tensor]:
        even = symmetric(symmetric_rate(self_confidence(rows, labels), 5), 5)
        return even, transition_by_em(rows, labels, even)

    one, other = (sinkhorn(likeliest * each, marginal).argmax(1) for each in halves[0])
    agreement = float((one == other).float().mean())
    even, general = matrices(v[likeliest])
    gain = log_likelihood(v[likeliest], general, labels) - log_likelihood(v[likeliest], even, labels)
    sure = [t for t in TEMPERATURES if float(v[t].amax(1).mean()) <= agreement]
    raised = max([likeliest, *sure])
    even, general = matrices(v[raised])
    share = asymmetry(gain, 5)
    stable = posterior(v[raised], (1 - share) * even + share * general, labels)
    expected = (1 - agreement**2) * soft + agreement**2 * stable
    assert raised > likeliest and 0 < share < 1 and found.temperature == raised
    torch.testing.assert_close(found.posterior, expected, atol=2e-3, rtol=1e-2)  # rates of little weight are left out
    assert torch.equal(found.p_clean, self_confidence(found.posterior, labels))
    assert found.agreement == pytest.approx(agreement)
    assert found.rate.value == pytest.approx(1 - float(found.p_clean.mean()), abs=1e-6)
    assert found.soft_rate == pytest.approx(1 - float(self_confidence(soft, labels).mean()), abs=2e-3)
    assert found.stable_rate == pytest.approx(1 - float(self_confidence(stable, labels).mean()), abs=1e-5)
    said = float((v[raised].argmax(1) == labels).float().mean())
    allowed = [e for e, value in zip(rates, profile, strict=True) if value >= max(profile) - module.ALLOWED]
    guesses = [1 - min(said / a, 1) for a in (agreement, 1)]
    ends = [*allowed, *guesses, 1 - float(self_confidence(posterior(v[raised], general, labels), labels).mean())]
    error = 1.645 * math.sqrt(found.rate.value * (1 - found.rate.value) / 600)
    assert found.rate.low == pytest.approx(max(min(*ends, found.rate.value) - error, 0), abs=1e-5)
    assert found.rate.high == pytest.approx(max(*ends, found.rate.value) + error, abs=1e-5)


def test_trusted_labels_are_right_and_have_no_part_in_the_likelihood() -> None:
    neighbors, labels, classes = mixture(NOISE["symmetric 30 %"], 0)
    scores, marginal, halves = parts(neighbors, labels, 5)
    trusted = torch.arange(1500) < 500
    found = fit(scores, labels, marginal, halves, trusted)
    doubt = (1 - found.p_clean)[500:].sum() / 1500
    assert found.rate.value == pytest.approx(float(doubt), abs=1e-6)
    other = labels.clone()
    other[:500] = (other[:500] + 1) % 5
    again = fit(scores, other, marginal, halves, trusted)
    assert again.rate == found.rate and torch.equal(again.p_clean[500:], found.p_clean[500:])
    everything = fit(scores, labels, marginal, halves, torch.ones(1500, dtype=torch.bool))
    assert everything.rate == (0.0, 0.0, 0.0)
    assert float(everything.p_clean[labels != classes].mean()) < 0.1  # what the evidence says of such labels


def test_a_second_round_finds_classes_that_the_first_did_not_and_leaves_p_clean() -> None:
    neighbors, labels, classes = mixture(NOISE["symmetric 70 %"], 0, apart=2.5)
    scores, marginal, _ = parts(neighbors, labels, 5)
    found = fit_neighbors(neighbors, labels, 5, seeded(0))
    first = fit(scores, labels, marginal)
    assert float((found.posterior.argmax(1) == classes).float().mean()) > 0.02 + float(
        (first.posterior.argmax(1) == classes).float().mean()
    )
    torch.testing.assert_close(self_confidence(found.posterior, labels), found.p_clean)


def test_a_second_source_counts_as_far_as_it_explains_labels() -> None:
    neighbors, labels, classes = mixture(NOISE["symmetric 30 %"], 0, apart=1.0)
    alone = fit_neighbors(neighbors, labels, 5, seeded(0))
    knows = (3 * torch.eye(5)[classes] + made(1500, 5)).log_softmax(1)
    both = fit_neighbors(neighbors, labels, 5, seeded(0), logits=knows)
    chance = fit_neighbors(neighbors, labels, 5, seeded(0), logits=made(1500, 5, seed=9))

    def brier(found: NoiseModel) -> float:
        return float((found.p_clean - (labels == classes).float()).square().mean())

    assert both.log_likelihood > alone.log_likelihood + 0.1 and brier(both) < 0.7 * brier(alone)
    assert abs(chance.log_likelihood - alone.log_likelihood) < 0.01 and brier(chance) < 1.05 * brier(alone)


def test_a_linear_classifier_counts_where_neighbors_say_little() -> None:
    """Three directions tell the classes, the others are noise: neighbors hardly see them, a regression does."""
    classes = torch.arange(900) % 3
    features = made(900, 60) + 2 * F.one_hot(classes, 60)
    labels = symmetric(torch.tensor(0.3), 3)[classes].multinomial(1, generator=seeded(1)).squeeze(1)
    neighbors = nearest_neighbors(features, 10)
    components = principal_components(features, seeded(0))
    alone = fit_neighbors(neighbors, labels, 3, seeded(0))
    both = fit_neighbors(neighbors, labels, 3, seeded(0), components=components)
    chance = fit_neighbors(neighbors, labels, 3, seeded(0), components=made(900, 30, seed=9))

    def brier(found: NoiseModel) -> float:
        return float((found.p_clean - (labels == classes).float()).square().mean())

    assert brier(both) < 0.85 * brier(alone) and brier(chance) < 1.05 * brier(alone)
    assert both.rate.low <= float((labels != classes).float().mean()) <= both.rate.high


def test_a_sample_is_enough_to_weigh_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second source is noise, or the classes themselves: a third of the examples tells as well as all."""
    neighbors, labels, classes = mixture(NOISE["symmetric 30 %"], 0, apart=1.0)
    knows = (3 * torch.eye(5)[classes] + made(1500, 5)).log_softmax(1)
    for logits in (knows, made(1500, 5, seed=9)):
        whole = fit_neighbors(neighbors, labels, 5, seeded(0), logits=logits)
        with monkeypatch.context() as patch:
            patch.setattr(module, "SAMPLED", 500)
            part = fit_neighbors(neighbors, labels, 5, seeded(0), logits=logits)
        assert abs(part.rate.value - whole.rate.value) < 0.02
        assert float((part.p_clean - whole.p_clean).abs().mean()) < 0.03


def test_labels_in_other_order_give_the_same_model() -> None:
    """Classes renamed, and images shuffled: probes and halves differ, so only nearly."""
    neighbors, labels, _ = mixture(NOISE["asymmetric 30 %"], 0, count=600)
    first = fit_neighbors(neighbors, labels, 5, seeded(0))
    named = torch.tensor([3, 0, 4, 1, 2])
    second = fit_neighbors(neighbors, named[labels], 5, seeded(0))
    torch.testing.assert_close(second.posterior[:, named], first.posterior, atol=1e-3, rtol=1e-2)
    order = torch.randperm(600, generator=seeded(1))
    third = fit_neighbors(order.argsort()[neighbors[order]], labels[order], 5, seeded(0))
    assert float((third.p_clean - first.p_clean[order]).abs().mean()) < 0.03


def test_a_class_that_loses_its_labels_to_one_other_keeps_its_images() -> None:
    """Two of five images of the first class have the label of the second: their shares are even all the same."""
    noise = torch.eye(4)
    noise[0, :2] = torch.tensor([0.6, 0.4])
    classes = torch.arange(1600) % 4
    neighbors, labels, _ = spread(classes, noise, 0, 5.0)
    found = fit_neighbors(neighbors, labels, 4, seeded(0))
    shares = labels.bincount(minlength=4) / 1600
    as_labeled = fit_neighbors(neighbors, labels, 4, seeded(0), marginal=shares)
    right = [float((each.posterior.argmax(1) == classes).float().mean()) for each in (found, as_labeled)]
    assert right[0] > 0.96 and right[0] > right[1] + 0.03
    assert found.rate.value == pytest.approx(0.1, abs=0.04) and found.rate.value > as_labeled.rate.value


def test_a_given_marginal_is_kept() -> None:
    neighbors, labels, _ = mixture(NOISE["symmetric 30 %"], 0)
    marginal = torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0])
    found = fit_neighbors(neighbors, labels, 5, seeded(0), marginal=marginal)
    torch.testing.assert_close(found.v.mean(0), marginal, atol=0.02, rtol=0)
    assert float(found.posterior[labels != 4, 4].max()) == 0 and bool(found.posterior.isfinite().all())


def sound(found: NoiseModel, count: int, classes: int) -> bool:
    rows = [found.posterior.sum(1), found.v.sum(1), found.transition.sum(1)]
    close = all(float((each - 1).abs().max()) < 1e-4 for each in rows)
    finite = all(bool(each.isfinite().all()) for each in (found.posterior, found.v, found.transition, found.p_clean))
    shapes = found.posterior.shape == found.v.shape == (count, classes) and found.transition.shape == (classes, classes)
    rates = 0 <= found.rate.low <= found.rate.value <= found.rate.high <= 1
    return close and finite and shapes and rates and math.isfinite(found.log_likelihood)


@pytest.mark.parametrize(("count", "classes"), [(1, 1), (1, 3), (2, 1), (2, 2), (2, 5), (12, 1), (12, 4), (40, 90)])
def test_few_images_and_many_classes(count: int, classes: int) -> None:
    """One class, classes without labels, more classes than images, all others as neighbors."""
    others = torch.arange(count).repeat(count, 1)[~torch.eye(count, dtype=torch.bool)].view(count, count - 1)
    labels = torch.randint(max(classes - 1, 1), (count,), generator=seeded(0))
    assert sound(fit_neighbors(others, labels, classes, seeded(0)), count, classes)
    logits = made(count, classes)
    assert sound(fit_neighbors(others, labels, classes, seeded(0), logits=logits), count, classes)
    assert sound(fit(logits, labels, logits.softmax(1).mean(0)), count, classes)


def test_neighbors_that_contradict_every_label_do_not_prove_them_wrong() -> None:
    """With few images, to leave a label out speaks against it: every rate is allowed then."""
    others = torch.arange(12).repeat(12, 1)[~torch.eye(12, dtype=torch.bool)].view(12, 11)
    found = fit_neighbors(others, torch.arange(12) % 4, 4, seeded(0))
    assert found.rate.low < 0.05 and found.rate.high > 0.6


def test_duplicated_points_and_labels_that_are_all_equal() -> None:
    points = made(5, 4).repeat(20, 1)
    neighbors = nearest_neighbors(points, 10)
    labels = torch.arange(100) % 5
    found = fit_neighbors(neighbors, labels, 5, seeded(0))
    assert sound(found, 100, 5) and found.rate.value < 0.1
    assert sound(fit_neighbors(neighbors, torch.zeros(100, dtype=torch.int64), 3, seeded(0)), 100, 3)


def decided(labels: Tensor, classes: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Labels, trusted and before, after a person has set labels right."""
    asked = torch.zeros(len(labels), dtype=torch.bool)
    asked[places] = True
    return torch.where(asked, classes, labels), asked, torch.where(asked, labels, -1)


@pytest.mark.parametrize("name", NOISE)
def test_decisions_do_not_choose_the_temperature_and_have_no_part_in_what_is_said_without_them(name: str) -> None:
    neighbors, labels, classes = mixture(NOISE[name], 0)
    scores, marginal, halves = parts(neighbors, labels, 5)
    plain = fit(scores, labels, marginal, halves)
    worst = plain.p_clean.argsort()[:150]
    corrected, asked, before = decided(labels, classes, worst)
    found = fit(scores, corrected, marginal, halves, asked, before)
    assert (found.temperature, found.agreement) == (plain.temperature, plain.agreement)
    assert torch.equal(found.v, plain.v) and plain.before is None and found.before is not None
    # By T alone, which decisions pin, the posterior of the labels before differs from that without decisions.
    assert float((found.before - plain.posterior).abs().mean()) < 0.01
    other, _, _ = decided(labels, (labels + 1) % 5, worst)  # a person who says something else
    again = fit(scores, other, marginal, halves, asked, before)
    assert again.temperature == found.temperature
    value = float((1 - found.p_clean)[~asked].sum() / 1500)
    assert found.rate.value == pytest.approx(value, abs=1e-6)
    # The wrong labels that were found are out of the interval of what is left.
    changed = float((asked & (corrected != labels)).float().mean())
    assert found.rate.high <= plain.rate.high - changed + 0.03 and found.rate.low <= value <= found.rate.high


def test_decided_pairs_pin_the_matrix() -> None:
    neighbors, labels, classes = mixture(NOISE["asymmetric 30 %"], 0, apart=2.0)
    scores, marginal, halves = parts(neighbors, labels, 5)
    truth = NOISE["asymmetric 30 %"]
    places = torch.arange(0, 1500, 3)
    corrected, asked, before = decided(labels, classes, places)
    plain = fit(scores, labels, marginal, halves)
    found = fit(scores, corrected, marginal, halves, asked, before)
    assert float((found.transition - truth).abs().mean()) < float((plain.transition - truth).abs().mean())
    turned = fit(scores, labels, marginal, halves, asked, torch.where(asked, classes, -1))  # true and given exchanged
    assert float((turned.transition - truth).abs().mean()) > float((found.transition - truth).abs().mean())


def test_to_decide_the_worst_first_does_not_make_the_rest_look_clean() -> None:
    """Labels that were decided stay in the likelihood as they were; without them the low end falls."""
    neighbors, labels, classes = mixture(NOISE["symmetric 30 %"], 0)
    plain = fit_neighbors(neighbors, labels, 5, seeded(0))
    corrected, asked, before = decided(labels, classes, plain.p_clean.argsort()[:200])
    found = fit_neighbors(neighbors, corrected, 5, seeded(0), trusted=asked, before=before)
    changed = float((corrected != labels).float().mean())
    truth = float((labels != classes).float().mean()) - changed
    assert abs(found.rate.value - truth) < 0.04 and found.rate.low <= truth <= found.rate.high
    assert found.rate.low + changed > plain.rate.low - 0.07


def test_a_decided_label_does_not_come_back_through_its_neighbors() -> None:
    """A person who decides at random: were the label heard in its own v, it would be suggested too often."""
    neighbors, labels, _ = mixture(NOISE["symmetric 30 %"], 0, apart=2.0)
    random = torch.randint(5, (1500,), generator=seeded(5))
    places = torch.randperm(1500, generator=seeded(6))[:300]
    corrected, asked, before = decided(labels, random, places)
    found = fit_neighbors(neighbors, corrected, 5, seeded(0), trusted=asked, before=before)
    assert found.before is not None
    suggested = found.before.argmax(1)
    by_chance = (suggested == random.roll(1))[places].float().mean()
    assert abs(float((suggested == random)[places].float().mean()) - float(by_chance)) < 0.07
    # One label alone: its row of scores moves by the mean of N labels, and by nothing else.
    graph = neighbor_graph(neighbors)
    identity = torch.eye(1500)
    exact = propagate(graph, identity).diagonal()
    one = labels.clone()
    one[7] = (one[7] + 2) % 5
    here, there = (neighbor_scores(graph, torch.eye(5)[each], exact)[7] for each in (labels, one))
    torch.testing.assert_close(here, there, atol=0.03, rtol=0)
