"""The page of a report: takes findings and writes one HTML file that needs no other file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from scanmix.audit.columns import issue_in_words
from scanmix.audit.decided import sentences
from scanmix.config import last_ten, mean_of_ten, percent
from scanmix.data.names import from_here, visible
from scanmix.files import write_text
from scanmix.progress import progress
from scanmix.report import curves, labels, sheet
from scanmix.report.command import changed_settings, difference, train_command
from scanmix.report.findings import STEPS, RunFindings, collect_findings, names_of


def write_report(
    folder: str | Path, out: str | Path | None = None, compare: str | Path | None = None, epochs: Sequence[int] = ()
) -> Path:
    """Write a report on a run as one HTML file that opens offline, and return its path.

    Args:
        folder: of the run, finished or not.
        out: the file to write; `report.html` in the run folder when not given.
        compare: folder of a second run, drawn into the same figures.
        epochs: epochs after which losses are shown; four from the first to the last when not given.

    Raises:
        UserError: a folder is no run, a file in it is damaged, or there is no snapshot of an epoch in `epochs`.
    """
    folders = [folder, *([] if compare is None else [compare])]
    with progress("report", len(folders) * STEPS) as bar:
        page = render([collect_findings(each, bar) for each in folders], epochs)
    path = Path(folder) / "report.html" if out is None else Path(out)
    write_text(path, page)
    return path


def render(found: Sequence[RunFindings], epochs: Sequence[int] = ()) -> str:
    """Return the page about the first of one or two runs; the second is compared with it."""
    environment = Environment(
        loader=PackageLoader("scanmix.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=_harmless,
    )  # fmt: skip
    environment.filters |= {
        "percent": partial(percent, missing="–"), "mean_of_ten": partial(mean_of_ten, missing="–"),
        "last_ten": last_ten, "from_here": from_here, "issue": issue_in_words, "shown": _shown, "sentence": _sentence,
    }  # fmt: skip
    return environment.get_template("report.html").render(_context(found, epochs))


def _context(found: Sequence[RunFindings], epochs: Sequence[int]) -> Mapping[str, Any]:
    """Return the values that the template shows."""
    main, runs = found[0], dict(zip(names_of(found), found, strict=True))
    cards = sheet.contact_sheet(main)
    return {
        "main": main,
        "run": main.run,
        "thing": main.run.settings.given,
        "audit": main.audit,
        "summary": None if main.audit is None else main.audit.summary(),
        "by_decisions": [] if main.audit is None else sentences(main.audit.summary()),
        "decided": 0 if main.audit is None else int(main.audit.decided.sum()),
        "self_supervised": any(line.get("accuracy_after_matching") for each in found for line in each.run.metrics),
        "runs": runs,
        "written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        "changes": changed_settings(main.run.settings),
        "command": train_command(main.run),
        "toml": main.toml.replace(f'"{Path.cwd()}{os.sep}', '"'),  # paths as `from_here` shows them
        "difference": difference(main.run, found[1].run) if len(found) > 1 else None,
        "epochs_in_all": main.run.settings.build_method().epochs,
        "seconds": {name: sum(bar.value for bar in curves.seconds_of(each.run)) for name, each in runs.items()},
        "accuracy": curves.accuracy_chart(runs),
        "losses": curves.loss_rows(runs),
        "bounds": curves.bound_rows(runs),
        "broken": [text for name, each in runs.items() if (text := curves.broken_assumptions(name, each.run))],
        "p_clean": curves.p_clean_charts(runs),
        "histograms": curves.loss_histograms(runs, epochs),
        "seconds_rows": curves.seconds_rows(runs),
        "noise": labels.noise_chart(runs),
        "maps": labels.transition_maps(runs),
        "left_out": 0 if main.audit is None else labels.left_out(main.audit),
        "most_classes": labels.MOST_CLASSES,
        "classes": labels.class_rows(main),
        "pairs": labels.confused_pairs(main),
        "expected": labels.expected_chart(main),
        "cards": cards,
        "tiny": all(card.tiny for card in cards),
    }


def _harmless(value: Any) -> Any:
    """Return a value with the control characters of its text made visible."""
    is_name = isinstance(value, str | Path) and not isinstance(value, Markup)
    return visible(str(value)) if is_name else value


def _shown(value: object) -> str:
    """Return a setting as text; a dash if it is not set."""
    if value is None:
        return "–"
    if isinstance(value, list):
        return ", ".join(_shown(each) for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _sentence(words: str) -> str:
    """Return words with a capital letter and a period."""
    return f"{words[:1].upper()}{words[1:]}."
