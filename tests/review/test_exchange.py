"""Label Studio and CVAT: what is written for them, and their exports taken over as decisions."""

import csv
import json
import random
import re
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest

from scanmix.config import UserError
from scanmix.review import Review
from scanmix.review.answers import LEAVE_OUT
from scanmix.review.cvat import SUGGESTION
from scanmix.review.decisions import CORRECTED, LOG
from scanmix.review.exchange import take_answers, write_tasks

STUDIO, CVAT = "label studio", "cvat"
Answers = list[tuple[str, str]]
"""Ids with what somebody chose: a class, "exclude", "skip" or "" for nothing."""


@pytest.fixture
def review(make_review: Any) -> Review:
    return make_review(12)  # type: ignore[no-any-return]


def studio(answers: Answers, *, skipped: str = "skip") -> str:
    """An export in Label Studio's format JSON: an annotation an answer; `A|B` are two annotations of one task."""

    def annotation(choice: str) -> dict[str, Any]:
        name, value = ("scanmix_use", LEAVE_OUT) if choice == "exclude" else ("label", choice)
        result = [{"value": {"choices": [value]}, "id": "x1", "from_name": name, "to_name": "image", "type": "choices"}]
        return {
            "id": 7, "completed_by": {"id": 1, "email": "ann@example.org"}, "lead_time": 1.5, "ground_truth": False,
            "was_cancelled": choice == skipped, "result": [] if choice == skipped else result,
        }  # fmt: skip

    tasks = [
        {
            "id": 100 + number, "data": {"scanmix_id": name, "image": "somewhere"}, "inner_id": number, "drafts": [],
            "annotations": [annotation(choice) for choice in chosen.split("|") if choice], "predictions": [{"id": 3}],
        }
        for number, (name, chosen) in enumerate(answers)
    ]  # fmt: skip
    return json.dumps(tasks)


def cvat(answers: Answers) -> str:
    """An export in CVAT's format "CVAT for images 1.1"; `A|B` are two tags of one image."""
    root = ElementTree.Element("annotations")
    task = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels")
    ElementTree.SubElement(task, "label").text = "ant"
    for number, (name, chosen) in enumerate(answers):
        image = ElementTree.SubElement(root, "image", id=str(number), name=name, width="8", height="8")
        tag = ElementTree.SubElement(image, "tag", label=SUGGESTION, source="file")
        ElementTree.SubElement(tag, "attribute", name="class").text = "dog"
        for choice in filter(None, chosen.split("|")):
            ElementTree.SubElement(image, "tag", label={"exclude": LEAVE_OUT}.get(choice, choice), source="manual")
    return ElementTree.tostring(root, encoding="unicode")


def export(folder: Path, kind: str, answers: Answers) -> Path:
    path = folder / ("export.json" if kind == STUDIO else "export.xml")
    path.write_text(studio(answers) if kind == STUDIO else cvat(answers), encoding="utf-8")
    return path


def decided(folder: Path) -> dict[str, tuple[str, str]]:
    """Each decided id with its label and decision, as `corrected.csv` says."""
    with (folder / CORRECTED).open(encoding="utf-8", newline="") as file:
        return {row["id"]: (row["label"], row["decision"]) for row in csv.DictReader(file) if row["decision"]}


def name(row: int) -> str:
    return f"made/{row:05d}"


@pytest.mark.parametrize("kind", [STUDIO, CVAT])
def test_answers_become_the_decisions_that_the_page_would_have_written(
    kind: str, review: Review, make_review: Any, tmp_path: Path
) -> None:
    # Row i is given class i and, below 4, suggested the next; classes: ant, bee, cat <b>, dog.
    wishes = [(0, "ant"), (1, "cat <b>"), (2, "ant"), (3, "exclude"), (4, ""), (11, "dog")]
    taken = take_answers(review, export(tmp_path, kind, [(name(row), choice) for row, choice in wishes]))
    assert taken == (5, 0, 0)
    assert decided(tmp_path) == {
        name(0): ("ant", "keep"), name(1): ("cat <b>", "accept"), name(2): ("ant", "relabel"),
        name(3): ("dog", "exclude"), name(11): ("dog", "keep"),
    }  # fmt: skip

    (tmp_path / "page").mkdir()
    page = make_review(12, folder=tmp_path / "page")
    for row, choice, label in ((0, "keep", None), (1, "accept", None), (2, "relabel", 0), (3, "exclude", None)):
        page.decisions.decide([row], choice, label)
    page.decisions.decide([11], "keep")
    assert (tmp_path / "page" / CORRECTED).read_bytes() == (tmp_path / CORRECTED).read_bytes()

    again = make_review(12)  # what is on the disk is the same review
    assert np.array_equal(again.decisions.codes, review.decisions.codes)
    assert again.decisions.undo() and not decided(tmp_path), "an export is one change"


@pytest.mark.parametrize("kind", [STUDIO, CVAT])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_written_comes_back_as_it_was_answered(kind: str, seed: int, make_review: Any, tmp_path: Path) -> None:
    review, draw = make_review(40), random.Random(seed)
    review.decisions.decide([1, 5], "keep")
    path = tmp_path / ("tasks.json" if kind == STUDIO else "tasks.xml")
    count = write_tasks(review, path, tmp_path / "labels", "http://host/p/" if kind == STUDIO else "p/")
    asked = [row for row in review.queue.order[: review.queue.length].tolist() if row not in (1, 5)]
    assert count == len(asked) > 15
    truth = {name(row): draw.choice([*review.audit.class_names, "exclude", ""]) for row in asked}
    if kind == STUDIO:  # a person submits the prediction as it is, or changes it
        tasks = json.loads(path.read_text(encoding="utf-8"))
        assert [task["data"]["scanmix_id"] for task in tasks] == list(truth)
        path.write_text(studio([(task["data"]["scanmix_id"], truth[task["data"]["scanmix_id"]]) for task in tasks]))
    else:
        root = ElementTree.parse(path).getroot()
        assert [image.attrib["name"] for image in root.iter("image")] == [f"p/{each}" for each in truth]
        for image in root.iter("image"):
            choice = truth[image.attrib["name"].removeprefix("p/")]
            if choice:
                ElementTree.SubElement(image, "tag", label={"exclude": LEAVE_OUT}.get(choice, choice))
        ElementTree.ElementTree(root).write(path, encoding="utf-8")
    take_answers(review, path)
    found = decided(tmp_path)
    for each, choice in truth.items():
        label, word = found.get(each, ("", ""))
        assert (word if choice in ("", "exclude") else label) == choice
    assert found[name(1)][1] == found[name(5)][1] == "keep"


def test_tasks_for_label_studio_hold_what_a_person_needs(make_review: Any, tmp_path: Path) -> None:
    ids = [f"ant/{i} #?.png" for i in range(12)]
    review = make_review(12, paths=[f"/home/me/my photos/{each}" for each in ids])
    review.audit.columns["id"][:] = ids
    write_tasks(review, tmp_path / "tasks.json", tmp_path / "tasks-labels.xml", None)
    tasks = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    first = tasks[0]
    assert first["data"]["image"] == "/data/local-files/?d=my%20photos/ant/0%20%23%3F.png"
    assert first["data"]["scanmix_id"] == ids[0] and first["data"]["given"] == "ant"
    assert "because of <i>0</i>" in first["data"]["why"]
    [guess] = first["predictions"]
    assert guess["model_version"] == "made up"
    assert guess["score"] == pytest.approx(float(review.audit["confidence"][0]), abs=1e-4)
    [result] = guess["result"]
    assert result["value"] == {"choices": ["bee"]} and result["type"] == "choices"

    setup = ElementTree.parse(tmp_path / "tasks-labels.xml").getroot()
    control = setup.find(f"Choices[@name='{result['from_name']}']")
    assert control is not None and control.attrib["toName"] == result["to_name"] == "image"
    assert [choice.attrib["value"] for choice in control] == ["ant", "bee", "cat <b>", "dog"]
    shown = {found.removeprefix("$") for found in re.findall(r"\$\w+", ElementTree.tostring(setup, "unicode"))}
    assert shown <= set(first["data"])

    write_tasks(review, tmp_path / "tasks.json", tmp_path / "tasks-labels.xml", "https://host/")
    tasks = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    assert unquote(tasks[0]["data"]["image"]) == f"https://host/{ids[0]}"


def test_a_suggestion_for_cvat_is_no_answer_until_somebody_gives_one(review: Review, tmp_path: Path) -> None:
    write_tasks(review, tmp_path / "tasks.xml", tmp_path / "labels.json", None)
    assert take_answers(review, tmp_path / "tasks.xml") == (0, 0, 0)
    assert not (tmp_path / LOG).exists()
    labels = json.loads((tmp_path / "labels.json").read_text(encoding="utf-8"))
    assert [label["name"] for label in labels] == ["ant", "bee", "cat <b>", "dog", LEAVE_OUT, SUGGESTION]
    assert {label["type"] for label in labels} == {"tag"}
    [tag] = ElementTree.parse(tmp_path / "tasks.xml").getroot().findall(f"image[@name='{name(0)}']/tag")
    told = {attribute.attrib["name"]: attribute.text for attribute in tag}
    assert told == {"class": "bee", "given": "ant", "why": "because of <i>0</i>"}
    assert [attribute["name"] for attribute in labels[-1]["attributes"]] == list(told)


def test_images_that_are_no_files_need_an_address(review: Review, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no files below one folder; say by --prefix"):
        write_tasks(review, tmp_path / "tasks.json", tmp_path / "labels.xml", None)
    assert not list(tmp_path.iterdir())


def test_a_zip_of_cvat_and_names_below_other_folders(review: Review, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        archive.writestr("annotations.xml", cvat([(f"share/photos/{name(2)}", "ant")]))
    assert take_answers(review, tmp_path / "export.zip") == (1, 0, 0)
    assert decided(tmp_path) == {name(2): ("ant", "relabel")}


def test_the_same_export_again_changes_nothing_and_a_newer_one_counts_what_it_changes(
    review: Review, tmp_path: Path
) -> None:
    path = export(tmp_path, STUDIO, [(name(0), "ant"), (name(1), "exclude")])
    take_answers(review, path)
    log = (tmp_path / LOG).read_bytes()
    assert take_answers(review, path) == (0, 0, 2) and (tmp_path / LOG).read_bytes() == log
    assert take_answers(review, export(tmp_path, STUDIO, [(name(0), "dog"), (name(5), "dog")])) == (1, 1, 0)


def test_a_skipped_task_is_unsure_unless_somebody_else_knows(review: Review, tmp_path: Path) -> None:
    answers = [(name(0), "skip"), (name(1), "skip|bee"), (name(2), "bee|skip"), (name(3), "dog|dog")]
    take_answers(review, export(tmp_path, STUDIO, answers))
    assert decided(tmp_path) == {
        name(0): ("ant", "unsure"), name(1): ("bee", "keep"), name(2): ("bee", "relabel"), name(3): ("dog", "keep"),
    }  # fmt: skip


def test_an_image_that_is_left_out_needs_no_class(review: Review, tmp_path: Path) -> None:
    tasks = json.loads(studio([(name(0), "exclude"), (name(1), "")]))
    suggested = {"value": {"choices": ["bee"]}, "from_name": "label"}  # filled in from the prediction
    tasks[0]["annotations"][0]["result"].insert(0, suggested)
    tasks[1]["annotations"] = [{"result": [{"value": {"x": 1, "y": 2}, "from_name": "box"}]}]  # another control
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    assert take_answers(review, tmp_path / "export.json") == (1, 0, 0)
    assert decided(tmp_path) == {name(0): ("ant", "exclude")}


@pytest.mark.parametrize("kind", [STUDIO, CVAT])
@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ([("made/00001", "ant"), ("made/99999", "ant")], "has the image 'made/99999', which is not in this run; take"),
        ([("made/00001", "ant"), ("made/00002", "cow")], "gives 'made/00002' the class 'cow', which is none of"),
        ([("made/00001", "ant"), ("made/00002", "ant|dog")], "two answers for 'made/00002', 'ant' and 'dog'; keep one"),
        ([("made/00002", "ant"), ("made/00002", "exclude")], "two answers for 'made/00002', 'ant' and exclude; keep"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence_and_nothing_is_taken_over(
    kind: str, answers: Answers, sentence: str, review: Review, tmp_path: Path
) -> None:
    path = export(tmp_path, kind, answers)
    with pytest.raises(UserError, match=re.escape(sentence)) as refused:
        take_answers(review, path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)
    if kind == STUDIO:
        assert "task 2 of " in str(refused.value)
    assert not (tmp_path / LOG).exists() and not (tmp_path / CORRECTED).exists()


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("export.json", "{", "is damaged and cannot be read"),
        ("export.json", "id,label\n", "export the project in the format JSON (not JSON-MIN)"),
        ("export.json", '[{"image": "a.png", "label": "ant", "id": 1}]', "export the project in the format JSON"),
        ("export.json", '[{"data": {"image": "a.png"}, "annotations": []}]', "task 1 of"),
        ("export.xml", "<annotations>", "export the task in the format `CVAT for images 1.1`"),
        ("export.xml", "<annotation><filename>a.png</filename></annotation>", "outermost element is annotation, not"),
        ("export.xml", "<annotations><image id='0'/></annotations>", "('name' is missing)"),
        ("export.zip", "PK", "export the task in the format `CVAT for images 1.1`"),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_told(file: str, text: str, sentence: str, review: Review, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=re.escape(sentence)) as refused:
        take_answers(review, tmp_path / file)
    assert str(tmp_path / file) in str(refused.value)


def test_two_classes_of_one_person_are_told(review: Review, tmp_path: Path) -> None:
    tasks = json.loads(studio([(name(0), "ant")]))
    tasks[0]["annotations"][0]["result"][0]["value"]["choices"].append("dog")
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    with pytest.raises(UserError, match=r"task 1 of .* has two classes for 'made/00000', 'ant' and 'dog'"):
        take_answers(review, tmp_path / "export.json")


def test_a_bomb_of_entities_is_refused_at_once(review: Review, tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
    (tmp_path / "export.xml").write_text(
        f'<!DOCTYPE x [<!ENTITY a0 "ha">{entities}]><annotations><image name="&a11;"/></annotations>'
    )
    with pytest.raises(UserError, match="is damaged and cannot be read"):
        take_answers(review, tmp_path / "export.xml")


def test_a_name_that_xml_cannot_hold_is_told(make_review: Any, tmp_path: Path) -> None:
    review = make_review(12)
    review.audit.columns["id"][0] = "made/\x07"
    with pytest.raises(UserError, match=r"XML cannot hold the name 'made/\\x07'"):
        write_tasks(review, tmp_path / "tasks.xml", tmp_path / "labels.json", None)
