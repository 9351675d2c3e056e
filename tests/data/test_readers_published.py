"""Readers of published data sets on tiny copies in their layouts: labels, truth, names; and what is missing or odd."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from scanmix.config import UserError
from scanmix.data.readers import load, reload
from scanmix.data.readers.listed import Pair
from tests import layouts

pytestmark = pytest.mark.filterwarnings("ignore:.*published:UserWarning")


def loaded(source: str, root: Path, size: int | None = None) -> Pair:
    return load(source, root=root, size=size)


@pytest.fixture
def human10(tmp_path: Path) -> tuple[Path, np.ndarray]:
    clean = np.array(layouts.cifar10(tmp_path))
    sets = {"aggre_label": 1, "worse_label": 2, "random_label1": 3, "random_label2": 4, "random_label3": 5}
    content = {"clean_label": clean} | {name: (clean + shift) % 10 for name, shift in sets.items()}
    layouts.human(tmp_path / "CIFAR-10_human.pt", content)
    return tmp_path, clean


@pytest.mark.parametrize(
    ("variant", "shift"), [("aggre", 1), ("worse", 2), ("random1", 3), ("random2", 4), ("random3", 5)]
)
def test_cifar10n_has_every_label_set(human10: tuple[Path, np.ndarray], variant: str, shift: int) -> None:
    root, clean = human10
    train, test = loaded(f"cifar10n:{variant}", root)
    assert train.name == "cifar10n" and test is not None and test.true_labels is None
    assert train.labels.tolist() == ((clean + shift) % 10).tolist()
    assert train.true_labels is not None and train.true_labels.tolist() == clean.tolist()
    assert train.noise is not None and (train.noise.kind, train.noise.actual_rate) == ("human", 1.0)
    assert train.source is not None and torch.equal(reload(train.source).labels, train.labels)


def test_cifar100n_has_fine_labels(tmp_path: Path) -> None:
    clean = np.array(layouts.cifar100(tmp_path))
    coarse = (clean // 5).tolist()  # Python lists, as published
    content = {"clean_label": clean, "noisy_label": clean[::-1].copy(), "clean_coarse_label": coarse}
    layouts.human(tmp_path / "data" / "CIFAR-100_human.pt", content | {"noisy_coarse_label": coarse})
    train, _ = loaded("cifar100n:fine", tmp_path)
    assert train.labels.tolist() == clean[::-1].tolist()


def test_published_shares_of_wrong_labels_are_checked(human10: tuple[Path, np.ndarray]) -> None:
    root, _ = human10
    with pytest.warns(UserWarning, match=r"in CIFAR-10_human\.pt, worse_label: 1\.0 here, 0\.4021 published"):
        warnings.simplefilter("always")
        loaded("cifar10n:worse", root)


def test_what_is_wrong_with_cifar_n_is_told(human10: tuple[Path, np.ndarray]) -> None:
    root, clean = human10
    with pytest.raises(UserError, match=r"'cifar10n': cifar10n comes in several variants; .* such as cifar10n:worse"):
        loaded("cifar10n", root)
    with pytest.raises(UserError, match=r"unknown label set 'cifar10n:wors'; did you mean"):
        loaded("cifar10n:wors", root)
    path = root / "CIFAR-10_human.pt"
    layouts.human(path, {"clean_label": np.roll(clean, 1), "worse_label": clean})
    with pytest.raises(UserError, match="not those of cifar10 in its order"):
        loaded("cifar10n:worse", root)
    layouts.human(path, {"clean_label": clean, "worse_label": np.where(np.arange(len(clean)) == 3, 10, clean)})
    with pytest.raises(UserError, match=r"worse_label: label 10 of image 3 is outside 0\.\.9"):
        loaded("cifar10n:worse", root)
    layouts.human(path, {"clean_label": clean})
    with pytest.raises(UserError, match="holds no worse_label for 40 images"):
        loaded("cifar10n:worse", root)
    path.write_bytes(b"no archive")
    with pytest.raises(UserError, match="not a file of CIFAR-N"):
        loaded("cifar10n:worse", root)
    path.unlink()
    with pytest.raises(UserError, match=r"CIFAR-10_human.pt is not in .*; get it from https"):
        loaded("cifar10n:worse", root)


@pytest.mark.parametrize("by_label", [False, True])
def test_red_mini_imagenet_knows_which_pictures_are_from_the_web(tmp_path: Path, by_label: bool) -> None:
    web = layouts.red_mini_imagenet(tmp_path, by_label=by_label)
    train, test = loaded("red-mini-imagenet:0.4", tmp_path)
    assert test is not None and (train.size, train.channels, len(train), len(test)) == ((32, 32), 3, 200, 100)
    assert train.class_names[7] == "class 7" and train.name == "red-mini-imagenet"
    assert train.true_labels is not None
    for name, label, truth in zip(train.ids, train.labels.tolist(), train.true_labels.tolist(), strict=True):
        assert truth == (-1 if Path(name).stem in web else label)
    assert train.noise is not None and train.noise.kind == "web"
    assert train.noise.actual_rate == pytest.approx(50 / 200)
    assert torch.equal(train.labels, torch.arange(100).repeat_interleave(2))
    assert torch.equal(test.labels, torch.arange(100))


def test_without_annotations_nobody_knows(tmp_path: Path) -> None:
    layouts.red_mini_imagenet(tmp_path, annotated=False)
    train, _ = loaded("red-mini-imagenet:0.4", tmp_path / "mini-imagenet")
    assert train.true_labels is None and train.noise is None


def test_what_is_wrong_with_red_mini_imagenet_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown noise level 'red-mini-imagenet:0.45'; did you mean"):
        loaded("red-mini-imagenet:0.45", tmp_path)
    layouts.red_mini_imagenet(tmp_path)
    with pytest.raises(UserError, match=r"lacks split/red_noise_nl_0\.8\. Get dataset.zip"):
        loaded("red-mini-imagenet:0.8", tmp_path)
    split = tmp_path / "mini-imagenet/split/red_noise_nl_0.4"
    split.write_text("a.jpg 3\nb.jpg 100\n")
    with pytest.raises(UserError, match=r"red_noise_nl_0.4, line 2: label 100 is outside 0\.\.99"):
        loaded("red-mini-imagenet:0.4", tmp_path)
    split.write_text("a.jpg 3\nb.jpg\n")
    with pytest.raises(UserError, match=r"line 2: a file name and a label are expected, not 'b.jpg'"):
        loaded("red-mini-imagenet:0.4", tmp_path)


@pytest.mark.parametrize(("stripped", "annotations"), [(False, False), (True, False), (False, True)])
def test_clothing1m_in_each_layout(tmp_path: Path, stripped: bool, annotations: bool) -> None:
    layouts.clothing1m(tmp_path, stripped=stripped, annotations=annotations)
    train, test = loaded("clothing1m", tmp_path, 48)
    assert test is not None and (len(train), len(test), train.size) == (42, 14, (48, 48))
    assert train.class_names[8] == "Down Coat" and train.true_labels is None
    assert train.labels.tolist() == [label for own in range(14) for label in ((own + 1) % 14, own, own)]
    assert torch.equal(test.labels, torch.arange(14))


def test_what_is_missing_of_clothing1m_is_listed(tmp_path: Path) -> None:
    layouts.clothing1m(tmp_path)
    (tmp_path / "clean_label_kv.txt").unlink()
    (tmp_path / "clean_test_key_list.txt").unlink()
    with pytest.raises(UserError, match=r"lacks clean_label_kv.txt, clean_test_key_list.txt. Ask its authors"):
        loaded("clothing1m", tmp_path, 48)
    layouts.clothing1m(tmp_path)
    layouts.lines(tmp_path / "noisy_train_key_list.txt", ["images/none.jpg"])
    with pytest.raises(UserError, match=r"names images/none.jpg, which has no label in noisy_label_kv.txt"):
        loaded("clothing1m", tmp_path, 48)


def test_webvision_takes_the_first_classes(tmp_path: Path) -> None:
    layouts.webvision(tmp_path)
    train, test = loaded("webvision:50", tmp_path, 40)
    assert test is not None and (len(train), len(test), train.num_classes) == (100, 50, 50)
    assert train.class_names[3] == "n00000003 thing 3"
    more, _ = loaded("webvision:50+flickr", tmp_path, 40)
    assert len(more) == 150
    few, _ = loaded("webvision:3", tmp_path, 40)
    assert few.labels.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("layout", ["synset", "number", "flat", "list"])
def test_ilsvrc12_in_each_layout(tmp_path: Path, layout: str) -> None:
    layouts.ilsvrc12(tmp_path, layout)
    examples, none = loaded("ilsvrc12:50", tmp_path, 40)
    assert none is None and torch.equal(examples.labels, torch.arange(50))
    assert examples.class_names[3] == ("n00000003 thing 3" if layout == "synset" else "3")


def test_what_is_wrong_with_webvision_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"webvision:few: say how many classes, 2 to 1000"):
        loaded("webvision:few", tmp_path)
    layouts.webvision(tmp_path)
    shutil.rmtree(tmp_path / "val_images_256")
    with pytest.raises(UserError, match=r"lacks val_images_256. Get the resized images"):
        loaded("webvision:50", tmp_path)
    layouts.ilsvrc12(tmp_path / "other", "flat")
    listed = tmp_path / "other/ILSVRC2012_validation_to_webvision_labels_ground_truth.txt"
    listed.write_text("0\n1\n")
    with pytest.raises(UserError, match=r"has 2 labels, but .* has 52 images"):
        loaded("ilsvrc12:50", tmp_path / "other")
    listed.unlink()
    with pytest.raises(UserError, match="holds none of the known layouts"):
        loaded("ilsvrc12:50", tmp_path / "other")


def test_a_data_set_that_is_nowhere_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCANMIX_DATA", raising=False)
    for source in ("red-mini-imagenet:0.4", "clothing1m", "webvision:50", "ilsvrc12:50"):
        with pytest.raises(UserError, match=r"needs root= \(or SCANMIX_DATA\)"):
            load(source)
    with pytest.raises(UserError, match="there is no folder"):
        load("clothing1m", root=tmp_path / "nowhere")
    with pytest.raises(UserError, match="digits comes in one form"):
        load("digits:3")
    layouts.webvision(tmp_path / "webvision", classes=3)
    monkeypatch.setenv("SCANMIX_DATA", str(tmp_path))
    assert len(load("webvision:3", size=40)[0]) == 6
