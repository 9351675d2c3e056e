"""Tables of results: what is run in which order, what is written, and what a killed command leaves behind."""

import csv
import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scanmix.cli import app
from scanmix.config import UserError
from scanmix.reproduce import TABLES, Cell, ResultTable, chosen_cells, find_table, run_table
from scanmix.reproduce.results import Result, to_csv, to_markdown, write_results
from scanmix.reproduce.running import next_cell
from scanmix.reproduce.table_run import TableRun
from scanmix.reproduce.tables import ROWS

ROOT = Path(__file__).parents[2]
NETWORK = ("network.widths=[8,16]", "network.blocks=[1,1]", "network.stem_stride=2")
TINY = {"cross_entropy": ("epochs=2", *NETWORK), "scan": ("pretrain.epochs=1", "clustering.epochs=1", *NETWORK)}
SMALL = ResultTable(
    name="tiny", source="digits", load={"per_class": 6, "limit_test": 20},
    methods=("cross_entropy", "scan"), noises=("symmetric:0.2", "asymmetric:0.4"),
)  # fmt: skip
# A parent that can be killed; its cross-entropy is long enough to be caught in the middle.
PROGRAM = """
from pathlib import Path
from scanmix.reproduce import run_table
from tests.reproduce.test_tables import SMALL, TINY
long = TINY | {"cross_entropy": ("epochs=30", *TINY["cross_entropy"][1:])}
failures = run_table(SMALL, Path("out"), 1, long, say=print)
raise SystemExit(failures)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT)]))
    yield


def test_order_of_the_cells() -> None:
    table = dataclasses.replace(TABLES["digits-small"], noises=("symmetric:0.2", "symmetric:0.8"), seeds=(0, 1))
    cells = chosen_cells(table)
    assert len(cells) == 2 * (1 + 5 * 2)
    assert cells[0] == Cell("scan", "symmetric:0.2", 0)
    assert [cell.method for cell in cells[1:11:2]] == [
        "scanmix",
        "scan_dividemix",
        "dividemix",
        "mixup",
        "cross_entropy",
    ]
    assert [cell.seed for cell in cells] == [0] * 11 + [1] * 11
    assert len({cell.name for cell in cells}) == len(cells)
    assert cells[1].name == "scanmix-symmetric-0.2-seed0"


def test_only_some_cells() -> None:
    table = TABLES["digits-small"]
    assert chosen_cells(table, ["scanmix", "symmetric:0.9"]) == [Cell("scanmix", "symmetric:0.9", 0)]
    assert [cell.noise for cell in chosen_cells(table, ["mixup"])] == list(table.noises)
    assert {cell.method for cell in chosen_cells(table, ["symmetric:0.9"])} == set(ROWS)
    with pytest.raises(UserError, match=r"scanmax.*did you mean 'scanmix'"):
        chosen_cells(table, ["scanmax"])
    with pytest.raises(UserError, match="digits-small"):
        find_table("digits-smal")
    assert find_table("digits-small", 3).seeds == (0, 1, 2)


def test_runs_on_other_images_do_not_wait_for_each_other(tmp_path: Path) -> None:
    work = TableRun(TABLES["table3-red-mini-imagenet"], tmp_path)
    first, same, other = (Cell("scanmix", noise, 0) for noise in ("web:0.2", "web:0.2", "web:0.4"))
    assert next_cell(work, [same], {first: None}) is None
    assert next_cell(work, [other], {first: None}) == other


def test_label_free_stages_are_computed_by_one_run_at_a_time(tmp_path: Path) -> None:
    work = TableRun(TABLES["digits-small"], tmp_path)
    cells = chosen_cells(work.table)
    scan, scanmix = cells[0], cells[1]
    assert next_cell(work, cells, {}) == scan
    waiting = cells[1:]
    assert next_cell(work, waiting, {scan: None}) == Cell("dividemix", "symmetric:0.2", 0)
    assert next_cell(work, [scanmix], {scan: None}) is None
    assert next_cell(work, [dataclasses.replace(scanmix, seed=1)], {scan: None}) is not None
    checkpoint = work.folder / scan.name / "checkpoint" / "last.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    assert next_cell(work, waiting, {scan: None}) == scanmix


def test_a_table_is_run_written_and_not_run_again(tmp_path: Path) -> None:
    said: list[str] = []
    assert run_table(SMALL, tmp_path / "out", 2, TINY, say=said.append) == {}
    assert sorted(line.partition(":")[0] for line in said) == sorted(cell.name for cell in chosen_cells(SMALL))
    assert all("last accuracy" in line for line in said)
    with (tmp_path / "out" / "tiny.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["noise"]) for row in rows] == [
        ("cross_entropy", "symmetric:0.2"), ("cross_entropy", "asymmetric:0.4"), ("scan", "symmetric:0.2"),
    ]  # fmt: skip
    assert [float(row["asked"]) for row in rows] == [0.2, 0.4, 0.2]
    assert all(float(row["last"]) <= float(row["best"]) and float(row["seconds"]) > 0 for row in rows)
    assert all(float(row["seconds/learn"]) < float(row["seconds"]) for row in rows[:2])
    assert all(row["torch"] for row in rows)
    assert "3 of 3 runs are finished" in (tmp_path / "out" / "tiny.md").read_text()
    said.clear()
    assert run_table(SMALL, tmp_path / "out", 2, TINY, say=said.append) == {}
    assert said == []


def test_a_failing_cell_holds_nothing_up_and_stale_runs_are_not_shown(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run_table(SMALL, out, 2, TINY, only=["cross_entropy", "asymmetric:0.4"]) == {}
    changed = TINY | {"cross_entropy": ("epochs=1", *NETWORK)}
    failures = run_table(SMALL, out, 2, changed, only=["cross_entropy"])
    assert list(failures) == ["cross_entropy-asymmetric-0.4-seed0"]
    assert "settings.epochs was 2, is 1" in failures["cross_entropy-asymmetric-0.4-seed0"]
    assert [line.partition(",")[0] for line in (out / "tiny.csv").read_text().splitlines()[1:]] == ["cross_entropy"]
    assert "symmetric:0.2" in (out / "tiny.csv").read_text()
    with pytest.raises(UserError, match="epoch"):
        run_table(SMALL, out, 2, {"cross_entropy": ("epoch=1",)})
    with pytest.raises(UserError, match="known data set"):
        run_table(dataclasses.replace(SMALL, source="digit"), out, 2, TINY)


def children_of(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


def alive(pid: int) -> bool:
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(found) and not found.startswith("Z")


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux's ps does")
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT], ids=str)
def test_a_killed_table_goes_on_and_leaves_no_process(tmp_path: Path, stop: signal.Signals) -> None:
    runs = tmp_path / "out" / "runs" / "tiny"
    cut = runs / "cross_entropy-symmetric-0.2-seed0" / "metrics.jsonl"
    program = [sys.executable, "-c", PROGRAM]
    parent = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not cut.exists() or cut.read_text().count("\n") < 3:
        assert parent.poll() is None, parent.communicate()
        time.sleep(0.01)
    children = children_of(parent.pid)
    assert len(children) == 1
    parent.send_signal(stop)
    parent.communicate()
    deadline = time.monotonic() + 10
    while any(map(alive, children)):
        assert time.monotonic() < deadline, "the training outlived the command"
        time.sleep(0.05)
    scan = runs / "scan-symmetric-0.2-seed0"
    before = {path: path.stat().st_mtime_ns for path in scan.rglob("*") if path.is_file()}
    begun = cut.read_text()
    assert (scan / "model" / "model.json").exists() and 3 <= begun.count("\n") < 30

    done = subprocess.run(program, capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    said = [line.partition(":")[0] for line in done.stdout.splitlines()]
    assert said == ["cross_entropy-symmetric-0.2-seed0", "cross_entropy-asymmetric-0.4-seed0"]
    assert {path: path.stat().st_mtime_ns for path in scan.rglob("*") if path.is_file()} == before
    kept = begun.splitlines()[:2]
    assert cut.read_text().splitlines()[:2] == kept and cut.read_text().count("\n") == 30
    assert "3 of 3 runs are finished" in (tmp_path / "out" / "tiny.md").read_text()


def result(method: str, noise: str, accuracy: float, seed: int = 0, **more: object) -> Result:
    known: dict[str, object] = {
        "asked": 0.8, "actual": 0.72, "best": accuracy + 0.01, "last": accuracy, "final": accuracy, "seconds": 60.0,
        "version": "0.1.0", "git": "0123456789abcdef-dirty", "torch": "2.13.0",
    }  # fmt: skip
    return Result(method=method, noise=noise, seed=seed, **(known | more))  # type: ignore[arg-type]


PAGE = """# tiny

`scanmix reproduce tiny`

Data: digits, per_class=6. 4 of 5 runs are finished. Machine: 2 CPUs. Versions: torch 2.13.0; scanmix 0.1.0, git
0123456789-dirty. The table took 125 s. The runs add up to 240 s, each on one thread.

## Accuracy

| method | symmetric:0.8 | asymmetric:0.4 |
| --- | ---: | ---: |
| cross_entropy | 50.0 (51.0) | **88.0** (89.0) |
| scan ¹ | 75.0 (76.0) | 75.0 (76.0) |
| scanmix | **91.2** (92.2) ‡ | – |

Accuracy on the test images, in percent. The first number is the mean of the last ten epochs. The number in parentheses
is that of the best epoch, which is an upper bound, because the test images choose the epoch. The best method of each
column is bold.

¹ The accuracy is measured after clusters are matched with true classes. No other method is given true classes. The
method learns without labels, so it was trained once, and every column has the same result.

‡ The recipe is an oracle: it has a value that was chosen by someone who knew the noise.

## Seconds

| method | symmetric:0.8 | asymmetric:0.4 |
| --- | ---: | ---: |
| cross_entropy | 60 | 60 |
| scan ¹ | 60 | the same |
| scanmix | 60 | – |

Seconds of one run, on one thread: of the processor where they were counted, else of the clock, which other programs
drive up. Self-supervised stages are cached and shared, so only the first run that needs a stage has its seconds.

## Share of wrong labels

|  | symmetric:0.8 | asymmetric:0.4 |
| --- | ---: | ---: |
| asked | 80.0 | 40.0 |
| actual | 72.0 | 20.0 |
| estimated by scanmix | 70.5 | – |

In percent. A method estimates the share of labels that it did not call clean after the last epoch.
"""


def test_the_page_of_a_table() -> None:
    table = dataclasses.replace(
        SMALL, load={"per_class": 6}, noises=("symmetric:0.8", "asymmetric:0.4"),
        methods=("cross_entropy", "scan", "scanmix"),
    )  # fmt: skip
    results = [
        result("cross_entropy", "symmetric:0.8", 0.5),
        result("cross_entropy", "asymmetric:0.4", 0.88, asked=0.4, actual=0.2),
        result("scan", "symmetric:0.8", 0.75),
        result("scanmix", "symmetric:0.8", 0.912, estimated=0.705, oracle=True),
    ]
    assert to_markdown(table, results, "scanmix reproduce tiny", "2 CPUs", 125.4) == PAGE


def test_several_seeds_have_a_mean_and_a_spread() -> None:
    table = dataclasses.replace(SMALL, seeds=(0, 1))
    results = [result("cross_entropy", "symmetric:0.2", accuracy, seed) for seed, accuracy in enumerate((0.5, 0.6))]
    page = to_markdown(table, results, "", "", 0)
    assert "| cross_entropy | 55.0 ± 7.1 (56.0) | – |" in page, "one method alone is not the best one"
    assert "over seeds 0 to 1, as far" in page and "2 of 6 runs" in page and "oracle" not in page


def test_csv_has_a_row_per_run() -> None:
    first = result("scanmix", "symmetric:0.2", 0.9, stages={"seconds/start": 1.5}, recipe="digits/any/scanmix")
    second = result("scanmix", "symmetric:0.8", 0.8, estimated=0.1234567, stages={"seconds/learn": 2.0}, oracle=True)
    rows = list(csv.reader(to_csv(SMALL, [first, second]).splitlines()))
    assert rows == [
        ["method", "noise", "seed", "asked", "actual", "estimated", "best", "last", "last10", "seconds",
         "seconds/learn", "seconds/start", "recipe", "oracle", "version", "git", "torch"],
        ["scanmix", "symmetric:0.2", "0", "0.8", "0.72", "", "0.91", "0.9", "0.9", "60",
         "", "1.5", "digits/any/scanmix", "False", "0.1.0", "0123456789abcdef-dirty", "2.13.0"],
        ["scanmix", "symmetric:0.8", "0", "0.8", "0.72", "0.123457", "0.81", "0.8", "0.8", "60",
         "2", "", "", "True", "0.1.0", "0123456789abcdef-dirty", "2.13.0"],
    ]  # fmt: skip


def on_cifar() -> tuple[ResultTable, list[Result]]:
    """A part of Table 1 on its own data: ScanMix ahead of the paper at 20 %, behind at 90 % in its last epochs."""
    table = dataclasses.replace(
        find_table("table1-cifar10", oracle=True),
        methods=("dividemix", "scanmix"), noises=("symmetric:0.2", "symmetric:0.9"),
    )  # fmt: skip
    ahead = result("scanmix", "symmetric:0.2", 0.957, recipe="cifar10/any/scanmix")
    behind = dataclasses.replace(result("scanmix", "symmetric:0.9", 0.88), best=0.911)
    return table, [ahead, behind]


def test_on_the_papers_data_the_page_says_how_far_from_it_each_cell_is() -> None:
    table, results = on_cifar()
    page = to_markdown(table, results, "", "", 0)
    assert "| dividemix | 96.1 / 95.7 | 76.0 / 75.4 |" in page
    assert "| scanmix | 96.0 (+0.7) / 95.7 (+0.0) | 91.0 (+0.1) / 90.3 (**-2.3**) |" in page
    assert "MixUp's last at symmetric 50 % (77.3) may be a misprint." in page
    other = to_markdown(dataclasses.replace(table, source="fashion-mnist"), results, "", "", 0)
    assert "| scanmix | 96.0 / 95.7 | 91.0 / 90.3 |" in other and "Here: fashion-mnist, all images;" in other


def test_csv_has_the_papers_accuracies_where_the_data_are_the_same() -> None:
    table, results = on_cifar()
    rows = list(csv.DictReader(to_csv(table, results).splitlines()))
    assert [(row["paper_best"], row["paper_last"]) for row in rows] == [("0.96", "0.957"), ("0.91", "0.903")]
    assert "paper_best" not in to_csv(dataclasses.replace(table, source="fashion-mnist"), results)


def test_the_page_gives_the_command_that_wrote_it(tmp_path: Path) -> None:
    table, results = on_cifar()
    out = tmp_path.parent
    write_results(dataclasses.replace(table, seeds=(0, 1)), results, out, 1, 0)
    page = (out / "table1-cifar10-oracle.md").read_text()
    assert f"`scanmix reproduce table1-cifar10 --out {out} --jobs 1 --seeds 2 --oracle`" in page


def test_the_command_of_a_page_has_no_folders_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, results = on_cifar()
    monkeypatch.chdir(tmp_path)
    for place, typed in (("results", ""), ("mine", " --out mine")):
        (tmp_path / place).mkdir()
        write_results(table, results, tmp_path / place, 1, 0)
        text = (tmp_path / place / "table1-cifar10-oracle.md").read_text()
        assert f"`scanmix reproduce table1-cifar10{typed} --jobs 1 --oracle`" in text and str(tmp_path) not in text


def test_without_the_data_a_dry_run_lists_the_runs_and_says_what_is_missing(tmp_path: Path) -> None:
    line = ["reproduce", "table6", "--data", "cifar10", "--root", str(tmp_path), "--dry-run", "--only", "sym90"]
    shown = CliRunner().invoke(app, line)
    assert shown.exit_code == 0
    assert "scanmix-symmetric-0.9-seed0: to be run: scanmix train cifar10" in shown.stdout
    assert "4 of 4 are to be run: not measured: " in shown.stdout and str(tmp_path) in shown.stdout


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = CliRunner().invoke(app, ["reproduce", "digits-small", "--dry-run", "--only", "scan,symmetric:0.9"])
    assert shown.exit_code == 0 and re.match(
        r"scan-symmetric-0\.2-seed0: to be run, \d+ to \d+ minutes on this machine: scanmix train digits", shown.stdout
    )
    assert not (tmp_path / "results").exists()
    wrong = CliRunner().invoke(app, ["reproduce", "digits-big"])
    assert wrong.exit_code == 2 and "digits-small" in wrong.output
    monkeypatch.setitem(TABLES, "tiny", dataclasses.replace(SMALL, methods=("cross_entropy",), noises=("cheese:1",)))
    failed = CliRunner().invoke(app, ["reproduce", "tiny"])
    assert failed.exit_code == 1, failed.output
    assert "failed: cross_entropy-cheese-1-seed0" in failed.output
    assert (tmp_path / "results" / "tiny.md").exists()


def test_the_page_has_the_seconds_of_the_processor_where_they_are_known() -> None:
    """A clock beside other programs says how busy the machine was."""
    counted = result("ssr", "symmetric:0.2", 0.9, stages={"seconds/processor": 41.6})
    table = dataclasses.replace(SMALL, methods=("ssr",))
    page = to_markdown(table, [counted, result("ssr", "asymmetric:0.4", 0.8)], "", "", 0)
    assert "| ssr | 42 | 60 |" in page.partition("## Seconds")[2].splitlines()
