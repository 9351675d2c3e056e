"""Naming clusters: against every permutation there is."""

from itertools import permutations

import torch
from hypothesis import given
from hypothesis import strategies as st

from scanmix.blocks.clusters import match_clusters, rename_outputs


def agreement(classes: list[int], clusters: list[int], labels: list[int]) -> int:
    return sum(classes[cluster] == label for cluster, label in zip(clusters, labels, strict=True))


@given(st.integers(1, 5), st.integers(0, 40), st.integers(0, 2**31))
def test_match_is_the_best_of_all_permutations(num_classes: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    clusters, labels = torch.randint(num_classes, (2, count), generator=generator)
    found = match_clusters(clusters, labels, num_classes)
    assert found.dtype == torch.int64
    assert sorted(found.tolist()) == list(range(num_classes))
    best = max(
        agreement(list(classes), clusters.tolist(), labels.tolist()) for classes in permutations(range(num_classes))
    )
    assert agreement(found.tolist(), clusters.tolist(), labels.tolist()) == best


def test_match_maps_clusters_to_classes_and_not_back() -> None:
    clusters = torch.tensor([0, 0, 1, 1, 2, 2])
    labels = torch.tensor([1, 1, 2, 2, 0, 0])
    assert match_clusters(clusters, labels, 3).tolist() == [1, 2, 0]


def test_match_sees_through_noise_as_long_as_the_right_label_is_the_commonest() -> None:
    generator = torch.Generator().manual_seed(0)
    clusters = torch.randint(4, (4000,), generator=generator)
    names = torch.tensor([2, 3, 1, 0])
    noise = torch.randint(4, (4000,), generator=generator)
    labels = torch.where(torch.rand(4000, generator=generator) < 0.8, noise, names[clusters])
    assert match_clusters(clusters, labels, 4).tolist() == names.tolist()


def test_renamed_outputs_say_the_class_of_each_cluster() -> None:
    head = torch.nn.Linear(5, 4)
    features = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    logits = head(features)
    classes = torch.tensor([1, 2, 3, 0])  # a cycle: there and back differ
    rename_outputs(head, classes)
    for cluster, name in enumerate(classes.tolist()):
        assert torch.allclose(head(features)[:, name], logits[:, cluster])
