"""Clean, train on it, clean again: a further round begins where the last one ended."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

import scanmix
from scanmix.audit import score_labels
from scanmix.cli import app
from scanmix.cli.review import _new_folder
from scanmix.data.examples import DECIDED
from scanmix.review import Decisions
from scanmix.review.decisions import CORRECTED
from scanmix.review.rows import make_queue, table
from scanmix.training import open_run

PLAIN = [
    "--method", "cross_entropy", "--set", "epochs=2", "--set", "network.widths=[4,8]", "--set", "network.blocks=[1,1]",
    "--set", "network.stem_stride=2", "--threads", "1",
]  # fmt: skip
COLORS = {"night": (20, 20, 60), "rust": (170, 70, 30), "sun": (240, 200, 40)}
Row = dict[str, str]


def say(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures of three classes; every fourth stands in the folder of another class."""
    folder = tmp_path_factory.mktemp("made") / "photos"
    rng, names = np.random.default_rng(0), list(COLORS)
    for i in range(60):
        given = names[(i + (i % 4 == 0)) % 3]
        (folder / given).mkdir(parents=True, exist_ok=True)
        pixels = rng.normal(COLORS[names[i % 3]], 30, (12, 12, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / given / f"{names[i % 3]}-{i}.png")
    return folder


@pytest.fixture(scope="module")
def first(photos: Path) -> Path:
    """A run, and a person who looks at the first twenty labels, knowing what is right; two are left out."""
    folder = photos.parent / "first"
    say("train", photos, "--out", folder, *PLAIN)
    decide(folder, 20, exclude=2)
    return folder


@pytest.fixture(scope="module")
def second(photos: Path, first: Path) -> Path:
    folder = photos.parent / "second"
    result = say("train", photos, "--labels", first / CORRECTED, "--out", folder, *PLAIN)
    assert "18 labels were decided by a person before; they are not counted and come last." in result.stdout
    return folder


def decide(folder: Path, count: int, exclude: int = 0, again: bool = False) -> list[str]:
    """Decide the first labels of the queue by the name of the file; return their ids."""
    found = score_labels(open_run(folder).evidence())
    decisions, queue = Decisions(folder, found, "ann"), make_queue(found, again)
    decisions.recover()
    rows = queue.order[:count].tolist()
    for place, row in enumerate(rows):
        right = found.class_names.index(Path(found["id"][row]).name.partition("-")[0])
        if place < exclude:
            decisions.decide([row], "exclude")
        else:
            decisions.decide([row], "relabel", right)
    return [str(found["id"][row]) for row in rows]


def rows_of(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def words(rows: list[Row], column: str) -> dict[str, str]:
    return {row["id"]: row[column] for row in rows if row[column]}


def test_the_next_list_begins_with_what_nobody_has_decided(photos: Path, first: Path, second: Path) -> None:
    decided = words(rows_of(first / CORRECTED), "decision")
    kept = {name: word for name, word in decided.items() if word != "exclude"}
    rows = rows_of(second / "labels.csv")
    assert len(decided) == 20 and len(kept) == 18 and len(rows) == 58
    assert not {row["id"] for row in rows[:40]} & kept.keys()
    assert {row["id"]: row["decided"] for row in rows[40:]} == kept
    # The order before the decisions were known: some of them would have come first.
    without = sorted(rows, key=lambda row: (float(row["p_clean"]), float(row["score"])))
    assert {row["id"] for row in without[:40]} & kept.keys()


def test_every_number_of_the_second_run_leaves_decided_labels_out(second: Path) -> None:
    result = say("audit", second)
    summary = json.loads((second / "audit.json").read_text())
    rows = rows_of(second / "labels.csv")
    looks = [row for row in rows if float(row["p_clean"]) < 0.5 and not row["decided"]]
    assert summary["looks_wrong"] == len(looks) and sum(summary["kinds"].values()) == 40
    assert sum(summary["decided"].values()) == 18 and summary["excluded"] == 2
    assert float(rows[-1]["expected_wrong"]) == pytest.approx(summary["expected_wrong"], abs=0.01)
    assert summary["expected_wrong"] == pytest.approx(58 * summary["noise_rate"]["value"], abs=1e-3)
    assert "Decided by a person before: " in result.stdout
    # Of the twenty that were decided two are left out; nothing is known of those.
    seen, before = summary["checked"], summary["before_review"]
    assert seen["asked"] == 18 and seen["found_wrong"] == sum(row["decided"] in ("accept", "relabel") for row in rows)
    assert before["value"] == pytest.approx(summary["noise_rate"]["value"] + seen["found_wrong"] / 58)
    assert f"Of 18 labels that a person decided, the audit's suggestion was right for {seen['suggestion_right']}" in (
        result.stdout
    )
    assert "Before the review " in result.stdout


def test_it_holds_without_the_data_and_for_a_run_in_memory(photos: Path, first: Path, second: Path) -> None:
    examples, _ = scanmix.load(photos)
    corrected = scanmix.data.corrections.apply_corrections(examples, first / CORRECTED)
    kept, fresh = open_run(second).evidence(), open_run(second).evidence(corrected)
    assert kept.decided is not None and fresh.decided is not None
    assert kept.decided.tolist() == fresh.decided.tolist() and kept.excluded == fresh.excluded
    assert len(kept.excluded) == 2


def test_a_third_round_knows_both(photos: Path, first: Path, second: Path, tmp_path: Path) -> None:
    one = words(rows_of(first / CORRECTED), "decision")
    seen = decide(second, 10, exclude=1)
    assert not set(seen) & one.keys()
    rows = rows_of(second / CORRECTED)
    two = words(rows, "decision")
    assert len(rows) == 60 and two.keys() == one.keys() | set(seen)  # with the two that were left out before
    assert {name: two[name] for name in one} == one
    # From the original data, with the second file alone: nothing comes back and nothing is asked again.
    say("train", photos, "--labels", second / CORRECTED, "--out", tmp_path / "third", *PLAIN)
    third = rows_of(tmp_path / "third" / "labels.csv")
    assert len(third) == 57 and words(third, "decided") == {n: word for n, word in two.items() if word != "exclude"}
    assert not {row["id"] for row in third[:30]} & two.keys()
    given = {row["id"]: row["given"] for row in third}
    assert all(given[name] == Path(name).name.partition("-")[0] for name in two if name in given)


def test_asked_again_the_reviewer_is_measured(second: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(second, tmp_path / "copy", ignore=shutil.ignore_patterns("corrected.csv", "review-log*"))
    found = score_labels(open_run(folder).evidence())
    shown = table(found, make_queue(found, again=True))
    assert all(shown["before"][row] for row in shown["order"][:18])
    asked = decide(folder, 5, again=True)
    assert words(rows_of(folder / CORRECTED), "decision").keys() > set(asked)
    page = say("report", folder).stdout
    text = (folder / "report.html").read_text(encoding="utf-8")
    told = "When 5 were decided once more, 5 kept their label (100.0 %)."
    assert "Written" in page and told in " ".join(text.split())


def test_an_older_run_opens_as_before(second: Path, tmp_path: Path) -> None:
    """One that was made before decisions were kept: it has no such tensor, and no such key."""
    folder = shutil.copytree(second, tmp_path / "older", ignore=shutil.ignore_patterns("corrected.csv", "review-log*"))
    tensors: dict[str, Any] = load_file(folder / "evidence" / "evidence.safetensors")
    tensors.pop("decided")
    save_file(tensors, folder / "evidence" / "evidence.safetensors")
    names = json.loads((folder / "evidence" / "evidence.json").read_text())
    names.pop("excluded")
    names.pop("sha256", None)
    (folder / "evidence" / "evidence.json").write_text(json.dumps(names))
    say("audit", folder)
    assert "decided" not in rows_of(folder / "labels.csv")[0] and "decided" not in open_run(folder).audit()
    say("report", folder)


def test_labels_that_were_only_kept_need_no_new_training(photos: Path, tmp_path: Path) -> None:
    """Decisions that change no label leave the run what it is; they are known to it all the same."""
    say("train", photos, "--out", tmp_path / "one", *PLAIN)
    ids = [row["id"] for row in rows_of(tmp_path / "one" / "labels.csv")]
    table = tmp_path / "kept.csv"
    line = ("train", photos, "--labels", table, "--out", tmp_path / "two", *PLAIN)
    table.write_text("id,label,decision\n" + "".join(f"{name},{name.partition('/')[0]},keep\n" for name in ids[:5]))
    say(*line)
    weights = (tmp_path / "two" / "model" / "model.safetensors").read_bytes()
    assert "kept with it" not in say(*line).stdout
    table.write_text("id,label,decision\n" + "".join(f"{name},{name.partition('/')[0]},keep\n" for name in ids[:9]))
    assert "What was decided since is kept with it" in say(*line).stdout
    assert words(rows_of(tmp_path / "two" / "labels.csv"), "decided").keys() == set(ids[:9])
    kept = open_run(tmp_path / "two").evidence()
    assert kept.before is not None and kept.before.tolist() == kept.labels.tolist()
    assert json.loads((tmp_path / "two" / "audit.json").read_text())["checked"]["asked"] == 9
    assert weights == (tmp_path / "two" / "model" / "model.safetensors").read_bytes()


def test_a_further_round_is_told_to_go_to_a_folder_of_its_own(first: Path, second: Path, tmp_path: Path) -> None:
    assert _new_folder(open_run(first), first) == []
    assert _new_folder(open_run(second), second) == ["--out", str(second.with_name("second-round3"))]
    third = shutil.copytree(second, tmp_path / "x-round3")
    assert _new_folder(open_run(third), third) == ["--out", str(tmp_path / "x-round4")]


def test_corrections_given_as_the_data_are_decisions_too(first: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="2 of 60 rows of .* are left out"):
        examples, _ = scanmix.load(first / CORRECTED)
    rows = {row["path"]: row for row in rows_of(first / CORRECTED)}
    assert examples.decided is not None and len(examples) == 58
    words_ = [DECIDED[code] for code in examples.decided.tolist()]
    assert words_ == [rows[name]["decision"] for name in examples.ids] and words_.count("") == 40
    assert {name for name, *_ in examples.excluded} == {p for p, row in rows.items() if row["decision"] == "exclude"}
    plain = tmp_path / "plain.csv"
    plain.write_text("path,label\n" + "".join(f"{path},{row['label']}\n" for path, row in rows.items()))
    assert scanmix.load(plain)[0].decided is None
