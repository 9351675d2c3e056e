"""`scanmix doctor` on folders with every fault planted, on clean ones, on tables and on known data."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from scanmix.cli import app
from scanmix.cli.doctor import _span
from scanmix.doctor import measure
from scanmix.features.at_hand import AtHand
from scanmix.training import resolve
from tests import standin_timm
from tests.encoders import write_encoder

QUICK = ["--set", "network.widths=[4]", "--set", "network.blocks=[1]", "--size", "16"]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "SECONDS", 0.01)


def say(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["doctor", *map(str, arguments)])


def checked(data: str, *arguments: str, code: int = 0) -> dict[str, Any]:
    """What a script reads of a checkup that ends with this exit code."""
    result = say(data, *arguments, "--json", "found.json")
    assert result.exit_code == code, result.output
    found: dict[str, Any] = json.loads(Path("found.json").read_text(encoding="utf-8"))
    assert found["can_train"] is (code == 0)
    return found


def where(found: dict[str, Any], words: str) -> list[str]:
    """The places of the one finding that has these words."""
    (finding,) = [finding for finding in found["findings"] if words in finding["what"]]
    assert finding["fix"]
    return [str(place) for place in finding["where"]]


DRAWS = np.random.default_rng(0)


def picture(side: int = 24, channels: int = 3) -> Image.Image:
    """Blurred blobs: no two are alike."""
    blobs = DRAWS.integers(0, 256, (6, 6, channels), dtype=np.uint8)
    return Image.fromarray(blobs.squeeze()).resize((side, side), Image.Resampling.BICUBIC)


def keep(path: str, image: Image.Image) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def clean_folder(top: str = "photos") -> None:
    for name in ("bird", "cat", "dog"):
        for i in range(12):
            keep(f"{top}/{name}/{i:02}.png", picture())


@pytest.fixture
def faulty(empty_folder: None) -> None:
    """A folder with every fault planted."""
    clean_folder()
    Path("photos/cat/broken.jpg").write_bytes(b"no image at all")
    keep("photos/dog/cut.jpg", picture(200))
    Path("photos/dog/cut.jpg").write_bytes(Path("photos/dog/cut.jpg").read_bytes()[:2000])
    Path("photos/zebra").mkdir()
    for i in range(2):
        keep(f"photos/emu/{i}.png", picture())
    keep("photos/cat/gray.png", picture(channels=1))
    keep("photos/dog/alpha.png", picture(channels=4))
    keep("photos/bird/huge.png", picture(1200))
    twin = picture()
    keep("photos/cat/twin.png", twin)
    keep("photos/dog/twin.bmp", twin)
    keep("photos/bird/brighter.png", Image.open("photos/bird/05.png").point(lambda value: 0.9 * value + 10))
    keep("photos/loose.png", picture())
    for i in range(12):
        keep(f"photos/Dog /{i}.png", picture())


def test_every_planted_fault_is_found_and_named(faulty: None) -> None:
    found = checked("photos", *QUICK)
    assert where(found, "unreadable") == ["cat/broken.jpg: not an image"]
    assert [place.partition(":")[0] for place in where(found, "cut short")] == ["dog/cut.jpg"]
    assert where(found, "without an image") == ["zebra"]
    assert where(found, "fewer than 10 images") == ["emu (2)"]
    assert where(found, "different kinds") == ["cat/gray.png (gray)", "dog/alpha.png (transparent)"]
    assert where(found, "far larger") == ["bird/huge.png (1200x1200)"]
    assert where(found, "under two labels (exact") == ["cat/twin.png (cat) = dog/twin.bmp (dog)"]
    assert where(found, "twice or more (near") == ["bird/05.png (bird) = bird/brighter.png (bird)"]
    assert where(found, "letter case or blanks") == ["'Dog '", "'dog'"]
    assert where(found, "beside the class folders") == ["loose.png"]
    assert len(found["findings"]) == 10
    levels = [finding["level"] for finding in found["findings"]]
    assert levels == sorted(levels, key=["fault", "warning", "note"].index)
    assert found["classes"] == {"Dog ": 12, "bird": 14, "cat": 14, "dog": 14, "emu": 2}
    assert found["files"]["modes"] == {"RGB": 54, "L": 1, "RGBA": 1}
    assert found["files"]["sides"] == {"least": 24, "middle": 24, "greatest": 1200}


def test_what_a_person_reads_of_a_faulty_folder(faulty: None) -> None:
    result = say("photos", *QUICK)
    assert result.exit_code == 0 and result.stderr == ""  # warnings are findings here, told once
    for words in ("photos: 56 images of 5 classes (16x16, color), no test images.", "dog/cut.jpg", "emu (2)"):
        assert words in result.stdout
    first, _, second = result.stdout.rstrip().splitlines()[-1].partition(" && ")
    assert first.startswith("Training can start: scanmix doctor photos --size 16 --save-recipe mine.toml")
    assert second.startswith("scanmix train photos --recipe mine.toml"), "the file is there when it is read"


def test_dark_files_pipes_and_other_files_are_told() -> None:
    clean_folder()
    keep("photos/cat/dark.png", Image.fromarray((np.arange(576).reshape(24, 24) // 40).astype(np.uint8)))
    keep("photos/dog/twelve.png", Image.fromarray((np.arange(576).reshape(24, 24) * 7).astype(np.uint16)))
    keep("photos/cat,dog/0.png", picture())
    Path("photos/dog/notes.txt").write_text("x")
    found = checked("photos", *QUICK)
    (dark,) = where(found, "nearly black")
    assert dark.startswith("cat/dark.png (")
    assert where(found, "of unknown brightness")[0].startswith("dog/twelve.png: 16 bit pixels from 0 to 4025")
    assert where(found, "lists other classes") == ["'cat,dog'"]
    assert found["other_files"] == {".txt": 1}
    assert "Other files in the class folders, not read: 1 .txt." in say("photos", *QUICK).stdout


def test_doctor_stops_where_train_would() -> None:
    clean_folder()
    for i in range(3):
        keep(f"photos/Test/{i}.png", picture())
    found = checked("photos", *QUICK, code=1)
    assert where(found, "named like a part of the data") == ["Test"]
    assert "cannot be told whether Test" in found["findings"][0]["what"]
    Path("photos/Test").rename("photos/fox")
    for i in range(3):
        Path(f"photos/fox/{i}.png").write_bytes(b"x")
    found = checked("photos", *QUICK, code=1)
    assert len(where(found, "unreadable")) == 3 and "'fox' of 'photos' would be lost" in found["findings"][0]["what"]


def test_a_clean_folder(tmp_path: Path) -> None:
    clean_folder()
    found = checked("photos", *QUICK, "--save-recipe", "mine.toml")
    assert found["findings"] == [] and (found["images"], found["size"], found["channels"]) == (36, [16, 16], 3)
    assert found["classes"] == {"bird": 12, "cat": 12, "dog": 12} and found["recipe"] == "folder/any/scanmix"
    assert set(found["estimate"]["stages"]) == {"pre-training", "clustering", "training"}
    seconds = [sum(pair) for pair in found["estimate"]["stages"].values()]
    advised = [sum(pair) for pair in found["advised_estimate"]["stages"].values()]
    assert min(seconds) > 0 < min(advised)
    assert resolve(None, "photos", "mine.toml").settings["num_neighbors"] == 6
    text = say("photos", *QUICK).stdout
    assert "Nothing odd was found." in text and "[settings.pretrain]" in text


def test_the_last_line_is_the_training_that_was_checked() -> None:
    clean_folder("my photos")
    last = say("my photos", *QUICK, "--save-recipe", "a b.toml", "--per-class", "10", "--method", "mixup").stdout
    words = shlex.split(last.rstrip().splitlines()[-1].partition(": ")[2])
    assert words[:3] == ["scanmix", "train", "my photos"]
    pairs = set(zip(words[3::2], words[4::2], strict=True))
    assert pairs == {
        ("--method", "mixup"), ("--recipe", "a b.toml"), ("--size", "16"), ("--per-class", "10"),
        ("--set", "network.widths=[4]"), ("--set", "network.blocks=[1]"),
    }  # fmt: skip


def test_one_class_only() -> None:
    keep("photos/cat/1.png", picture())
    found = checked("photos", code=1)
    assert "at least two" in found["findings"][0]["what"] and found["findings"][0]["level"] == "fault"
    assert "cannot start" in say("photos").stdout


def test_one_class_that_can_be_read() -> None:
    keep("photos/cat/1.png", picture())
    Path("photos/dog").mkdir()
    Path("photos/dog/1.png").write_bytes(b"")
    found = checked("photos", code=1)
    assert where(found, "1 class with images") == ["cat"] and where(found, "unreadable") == ["dog/1.png: not an image"]


def test_folders_one_level_too_high() -> None:
    clean_folder("photos/all")
    found = checked("photos", code=1)
    assert where(found, "one class folder") == ["all/bird (12)", "all/cat (12)", "all/dog (12)"]


def test_nothing_that_can_be_read() -> None:
    for name in ("cat", "dog"):
        Path(f"photos/{name}").mkdir(parents=True)
        Path(f"photos/{name}/1.png").write_bytes(b"x")
    assert "not one of 2 images" in checked("photos", code=1)["findings"][0]["what"]
    assert "Traceback" not in say("photos").output


def test_fewer_images_than_neighbors() -> None:
    for i in range(8):
        keep(f"photos/{'cat' if i % 2 else 'dog'}/{i}.png", picture())
    assert where(checked("photos", code=1), "20 neighbors") == []
    assert checked("photos", *QUICK, "--set", "num_neighbors=2")["estimate"]
    assert checked("photos", *QUICK, "--method", "cross_entropy")["method"] == "cross_entropy"


def test_too_little_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    clean_folder()
    monkeypatch.setattr("scanmix.doctor.checkup.free_memory", lambda device: 10**8)
    assert where(checked("photos", *QUICK), "0.1 GB are free") == []


def test_a_table_with_test_images() -> None:
    clean_folder()
    rows = [f"{name}/{i:02}.png,{name},{'test' if i > 10 else 'train'}" for name in ("cat", "dog") for i in range(12)]
    keep("photos/cat/copy.png", Image.open("photos/cat/11.png"))
    rows += ["cat/copy.png,cat,train", "cat/gone.png,cat,train", "bird/00.png,,train"]
    Path("labels.csv").write_text("\n".join(["path,label,split", *rows]), encoding="utf-8")
    found = checked("labels.csv", "--root", "photos", *QUICK)
    assert where(found, "for training and for test") == ["cat/copy.png (cat) = cat/11.png (cat)"]
    assert where(found, "missing") == ["cat/gone.png: no such file"]
    assert where(found, "without a label") == ["bird/00.png: no label"]
    assert (found["images"], found["test_images"], len(found["findings"])) == (23, 2, 3)


def test_a_table_of_one_class_or_without_a_column() -> None:
    Path("labels.csv").write_text("path,label\na.png,cat\n", encoding="utf-8")
    assert "two classes" in checked("labels.csv", code=1)["findings"][0]["what"]
    Path("labels.csv").write_text("path,class\na.png,cat\n", encoding="utf-8")
    assert "no column 'label'" in checked("labels.csv", code=1)["findings"][0]["what"]


def test_digits() -> None:
    found = checked("digits", "--set", "epochs=1")
    assert found["findings"] == [] and found["recipe"] == "digits/any/scanmix" and found["advice"] == []
    assert "files" not in found and found["test_images"] == 360
    text = say("digits", "--method", "cross_entropy", "--save-recipe", "mine.toml").stdout
    assert "Recipe: digits/any/cross_entropy." in text and not Path("mine.toml").exists()
    assert re.search(r"Training can start: scanmix train digits --method cross_entropy$", text.rstrip())


def test_many_classes_are_not_all_listed() -> None:
    for label in range(25):
        for i in range(1 if label == 7 else 2):
            keep(f"photos/class-{label}/{i}.png", picture())
    text = say("photos", *QUICK, "--method", "mixup").stdout
    assert "The 20 smallest of 25 classes" in text and text.index(" class-7 ") < text.index(" class-0 ")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "no folder, table or known data set"),
        (["digits", "--size", "4"], "at least 8 pixels"),
        (["digits", "--per-class", "9999"], "too many"),
        (["digits", "--method", "scanmx"], "did you mean 'scanmix'?"),
        (["digits", "--set", "epohcs=3"], "did you mean 'epochs'?"),
        (["digits", "--device", "quantum"], "cannot be used"),
        (["digits", "--json", "no/such/folder.json"], "no such folder"),
        (["fashion-mnist", "--root", "nowhere"], "IDX files"),
    ],
)
def test_bad_usage(arguments: list[str], sentence: str) -> None:
    result = say(*arguments)
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("Error: ") and sentence in result.stderr


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (3.04, 3.04, "3.0 s"), (30, 80, "30 to 80 s"), (80, 100, "1.3 to 1.7 min"), (1200, 2400, "20 to 40 min"),
        (3000, 9000, "0.8 to 2.5 h"), (200_000, 900_000, "2 to 10 days"),
    ],
)  # fmt: skip
def test_times_in_words(low: float, high: float, words: str) -> None:
    assert _span(low, high) == words


def photos_folder(side: int = 32) -> None:
    """Photos, as doctor sees them."""
    for name in ("bird", "cat", "dog"):
        for i in range(12):
            keep(f"photos/{name}/{i:02}.png", picture(side))


def line_of(result: Result, words: str) -> str:
    (found,) = [line for line in result.stdout.splitlines() if line.startswith(words)]
    return found.removeprefix(words)


FAST = ["--set", "network.widths=[4]", "--set", "network.blocks=[1]", "--device", "cpu"]


def test_for_photos_features_are_proposed_and_how_to_get_an_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanmix.doctor.pretrained.at_hand", list)
    monkeypatch.setattr("scanmix.doctor.pretrained.FEW", 35)
    photos_folder()
    result = say("photos", *FAST, "--seed", "3")
    assert result.exit_code == 0, result.output
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert any(line.startswith("Features first: fewer than 20,000 photos") for line in lines)
    (offline,) = [line for line in lines if line.endswith("@model.safetensors")]
    assert shlex.split(offline)[:7] == ["scanmix", "train", "photos", "--seed", "3", "--device", "cpu"]
    assert lines[-1].startswith("Training can start: scanmix doctor photos --save-recipe mine.toml --seed 3")
    found = checked("photos", *FAST)["pretrained"]
    assert found == {"proposed": True, "finetuned": None, "features": None}


def test_for_few_photos_and_without_an_encoder_the_one_without_weights_is_the_last_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SCANMIX_CACHE", str(Path("cache").absolute()))
    monkeypatch.setattr("scanmix.doctor.pretrained.at_hand", list)
    photos_folder()
    result = say("photos", *FAST)
    assert result.exit_code == 0, result.output
    assert "No pretrained encoder is on this machine. How to get one:" in result.stdout
    assert re.search(r"Features of patches:256: .+ for 36 pictures, measured on \d+\.", result.stdout)
    last = "Training can start, on features first: scanmix train photos --device cpu --features patches:256"
    assert result.stdout.splitlines()[-1] == last
    trained = CliRunner().invoke(app, shlex.split(last.partition("scanmix ")[2]))
    assert trained.exit_code == 0, trained.output


def test_an_encoder_that_is_here_is_measured_and_its_line_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    write_encoder(Path("tiny.onnx"))
    here = [AtHand("timm:name", f"onnx:{Path('tiny.onnx').absolute()}", 1)]
    monkeypatch.setattr("scanmix.doctor.pretrained.at_hand", lambda: here)
    photos_folder()
    result = say("photos", *FAST, "--limit-test", "7")
    assert result.exit_code == 0, result.output
    assert re.search(r"Features of timm:name: \S+ \w+ for 36 pictures, measured on 36\. They are kept", result.stdout)
    assert "scanmix doctor photos --finetune timm:name" in result.stdout
    scratch = line_of(result, "From scratch: ")
    assert scratch.partition(" && ")[2].startswith("scanmix train photos --recipe mine.toml --limit-test 7")
    assert result.stdout.splitlines()[-1] == (
        "Training can start, on features first: scanmix train photos --limit-test 7 --device cpu --features timm:name"
    )
    found = checked("photos", *FAST)["pretrained"]
    assert found["proposed"] and found["features"].pop("seconds") > 0
    assert found["features"] == {"model": "timm:name", "license": None, "missing": 36, "measured": 36}


def test_features_that_are_asked_for_are_opened_and_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANMIX_CACHE", str(Path("cache").absolute()))
    write_encoder(Path("tiny.onnx"))
    photos_folder()
    asked = ["--features", "onnx:tiny.onnx", "--method", "cross_entropy", "--device", "cpu"]
    result = say("photos", *asked)
    assert result.exit_code == 0, result.output
    assert "photos: 36 images of 3 classes (16x16, color), no test images." in result.stdout  # the encoder's size
    assert "Features of onnx:tiny.onnx: " in result.stdout and "Features first" not in result.stdout
    assert re.search(r"cross_entropy with settings\W+features\W+training", result.stdout)
    line = line_of(result, "Training can start: ")
    assert line == "scanmix train photos --method cross_entropy --features onnx:tiny.onnx --device cpu"
    found = checked("photos", *asked)
    assert found["recipe"] == "vectors/any/cross_entropy" and found["pretrained"]["features"]["missing"] == 36
    assert list(found["estimate"]["stages"]) == ["features", "training"]
    trained = CliRunner().invoke(app, [*shlex.split(line)[1:], "--set", "epochs=1"])
    assert trained.exit_code == 0, trained.output
    again = say("photos", *asked)
    assert "all are in the cache, and cost nothing" in again.stdout
    refused = say("photos", "--features", "onnx:none.onnx")
    assert refused.exit_code == 2 and "none.onnx: no such file" in refused.output
    refused = say("photos", *asked, "--finetune", "timm:x")
    assert refused.exit_code == 2 and "give one of them" in refused.output


def test_what_fine_tuning_costs_is_measured_with_that_network(monkeypatch: pytest.MonkeyPatch) -> None:
    standin_timm.install(monkeypatch)
    standin_timm.write_weights(Path("tiny.safetensors"))
    photos_folder()
    model = f"timm:{standin_timm.NAME}@tiny.safetensors"
    few = ["--set", "batch_size=8"]
    result = say("photos", "--finetune", model, *few)
    assert result.exit_code == 0, result.output
    assert "license mit" in result.stdout and "Recipe: finetune/any/cross_entropy." in result.stdout
    assert line_of(result, "Training can start: ") == f"scanmix train photos --finetune {model} {' '.join(few)}"
    assert "Features first" not in result.stdout
    found = checked("photos", "--finetune", model, *few)
    assert found["size"] == [12, 12], "as the weights want it"
    assert found["pretrained"]["finetuned"].endswith("tiny.safetensors") and found["advice"] == []
    assert list(found["estimate"]["stages"]) == ["training"]


def test_drawings_and_gray_pictures_are_left_to_a_network_of_their_own() -> None:
    for i in range(24):
        keep(f"photos/{'ab'[i % 2]}/{i}.png", picture(32, channels=1))
    result = say("photos", *FAST)
    assert result.exit_code == 0 and "Features first" not in result.stdout
    assert not checked("photos", *FAST)["pretrained"]["proposed"]
