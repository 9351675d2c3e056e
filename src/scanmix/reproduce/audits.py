"""How good the audit is: it and cleanlab look for wrong labels that were planted in the digits, on the same splits.

Legend: N examples, C classes.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scanmix.audit import Audit, score_labels
from scanmix.audit.arrays import evidence_from_arrays
from scanmix.config import UserError, install
from scanmix.data.examples import Examples
from scanmix.data.noise import add_noise
from scanmix.data.readers import load
from scanmix.files import checked, locked, reading, write_text, writing
from scanmix.files.markdown import wrapped
from scanmix.integrations.conversions import cross_validated
from scanmix.progress import Bar, Quiet
from scanmix.training.loop import train

Overrides = Mapping[str, Mapping[str, Any]]
"""Method -> settings, as keywords of `train`."""

NAME = "audit-digits"
RATES = (0.2, 0.5, 0.8)
FOLDS = 5
AUDITORS = {
    "scanmix": "audit of a ScanMix run",
    "cross_entropy": "audit of a cross-entropy run",
    "folds": "audit of cross-validated cross-entropy",
    "cleanlab": "cleanlab, same cross-validated cross-entropy",
}


REMARKS = (
    "Average precision is that of the ranking.",
    "Precision and recall are those of the labels called wrong. For scanmix these have a p_clean below a half. For "
    "cleanlab they are the result of `cleanlab.filter.find_label_issues` with its defaults.",
    '"Suggestion right" counts only wrong labels. The suggestion of cleanlab is the most likely class.',
    "Both networks are those of the digits recipes. The last two rows share the probabilities of one "
    f"{FOLDS}-fold cross-validation.",
    "The noise that cleanlab estimates is the share of labels that it calls wrong.",
)
"""What the columns of the page mean."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """How well one auditor found the planted errors; all values but the seconds are shares (0..1)."""

    auditor: str
    rate: float
    seed: int
    average_precision: float
    """Average precision of the ranking: 1 when every wrong label comes before every right one."""
    precision: float
    """Share of wrong labels among those that were called wrong."""
    recall: float
    """Share of the wrong labels that were called wrong."""
    suggested: float
    """Share of the wrong labels whose suggestion is the true class."""
    estimated: float
    actual: float
    seconds: float


def run_audits(
    out: Path, seeds: int = 3, rates: Sequence[float] = RATES, *, folds: int = FOLDS, bar: Bar | None = None,
    overrides: Overrides | None = None,
) -> list[Score]:  # fmt: skip
    """Measure every auditor at every rate with every seed; write `out/audit.md` and `.csv` after each part.

    Args:
        out: the folder of the tables; each finished part is stored in `out/runs/audit-digits` and not run again.
        seeds: number of seeds, from 0 on; each decides noise, folds and training.
        rates: of symmetric noise, as shares (0..1).
        folds: of the cross-validation.
        bar: shows how many parts are finished.
        overrides: settings laid on the recipe of each method.

    Raises:
        UserError: cleanlab is missing, the file of a finished part is damaged, or another process measures here.
    """
    _need_cleanlab()
    folder = out / "runs" / NAME
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    cells = [(seed, rate) for seed in range(seeds) for rate in rates]
    with locked(folder, "being reproduced", "table.lock"):
        return _run_cells(out, cells, seeds, folds, bar or Quiet(), overrides or {})


def _run_cells(
    out: Path, cells: Sequence[tuple[int, float]], seeds: int, folds: int, bar: Bar, overrides: Overrides
) -> list[Score]:
    """Measure the parts that are not stored yet, and write the page after each.

    Args:
        out: the folder of the tables.
        cells: seed and rate of each part.
        seeds: number of seeds.
        folds: of the cross-validation.
        bar: shows how many parts are finished.
        overrides: settings laid on the recipe of each method.
    """
    scores: list[Score] = []
    for done, (seed, rate) in enumerate(cells):
        bar.set(done, len(cells), f"{rate:.0%}, seed {seed}")
        path = out / "runs" / NAME / f"symmetric-{rate}-seed{seed}.json"
        if path.is_file():
            with reading(path, "delete it, and this part is measured again"):
                scores += checked(list[Score], path.read_text(encoding="utf-8"))
            continue
        found = list(_score_all(rate, seed, folds, overrides))
        write_text(path, json.dumps([dataclasses.asdict(score) for score in found], indent=2))
        scores += found
        _write(out, scores, seeds)
    _write(out, scores, seeds)
    return scores


def _score_all(rate: float, seed: int, folds: int, overrides: Overrides) -> Iterator[Score]:
    """Yield the scores of all auditors for one draw of noise."""
    noisy = add_noise(load("digits")[0], "symmetric", rate=rate, seed=seed)
    for method in ("scanmix", "cross_entropy"):
        began = time.monotonic()
        found = train(noisy, method=method, seed=seed, progress=False, **overrides.get(method, {})).audit()
        yield _ours(method, found, noisy, rate, seed, time.monotonic() - began)
    began = time.monotonic()
    settings = overrides.get("cross_entropy", {})
    probs = cross_validated(noisy, folds, seed, show=False, method="cross_entropy", **settings)
    seconds = time.monotonic() - began
    arrays = score_labels(evidence_from_arrays(noisy.labels.numpy(), probs, class_names=noisy.class_names))
    yield _ours("folds", arrays, noisy, rate, seed, seconds)
    yield _cleanlab(probs, noisy, rate, seed, seconds)


def _ours(auditor: str, found: Audit, noisy: Examples, rate: float, seed: int, seconds: float) -> Score:
    """Score an audit of this library.

    Args:
        auditor: a key of `AUDITORS`.
        found: its audit.
        noisy: the examples, with their true labels.
        rate: of the noise that was asked for.
        seed: of the noise.
        seconds: that training and audit took.
    """
    names = np.array(noisy.class_names, dtype=object)
    suggested = np.empty(len(noisy), dtype=object)
    suspicion, flagged = np.empty(len(noisy)), np.empty(len(noisy), dtype=bool)
    suggested[found.order], suspicion[found.order] = found["suggested"], np.arange(len(noisy))[::-1]
    flagged[found.order] = found.looks_wrong
    right = suggested == names[_truth(noisy)]
    return _score(auditor, noisy, rate, seed, seconds, suspicion, flagged, right, found.noise_rate.value)


def _cleanlab(probs: np.ndarray, noisy: Examples, rate: float, seed: int, seconds: float) -> Score:
    """Score cleanlab with the same probabilities. Shape: probs (N, C)."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    labels = noisy.labels.numpy()
    flagged = find_label_issues(labels, probs, n_jobs=1)
    suspicion = -get_label_quality_scores(labels, probs)
    right = probs.argmax(1) == _truth(noisy)
    return _score("cleanlab", noisy, rate, seed, seconds, suspicion, flagged, right, float(flagged.mean()))


def _score(
    auditor: str, noisy: Examples, rate: float, seed: int, seconds: float, suspicion: np.ndarray, flagged: np.ndarray,
    right: np.ndarray, estimated: float,
) -> Score:  # fmt: skip
    """Compare what an auditor found with the truth.

    Args:
        auditor: a key of `AUDITORS`.
        noisy: the examples, with their true labels.
        rate: of the noise that was asked for.
        seed: of the noise.
        seconds: that the auditor took.
        suspicion: (N,) larger for labels that are ranked as more likely wrong.
        flagged: (N,) bool, labels that are called wrong.
        right: (N,) bool, whether the suggested class is the true one.
        estimated: share (0..1) of wrong labels that the auditor estimates.
    """
    from sklearn.metrics import average_precision_score

    wrong = noisy.labels.numpy() != _truth(noisy)
    return Score(
        auditor=auditor,
        rate=rate,
        seed=seed,
        average_precision=float(average_precision_score(wrong, suspicion)),
        precision=float(wrong[flagged].mean()) if flagged.any() else 0.0,
        recall=float(flagged[wrong].mean()),
        suggested=float(right[wrong].mean()),
        estimated=estimated,
        actual=float(wrong.mean()),
        seconds=seconds,
    )


def _truth(noisy: Examples) -> np.ndarray:
    """Return the true labels. Shape: (N,) int64."""
    if noisy.true_labels is None:
        raise UserError(f"the true labels of {noisy.name!r} are not known")
    return noisy.true_labels.numpy()


def _need_cleanlab() -> None:
    try:
        import cleanlab  # noqa: F401
    except ImportError:
        raise UserError(f"the comparison needs cleanlab: {install('compare')}") from None


def _write(out: Path, scores: Sequence[Score], seeds: int) -> None:
    """Write the page, and a CSV with a row for each score."""
    names = [field.name for field in dataclasses.fields(Score)]
    lines = [",".join(names), *(",".join(str(getattr(score, name)) for name in names) for score in scores)]
    write_text(out / "audit.csv", "\n".join(lines) + "\n")
    text = _page(scores, seeds)
    write_text(out / "audit.md", text)


def _page(scores: Sequence[Score], seeds: int) -> str:
    parts = [
        "# Finding wrong labels",
        f"`scanmix reproduce {NAME} --seeds {seeds}`",
        wrapped(
            "Data: scikit-learn's digits (1,437 training images) with symmetric noise. The numbers are percent, mean ± "
            f"standard deviation over seeds. Finished: {len(scores)} of {seeds * len(RATES) * len(AUDITORS)} "
            "measurements."
        ),
    ]
    columns = ["average precision", "precision", "recall", "suggestion right", "estimated noise", "seconds"]
    for rate in sorted({score.rate for score in scores}):
        actual = _spread([score.actual for score in scores if score.rate == rate])
        rows = [f"## {rate:.0%} asked, {actual} wrong", ""]
        rows += [f"| | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]
        for auditor, title in AUDITORS.items():
            mine = [score for score in scores if (score.rate, score.auditor) == (rate, auditor)]
            if not mine:
                continue
            shares = ["average_precision", "precision", "recall", "suggested", "estimated"]
            cells = [_spread([getattr(score, name) for score in mine]) for name in shares]
            cells.append(f"{statistics.fmean(score.seconds for score in mine):.0f}")
            rows.append(f"| {title} | {' | '.join(cells)} |")
        parts.append("\n".join(rows))
    parts.append("\n".join(wrapped(f"- {remark}", "  ") for remark in REMARKS))
    return "\n\n".join(parts) + "\n"


def _spread(values: Sequence[float]) -> str:
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.1f}{spread}"
