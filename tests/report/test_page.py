"""A page for every kind of run: what is known is there, what is not is said, and nothing is fetched."""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import scanmix
from scanmix.audit import Evidence, score_labels
from scanmix.audit.evidence import neighborhood
from scanmix.cli import app
from scanmix.config import UserError
from scanmix.data.examples import OPEN_SET
from scanmix.model.dynamics import Snapshot
from scanmix.progress import Quiet
from scanmix.report import write_report
from scanmix.report.findings import RunFindings, collect_findings
from scanmix.report.page import render
from scanmix.training import Run, resolve

SMALL = {"widths": [8, 16], "blocks": [1, 1], "stem_stride": 2}
Trained = Callable[[str], Path]
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Tags in order, text, and whether every tag that was opened was closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(source)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data if self._open[-1:] != ["style"] else ""

    def figures(self) -> list[str]:
        return [attrs["aria-label"] or "" for tag, attrs in self.tags if tag == "svg" and "aria-label" in attrs]

    def count(self, name: str) -> int:
        return sum(name in (attrs.get("class") or "").split() for _, attrs in self.tags)


def page_of(folder: Path, compare: Path | None = None) -> Page:
    return Page(write_report(folder, folder.with_suffix(".html"), compare).read_text(encoding="utf-8"))


def assert_self_contained(source: str) -> None:
    assert "<script" not in source and not re.search(r"(https?:)?//[a-z]", source.partition("</style>")[0])
    assert set(re.findall(r"url\(([^)]*)\)", source)) <= {"#hatch"}
    for tag, attrs in Page(source).tags:
        for name in ("src", "href", "srcset", "xlink:href"):
            value = attrs.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, value)
        assert not any(name.startswith("on") for name in attrs)


def test_a_page_of_scanmix_has_every_part(trained: Trained) -> None:
    page = page_of(trained("scanmix"))
    figures = "\n".join(page.figures())
    for wanted in (
        "Test accuracy by epoch", "Warm-up", "Learning from labels", "Labels trusted", "Right ones among",
        "After epoch 1", "After epoch 4", "Estimated share of wrong labels", "Estimated by scanmix", "In truth",
        "Wrong labels among", "seconds by stage",
    ):  # fmt: skip
        assert wanted in figures, wanted
    assert page.count("card") == 48 and page.count("near") == 48
    for wanted in (
        "Best epoch, by the test images", "Mean of all 4 epochs", "scanmix train digits", "pretrain.epochs",
        "truth ", "most often taken for", "fingerprint = ", "torch",
    ):  # fmt: skip
        assert wanted in page.text, wanted


def test_numbers_are_those_of_the_run(trained: Trained) -> None:
    run, page = scanmix.open_run(trained("scanmix")), page_of(trained("scanmix"))
    rate = run.audit().noise_rate
    for share in (run.best_accuracy, run.last_accuracy, run.last10_accuracy, rate.value, rate.low, rate.high):
        assert share is not None and f"{100 * share:.1f} %" in page.text
    assert f"{100 * run.about['actual_noise']:.1f} %" in page.text


def test_cross_entropy_has_no_clean_set_and_all_the_rest(trained: Trained) -> None:
    page = page_of(trained("cross_entropy"))
    assert "takes every label as right, or none" in page.text
    assert not any("believed" in figure for figure in page.figures())
    assert page.count("card") == 48


def test_a_label_free_method_says_how_it_was_measured(trained: Trained) -> None:
    page = page_of(trained("scan"))
    assert "best matching of its clusters" in page.text and "No loss was recorded" in page.text
    assert "best matching" not in page_of(trained("scanmix")).text


def test_the_page_fetches_nothing_and_runs_nothing(trained: Trained) -> None:
    assert_self_contained(write_report(trained("scanmix")).read_text(encoding="utf-8"))


def test_two_runs_stand_side_by_side(trained: Trained) -> None:
    page = page_of(trained("scanmix"), compare=trained("cross_entropy"))
    accuracy = next(figure for figure in page.figures() if figure.startswith("Test accuracy"))
    assert "scanmix: " in accuracy and "cross_entropy: " in accuracy
    assert any("Estimated by cross_entropy" in figure for figure in page.figures())
    assert "Set differently" in page.text and "Only scanmix has" in page.text and "batch_size" in page.text
    assert page.count("card") == 48


def test_a_run_beside_itself_differs_in_nothing(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained("cross_entropy"), tmp_path / "copy")
    page = page_of(trained("cross_entropy"), compare=tmp_path / "copy")
    assert "Set differently\nNothing." in page.text


def test_an_older_run_without_snapshots(trained: Trained, tmp_path: Path) -> None:
    folder = shutil.copytree(trained("scanmix"), tmp_path / "old")
    shutil.rmtree(folder / "trajectory")
    page = page_of(folder)
    assert "made by an older version" in page.text and page.count("card") == 48


def test_an_unfinished_run_shows_what_there_is(trained: Trained, tmp_path: Path) -> None:
    folder = shutil.copytree(trained("scanmix"), tmp_path / "cut")
    shutil.rmtree(folder / "model")
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:2]))
    page = page_of(folder)
    assert "unfinished: 2 of 4 epochs" in page.text and page.count("card") == 0
    assert any("Test accuracy" in figure for figure in page.figures())
    (folder / "metrics.jsonl").write_text("")
    assert page_of(folder).count("card") == 0


def test_data_from_memory_leaves_one_sentence_in_place_of_the_pictures(tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (24, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    names = tuple(str(i) for i in range(24))
    examples = scanmix.Examples(images=pixels, labels=torch.arange(24) % 2, class_names=("a", "b"), ids=names)
    scanmix.train(examples, method="cross_entropy", out=tmp_path / "run", epochs=2, network=SMALL)
    page = page_of(tmp_path / "run")
    assert "No images: the data of" in page.text and "came from memory" in page.text
    assert "No command line can repeat this run" in page.text
    assert "no test images" in page.text
    assert page.count("card") == page.count("ids") == 24 and "img" not in dict(page.tags)  # told apart by their ids
    assert any("Wrong labels among" in figure for figure in page.figures())
    foreign = dataclasses.replace(examples, true_labels=torch.full((24,), OPEN_SET))
    scanmix.train(foreign, method="cross_entropy", out=tmp_path / "foreign", epochs=2, network=SMALL)
    assert page_of(tmp_path / "foreign").text.count("truth none of the classes ✗") == 24
    shutil.rmtree(tmp_path / "run" / "evidence")  # of an older version
    page = page_of(tmp_path / "run")
    assert "The data of" in page.text and "came from memory" in page.text
    assert not any("Wrong labels among" in figure for figure in page.figures())
    assert any("After epoch 2" in figure and "labels: 24" in figure for figure in page.figures())


def test_pictures_that_are_gone_leave_a_drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    for i in range(24):
        folder = tmp_path / "photos" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (150, 150, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    examples, _ = scanmix.load(tmp_path / "photos")
    noisy = scanmix.add_noise(examples, "symmetric", rate=0.5)
    scanmix.train(noisy, method="cross_entropy", out=tmp_path / "run", epochs=2, network=SMALL)

    def drawn(source: str) -> int:
        return sum(
            (attrs["src"] or "").startswith("data:image/svg") for tag, attrs in Page(source).tags if tag == "img"
        )

    whole = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert drawn(whole) == 0
    (tmp_path / "photos" / "a" / "4.png").unlink()
    source = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert_self_contained(source)
    page, before = Page(source), Page(whole)
    assert drawn(source) >= 1 and page.count("card") == 24 and page.count("tiny") == 0
    assert page.figures() == before.figures()  # the truth behind the losses and the audit are as they were
    rows = scanmix.open_run(tmp_path / "run").audit()
    first = [attrs["src"] or "" for tag, attrs in page.tags if tag == "img" and attrs["alt"]]
    gone = rows["id"].tolist().index("a/4.png")
    assert [i for i, src in enumerate(first) if src.startswith("data:image/svg")] == [gone]
    monkeypatch.chdir(tmp_path)  # a page to send does not tell where the data lie on this machine
    source = write_report("run").read_text(encoding="utf-8")
    assert str(tmp_path) not in source and "a/4.png" in source and "scanmix train photos" in source


ODD = ('<script>alert("x")</script>', "a & b's; DROP")


def test_odd_names_are_text_and_the_truth_may_be_unknown(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = ["path,label,split"]
    for i in range(30):
        name = f"<img src=x onerror=alert(1)> {i} {{{{ 7*7 }}}} é.png"
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / name)
        label = ODD[i % 2].replace('"', '""')
        rows.append(f'"{name}","{label}",train')
    (tmp_path / "labels.csv").write_text("\n".join(rows), encoding="utf-8")
    examples, _ = scanmix.load(tmp_path / "labels.csv")
    folder = tmp_path / "run <b>"
    scanmix.train(examples, method="cross_entropy", out=folder, epochs=2, network=SMALL)
    path = write_report(folder)
    source = path.read_text(encoding="utf-8")
    assert path == folder / "report.html"
    page = Page(source)
    assert_self_contained(source)
    assert "script" not in {tag for tag, _ in page.tags}
    assert all(name in page.text for name in ODD)
    assert "<img src=x onerror=alert(1)>" in page.text and "{{ 7*7 }} é.png" in page.text
    assert "truth " not in page.text and "In truth" not in page.text
    assert page.count("card") == 30


def found_all(confusion: list[list[int]], names: Sequence[str]) -> dict[str, Any]:
    """What `evaluate` says of the classes, all of them found."""
    return {
        "confusion": confusion, "class_accuracy": dict.fromkeys(names, 1.0),
        "class_interval": dict.fromkeys(names, (0.2, 1.0)), "never_predicted": [],
    }  # fmt: skip


def large(count: int, classes: int, side: int) -> RunFindings:
    """The worst case: images of pure noise, very many classes, a long run."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (count,), generator=draw)
    truth = torch.randint(classes, (count,), generator=draw)
    names = tuple(f"a class with a long name, number {i}" for i in range(classes))
    ids = tuple(f"/a/rather/long/path/{i:05d}.png" for i in range(count))
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=draw)
    snapshots = [
        Snapshot(epoch, torch.rand(2, count, generator=draw).half(), torch.zeros(2, count).int()) for epoch in (1, 300)
    ]
    neighbors, similarity = neighborhood(torch.rand(count, 8, generator=draw))
    evidence = Evidence(
        labels=labels, probs=torch.rand(count, classes, generator=draw).softmax(1), class_names=names, ids=ids,
        predictions=torch.zeros(2, count, dtype=torch.int64), true_labels=truth, neighbors=neighbors,
        similarity=similarity, snapshots=snapshots,
    )  # fmt: skip
    metrics = [
        {"epoch": epoch, "accuracy": epoch / 400, **{f"learn/{name}": 1.0 / epoch for name in "abcdef"},
         "clean_size": 100.0, "clean_purity": 0.5, "seconds/learn": 1.0, "seconds/epoch": 1.1}
        for epoch in range(1, 301)
    ]  # fmt: skip
    about = {"name": "large", "num_examples": count, "class_names": list(names)}
    run = Run(resolve("scanmix", "large"), about, metrics, folder=Path("runs/large"))
    test = found_all(np.eye(classes, dtype=int).tolist(), names)
    return RunFindings(
        run=run, folder=Path("runs/large"), versions={}, toml="x = 1", snapshots=snapshots, labels=evidence,
        audit=score_labels(evidence), no_audit="", images=images, no_images="", test=test, no_test="",
    )  # fmt: skip


def test_the_largest_page_stays_under_five_megabytes() -> None:
    first = large(count=400, classes=300, side=224)
    second = dataclasses.replace(first, folder=Path("runs/other"))
    source = render([first, second])
    assert len(source.encode()) < 5_000_000
    page = Page(source)
    assert page.count("card") == 48 and "260 are left out" in page.text


def test_names_cannot_steer_whatever_shows_the_page() -> None:
    names = ("a\x1b[31mred", "b\x1b]0;title\x07", "c\u202egpj")
    found = large(count=40, classes=3, side=8)
    assert isinstance(found.labels, Evidence)
    evidence = dataclasses.replace(found.labels, class_names=names, ids=tuple(f"\x9b{i}\r\x00.png" for i in range(40)))
    run = Run(found.run.settings, {**found.run.about, "class_names": list(names)}, found.run.metrics)
    test = found_all(np.eye(3, dtype=int).tolist(), names)
    folder = Path("runs/\x1b[2J")
    source = render([
        dataclasses.replace(
            found, run=run, labels=evidence, audit=score_labels(evidence), test=test, folder=folder,
            toml='name = "\x1b"\n',
        )
    ])  # fmt: skip
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", source)
    page = Page(source)
    assert r"a\x1b[31mred" in page.text and r"c\u202egpj" in page.text and r"runs/\x1b[2J" in page.text
    assert any(r"b\x1b]0;title\x07" in figure or "In truth" in figure for figure in page.figures())
    inside = [part for part in re.findall(r"<svg.*?</svg>", source, re.DOTALL) if "red" in part]
    assert inside and all(r"a\x1b[31mred" in part for part in inside)


def test_a_further_round_says_what_was_decided_before(tmp_path: Path) -> None:
    found = large(count=60, classes=3, side=8)
    assert isinstance(found.labels, Evidence)
    codes = torch.tensor([1] * 10 + [2] * 10 + [0] * 40, dtype=torch.int8)
    evidence = dataclasses.replace(found.labels, decided=codes, excluded=(("gone", "", found.labels.class_names[0]),))
    second = dataclasses.replace(found, labels=evidence, audit=score_labels(evidence))
    assert second.audit is not None
    doubted = int((second.audit["p_clean"][-20:] < 0.5).sum())
    page = Page(render([second]))
    assert "20 were decided by a person before the training, and count as right." in page.text
    assert "earlier rounds: 10 accept, 10 keep, 1 exclude, which are no longer among the labels." in page.text
    assert f"still says that {doubted} of the 20 are wrong." in page.text and "once more" not in page.text
    assert "Of 40 labels that nobody has decided:" in page.text
    assert page.count("card") == 40  # decided labels are nothing to look at
    asked = dataclasses.replace(second, rounds={"again_seen": 8, "again_same": 6})
    assert "When 8 were decided once more, 6 kept their label (75.0 %)." in Page(render([asked])).text
    unknown = dataclasses.replace(second, no_rounds="line 3 of the log does not fit")
    assert "is not known: line 3 of the log does not fit." in Page(render([unknown])).text
    assert "earlier rounds" not in Page(render([found])).text


def test_asked_epochs_are_shown_and_others_refused(trained: Trained, tmp_path: Path) -> None:
    path = write_report(trained("scanmix"), tmp_path / "page.html", epochs=[2])
    losses = [figure for figure in Page(path.read_text(encoding="utf-8")).figures() if "After epoch" in figure]
    assert len(losses) == 1 and "After epoch 2" in losses[0]
    with pytest.raises(UserError, match=r"kept nothing after epoch 9; it did after 1, 2, 3, 4"):
        write_report(trained("scanmix"), tmp_path / "page.html", epochs=[9])


def test_the_truth_behind_the_histograms_is_in_the_order_of_the_data(trained: Trained) -> None:
    found = collect_findings(trained("scanmix"), Quiet())
    assert found.wrong is not None
    assert found.wrong.mean() == pytest.approx(found.run.noise.actual)


def test_the_command_writes_the_page_and_says_where(trained: Trained, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(trained("scan")), "--out", str(tmp_path / "page.html")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "page.html").is_file() and str(tmp_path / "page.html") in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["missing"], "missing: no such folder"),
        (["RUN", "--compare", "missing"], "missing: no such folder"),
        (["RUN", "--out", "nowhere/page.html"], "nowhere: no such folder"),
        (["RUN", "--epoch", "77"], "kept nothing after epoch 77"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    arguments: list[str], told: str, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["report", *(str(trained("scan")) if word == "RUN" else word for word in arguments)])
    assert done.exit_code == 2 and told in done.stderr and "Traceback" not in done.output


def test_a_run_that_measured_its_bound_shows_it_and_counts_where_the_lemma_has_no_say(
    trained: Trained, tmp_path: Path
) -> None:
    folder = shutil.copytree(trained("cross_entropy"), tmp_path / "watched")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line, gain in zip(lines, (0.5, -0.25, 0.0), strict=True):
        names = ("log_likelihood", "expected", "entropy", "bound", "kl")
        line |= {f"elbo/{name}": float(line["epoch"]) for name in names} | {"elbo/gain": gain}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = page_of(folder, compare=trained("scanmix"))
    figures = [figure for figure in page.figures() if "nats" in figure]
    assert len(figures) == 3 and "ELBO: 1 at epoch 1, 3 at epoch 3" in figures[0]
    assert "log p(y|x): 1.5 at epoch 1, 3 at epoch 3; E[log p(y,z|x)]: 0.5 at epoch 1, 0 at epoch 3" in figures[2]
    assert "cross_entropy lowered it in 1 of 3 epochs." in page.text
    assert not any("Elbo" in figure for figure in page.figures()), "they are no losses"
    assert "ELBO" not in page_of(trained("scanmix")).text
