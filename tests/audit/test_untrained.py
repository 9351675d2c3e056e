"""Evidence from data alone: what is carried over, what is found, and what is refused."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

import scanmix
from scanmix.audit import audit_data, evidence_from_examples, score_labels
from scanmix.config import UserError
from scanmix.data.examples import Examples

DRAW = torch.Generator().manual_seed(0)


def pictures(count: int, channels: int = 1, height: int = 8, width: int = 8) -> Tensor:
    return torch.randint(256, (count, channels, height, width), generator=DRAW, dtype=torch.uint8)


def examples(images: Tensor, labels: list[int], names: str = "ab") -> Examples:
    return Examples(
        images=images,
        labels=torch.tensor(labels, dtype=torch.int64),
        class_names=tuple(names),
        ids=tuple(map(str, range(len(images)))),
    )


def test_images_of_one_color_are_neighbors_of_each_other() -> None:
    images = pictures(30)
    images[[4, 20, 27]] = torch.tensor([0, 130, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    found = evidence_from_examples(examples(images, [0, 1] * 15))
    assert found.neighbors is not None and set(found.neighbors[20, :2].tolist()) == {4, 27}


def test_brightness_and_contrast_do_not_move_an_image() -> None:
    images = (pictures(20) // 4) + 20
    images[7] = images[3] * 2 + 30
    found = evidence_from_examples(examples(images, [0, 1] * 10))
    assert found.neighbors is not None and found.neighbors[3, 0] == 7 and found.neighbors[7, 0] == 3


def test_the_evidence_has_all_that_is_known_of_the_data() -> None:
    noisy = scanmix.add_noise(scanmix.load("digits", per_class=4)[0], "symmetric", rate=0.5, seed=0)
    given = dataclasses.replace(
        noisy, images=noisy.images.clone(), paths=noisy.ids, decided=torch.arange(40).remainder(4).to(torch.int8),
        excluded=(("gone", "", "3"),),
    )  # fmt: skip
    given.images[9] = given.images[2]
    found = evidence_from_examples(given)
    assert found.probs is None and found.predictions is None and not found.snapshots
    assert torch.equal(found.labels, given.labels) and found.ids == found.paths == given.ids
    assert found.true_labels is not None and torch.equal(found.true_labels, noisy.true_labels)  # type: ignore[arg-type]
    assert found.pictures is not None and found.pictures[9] == 2 and found.neighbors is not None
    assert found.neighbors.shape == (40, 10) and found.similarity is not None and len(found.similarity) == 40
    audit = score_labels(found)
    assert audit.decided.sum() == 30 and audit.decided[-30:].all() and audit.excluded == given.excluded


def test_digits_are_found_by_their_pixels() -> None:
    noisy = scanmix.add_noise(scanmix.load("digits", per_class=60)[0], "symmetric", rate=0.5, seed=0)
    audit, names = audit_data(noisy), np.array(noisy.class_names, dtype=object)
    assert noisy.true_labels is not None
    wrong = (noisy.labels != noisy.true_labels).numpy()[audit.order]
    right = audit["suggested"] == names[noisy.true_labels.numpy()[audit.order]]
    assert audit.noise_rate.low < wrong.mean() < audit.noise_rate.high and len(audit.readings) == 1
    assert wrong[: wrong.sum()].mean() > 0.95 and right.mean() > 0.93
    assert (audit["suggestion"] == "out_of_sample").all()


def test_features_that_are_given_count_and_pixels_do_not() -> None:
    labels = [0] * 20 + [1] * 20
    features = np.random.default_rng(0).normal(size=(40, 5)) + np.outer(np.array(labels) * 2 - 1, np.full(5, 9.0))
    labels[3] = 1
    audit = audit_data(examples(pictures(40), labels), features)
    assert (audit["id"][0], audit["suggested"][0]) == ("3", "a") and audit.looks_wrong.sum() == 1
    vectors = examples(torch.from_numpy(features.astype(np.float32))[:, :, None, None], labels)
    assert audit_data(vectors)["id"][0] == "3"


def test_stages_are_told_in_their_order() -> None:
    seen: dict[str, tuple[int, int]] = {}
    audit_data(
        examples(pictures(12), [0, 1] * 6), tick=lambda stage, done, total, _: seen.update({stage: (done, total)})
    )
    assert list(seen.items()) == [("features of pictures", (12, 12)), ("neighbors", (12, 12)), ("noise model", (1, 1))]


@pytest.mark.parametrize(
    ("count", "labels", "features", "told"),
    [
        (1, [0], None, "there is one here"),
        (0, [], None, "there are none here"),
        (5, [1] * 5, None, "all 5 labels here are 'b'"),
        (4, [0, 1, 0, 1], np.zeros((3, 2)), r"shape \(4, D\), a row for each label"),
        (4, [0, 1, 0, 1], np.zeros(4), r"shape \(4, D\)"),
        (4, [0, 1, 0, 1], np.full((4, 2), np.nan), "row 0 of features"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(
    count: int, labels: list[int], features: np.ndarray | None, told: str
) -> None:
    data = examples(pictures(count), labels)
    with pytest.raises(UserError, match=told):
        evidence_from_examples(data, features)


def test_a_class_without_labels_is_a_warning_and_is_never_suggested() -> None:
    with pytest.warns(UserWarning, match=r"1 of 3 classes have no label \('c'\)"):
        audit = audit_data(examples(pictures(12), [0, 1] * 6, "abc"))
    assert "c" not in audit["suggested"] and audit.confusion[2].sum() < 1e-6


@pytest.mark.parametrize("count", [2, 3])
def test_two_or_three_examples_are_enough(count: int) -> None:
    audit = audit_data(examples(pictures(count), [0, 1, 0][:count]))
    assert len(audit["id"]) == count and np.isfinite(audit["p_clean"]).all()


def rare(wrong: float) -> tuple[Examples, torch.Tensor]:
    """600 vectors, of which a tenth are of the second class; so many labels of each class are of the other."""
    draws = torch.Generator().manual_seed(0)
    truth = (torch.arange(600) % 10 == 0).long()
    vectors = torch.randn(600, 8, generator=draws) + 3 * torch.eye(8)[truth]
    labels = torch.where(torch.rand(600, generator=draws) < wrong, 1 - truth, truth)
    return Examples(vectors[:, :, None, None], labels, ("common", "rare"), tuple(map(str, range(600)))), truth


def test_known_shares_of_the_classes_help_where_noise_makes_a_rare_class_common() -> None:
    examples, truth = rare(0.35)
    found = [audit_data(examples, class_prior=prior) for prior in (None, {"rare": 0.1, "common": 0.9})]
    right = [
        float((audit["suggested"] == np.array(examples.class_names)[truth.numpy()][audit.order]).mean())
        for audit in found
    ]
    assert right[1] > right[0] + 0.02 and right[1] > 0.93


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ({"rare": 0.1}, "'common' has no share"),
        ({"rare": 0.1, "common": 0.5, "odd": 0.4}, "'odd' is no class"),
        ({"rare": 0.1, "common": 0.5}, "sum 0.6"),
        ({"rare": -0.1, "common": 1.1}, "smallest is -0.1"),
        ({"rare": float("nan"), "common": 1.0}, "at least 0"),
    ],
)
def test_shares_that_are_none_are_told(prior: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        audit_data(rare(0.1)[0], class_prior=prior)
