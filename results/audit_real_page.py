"""The page of `results.audit_real`, made from its rows."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from scanmix.files.markdown import wrapped

Row = dict[str, Any]

INTRODUCTION = (
    "`python -m results.audit_real --data FOLDER --fashion FOLDER --cache FOLDER` writes this page. The noise model "
    "(`blocks.noise_model.fit_neighbors`, 10 neighbors and ridge regression on 128 principal components) sees given "
    "labels and features. No network learns from the labels.",
    "**What it was tuned on.** The model's constants were chosen on the same data sets with other seeds (100 and 101) "
    "of the drawn noise, and on people's labels, of which there is one draw. The pictures of cifar10 here (numbers 300 "
    "to 899 of each class) were not among those of the trials. All photos of clothing-small, these classes of "
    "mini-imagenet32, these faces and the pictures of `dino` and `clip` were. ferplus's single votes were not.",
    "**Data.** cifar10: 3,000 training pictures, 300 of each class, which the seed draws from 600. clothing-small: "
    "3,068 photos, 10 classes, 7 : 1. ferplus: of 4,000 faces the 3,537 with a clear majority, which is an emotion "
    "that at least 5 of 10 people saw, and no other answer as many. A given label is the vote of one of the ten, drawn "
    "among the votes for the 8 emotions. mini-imagenet32: its first 20 classes, 5,000 pictures. fashion: 5,000 "
    "pictures, 500 of each class, drawn from 1,000. digits: all 1,797 of scikit-learn. 10:1: class sizes fall "
    "exponentially to a tenth. dino and clip: vectors of DINOv2-base and CLIP ViT-B/32 of 1,000 pictures of CIFAR-10.",
    "**Noise.** `symmetric`: so many labels are drawn anew over all classes. `asymmetric`: so many labels of five "
    "classes become a class that looks alike. `aggre`, `random1`, `worse`: people's labels (CIFAR-10N). `vote`: one "
    "vote a face. `none`: the labels of the data set, taken as right.",
    "**Features.** patches: what an audit has by itself for pictures of 24 pixels and more a side "
    "(`blocks.pictures.image_features`), of the pictures that the seed draws. pixels: as they are, 32x32 or 48x48 for "
    "photos. lite0: EfficientNet-lite0, which has learned from ImageNet. simclr: a small network that learned for 60 "
    "epochs without labels from all pictures that seeds draw from. lite0 and simclr of a data set are computed once, "
    "and all seeds have the same.",
    "**cleanlab.** It gets 5-fold cross-validated probabilities of a classifier on the same features: a logistic "
    "regression on 64 principal components (C = 0.001, 0.01 or 0.1) or k-NN (10, 20 or 50 neighbors), whichever makes "
    "the held-out given labels likeliest. Its confidence in a label is the probability of that label "
    "(`self_confidence`), its count of wrong labels that of `find_label_issues` with its defaults. `v` is what the "
    "noise model's stable reading says of each image with its own label left out; it is compared by self-confidence "
    "too.",
    "**Columns**, means over seeds: percent of wrong labels, estimated percent, mean absolute error in points, ends of "
    "the 90 % interval, seeds whose interval holds the truth, the soft and the stable reading, agreement of halves, "
    "labels that cleanlab calls wrong; Brier score of `p_clean`, of a constant that knows the rate, of the best "
    "monotone function of `p_clean` (fitted on the truth: no calibration of this ranking is better), of cleanlab; "
    "average precision of both rankings; percent of right labels before and after the most probable class replaces the "
    "given one; CPU seconds with the search for neighbors and the decomposition, without features, on one thread.",
)


class Goal(NamedTuple):
    """A goal, and how a row says whether it is reached."""

    text: str
    least: float | None
    """Share of settings, 0..1; None where nothing was asked."""
    counted: Callable[[Row], bool]
    reached: Callable[[Row], bool]


def is_people(row: Row) -> bool:
    """Whether the labels are people's."""
    return row["noise"] in ("aggre", "random1", "worse", "vote")


def is_noisy(row: Row) -> bool:
    """Whether any labels are wrong."""
    return bool(row["noise"] != "none")


def is_random(row: Row) -> bool:
    """Whether wrong labels were drawn, by class alone."""
    return is_noisy(row) and not is_people(row)


def holds(row: Row) -> bool:
    """Whether the interval holds the truth."""
    return bool(row["low"] - 1e-9 <= row["wrong"] <= row["high"] + 1e-9)


def error(row: Row) -> float:
    """Return the error of the rate, 0..1."""
    return abs(float(row["estimated"] - row["wrong"]))


def mean_error(rows: Sequence[Row]) -> float:
    """Return the mean error of the rate, 0..1."""
    return statistics.fmean(map(error, rows))


def constant(row: Row) -> float:
    """Return the Brier score of a constant that knows the rate."""
    return float(row["wrong"] * (1 - row["wrong"]))


GOALS = (
    Goal("error at most 6 points, noise by class", None, is_random, lambda row: error(row) <= 0.06),
    Goal("... of it symmetric", None, lambda row: row["noise"].startswith("s"), lambda row: error(row) <= 0.06),
    Goal("... of it asymmetric", None, lambda row: row["noise"].startswith("asym"), lambda row: error(row) <= 0.06),
    Goal("... or an interval that holds the truth", 0.9, is_random, lambda row: error(row) <= 0.06 or holds(row)),
    Goal("error at most 10 points, people's labels", None, is_people, lambda row: error(row) <= 0.1),
    Goal("... or an interval that holds the truth", 1.0, is_people, lambda row: error(row) <= 0.1 or holds(row)),
    Goal("the interval holds the truth", 0.85, lambda row: True, holds),
    Goal("... right labels", None, lambda row: not is_noisy(row), holds),
    Goal("... noise by class", None, is_random, holds),
    Goal("... people's labels", None, is_people, holds),
    Goal("Brier score below the constant", 1.0, is_noisy, lambda row: row["brier"] < constant(row)),
    Goal("... of the best monotone recalibration by a tenth", None, is_noisy,
         lambda row: row["recalibrated_brier"] < 0.9 * constant(row)),
    Goal("Brier score at most cleanlab's", 0.9, is_noisy, lambda row: row["brier"] <= row["cleanlab_brier"]),
    Goal("average precision at least cleanlab's", 0.9, is_noisy, lambda row: row["ap"] >= row["cleanlab_ap"]),
    Goal("... or at most 0.01 below", None, is_noisy, lambda row: row["ap"] >= row["cleanlab_ap"] - 0.01),
    Goal("Brier score at most that of v's self-confidence", None, is_noisy, lambda row: row["brier"] <= row["v_brier"]),
    Goal("average precision at least that of v's", None, is_noisy, lambda row: row["ap"] >= row["v_ap"]),
    Goal("at least as many labels right as before", None, is_noisy,
         lambda row: row["right_after"] >= row["right_before"]),
)  # fmt: skip


def page(rows: Sequence[Row]) -> str:
    """Return the page: goals, the worst settings, and a table for each data set."""
    settings = grouped(rows)
    seeds = sorted({row["seed"] for row in rows})
    parts = ["# The noise model on real pictures", *map(wrapped, INTRODUCTION)]
    parts += [
        "## Goals",
        wrapped(
            f"{len(settings)} settings, {len(rows)} rows, seeds {', '.join(map(str, seeds))}; where nothing is drawn, "
            "there is one. A share is the mean over settings of the share of seeds; it is what a goal is compared with."
        ),
        _goals(rows),
        wrapped(
            "The same by features, as shares of settings, with the median width of the intervals in points. A wide "
            "interval holds the truth and says little: compare the lines above that begin with dots with those before."
        ),
        _by_features(rows),
        wrapped(_beside(settings)),
        "## Where it fails",
        _failures(settings),
    ]
    for data in dict.fromkeys(key[0] for key in settings):
        parts += [f"## {data}", _table({key: found for key, found in settings.items() if key[0] == data})]
    return "\n\n".join(filter(None, parts)) + "\n"


def grouped(rows: Iterable[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Return the rows of each setting: data, features, noise."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["data"], row["features"], row["noise"]), []).append(row)
    return found


def share(rows: Iterable[Row], reached: Callable[[Row], bool]) -> float:
    """Return the mean over settings of the share of their rows."""
    return statistics.fmean(statistics.fmean(map(reached, found)) for found in grouped(rows).values())


def _goals(rows: Sequence[Row]) -> str:
    lines = ["| | rows | share of settings | goal | met |", "| --- | ---: | ---: | ---: | --- |"]
    for goal in GOALS:
        counted = [row for row in rows if goal.counted(row)]
        if not counted:
            continue
        reached, of_settings = sum(map(goal.reached, counted)), share(counted, goal.reached)
        asked = ("", "") if goal.least is None else (f"{goal.least:.0%}", "yes" if of_settings >= goal.least else "no")
        lines.append(f"| {goal.text} | {reached} of {len(counted)} | {of_settings:.1%} | {asked[0]} | {asked[1]} |")
    return "\n".join(lines)


def _by_features(rows: Sequence[Row]) -> str:
    columns: dict[str, tuple[Callable[[Row], bool], Callable[[Row], bool]]] = {
        "noise by class: error <= 6": (is_random, lambda row: error(row) <= 0.06),
        "people: error <= 10": (is_people, lambda row: error(row) <= 0.1),
        "interval holds": (lambda row: True, holds),
        "Brier < constant": (is_noisy, lambda row: row["brier"] < constant(row)),
        "Brier <= cleanlab": (is_noisy, lambda row: row["brier"] <= row["cleanlab_brier"]),
        "AP >= cleanlab": (is_noisy, lambda row: row["ap"] >= row["cleanlab_ap"]),
    }
    lines = [f"| features | {' | '.join(columns)} | width |", "| --- |" + " ---: |" * (len(columns) + 1)]
    for kind in dict.fromkeys(row["features"] for row in rows):
        cells = []
        for counted, reached in columns.values():
            those = [row for row in rows if row["features"] == kind and counted(row)]
            cells.append(f"{share(those, reached):.0%}" if those else "")
        width = statistics.median(row["high"] - row["low"] for row in rows if row["features"] == kind)
        lines.append(f"| {kind} | {' | '.join(cells)} | {100 * width:.0f} |")
    return "\n".join(lines)


def _beside(settings: dict[tuple[str, str, str], list[Row]]) -> str:
    """Return how patches and pixels compare on the settings that have both; nothing if there are none."""
    both = [
        (data, noise) for data, kind, noise in settings if kind == "patches" and (data, "pixels", noise) in settings
    ]
    said = []
    for kind in ("patches", "pixels") if both else ():
        those = [row for data, noise in both for row in settings[data, kind, noise]]
        width, held = statistics.median(row["high"] - row["low"] for row in those), sum(map(holds, those))
        ranked = statistics.fmean(row["ap"] for row in those if is_noisy(row))
        said.append(
            f"{kind}: intervals are {100 * width:.0f} points wide and hold the truth in {held} of {len(those)} rows, "
            f"the mean average precision is {ranked:.3f}"
        )
    further = [
        f"{data} {noise}" for data, noise in both
        if mean_error(settings[data, "patches", noise]) > mean_error(settings[data, "pixels", noise]) + 0.02
    ]  # fmt: skip
    names = f" The rate of patches is further off, by more than 2 points, for {', '.join(further)}." if further else ""
    return f"On the {len(both)} settings that have both, {'; '.join(said)}.{names}" if both else ""


def _failures(settings: dict[tuple[str, str, str], list[Row]]) -> str:
    lines = []
    for key, rows in settings.items():
        noisy = is_noisy(rows[0])
        said = []
        if not all(map(holds, rows)):
            said.append(f"the interval holds the truth in {sum(map(holds, rows))} of {len(rows)}")
        limit = 0.1 if is_people(rows[0]) else 0.06
        if (off := mean_error(rows)) > limit:
            said.append(f"the rate is off by {100 * off:.1f} points")
        if noisy and (worse := sum(row["brier"] >= constant(row) for row in rows)):
            best = statistics.fmean(row["recalibrated_brier"] / constant(row) for row in rows)
            said.append(
                f"Brier score not below the constant in {worse} of {len(rows)} (the best monotone recalibration has "
                f"{best:.0%} of the constant's)"
            )
        if said:
            lines.append(wrapped(f"- {' '.join(key)}: {'; '.join(said)}.", "  "))
    return "\n".join(lines) or "Nowhere."


def _table(settings: dict[tuple[str, str, str], list[Row]]) -> str:
    names = (
        "features", "noise", "seeds", "wrong", "estimated", "error", "interval", "holds", "soft", "stable",
        "agreement", "cleanlab", "Brier", "constant", "best", "cleanlab", "AP", "cleanlab", "right before",
        "after", "seconds",
    )  # fmt: skip
    lines = [f"| {' | '.join(names)} |", "| --- | --- |" + " ---: |" * (len(names) - 2)]
    for (_, kind, noise), rows in settings.items():

        def mean(name: str, rows: Sequence[Row] = rows) -> float:
            return statistics.fmean(row[name] for row in rows)

        def percent(name: str, mean: Callable[[str], float] = mean) -> str:
            return f"{100 * mean(name):.1f}"

        def precision(name: str, mean: Callable[[str], float] = mean, noise: str = noise) -> str:
            return f"{mean(name):.3f}" if noise != "none" else ""

        off = f"{100 * mean_error(rows):.1f}"
        cells = [
            kind, noise, str(len(rows)), percent("wrong"), percent("estimated"), off,
            f"{percent('low')} - {percent('high')}", f"{sum(map(holds, rows))} of {len(rows)}", percent("soft"),
            percent("stable"), f"{mean('agreement'):.2f}", percent("cleanlab_estimated"), f"{mean('brier'):.3f}",
            f"{statistics.fmean(map(constant, rows)):.3f}", f"{mean('recalibrated_brier'):.3f}",
            f"{mean('cleanlab_brier'):.3f}", precision("ap"),
            precision("cleanlab_ap"), percent("right_before"), percent("right_after"), f"{mean('seconds'):.1f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
