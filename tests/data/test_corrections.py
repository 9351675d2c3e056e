"""Labels a person corrected, laid over examples."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch

from scanmix.config import UserError
from scanmix.data.corrections import apply_corrections
from scanmix.data.examples import DECIDED, NOT_KNOWN, Examples
from scanmix.data.noise import add_noise
from scanmix.data.readers import load, reload


def six() -> Examples:
    return Examples(
        images=torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 1, 8, 8),
        labels=torch.tensor([0, 1, 2, 0, 1, 2]),
        class_names=("ant", "bee", "cat, big"),
        ids=tuple(f"part/{i}.png" for i in range(6)),
        paths=tuple(f"/data/part/{i}.png" for i in range(6)),
    )


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_labels_are_replaced_and_excluded_rows_left_out(tmp_path: Path) -> None:
    table = write(
        tmp_path / "corrected.csv", "id,path,label,given,decision", 'part/1.png,,"cat, big",bee,accept',
        "part/3.png,,ant,ant,exclude", "part/0.png,,ant,ant,",
    )  # fmt: skip
    result = apply_corrections(six(), table)
    assert result.ids == tuple(f"part/{i}.png" for i in (0, 1, 2, 4, 5))
    assert result.labels.tolist() == [0, 2, 2, 1, 2]
    assert result.images[:, 0, 0, 0].tolist() == [0, 1, 2, 4, 5]
    assert result.true_labels is None  # what was given before is nobody's truth
    assert result.source is None  # arrays in memory


def test_known_true_labels_stay_true(tmp_path: Path) -> None:
    noisy = add_noise(six(), "symmetric-exclusive", 1.0)
    table = write(tmp_path / "a.csv", "id,label,decision", "part/0.png,ant,relabel", "part/5.png,ant,exclude")
    result = apply_corrections(noisy, table)
    assert result.true_labels is not None and result.true_labels.tolist() == [0, 1, 2, 0, 1]
    assert result.labels[0] == 0 and result.labels[1:].tolist() == noisy.labels[1:5].tolist()


@pytest.mark.parametrize("name", ["/data/part/4.png", "part/4.png"])
def test_rows_are_found_by_path_where_there_is_no_id(tmp_path: Path, name: str) -> None:
    table = write(tmp_path / "a.csv", "path,label", f"{name},ant")
    assert apply_corrections(six(), table).labels.tolist() == [0, 1, 2, 0, 0, 2]


def test_paths_may_be_relative_to_the_file(tmp_path: Path) -> None:
    examples = dataclasses.replace(six(), paths=tuple(str(tmp_path / "pics" / f"{i}.png") for i in range(6)))
    table = write(tmp_path / "a.csv", "path,label", "pics/4.png,ant")
    assert apply_corrections(examples, table).labels[4] == 0


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["id,label", "x,ant", "y,bee"], r"has the id 'x', 'y', not in 'data'"),
        (["id,label", "part/0.png,Ant", "part/1.png,"], r"has the label '', 'Ant', no class of 'data'"),
        (["id,label", "part/0.png,ant", "part/0.png,bee"], r"more than one row for 'part/0.png'"),
        (["path,label", "part/0.png,ant", "/data/part/0.png,bee"], r"more than one row for 'part/0.png'"),
        (["id,name", "part/0.png,ant"], "needs the columns label, and id or path; it has id, name"),
        (["label", "ant"], "needs the columns"),
        ([""], "it has none"),
        (["id,label", 'part/0.png,"ant'], "no UTF-8 CSV"),
        (["id,label", *(f"nobody/{i},ant" for i in range(12))], r"'nobody/9' and 2 more|and 2 more"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path: Path, lines: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        apply_corrections(six(), write(tmp_path / "a.csv", *lines))


def test_a_missing_or_binary_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        apply_corrections(six(), tmp_path / "none.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="no UTF-8 CSV"):
        apply_corrections(six(), tmp_path / "b.csv")


def test_what_is_excluded_may_be_gone_already(tmp_path: Path) -> None:
    rows = ("id,label,decision", "part/0.png,ant,relabel", "part/7.png,ant,exclude")
    result = apply_corrections(six(), write(tmp_path / "a.csv", *rows))
    assert len(result) == 6 and result.labels[0] == 0
    kept = write(tmp_path / "b.csv", *rows[:2], "part/7.png,ant,keep")
    with pytest.raises(UserError, match=r"'part/7.png', not in .*; exclude it, correct the file"):
        apply_corrections(six(), kept)


def test_a_label_of_an_excluded_row_is_not_looked_at(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", "id,label,decision", "part/0.png,no such class,exclude")
    assert len(apply_corrections(six(), table)) == 5


def test_corrected_examples_are_loaded_again_and_a_changed_file_is_refused(tmp_path: Path) -> None:
    digits, _ = load("digits")
    noisy = add_noise(digits, "symmetric", 0.4, seed=3)
    table = write(tmp_path / "a.csv", "id,label,decision", f"{digits.ids[0]},7,relabel", f"{digits.ids[1]},7,exclude")
    result = apply_corrections(noisy, table)
    assert result.source is not None and len(result) == len(digits) - 1
    again = reload(json.loads(json.dumps(result.source)))
    assert again.fingerprint() == result.fingerprint() and again.ids == result.ids
    write(table, "id,label", f"{digits.ids[0]},6")
    with pytest.raises(UserError, match=r"a\.csv is not what it was"):
        reload(result.source)


def words(examples: Examples) -> list[str]:
    assert examples.decided is not None
    return [DECIDED[code] for code in examples.decided.tolist()]


def test_what_a_person_decided_is_remembered_and_what_was_left_out(tmp_path: Path) -> None:
    table = write(
        tmp_path / "a.csv", "id,path,label,given,decision", "part/0.png,,ant,ant,keep", "part/1.png,,ant,bee,accept",
        'part/2.png,,"cat, big",,relabel', "part/3.png,,ant,ant,unsure", "part/4.png,,bee,bee,",
        "part/5.png,,ant,,exclude", "gone.png,/old/gone.png,ant,bee,exclude",
    )  # fmt: skip
    result = apply_corrections(six(), table)
    assert words(result) == ["keep", "accept", "relabel", "", ""]
    assert result.excluded == (("part/5.png", "/data/part/5.png", "cat, big"), ("gone.png", "/old/gone.png", "bee"))
    assert six().decided is None and result.fingerprint() == dataclasses.replace(result, decided=None).fingerprint()
    assert words(result.select([2, 0])) == ["relabel", "keep"] and result.select([0]).excluded == result.excluded
    assert words(result.without_true_labels()) == words(result)
    assert result.with_labels(result.labels).decided is None  # it was said of other labels
    assert words(result.per_class(1)) == [words(result)[result.ids.index(name)] for name in result.per_class(1).ids]


def test_a_later_file_adds_to_what_was_decided(tmp_path: Path) -> None:
    rows = [f"part/{i}.png,{name},keep" for i, name in enumerate(("ant", "bee", '"cat, big"', "ant"))]
    once = apply_corrections(six(), write(tmp_path / "a.csv", "id,label,decision", *rows, "part/5.png,ant,exclude"))
    later = [
        "part/0.png,ant,",
        "part/1.png,ant,",
        'part/2.png,"cat, big",unsure',
        "part/4.png,bee,accept",
        "part/3.png,ant,exclude",
    ]
    twice = apply_corrections(once, write(tmp_path / "b.csv", "id,label,decision", *later))
    # the same label is still decided, another that nobody decided is not, and who is unsure has not decided
    assert words(twice) == ["keep", "", "", "accept"] and twice.ids[-1] == "part/4.png"
    assert [name for name, *_ in twice.excluded] == ["part/5.png", "part/3.png"]


def test_corrected_examples_that_load_again_are_decided_still(tmp_path: Path) -> None:
    digits, _ = load("digits")
    rows = (f"{digits.ids[0]},{digits.labels[0]},keep", f"{digits.ids[1]},7,exclude")
    result = apply_corrections(digits, write(tmp_path / "a.csv", "id,label,decision", *rows))
    again = reload(json.loads(json.dumps(result.source)))
    assert words(again) == words(result) and [i for i, word in enumerate(words(again)) if word] == [0]
    assert again.excluded == result.excluded and len(again.excluded) == 1


@pytest.mark.parametrize("word", ["Exclude", " excluded ", "delete", "DELETED", "remove", "removed\t", "exclude"])
def test_leaving_out_may_be_spelled_in_many_ways(tmp_path: Path, word: str) -> None:
    table = write(tmp_path / "a.csv", "id,label,decision", f"part/1.png,bee,{word}")
    assert "part/1.png" not in apply_corrections(six(), table).ids


@pytest.mark.parametrize("word", ["drop", "exclu", "no", "yes", "keep!", "0"])
def test_a_word_that_is_no_decision_is_refused(tmp_path: Path, word: str) -> None:
    table = write(tmp_path / "a.csv", "id,label,decision", "part/0.png,ant,kept", f"part/1.png,bee,{word}")
    with pytest.raises(UserError, match=rf"row 2 of .*a\.csv has the decision '{word}'"):
        apply_corrections(six(), table)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["id,label,decision", "part/0.png,ant,", "part/1.png,bee"], r"row 2 of .*a\.csv has 2 cells .* has 3"),
        (["id,label,decision", "part/0.png,ant,keep,more"], r"row 1 of .*a\.csv has 4 cells .* has 3"),
        (["id,label,label", "part/0.png,ant,bee"], r"a\.csv has the column 'label' twice; keep one"),
        (["id,label", "part/0.png,ant", "", 'part/1.png,"b"ee'], "no UTF-8 CSV"),
    ],
)
def test_rows_that_are_cut_off_or_run_over_are_refused(tmp_path: Path, lines: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        apply_corrections(six(), write(tmp_path / "a.csv", *lines))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(UserError, match="named pipe"):
        apply_corrections(six(), tmp_path / "a.csv")


def test_what_is_left_out_is_found_by_its_file_under_another_id(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", "id,path,label,decision", "4.png,/data/part/4.png,bee,exclude")
    assert "part/4.png" not in apply_corrections(six(), table).ids


def test_a_file_that_both_excludes_and_keeps_one_example_is_refused(tmp_path: Path) -> None:
    rows = ("4.png,/data/part/4.png,bee,exclude", "part/4.png,/data/part/4.png,bee,keep")
    with pytest.raises(UserError, match=r"more than one row for 'part/4\.png'"):
        apply_corrections(six(), write(tmp_path / "a.csv", "id,path,label,decision", *rows))


def test_the_label_before_the_first_decision_is_kept(tmp_path: Path) -> None:
    one = write(tmp_path / "a.csv", "id,label,decision", "part/0.png,bee,relabel", "part/1.png,bee,keep",
                "part/3.png,ant,exclude")  # fmt: skip
    first = apply_corrections(six(), one)
    assert first.before is not None and first.before.tolist() == [0, 1, 2, 1, 2]
    two = write(tmp_path / "b.csv", "id,label,decision", 'part/0.png,"cat, big",relabel', "part/2.png,ant,accept")
    second = apply_corrections(first, two)
    assert second.labels.tolist() == [2, 1, 0, 1, 2] and second.decided is not None
    assert second.before is not None and second.before.tolist() == [0, 1, 2, 1, 2]  # not the bee between
    assert second.select([2, 0]).before.tolist() == [2, 0]  # type: ignore[union-attr]
    undone = apply_corrections(second, write(tmp_path / "c.csv", "id,label,decision", "part/0.png,bee,undo"))
    again = apply_corrections(undone, write(tmp_path / "d.csv", "id,label,decision", "part/0.png,ant,relabel"))
    assert again.before is not None and again.before.tolist()[0] == 1  # nobody had decided when it was a bee
    assert first.with_labels(first.labels).before is None and six().before is None


def test_what_was_decided_before_anybody_kept_it_is_not_known(tmp_path: Path) -> None:
    older = dataclasses.replace(six(), decided=torch.tensor([3, 0, 0, 0, 0, 0], dtype=torch.int8))
    found = apply_corrections(older, write(tmp_path / "a.csv", "id,label,decision", "part/1.png,ant,relabel"))
    assert found.before is not None and found.before.tolist() == [NOT_KNOWN, 1, 2, 0, 1, 2]
    with pytest.raises(UserError, match=r"labels before of 'data' must lie in -1\.\.2"):
        dataclasses.replace(six(), before=torch.full((6,), 3))


def test_the_fingerprint_does_not_change_with_what_was_before(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", "id,label,decision", "part/0.png,bee,relabel")
    corrected = apply_corrections(six(), table)
    assert corrected.fingerprint() == dataclasses.replace(six(), labels=corrected.labels).fingerprint()
