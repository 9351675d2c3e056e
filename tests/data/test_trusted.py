"""Labels that come with the data as known to be right: read from every table, kept by noise, seen by methods."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from scanmix.config import DataError, UserError
from scanmix.data.batches import TrainingData
from scanmix.data.corrections import apply_corrections
from scanmix.data.decisions import read_decided, read_trusted
from scanmix.data.examples import DECIDED, OPEN_SET, TRUSTED, Examples
from scanmix.data.noise import add_noise
from scanmix.data.readers import load, reload
from scanmix.data.readers.open_set import add_open_set
from scanmix.data.subset import draw_pool
from scanmix.data.views import ViewSettings, make_views
from scanmix.distributed.engine import Engine

TABLE = Path("labels.csv")


def words(examples: Examples) -> list[str]:
    assert examples.decided is not None
    return [DECIDED[code] for code in examples.decided.tolist()]


def pictures(folder: Path, text: str) -> Path:
    for i, name in enumerate("abcd"):
        Image.new("L", (8, 8), 40 * i).save(folder / f"{name}.png")
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return folder / "labels.csv"


def made(count: int = 40) -> Examples:
    return Examples(
        images=torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8).clone(),
        labels=torch.arange(count) % 4,
        class_names=tuple("abcd"),
        ids=tuple(f"{i}" for i in range(count)),
    )


def test_the_code_of_trusted_labels_comes_after_those_that_are_stored() -> None:
    assert DECIDED == ("", "keep", "accept", "relabel", "trusted")


@pytest.mark.parametrize(
    ("cell", "trusted"),
    [
        ("1", True), ("true", True), ("YES", True), (" Yes ", True), ("True", True), ("1.0", True),
        ("", False), ("  ", False), ("0", False), ("FALSE", False), ("no", False), ("0.0", False),
    ],
)  # fmt: skip
def test_words_for_trusted(cell: str, trusted: bool) -> None:
    assert read_trusted(cell, TABLE, 1) is trusted


@pytest.mark.parametrize("cell", ["2", "maybe", "nan", "y", "trusted", "-1"])
def test_another_word_is_refused_with_its_row(cell: str) -> None:
    with pytest.raises(DataError, match=f"row 7 of labels.csv has '{cell}' as its trusted; use 1, true or yes, and 0"):
        read_trusted(cell, TABLE, 7)


@pytest.mark.parametrize(
    ("decision", "trusted", "meant"),
    [
        ("", "1", "trusted"), ("undo", "1", "trusted"), ("keep", "1", "keep"), ("exclude", "yes", "exclude"),
        ("unsure", "1", "unsure"), ("Trusted", "", "trusted"), ("", "", ""), ("relabel", "0", "relabel"),
    ],
)  # fmt: skip
def test_a_decision_comes_before_trust(decision: str, trusted: str, meant: str) -> None:
    assert read_decided(decision, trusted, TABLE, 1) == meant


def test_a_table_of_images(tmp_path: Path) -> None:
    rows = "a.png,x,yes,\nb.png,y,,\nc.png,x,0,keep\nd.png,y,1,\n"
    train, _ = load(pictures(tmp_path, "path,label,trusted,decision\n" + rows))
    assert words(train) == ["trusted", "", "keep", "trusted"]
    assert train.trusted is not None and train.trusted.tolist() == [True, False, True, True]
    assert train.source is not None and words(reload(train.source)) == words(train)
    with pytest.raises(DataError, match=r"row 2 of .*labels.csv has 'perhaps' as its trusted"):
        load(pictures(tmp_path, "path,label,trusted\na.png,x,1\nb.png,y,perhaps\n"))


def test_a_column_that_trusts_nothing_is_no_trust(tmp_path: Path) -> None:
    assert load(pictures(tmp_path, "path,label,trusted\na.png,x,\nb.png,y,no\n"))[0].trusted is None
    assert load(pictures(tmp_path, "path,label\na.png,x\nb.png,y\n"))[0].trusted is None


@pytest.mark.parametrize("cells", [[True, False, None], [1.0, 0.0, None], [1, 0, 0], ["yes", "no", ""]])
def test_a_parquet_table(tmp_path: Path, cells: list[Any]) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pictures(tmp_path, "")
    columns = {"path": ["a.png", "b.png", "c.png"], "label": ["x", "y", "x"], "trusted": cells}
    parquet.write_table(arrow.table(columns), tmp_path / "t.parquet")
    assert words(load(tmp_path / "t.parquet")[0]) == ["trusted", "", ""]


def test_a_table_of_votes_trusts_the_class_with_the_most(tmp_path: Path) -> None:
    wide = "path,label_1,label_2,label_3,trusted\na.png,x,x,y,1\nb.png,y,y,y,\n"
    long = "path,label,annotator,trusted\na.png,x,al,1\na.png,x,bo,1\na.png,y,cy,1\nb.png,y,al,\nb.png,y,bo,\n"
    for text in (wide, long):
        train, _ = load(pictures(tmp_path, text))
        assert words(train) == ["trusted", ""] and train.votes is not None
        assert [train.class_names[label] for label in train.labels] == ["x", "y"]
    with pytest.raises(DataError, match=r"rows 1 and 2 of .* a.png and differ in split, decision or trusted"):
        load(pictures(tmp_path, "path,label,annotator,trusted\na.png,x,al,1\na.png,x,bo,0\nb.png,y,al,\n"))


def test_labels_of_vectors(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.arange(12.0).reshape(4, 3))
    (tmp_path / "v.csv").write_text("label,trusted\nx,1\ny,\nx,FALSE\ny,true\n")
    train, _ = load(tmp_path / "v.npy")
    assert words(train) == ["trusted", "", "", "trusted"]
    assert train.source is not None and words(reload(train.source)) == words(train)
    (tmp_path / "v.csv").write_text("label,trusted\nx,1\ny,\nx,\ny,si\n")
    with pytest.raises(DataError, match=r"row 4 of .*v\.csv has 'si' as its trusted"):
        load(tmp_path / "v.npy")


def test_labels_that_are_laid_over(tmp_path: Path) -> None:
    table = tmp_path / "more.csv"
    table.write_text("id,label,trusted\n0,a,1\n1,c,yes\n2,d,\n3,d,0\n")
    result = apply_corrections(made(4), table)
    assert words(result) == ["trusted", "trusted", "", ""] and result.labels.tolist() == [0, 2, 3, 3]
    table.write_text("id,label,decision,trusted\n0,a,,\n1,c,unsure,\n2,d,trusted,\n")
    assert words(apply_corrections(result, table)) == ["trusted", "", "trusted", ""]  # empty cells undo nothing
    table.write_text("id,label,trusted\n0,a,1\n1,c,if so\n")
    with pytest.raises(DataError, match=r"row 2 of .*more\.csv has 'if so' as its trusted"):
        apply_corrections(made(4), table)


def test_a_mask_in_python() -> None:
    mask = np.arange(40) < 4
    found = made().trusting(mask)
    assert words(found) == ["trusted"] * 4 + [""] * 36 and found.fingerprint() == made().fingerprint()
    assert words(found.trusting([False] * 39 + [True])) == ["trusted"] * 4 + [""] * 35 + ["trusted"]
    assert found.select([39, 0]).trusted.tolist() == [False, True]  # type: ignore[union-attr]
    for wrong in ([0, 1], [True], torch.ones(40), "all", np.ones((40, 1), dtype=bool)):
        with pytest.raises(UserError, match="trusted labels must be given as a mask of 40 booleans, not "):
            made().trusting(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["symmetric-exclusive", "asymmetric", "instance"])
def test_noise_leaves_trusted_labels_as_they_are(kind: str) -> None:
    trusted = torch.arange(40) % 5 == 0
    clean = made()
    mapping = {"mapping": {i: (i + 1) % 4 for i in range(4)}} if kind == "asymmetric" else {}
    without = add_noise(clean, kind, 1.0, seed=1, **mapping)  # type: ignore[arg-type]
    noisy = add_noise(clean.trusting(trusted), kind, 1.0, seed=1, **mapping)  # type: ignore[arg-type]
    assert torch.equal(noisy.labels, torch.where(trusted, clean.labels, without.labels))
    assert noisy.trusted is not None and torch.equal(noisy.trusted, trusted)
    assert noisy.noise is not None and without.noise is not None
    assert without.noise.actual_rate > 0.9 and noisy.noise.actual_rate == pytest.approx(
        float((noisy.labels != clean.labels).double().mean())
    )


def test_what_a_review_decided_is_dropped_by_noise_and_trust_is_not() -> None:
    decided = torch.zeros(40, dtype=torch.int8)
    decided[:4] = torch.tensor([1, 2, 3, 4], dtype=torch.int8)
    noisy = add_noise(Examples(**{**vars(made()), "decided": decided}), "symmetric", 0.5)
    assert words(noisy) == ["", "", "", "trusted", *[""] * 36]


def test_a_label_that_was_replaced_is_trusted_no_more() -> None:
    trusted = made().trusting([True] * 40)
    other = trusted.labels.clone()
    other[:3] = (other[:3] + 1) % 4
    assert words(trusted.with_labels(other)) == [""] * 3 + ["trusted"] * 37
    assert trusted.with_labels((trusted.labels + 1) % 4).decided is None


def test_noise_on_a_table_with_trusted_labels_loads_again(tmp_path: Path) -> None:
    train, _ = load(pictures(tmp_path, "path,label,trusted\na.png,x,1\nb.png,y,\nc.png,x,\nd.png,y,1\n"))
    noisy = add_noise(train, "symmetric-exclusive", 1.0)
    assert [noisy.class_names[label] for label in noisy.labels] == ["x", "x", "y", "y"]
    assert noisy.source is not None
    again = reload(json.loads(json.dumps(noisy.source)))
    assert again.fingerprint() == noisy.fingerprint() and words(again) == words(noisy)


def test_images_of_trusted_labels_are_not_replaced_by_others() -> None:
    decided = torch.zeros(40, dtype=torch.int8)
    decided[:10], decided[10:20] = DECIDED.index(TRUSTED), DECIDED.index("keep")
    own = Examples(**{**vars(made()), "decided": decided})
    mixed = add_open_set(own, made(30), 1.0, seed=2)
    assert mixed.true_labels is not None and mixed.decided is not None
    assert (mixed.true_labels == OPEN_SET).tolist() == [False] * 10 + [True] * 30
    assert torch.equal(mixed.images[:10], own.images[:10]) and mixed.decided.tolist() == [4] * 10 + [0] * 30


def test_an_epoch_that_draws_some_examples_knows_which_are_trusted() -> None:
    examples = made()
    views = make_views(ViewSettings(crop_padding=0), examples.images, flip=False)
    trusted = torch.arange(40) % 3 == 0
    data = TrainingData(examples.images, examples.labels, 4, views, Engine().generator, trusted)
    pool = draw_pool(data, 16, 0)
    assert pool.places is not None and pool.data.trusted is not None
    assert torch.equal(pool.data.trusted, trusted[pool.places])
    plain = TrainingData(examples.images, examples.labels, 4, views, Engine().generator)
    assert draw_pool(plain, 16, 0).data.trusted is None and plain.trusts(pool.places) is None
