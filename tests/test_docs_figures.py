"""Figures that README and docs quote are those of `results/*.csv`.

To quote a figure, write the sentence in the page and copy it into SENTENCES, each figure replaced by where it is from:

    `ssr` has 80.5 ± 0.5 % at 80 %    ->    `ssr` has {spread zoo-small ssr symmetric:0.8} % at 80 %

The first word in the braces is a function of FIGURES below, the others are its arguments. A table of accuracies is not
copied: it is named in TABLES, and every cell is compared. All other numbers with a decimal point are refused, unless
ELSEWHERE says where they are from. Text in backticks and in code blocks is not looked at.
"""

import csv
import re
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scipy import stats

ROOT = Path(__file__).parents[1]
README, AUDIT, INDEX, RESULTS = "README.md", "docs/audit.md", "docs/index.md", "results/README.md"
WHICH, ANNOTATORS, FEATURES = "docs/which-method.md", "docs/annotators.md", "docs/features.md"
PAGES = (README, AUDIT, INDEX, RESULTS, WHICH, ANNOTATORS, FEATURES)
NOISES = {
    "20 %": "symmetric:0.2", "50 %": "symmetric:0.5", "80 %": "symmetric:0.8", "90 %": "symmetric:0.9",
    "look-alikes": "asymmetric:0.4",
}  # fmt: skip
"""The columns of the tables of accuracies."""
SEEDS = 3
"""Methods with fewer are left out where the best of all is asked for."""

Rows = list[dict[str, str]]


def read(table: str, **wanted: str) -> Rows:
    """Rows of a csv in which the columns have these values."""
    with (ROOT / "results" / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        found = [row for row in csv.DictReader(file) if all(row[key] == value for key, value in wanted.items())]
    assert found, f"results/{table}.csv has no row with {wanted}"
    return found


def values(table: str, method: str, noise: str, column: str = "last10") -> list[float]:
    """Shares (0..1), one for each seed."""
    return [float(row[column]) for row in read(table, method=method, noise=noise)]


def center(table: str, method: str, noise: str, column: str = "last10") -> float:
    """The mean over seeds, in percent."""
    return 100 * statistics.fmean(values(table, method, noise, column))


def mean(table: str, method: str, noise: str, column: str = "last10") -> str:
    """The mean over seeds of a column: `last10`, `best`, `actual` (noise), `estimated` (noise)."""
    return f"{center(table, method, noise, column):.1f}"


def spread(table: str, method: str, noise: str, column: str = "last10") -> str:
    """Mean and standard deviation over seeds."""
    found = values(table, method, noise, column)
    return f"{mean(table, method, noise, column)} ± {100 * statistics.stdev(found):.1f}"


def whole(table: str, method: str, noise: str) -> str:
    """The mean over seeds in whole percent."""
    return f"{center(table, method, noise):.0f}"


def lowest(table: str, method: str, noise: str) -> str:
    """The worst seed."""
    return f"{100 * min(values(table, method, noise)):.1f}"


def highest(table: str, method: str, noise: str) -> str:
    """The best seed."""
    return f"{100 * max(values(table, method, noise)):.1f}"


def lead(table: str, first: str, second: str, noise: str) -> str:
    """Points by which the first method is ahead."""
    return f"{center(table, first, noise) - center(table, second, noise):.1f}"


def points(table: str, first: str, second: str, noise: str) -> str:
    """The same in whole points."""
    return f"{center(table, first, noise) - center(table, second, noise):.0f}"


def p(table: str, first: str, second: str, noise: str) -> str:
    """The p-value of Welch's t-test over seeds."""
    test = stats.ttest_ind(values(table, first, noise), values(table, second, noise), equal_var=False)
    return f"{test.pvalue:.2f}"


def behind(table: str, method: str) -> str:
    """The most points by which a method is behind the best in any column."""
    compared = {row["method"] for row in read(table) if int(row["seed"]) == SEEDS - 1} - {"scan"}
    gaps = [
        max(center(table, other, noise) for other in compared) - center(table, method, noise)
        for noise in NOISES.values()
    ]
    return f"{max(gaps):.1f}"


def right_side(method: str, *tables: str) -> str:
    """In how many runs the estimated share of wrong labels is above a half if and only if the actual one is."""
    runs = [row for table in tables for row in read(table, method=method)]
    right = [row for row in runs if (float(row["estimated"]) > 0.5) == (float(row["actual"]) > 0.5)]
    return f"{len(right)} of {len(runs)}"


def ratio(*what: str) -> str:
    """How many times as fast as what it is compared with, from results/speed.csv."""
    (row,) = read("speed", part="epochs", what=" ".join(what))
    return f"{float(row['ratio']):.2f}"


def agreed(way: str, votes: str, planted: str = "0", column: str = "right") -> str:
    """The mean over seeds of the share of right consensus, in percent, from results/annotators.csv."""
    rows = read("annotators", data="FER+, 10,000 faces", way=way, votes=votes, planted=planted)
    return f"{100 * statistics.fmean(float(row[column]) for row in rows):.1f}"


def tuned(way: str, method: str, column: str = "accuracy", length: str = "6.0") -> str:
    """Mean and, for accuracy, standard deviation over seeds, in percent (seconds as they are): results/finetune.csv."""
    rows = read("finetune", way=way, method=method, length=length if way == "fine-tuned" else "0.0")
    found = [float(row[column]) for row in rows]
    if column == "seconds":
        return f"{statistics.fmean(found):.0f}"
    deviation = f" ± {100 * statistics.stdev(found):.1f}" if column == "accuracy" and len(found) > 1 else ""
    return f"{100 * statistics.fmean(found):.1f}{deviation}"


def drawn_once(method: str, length: str = "6.0") -> str:
    """Accuracy of a fine-tuned network on the first draw of results/finetune.csv."""
    (row,) = read("finetune", way="fine-tuned", method=method, length=length, seed="201")
    return f"{100 * float(row['accuracy']):.1f}"


def seen(data: str, noise: str, method: str, learns_from: str, column: str = "accuracy") -> str:
    """The mean over seeds, in percent (seconds as they are), from results/features.csv."""
    rows = read("features", data=data, noise=noise, method=method, learns_from=learns_from)
    average = statistics.fmean(float(row[column]) for row in rows)
    return f"{average:.0f}" if column == "core_seconds" else f"{100 * average:.1f}"


def audited(column: str, data: str, features: str, noise: str) -> str:
    """The mean over seeds, in percent, from results/audit-real.csv."""
    rows = read("audit-real", data=data, features=features, noise=noise)
    return f"{100 * statistics.fmean(float(row[column]) for row in rows):.1f}"


FIGURES: dict[str, Callable[..., str]] = {
    it.__name__: it
    for it in (
        mean, spread, lowest, highest, whole, lead, points, p, behind, right_side, ratio, agreed, tuned, drawn_once,
        seen, audited,
    )
}  # fmt: skip

SENTENCES: dict[str, tuple[str, ...]] = {
    README: (
        "ScanMix has {spread cifar10-small scanmix authors:sym80 last3} and "
        "{spread cifar10-small scanmix authors:sym90 last3} % with 80 and 90 % of the labels drawn anew, and DivideMix "
        "{spread cifar10-small dividemix authors:sym80 last3} and "
        "{spread cifar10-small dividemix authors:sym90 last3}",
        "{mean cifar10-small accord authors:sym80 last3} with 80 % (one seed)",
    ),
    INDEX: (),
    AUDIT: (
        "the average precision is {audited ap clothing-small patches symmetric:0.2} %; by pixels it is "
        "{audited ap clothing-small pixels symmetric:0.2}, by features of EfficientNet-lite0, which has seen other "
        "photos, {audited ap clothing-small lite0 symmetric:0.2}",
    ),
    WHICH: (
        "ScanMix has {spread cifar10-small scanmix authors:sym80 last3} % with 80 % of the labels drawn anew, and "
        "{spread cifar10-small scanmix authors:sym90 last3} % with 90 %; DivideMix has "
        "{spread cifar10-small dividemix authors:sym80 last3} and "
        "{spread cifar10-small dividemix authors:sym90 last3}.",
        "SSR has {mean cifar10-small ssr authors:sym80 last3} and {mean cifar10-small ssr authors:sym90 last3} % at 80 "
        "and 90 %, and cross-entropy {mean cifar10-small cross_entropy authors:sym80 last3} and "
        "{mean cifar10-small cross_entropy authors:sym90 last3}. With 20 % drawn anew cross-entropy has "
        "{mean cifar10-small cross_entropy authors:sym20 last3} %, ScanMix "
        "{mean cifar10-small scanmix authors:sym20 last3}, DivideMix "
        "{mean cifar10-small dividemix authors:sym20 last3} and SSR {mean cifar10-small ssr authors:sym20 last3}; "
        "with 50 % cross-entropy has {mean cifar10-small cross_entropy authors:sym50 last3} and SSR "
        "{mean cifar10-small ssr authors:sym50 last3}.",
        "ScanMix has {mean cifar10-small scanmix authors:asym40 last3} %, cross-entropy "
        "{mean cifar10-small cross_entropy authors:asym40 last3}, DivideMix "
        "{mean cifar10-small dividemix authors:asym40 last3} and SSR {mean cifar10-small ssr authors:asym40 last3}.",
        "they have {mean cifar10-small scanmix people:worse last3}, "
        "{mean cifar10-small cross_entropy people:worse last3}, {mean cifar10-small dividemix people:worse last3} and "
        "{mean cifar10-small ssr people:worse last3}.",
        "`accord` ([the successor]) has {mean cifar10-small accord authors:sym80 last3} % with 80 % of "
        "the labels drawn anew, {mean cifar10-small accord authors:sym20 last3} with 20 %, "
        "{mean cifar10-small accord authors:asym40 last3} with look-alikes exchanged and "
        "{mean cifar10-small accord people:worse last3} on people's labels",
        "{mean zoo-small cross_entropy symmetric:0.2 actual}, {mean zoo-small cross_entropy symmetric:0.5 actual}, "
        "{mean zoo-small ssr symmetric:0.8 actual} and {mean zoo-small ssr symmetric:0.9 actual} % are wrong",
        "it is at most {behind zoo-small ssr} points behind the best method; ScanMix is at most "
        "{behind zoo-small scanmix} behind, DivideMix {behind zoo-small dividemix}, plain training "
        "{behind zoo-small cross_entropy}.",
        "{mean table2-small ssr semantic:densenet:0.35}, {mean table2-small ssr semantic:resnet:0.35} and "
        "{mean table2-small ssr semantic:vgg:0.35} %, where DivideMix has "
        "{mean table2-small dividemix semantic:densenet:0.35}, {mean table2-small dividemix semantic:resnet:0.35} and "
        "{mean table2-small dividemix semantic:vgg:0.35} and ScanMix "
        "{mean table2-small scanmix semantic:densenet:0.35}, {mean table2-small scanmix semantic:resnet:0.35} and "
        "{mean table2-small scanmix semantic:vgg:0.35} (",
        "In {right_side scanmix zoo-small digits-small} runs of the two tables",
        "on Fashion-MNIST: {mean zoo-small scanmix symmetric:0.9 estimated} %, where "
        "{mean zoo-small scanmix symmetric:0.9 actual} % are wrong.",
        "On digits at 90 % ScanMix has {spread digits-small scanmix symmetric:0.9} %, DivideMix "
        "{spread digits-small dividemix symmetric:0.9}.",
        "plain training ({lead zoo-small cross_entropy scanmix symmetric:0.2} points behind at 20 %, p = "
        "{p zoo-small cross_entropy scanmix symmetric:0.2}) or of Co-teaching "
        "({lead zoo-small co_teaching scanmix symmetric:0.2} behind, p = "
        "{p zoo-small co_teaching scanmix symmetric:0.2})",
        "({mean zoo-small scanmix asymmetric:0.4 best} % at best for look-alikes), and then falls as it learns the "
        "mistakes ({mean zoo-small scanmix asymmetric:0.4} %)",
        "SSR is ahead by {lead zoo-small ssr scanmix symmetric:0.8} points at 80 % (p = "
        "{p zoo-small ssr scanmix symmetric:0.8}) and by {lead zoo-small ssr scanmix asymmetric:0.4} for look-alikes "
        "(p = {p zoo-small ssr scanmix asymmetric:0.4}). At 90 % it is ahead by "
        "{lead zoo-small ssr scanmix symmetric:0.9} on average, which three seeds do not settle (p = "
        "{p zoo-small ssr scanmix symmetric:0.9}): by the seed SSR has {lowest zoo-small ssr symmetric:0.9} to "
        "{highest zoo-small ssr symmetric:0.9} %, ScanMix {lowest zoo-small scanmix symmetric:0.9} to "
        "{highest zoo-small scanmix symmetric:0.9} %.",
        "{mean zoo-small backward symmetric:0.5} % at 50 %, where its best epoch, before the correction, has "
        "{mean zoo-small backward symmetric:0.5 best}.",
        "At 90 %, `co_teaching_plus` ({mean zoo-small co_teaching_plus symmetric:0.9}), `m_correction` "
        "({mean zoo-small m_correction symmetric:0.9}), `pes_semi` ({mean zoo-small pes_semi symmetric:0.9}), "
        "`bootstrap` ({mean zoo-small bootstrap symmetric:0.9}), `d2l` ({mean zoo-small d2l symmetric:0.9}) and "
        "`forward` ({mean zoo-small forward symmetric:0.9})",
        "has {mean zoo-small m_correction_sh symmetric:0.8} and {mean zoo-small m_correction_sh symmetric:0.9} at 80 "
        "and 90 %, where `m_correction` has {mean zoo-small m_correction symmetric:0.8} and "
        "{mean zoo-small m_correction symmetric:0.9}.",
        "(`elr` {mean zoo-small elr symmetric:0.2} and {mean zoo-small elr symmetric:0.5})",
        "`pes_semi` ({mean zoo-small pes_semi symmetric:0.2} at 20 %)",
        "keeps them ({mean zoo-small pes symmetric:0.2}).",
        "`m_correction` ({mean zoo-small m_correction symmetric:0.2} at 20 %)",
    ),
    ANNOTATORS: (
        "| majority vote | {agreed majority 2} | {agreed majority 3} | {agreed majority 3 1} |",
        "| Dawid and Skene | {agreed dawid_skene 2} | {agreed dawid_skene 3} | {agreed dawid_skene 3 1} |",
        "| ours, votes alone | {agreed ours 2} | {agreed ours 3} | {agreed ours 3 1} |",
        "| ours, neighbors by pixels | {agreed ours_pixels 2} | {agreed ours_pixels 3} | {agreed ours_pixels 3 1} |",
        "with three votes it is {agreed ours 3 0 probability} % on average",
    ),
    FEATURES: (
        *(
            f"| {each} `{method}` | {{tuned {each} {method}}} | {{tuned {each} {method} ap}} | "
            f"{{tuned {each} {method} seconds}} |"
            for each, method in (
                ("features", "propagate"), ("features", "linear"),
                ("fine-tuned", "cross_entropy"), ("fine-tuned", "ssr"),
            )
        ),
        "On the first of the three draws, `elr` has {drawn_once elr} and `mixup` {drawn_once mixup} %, where "
        "`cross_entropy` has {drawn_once cross_entropy}; with a `network.feature_length` of 2 and 16 instead of 6 "
        "it has {drawn_once cross_entropy 2.0} and {drawn_once cross_entropy 16.0}.",
        *(
            f"| {name} | {{seen clothing-small symmetric:0.4 {by}}} | {{seen clothing-small symmetric:0.4 {by} ap}} | "
            f"{{seen clothing-small symmetric:0.4 {by} core_seconds}} |"
            for name, by in (
                ("EfficientNet-lite0, `propagate`", "propagate lite0"),
                ("`patches:256`, `propagate`", "propagate patches"),
                ("from scratch, `cross_entropy`", "cross_entropy pixels"),
            )
        ),
        "it has {seen clothing-small none propagate patches} %, and the network from scratch "
        "{seen clothing-small none cross_entropy pixels}.",
        "two fifths of them wrong, it has {seen cifar10 worse propagate patches} %, where EfficientNet-lite0 has "
        "{seen cifar10 worse propagate lite0} and the network from scratch {seen cifar10 worse cross_entropy pixels}.",
    ),
    RESULTS: (
        "({mean table6-small scan_dividemix symmetric:0.8} of ScanMix's {mean table6-small scanmix symmetric:0.8} at "
        "80 %)",
        "ScanMix is {points table6-small scanmix scan_dividemix symmetric:0.9} points ahead of that control",
        "(p = {p table6-small scanmix scan_dividemix symmetric:0.9})",
        "({mean table6-small scanmix asymmetric:0.4 best} and {mean table6-small scanmix asymmetric:0.49 best}), and "
        "it then falls to {mean table6-small scanmix asymmetric:0.4} and {mean table6-small scanmix asymmetric:0.49}, "
        "below DivideMix.",
        "SCAN alone classifies {whole table6-small scan symmetric:0.2} % of these images correctly "
        "({lowest table6-small scan symmetric:0.2} to {highest table6-small scan symmetric:0.2}, by the seed).",
        "{spread zoo-small ssr symmetric:0.8} and {spread zoo-small ssr_plus symmetric:0.8}, where ScanMix has "
        "{spread zoo-small scanmix symmetric:0.8} (p = {p zoo-small ssr scanmix symmetric:0.8} and "
        "{p zoo-small ssr_plus scanmix symmetric:0.8}).",
        "({mean zoo-small ssr asymmetric:0.4} and {mean zoo-small ssr_plus asymmetric:0.4}, ScanMix "
        "{mean zoo-small scanmix asymmetric:0.4}), and on average at 90 % ({spread zoo-small ssr symmetric:0.9} and "
        "{spread zoo-small ssr_plus symmetric:0.9}, ScanMix {spread zoo-small scanmix symmetric:0.9})",
        "{mean table2-small scanmix semantic:densenet:0.35}, {mean table2-small scanmix semantic:resnet:0.35} and "
        "{mean table2-small scanmix semantic:vgg:0.35}, where DivideMix has "
        "{mean table2-small dividemix semantic:densenet:0.35}, {mean table2-small dividemix semantic:resnet:0.35} and "
        "{mean table2-small dividemix semantic:vgg:0.35} and cross-entropy "
        "{mean table2-small cross_entropy semantic:densenet:0.35}, "
        "{mean table2-small cross_entropy semantic:resnet:0.35} and "
        "{mean table2-small cross_entropy semantic:vgg:0.35}.",
        "SSR is ahead of all: {mean table2-small ssr semantic:densenet:0.35}, "
        "{mean table2-small ssr semantic:resnet:0.35} and {mean table2-small ssr semantic:vgg:0.35}.",
        "is {ratio ScanMix epoch, strong views: small network, 28x28x1} times as fast as a loop built like published "
        "code, and {ratio ScanMix epoch, strong views, second peer averaged: small network, 28x28x1} times with",
        "With PreAct-ResNet-18 it is {ratio ScanMix epoch, strong views: PreAct-ResNet-18, 32x32x3} and "
        "{ratio ScanMix epoch, strong views, second peer averaged: PreAct-ResNet-18, 32x32x3} times.",
        "where the table has {spread digits-small scanmix symmetric:0.8}.",
    ),
}  # fmt: skip
"""What the pages say, in their order. White space counts as one blank."""

ELSEWHERE: dict[str, dict[str, str]] = {
    README: {"3.11": "a version of Python", "2.0": "a license"},
    INDEX: {},
    AUDIT: {},
    WHICH: {"0.1": "a setting"},
    ANNOTATORS: {},
    FEATURES: dict.fromkeys(("0.3", "1.6"), "gigabytes, of runs that the sentence describes"),
    RESULTS: dict.fromkeys(
        ("98.9", "88.7", "85.1", "96.1", "98.5", "97.3", "97.2", "90.3", "94.0", "5.2", "89.4"),
        "eight seeds on another processor; the page has the command",
    ),
}
"""Numbers with a decimal point that no csv holds, and what they are."""


TABLES: dict[str, tuple[str, ...]] = {
    README: ("zoo-small",), AUDIT: ("audit",), WHICH: ("zoo-small", "digits-small"),
}  # fmt: skip
"""The csv of each table of a page that holds results, in their order."""
RESULTS_TABLE = re.compile(r"^\| (?:method|labels drawn anew) \|.*\n(?:\|.*\n)+", re.MULTILINE)
AUDITORS = {
    "audit of a ScanMix run": "scanmix",
    "audit of a cross-entropy run": "cross_entropy",
    "cleanlab": "cleanlab",
}


def accuracy_row(table: str, row: list[str], header: list[str], methods: list[str]) -> list[str]:
    """What a row of a table of accuracies has to say; the best of its methods is bold."""
    cells = []
    for noise in map(NOISES.__getitem__, header[1:]):
        average, _, deviation = spread(table, row[0], noise).partition(" ± ")
        best = max(methods, key=lambda method: center(table, method, noise))
        cells.append(f"**{average}** ± {deviation}" if row[0] == best else f"{average} ± {deviation}")
    return [row[0], *cells]


def audit_row(row: list[str]) -> list[str]:
    """What a row of the table of audits has to say."""
    rows = read("audit", auditor=AUDITORS[row[1]], rate=f"{int(row[0].removesuffix(' %')) / 100}")
    shares = [statistics.fmean(float(it[column]) for it in rows) for column in ("average_precision", "suggested")]
    return [*row[:2], *(f"{100 * share:.1f}" for share in shares)]


def without_code(text: str) -> str:
    """A page without code blocks and targets of links."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"\]\([^)\s]+\)", "]", text)


def tables(text: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Header and rows of every table of results."""
    for block in RESULTS_TABLE.findall(text):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        yield rows[0], rows[2:]


def normal(text: str) -> str:
    return " ".join(without_code(text).split())


def filled(sentence: str) -> str:
    """A sentence with its figures."""

    def figure(match: re.Match[str]) -> str:
        name, *arguments = match[1].split(" ")
        return FIGURES[name](*arguments)

    return re.sub(r"\{([^}]+)\}", figure, sentence)


def page_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def complaints(name: str, text: str) -> list[str]:
    """Every figure in a page that is not as the results have it, or that is in none of the lists above."""
    found, left = [], normal(RESULTS_TABLE.sub("", text))
    for sentence in SENTENCES[name]:
        expected = filled(sentence)
        if expected not in left:
            found.append(f"by the results {name} should say: {expected}")
        left = left.replace(expected, "")
    unknown = re.findall(r"(?<![\w.])\d+\.\d+(?![\w]|\.\d)", re.sub(r"`[^`]*`", "", left))
    if not found:  # else these are the figures of the sentences above
        found = [f"{name} has {it}: copy its sentence into SENTENCES" for it in unknown if it not in ELSEWHERE[name]]
    return found + table_complaints(name, text)


def table_complaints(name: str, text: str) -> list[str]:
    """Every row of a table of results that is not as the csv has it."""
    found, shown = [], list(tables(text))
    assert len(shown) == len(TABLES.get(name, ())), f"name every table of results in {name} in TABLES"
    for source, (header, rows) in zip(TABLES.get(name, ()), shown, strict=True):
        methods = [row[0] for row in rows]
        for row in rows:
            expected = audit_row(row) if source == "audit" else accuracy_row(source, row, header, methods)
            if row != expected:
                found.append(f"by results/{source}.csv {name} should have the row | {' | '.join(expected)} |")
    return found


@pytest.mark.parametrize("name", PAGES)
def test_every_figure_is_that_of_the_results(name: str) -> None:
    found = complaints(name, page_of(name))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        (README, "86.9 ± 0.2", "87.0 ± 0.2"),  # a cell
        (README, "**87.4** ± 0.3", "87.4 ± 0.3"),  # what is bold
        (AUDIT, "97.0 |", "97.1 |"),
        (FEATURES, "60.3 ± 1.4 |", "61.3 ± 1.4 |"),
        (WHICH, "at most 3.1 points", "at most 2.1 points"),  # a sentence
        (WHICH, "30 of 30 runs", "29 of 30 runs"),
        (INDEX, "as good", "as good (87.4 %)"),  # a figure that is not in SENTENCES
        (README, "| choose a method |", "| choose a method, 87.4 % |"),
        (RESULTS, "2.35 times", "2.53 times"),
    ],
)
def test_a_figure_that_was_changed_is_found(name: str, right: str, wrong: str) -> None:
    text = page_of(name)
    assert right in text
    assert complaints(name, text.replace(right, wrong, 1))
