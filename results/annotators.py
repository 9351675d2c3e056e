"""Consensus of several annotators: majority vote, Dawid and Skene, and the model of annotators, on pictures of people.

Run `python -m results.annotators TABLE`, where TABLE is a CSV of path and label_1 .. label_10 (`docs/annotators.md`),
such as FER+ has. Some of the votes on each image are drawn and given to each way; the truth is the class with the most
of all votes. With `--features FILE.npy`, one row for each row of the table, these are used as well as pixels. Rows go
to `results/annotators.csv`, and `results/annotators.md` is written from that.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from scanmix.blocks.annotators import Annotators, fit_annotators, fit_with_neighbors, majority, vote_counts
from scanmix.blocks.neighbors import nearest_neighbors
from scanmix.data.examples import NO_VOTE, Examples
from scanmix.data.readers import load
from scanmix.files import atomic_write
from scanmix.files.cells import csv_line
from scanmix.files.markdown import wrapped

GIVEN = (1, 2, 3)
"""Votes on each image that are given."""
SEEDS = (0, 1, 2)
NEIGHBORS = 10
FIELDS = ("data", "votes", "planted", "seed", "way", "right", "balanced", "probability", "worst", "worst_quality")
WAYS = {
    "majority": "majority vote",
    "dawid_skene": "Dawid and Skene",
    "ours": "ours, votes alone",
    "ours_pixels": "ours, neighbors by pixels",
    "ours_features": "ours, neighbors by features",
}
Row = dict[str, str | int | float]


class Voted(NamedTuple):
    """Images with all their votes."""

    name: str
    votes: Tensor
    """(N, A) int64."""
    num_classes: int
    truth: Tensor
    """(N,) int64, the class with the most votes."""
    clear: Tensor
    """(N,) bool: no other class has as many."""
    neighbors: dict[str, Tensor]
    """Way -> (N, K) int64."""


def main() -> None:
    """Measure all ways and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--features", type=Path, help=".npy of (N, D), a row for each row of the table")
    parser.add_argument("--name", help="what the data is called in the table; by default the name of the file")
    parser.add_argument("--leave-out", nargs="*", default=["unknown", "NF"], help="labels that are no vote")
    parser.add_argument("--out", type=Path, default=Path("results"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    path = asked.out / "annotators.csv"
    voted = read_votes(asked.table, asked.features, asked.leave_out, asked.name)
    rows = [row for row in read(path) if row["data"] != voted.name]
    for count, planted in [*((count, 0) for count in GIVEN), (GIVEN[-1], 1)]:
        for seed in SEEDS:
            rows += measure(voted, count, bool(planted), seed)
            print(rows[-1], flush=True)
    write(rows, path)


def read_votes(table: Path, features: Path | None, left_out: Sequence[str], name: str | None) -> Voted:
    """Read a table of votes, and find neighbors by pixels and by features."""
    examples, _ = load(table, size=24)
    assert examples.votes is not None, "no image has two votes"
    kept = [label for label, word in enumerate(examples.class_names) if word not in left_out]
    number = torch.full((examples.num_classes + 1,), NO_VOTE)
    number[torch.tensor(kept)] = torch.arange(len(kept))
    votes = number[examples.votes]  # the last entry stands for NO_VOTE, which is -1
    counts = vote_counts(votes, len(kept))
    first, second = counts.topk(2, dim=1).values.T
    near = {"ours_pixels": nearest_neighbors(_pixels(examples), NEIGHBORS)}
    if features is not None:
        near["ours_features"] = nearest_neighbors(torch.from_numpy(np.load(features)).float(), NEIGHBORS)
    return Voted(name or table.stem, votes, len(kept), majority(votes, len(kept)), first > second, near)


def _pixels(examples: Examples) -> Tensor:
    """Return the pixels of each image less their mean. Shape: -> (N, D)."""
    flat = examples.images.flatten(1).float()
    return flat - flat.mean(1, keepdim=True)


def measure(voted: Voted, count: int, planted: bool, seed: int) -> list[Row]:
    """Give `count` votes on each image to each way; with `planted`, half of the last column is drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    given = draw(voted.votes, count, generator)
    if planted:
        spoiled = torch.rand(len(given), generator=generator) < 0.5
        random = torch.randint(voted.num_classes, (len(given),), generator=generator)
        given[:, -1] = torch.where(spoiled & (given[:, -1] != NO_VOTE), random, given[:, -1])
    ways: dict[str, Callable[[], Tensor | Annotators]] = {
        "majority": lambda: most_votes(given, voted.num_classes, generator),
        "dawid_skene": lambda: dawid_skene(given, voted.num_classes),
        "ours": lambda: fit_annotators(given, voted.num_classes),
    }
    for way, near in voted.neighbors.items():
        ways[way] = partial(fit_with_neighbors, near, given, voted.num_classes, Generator().manual_seed(seed))
    rows = []
    for way, find in ways.items():
        found = find()
        consensus = found.consensus if isinstance(found, Annotators) else found
        row: Row = {"data": voted.name, "votes": count, "planted": int(planted), "seed": seed, "way": way}
        row |= _scores(consensus, voted)
        row |= {"probability": "", "worst": "", "worst_quality": ""}
        if isinstance(found, Annotators) and count > 1:
            row["probability"] = float(found.consensus_prob[voted.clear].mean())
            worst = int(found.quality.argmin())
            row |= {"worst": "none" if found.difference.none else f"label_{worst + 1}"}
            row["worst_quality"] = float(found.quality[worst])
        rows.append(row)
    return rows


def draw(votes: Tensor, count: int, generator: Generator) -> Tensor:
    """Return `count` votes on each image, drawn without repetition; `NO_VOTE` where it has fewer.

    Shape: (N, A) -> (N, count) int64.
    """
    order = torch.rand(votes.shape, generator=generator).masked_fill(votes == NO_VOTE, 2.0)
    return votes.gather(1, order.argsort(1)[:, :count]).clone()


def most_votes(votes: Tensor, num_classes: int, generator: Generator) -> Tensor:
    """Return the class with the most votes, of several a random one. Shape: (N, A) -> (N,) int64."""
    counts = vote_counts(votes, num_classes)
    return (counts + 0.5 * torch.rand(counts.shape, generator=generator)).argmax(1)


def dawid_skene(votes: Tensor, num_classes: int, rounds: int = 60) -> Tensor:
    """Return the classes that EM as published finds (Dawid and Skene 1979), begun with the shares of the votes.

    Shape: (N, A) -> (N,) int64.
    """
    said = torch.nn.functional.one_hot(votes.clamp(min=0), num_classes).double()
    said = said * (votes != NO_VOTE).unsqueeze(2)  # (N, A, C)
    shares = said.sum(1)
    posterior = shares / shares.sum(1, keepdim=True).clamp(min=1)
    tiny = torch.finfo(torch.float64).tiny
    for _ in range(rounds):
        counts = torch.einsum("nc,nak->ack", posterior, said)
        matrices = counts / counts.sum(2, keepdim=True).clamp(min=tiny)
        joint = torch.einsum("ack,nak->nc", matrices.clamp(min=tiny).log(), said)
        posterior = (joint + posterior.mean(0).clamp(min=tiny).log()).softmax(1)
    return posterior.argmax(1)


def _scores(consensus: Tensor, voted: Voted) -> Row:
    """Return the share of right classes (0..1) among images with a clear truth, and its mean over classes."""
    truth, found = voted.truth[voted.clear], consensus[voted.clear]
    right = (found == truth).double()
    each = [float(right[truth == label].mean()) for label in range(voted.num_classes) if bool((truth == label).any())]
    return {"right": float(right.mean()), "balanced": statistics.fmean(each)}


def read(path: Path) -> list[Row]:
    """Return the rows that are known already."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    return [{**row, **{name: int(row[name]) for name in ("votes", "planted", "seed")}} for row in found]


def write(rows: Sequence[Row], path: Path) -> None:
    """Write both files, each whole or not at all."""
    lines = [csv_line(FIELDS), *(csv_line(_cell(row[name]) for name in FIELDS) for row in rows)]
    _write(path, "".join(lines))
    _write(path.with_suffix(".md"), report(rows))


def report(rows: Sequence[Row]) -> str:
    """Return the page: a table for each data set."""
    parts = [
        "# Several annotators",
        wrapped(
            "`python -m results.annotators TABLE` writes this page. Each image has ten votes. Its truth is the class "
            "with the most of them; images on which two classes have equally many are not counted, and votes for "
            '"unknown" and "no face" are no votes. One, two or three votes of each image are drawn and given to each '
            "way. Majority vote breaks ties at random. The tables have the share of images whose consensus is the "
            "truth, in percent, and in brackets the mean over classes, which a few rare ones sway. Both are means over "
            f"seeds {', '.join(map(str, SEEDS))}, the first with its standard deviation. In the last column, half of "
            "the votes of the third column are drawn at random. The given votes are among the ten that make the truth, "
            "so they are right more often than those of other people would be. Pixels are those of 24x24 images, each "
            "less its mean; features are of an ImageNet EfficientNet-lite0. "
            "Columns of this data are not persons, and the model finds that they are not."
        ),
    ]
    for data in dict.fromkeys(str(row["data"]) for row in rows):
        parts += [f"## {data}", _table([row for row in rows if row["data"] == data])]
        parts.append(wrapped(_planted([row for row in rows if row["data"] == data])))
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Row]) -> str:
    columns = [*((count, 0) for count in GIVEN), (GIVEN[-1], 1)]
    names = [f"{count} vote{'s' if count > 1 else ''}{', one bad' if bad else ''}" for count, bad in columns]
    lines = [f"| consensus | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for way, words in WAYS.items():
        cells = []
        for count, bad in columns:
            found = [row for row in rows if (row["way"], row["votes"], row["planted"]) == (way, count, bad)]
            if found:
                right, balanced = ([100 * float(row[name]) for row in found] for name in ("right", "balanced"))
                cells.append(f"{_spread(right)} ({statistics.fmean(balanced):.1f})")
        if cells:
            lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _planted(rows: Sequence[Row]) -> str:
    """Say how often the planted annotator was found, and what it was taken for."""
    ours = [row for row in rows if row["way"] == "ours"]
    bad = [row for row in ours if row["planted"]]
    found = [row for row in bad if row["worst"] == f"label_{GIVEN[-1]}"]
    quality = _spread([100 * float(row["worst_quality"]) for row in bad])
    same = [row for row in ours if not row["planted"] and int(row["votes"]) > 1]
    told = sum(row["worst"] == "none" for row in same)
    sure = [100 * float(row["probability"]) for row in ours if (row["votes"], row["planted"]) == (GIVEN[-1], 0)]
    return (
        f"The bad annotator is found in {len(found)} of {len(bad)} draws; {quality} % of its votes are taken for "
        f"right. Without it, the columns are told to be alike in {told} of {len(same)}. With three votes the model "
        f"gives its consensus {statistics.fmean(sure):.1f} % on average, more than are right: people agree on wrong "
        "classes of unclear faces, and the model takes votes as independent."
    )


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def _write(path: Path, text: str) -> None:
    atomic_write(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
