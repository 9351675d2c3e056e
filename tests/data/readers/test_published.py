"""Readers of published data sets on tiny copies in their layouts: labels, truth, names; and what is missing or odd."""

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scanmix.config import UnexpectedData, UserError
from scanmix.data.noise.mappings import CIFAR100_COARSE
from scanmix.data.readers import load, reload
from scanmix.data.readers.cifar_n import LABELS10, LABELS100
from scanmix.data.readers.pairs import Pair
from scanmix.doctor.checkup import check_up
from scanmix.training import resolve
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


def test_cifar100n_has_coarse_labels_in_python_lists(tmp_path: Path) -> None:
    clean = layouts.cifar100(tmp_path, 40)
    coarse = [CIFAR100_COARSE[label] for label in clean]
    content = {"clean_label": np.array(clean), "clean_coarse_label": coarse, "noisy_coarse_label": coarse[::-1]}
    layouts.human(tmp_path / "CIFAR-100_human.pt", content)
    train, test = loaded("cifar100n:coarse", tmp_path)
    assert (train.name, train.num_classes, train.class_names[0]) == ("cifar100n", 20, "aquatic_mammals")
    assert train.labels.tolist() == coarse[::-1] and test is not None and test.labels.tolist() == coarse
    assert train.true_labels is not None and train.true_labels.tolist() == coarse


def test_the_files_of_numpy_do_as_well(human10: tuple[Path, np.ndarray]) -> None:
    root, clean = human10
    (root / "CIFAR-10_human.pt").unlink()
    content = {"clean_label": clean, "worse_label": clean[::-1].copy()}
    layouts.human(root / "CIFAR-10_human.npy", content)
    assert loaded("cifar10n:worse", root)[0].labels.tolist() == clean[::-1].tolist()
    layouts.human(root / "CIFAR-10_human.npy", content | {"clean_label": np.roll(clean, 1)})
    with pytest.raises(UserError, match=r"not those of cifar10 in its order .* \.\.\._ordered\.npy beside it is not"):
        loaded("cifar10n:worse", root)
    fine = np.array(layouts.cifar100(root))
    layouts.human(root / "CIFAR-100_human.npy", {"clean_label": fine, "noise_label": fine[::-1].copy()})
    assert loaded("cifar100n:fine", root)[0].labels.tolist() == fine[::-1].tolist()
    for array in (np.zeros(3, dtype=np.int64), np.array([[]], dtype=object), np.array("x", dtype=object)):
        np.save(root / "CIFAR-10_human.npy", array, allow_pickle=True)
        with pytest.raises(UserError, match="a file of CIFAR-N"):
            loaded("cifar10n:worse", root)


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("suffix", [".pt", ".npy"])
def test_a_payload_is_refused_before_it_runs(tmp_path: Path, suffix: str) -> None:
    layouts.cifar10(tmp_path)
    layouts.human(tmp_path / f"CIFAR-10_human{suffix}", {"clean_label": Evil(tmp_path / "ran")})
    with pytest.raises(UserError, match=r"is refused: it asks for (posix|nt)\.system"):
        loaded("cifar10n:worse", tmp_path)
    assert not (tmp_path / "ran").exists()


def test_the_facts_of_the_published_files() -> None:
    """Keys, and shares of wrong labels in percent, as measured on the published files."""
    found = {name: (own.key, round(100 * own.wrong, 2)) for name, own in (LABELS10 | LABELS100).items()}
    assert found == {
        "aggre": ("aggre_label", 9.01),
        "random1": ("random_label1", 17.23),
        "random2": ("random_label2", 18.12),
        "random3": ("random_label3", 17.64),
        "worse": ("worse_label", 40.21),
        "fine": ("noisy_label", 40.2),
        "coarse": ("noisy_coarse_label", 26.4),
    }


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
def test_red_mini_imagenet_knows_which_images_are_from_the_web(tmp_path: Path, by_label: bool) -> None:
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
    with pytest.warns(UnexpectedData, match="annotations.json is neither in .* not known which labels are wrong"):
        train, _ = loaded("red-mini-imagenet:0.4", tmp_path / "mini-imagenet")
    assert train.true_labels is None and train.noise is None


def test_images_are_resized_whole_not_cut(tmp_path: Path) -> None:
    layouts.red_mini_imagenet(tmp_path, classes=2)
    pixels = np.zeros((84, 84, 3), np.uint8)
    pixels[:, :20] = 255  # gone if the middle 32 were cut out
    path = tmp_path / "mini-imagenet/all_images/n0000000000000000.jpg"
    Image.fromarray(pixels).save(path, quality=95)
    image = loaded("red-mini-imagenet:0.4", tmp_path)[0].images[0]
    assert image[:, :, :6].min() > 200 and image[:, :, 10:].max() < 50


def test_a_level_that_is_not_reached_and_a_line_that_stands_twice_are_told(tmp_path: Path) -> None:
    layouts.red_mini_imagenet(tmp_path, classes=4)
    split = tmp_path / "mini-imagenet/split/red_noise_nl_0.4"
    split.write_text(split.read_text() + split.read_text().splitlines()[1] + "\n")
    with pytest.warns(UnexpectedData) as told:
        warnings.simplefilter("always")
        train, _ = loaded("red-mini-imagenet:0.4", tmp_path)
    words = "\n".join(str(line.message) for line in told)
    assert len(train) == 8 and "red_noise_nl_0.4 name a file that is named before, first line 9" in words
    assert "share of wrong labels in red-mini-imagenet:0.4: 0.25 here, 0.4 published" in words
    assert "training images in split/red_noise_nl_0.4: 8 here, 50,010 published" in words


def test_the_doctor_tells_what_is_unlike_the_published(tmp_path: Path) -> None:
    layouts.red_mini_imagenet(tmp_path, classes=4)
    settings = resolve("cross_entropy", "red-mini-imagenet", overrides={"network": {"widths": [4], "blocks": [1]}})
    checkup = check_up("red-mini-imagenet:0.4", settings, {}, lambda *_: None, root=tmp_path)
    told = [finding.what for finding in checkup.findings if finding.level == "warning"]
    assert "training images in split/red_noise_nl_0.4: 8 here, 50,010 published" in told


def test_what_is_wrong_with_red_mini_imagenet_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown noise level 'red-mini-imagenet:0.45'; did you mean"):
        loaded("red-mini-imagenet:0.45", tmp_path)
    with pytest.raises(
        UserError, match=r"lacks split/red_noise_nl_0\.4, split/clean_validation, all_images, validation"
    ):
        loaded("red-mini-imagenet:0.4", tmp_path)
    layouts.red_mini_imagenet(tmp_path)
    with pytest.raises(UserError, match=r"lacks split/red_noise_nl_0\.8\. Get dataset.zip"):
        loaded("red-mini-imagenet:0.8", tmp_path)
    split = tmp_path / "mini-imagenet/split/red_noise_nl_0.4"
    split.write_text("a.jpg 3\nb.jpg 100\n")
    with pytest.raises(UserError, match=r"red_noise_nl_0.4, line 2: label 100 is outside 0\.\.99"):
        loaded("red-mini-imagenet:0.4", tmp_path)
    split.write_text("a.jpg 3\nb.jpg " + "9" * 5000 + "\n")
    with pytest.raises(UserError, match=r"line 2: a file name and a label are expected"):
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
