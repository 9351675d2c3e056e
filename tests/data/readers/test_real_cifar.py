"""The published files of CIFAR-10, CIFAR-10N and the paper's noise, where a copy lies beside the checkout."""

import subprocess
import sys
from pathlib import Path

import pytest

from scanmix.data.examples import Examples
from scanmix.data.noise import add_noise
from scanmix.data.readers import load

DATA = Path(__file__).parents[4] / "shared" / "data"
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not (DATA / "cifar10" / "train.npz").is_file(), reason="no real pictures beside the checkout"),
]
WRONG = {
    "0.20": 0.18, "0.50": 0.45, "0.80": 0.72, "0.90": 0.81, "0.40_asym": 0.2, "0.49_asym": 0.245,
    "0.40_semantic_densenet": 0.319, "0.40_semantic_resnet": 0.381, "0.40_semantic_vgg": 0.301,
}  # fmt: skip
"""File of noise -> share of labels that it makes wrong: as drawn, or as the mistakes of a network are known to be."""
PEOPLE = {"aggre": 0.0901, "random1": 0.1723, "random2": 0.1812, "random3": 0.1764, "worse": 0.4021}
"""Label set -> published share of wrong labels."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files as their authors publish them, written anew."""
    place = tmp_path_factory.mktemp("cifar")
    subprocess.run([sys.executable, DATA / "unpack.py", "cifar10", place], check=True, capture_output=True)
    return place


@pytest.fixture(scope="module")
def both(root: Path) -> tuple[Examples, Examples | None]:
    return load("cifar10", root=root)


def test_the_batches_hold_as_many_images_of_each_class(both: tuple[Examples, Examples | None]) -> None:
    train, test = both
    assert test is not None and train.images.shape == (50_000, 3, 32, 32) and test.images.shape == (10_000, 3, 32, 32)
    assert train.labels.bincount().tolist() == [5000] * 10 and test.labels.bincount().tolist() == [1000] * 10


@pytest.mark.parametrize("name", WRONG)
def test_the_noise_of_the_paper(root: Path, both: tuple[Examples, Examples | None], name: str) -> None:
    noisy = add_noise(both[0], "file", path=root / "noise" / f"{name}.json")
    assert noisy.noise is not None and noisy.noise.actual_rate == pytest.approx(WRONG[name], abs=0.006)


@pytest.mark.parametrize("variant", PEOPLE)
def test_the_labels_of_people(root: Path, variant: str) -> None:
    people = load(f"cifar10n:{variant}", root=root)[0]
    assert people.noise is not None and people.noise.actual_rate == pytest.approx(PEOPLE[variant], abs=0.0002)
