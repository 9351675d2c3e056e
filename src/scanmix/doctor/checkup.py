"""The checkup: all checks of a data set before training, and a plan of the training."""

from __future__ import annotations

import statistics
import tempfile
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from scanmix.config import DataError, Table, UnexpectedData
from scanmix.data.examples import Examples
from scanmix.data.readers import load
from scanmix.data.readers.folder import LostClassError
from scanmix.data.readers.images import Header, read_headers
from scanmix.data.readers.vectors import read_labeled_rows
from scanmix.data.sources import is_known, kind_of
from scanmix.distributed.engine import find_device
from scanmix.doctor.advice import Advice, advise, as_recipe
from scanmix.doctor.busy import processor_share
from scanmix.doctor.checks import (
    Finding,
    check_blank,
    check_classes,
    check_columns,
    check_dull,
    check_duplicates,
    check_headers,
    check_names,
    check_rows,
    check_skipped,
    class_counts,
)
from scanmix.doctor.layout import check_layout, other_files
from scanmix.doctor.measure import Estimate, estimate, free_memory
from scanmix.doctor.pretrained import Features, Proposal, as_sample, cost_of, propose
from scanmix.features import AnyEncoder
from scanmix.progress import StageTick
from scanmix.training import RunSettings, resolve
from scanmix.training.finetune import suited_to

MEASURING = "measuring the encoder"


@dataclass(frozen=True)
class Plan:
    """Settings of a training, with estimates of the time and memory it takes on this machine.

    Attributes:
        settings: those that `scanmix train` would use.
        estimate: time and memory with them.
        advice: settings that suit the data better, each with its reason; empty if a recipe is chosen or shipped.
        advised: time and memory with those.
        features: cost of the features that are learned from; None where the pictures themselves are.
        processor: share of a processor (0..1) that a thread got when times were measured; little on a busy machine.
    """

    settings: RunSettings
    estimate: Estimate
    advice: tuple[Advice, ...] = ()
    advised: Estimate | None = None
    features: Features | None = None
    processor: float = 1.0


@dataclass(frozen=True, eq=False)
class Checkup:
    """Results of a checkup.

    Attributes:
        findings: all problems, the worst first.
        train: training data, or None if nothing can be read.
        test: test data, or None.
        headers: headers of the readable files; empty if the images do not come from files.
        plan: settings, time and memory; None if training is not possible.
        others: numbers of files in class folders that are not images, by suffix.
        proposal: pretrained features, where they are the better start; None elsewhere, and where they are asked for.
    """

    findings: tuple[Finding, ...]
    train: Examples | None = None
    test: Examples | None = None
    headers: tuple[Header, ...] = ()
    plan: Plan | None = None
    others: Mapping[str, int] = field(default_factory=dict)
    proposal: Proposal | None = None

    @property
    def can_train(self) -> bool:
        """Whether no finding prevents training."""
        return not any(finding.level == "fault" for finding in self.findings)


def check_up(
    source: str, settings: RunSettings, overrides: Mapping[str, Any], tick: StageTick,
    features: tuple[str, AnyEncoder] | None = None, **loading: Any,
) -> Checkup:  # fmt: skip
    """Load data as `scanmix train` does; check files, classes, features and duplicates; then time a few batches.

    Args:
        source: a known data set, a folder, a table or a `.npy` of vectors.
        settings: of the planned run.
        overrides: those of the settings that were set by hand; advice does not change them.
        tick: receives the progress of the search for duplicates and of the measurement.
        features: name of the encoder whose features are to be learned from, and it, open.
        loading: arguments of `scanmix.load`.

    Raises:
        UserError: there is no such data, or an argument does not fit it.
    """
    vectors, folder = kind_of(source) == "vector", Path(source).expanduser().absolute()
    is_folder = not is_known(source) and folder.is_dir()
    found = check_layout(folder) if is_folder else []
    lost: list[Finding] = []
    try:
        train, test, unreadable = _load_vectors(source, loading) if vectors else _load_images(source, loading)
    except LostClassError as error:  # reported with all other findings
        (train, test), unreadable = error.pair, []
        lost = [Finding("fault", str(error).removesuffix("."), (), "until then nothing can be trained")]
    except DataError as error:
        found.append(
            Finding("fault", str(error).removesuffix("."), (), "mend the data; until then nothing can be trained")
        )
        return Checkup(_sorted(found))
    if len(train) == 0:
        return Checkup(tuple(unreadable))
    headers, more = _check_files(train, test)
    base = folder if folder.is_dir() else Path(loading.get("root") or folder.parent).expanduser().absolute()
    found += unreadable + check_skipped(line.removeprefix(f"{base}/") for line in train.skipped)
    found += [*lost, *check_classes(train, test), *check_names(train.class_names), *more, *check_blank(train)]
    found += [finding for part in (train, test) if part is not None for finding in check_dull(part)]
    found += check_columns(train) if vectors else []
    found += [
        *check_duplicates(train, test, partial(tick, "looking for duplicates")),
        *_check_neighbors(train, settings),
    ]
    checkup = Checkup(_sorted(found), train, test, headers, others=other_files(folder) if is_folder else {})
    if not checkup.can_train:
        return checkup
    num_test, proposal = 0 if test is None else len(test), None
    if features is None and settings.finetuned is None:
        proposal = propose(train, num_test, settings.device, partial(tick, MEASURING))
    plan = make_plan(train, num_test, settings, overrides, tick, features)
    found += _check_memory(plan, free_memory(find_device(settings.device)))
    return replace(checkup, findings=_sorted(found), plan=plan, proposal=proposal)


def _load_images(source: str, loading: Mapping[str, Any]) -> tuple[Examples, Examples | None, list[Finding]]:
    """Return the data and findings about published data that is not as expected."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore", UserWarning)  # unreadable files become findings instead
        warnings.simplefilter("always", UnexpectedData)
        train, test = load(source, **loading)
    messages = [str(line.message) for line in caught if issubclass(line.category, UnexpectedData)]
    return train, test, [Finding("warning", line, (), "compare with where it was published") for line in messages]


def _load_vectors(source: str, loading: Mapping[str, Any]) -> tuple[Examples, Examples | None, list[Finding]]:
    """Return the data and findings about rows; if rows prevent training, the other rows are still checked."""
    rows = read_labeled_rows(Path(source).expanduser(), loading.get("labels"))
    faults = check_rows(rows)
    if faults:
        return rows.finite().to_examples(), None, faults
    return (*load(source, **loading), [])


def make_plan(
    train: Examples, num_test: int, settings: RunSettings, overrides: Mapping[str, Any], tick: StageTick,
    features: tuple[str, AnyEncoder] | None = None,
) -> Plan:  # fmt: skip
    """Return estimates for settings, and for advised ones if the recipe is not made for this data.

    Args:
        train: training data.
        num_test: number of test examples.
        settings: of the planned run.
        overrides: those of the settings that were set by hand.
        tick: receives the progress of the measurement.
        features: name of the encoder whose features are to be learned from, and it, open.

    Raises:
        UserError: the encoder fails on the pictures.
    """
    if features is not None:
        cost = cost_of(*features, train, num_test, partial(tick, MEASURING))
        found = estimate(settings, as_sample(train, cost), num_test, len(train))
        found = replace(found, stages={"features": (cost.seconds,) * 2} | found.stages)
        return Plan(settings, found, features=cost, processor=processor_share())
    settings = suited_to(settings, train)
    device = find_device(settings.device)
    is_made_for_it = settings.recipe is not None and not settings.recipe.startswith("folder/")
    is_made_for_it |= settings.finetuned is not None
    advice = () if is_made_for_it else advise(train, settings.method, device.type != "cpu")
    planned = [settings]
    if advice:
        planned.append(_advised(advice, settings, train.name, overrides))
    estimates: list[Estimate] = []
    for done, wanted in enumerate(planned):
        tick("measuring this machine", done, len(planned), "")
        estimates.append(estimate(wanted, train, num_test))
    tick("measuring this machine", len(planned), len(planned), "")
    advised = estimates[1] if advice else None
    return Plan(settings, estimates[0], advice, advised, processor=processor_share())


def _advised(advice: Sequence[Advice], settings: RunSettings, name: str, overrides: Mapping[str, Any]) -> RunSettings:
    """Return the settings of advice saved as a recipe, with defaults for everything else."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "advised.toml"
        path.write_text(as_recipe(advice, settings.method, "advised"), encoding="utf-8")
        return resolve(settings.method, name, str(path), overrides, seed=settings.seed, device=settings.device)


def as_json(checkup: Checkup) -> Table:
    """Return the checkup in types that JSON has; times are in seconds, memory in bytes."""
    table: Table = {"can_train": checkup.can_train, "findings": [asdict(finding) for finding in checkup.findings]}
    train, test, plan = checkup.train, checkup.test, checkup.plan
    if train is not None:
        table |= {
            "data": train.name,
            f"{train.kind}s": len(train),
            f"test_{train.kind}s": 0 if test is None else len(test),
            "classes": class_counts(train),
        }
        table |= (
            {"features": train.channels}
            if train.kind == "vector"
            else {"size": list(train.size), "channels": train.channels}
        )
    if checkup.headers:
        table["files"] = {
            "modes": Counter(header.mode for header in checkup.headers),
            "sides": side_lengths(checkup.headers),
        }
    if checkup.others:
        table["other_files"] = dict(checkup.others)
    if plan is not None:
        table |= {
            "method": plan.settings.method,
            "recipe": plan.settings.recipe,
            "estimate": asdict(plan.estimate),
            "processor_share": plan.processor,
            "advice": [asdict(line) for line in plan.advice],
            "advised_estimate": None if plan.advised is None else asdict(plan.advised),
        }
        costs = plan.features or (None if checkup.proposal is None else checkup.proposal.features)
        table["pretrained"] = {
            "proposed": checkup.proposal is not None,
            "finetuned": None if plan.settings.finetuned is None else plan.settings.finetuned.name,
            "features": None if costs is None else {
                key: getattr(costs, key) for key in ("model", "license", "seconds", "missing", "measured")
            },
        }  # fmt: skip
    return table


def side_lengths(headers: Sequence[Header]) -> dict[str, int]:
    """Return the smallest, median and largest shorter side of the files, in pixels."""
    shorter = [min(header.width, header.height) for header in headers]
    return {"least": min(shorter), "middle": int(statistics.median(shorter)), "greatest": max(shorter)}


def _check_files(train: Examples, test: Examples | None) -> tuple[tuple[Header, ...], list[Finding]]:
    """Return the headers of all files that became images, and findings about them."""
    parts = [part for part in (train, test) if part is not None and part.paths is not None]
    paths = [Path(path) for part in parts for path in part.paths or ()]
    labels = [part.class_names[label] for part in parts for label in part.labels.tolist()]
    ids = [name for part in parts for name in part.ids]
    read = zip(ids, read_headers(paths), labels, strict=True)
    readable = [(name, header, label) for name, header, label in read if not isinstance(header, str)]
    headers = tuple(header for _, header, _ in readable)
    found = check_headers(
        [name for name, _, _ in readable], headers, [label for _, _, label in readable], max(train.size)
    )
    return headers, found


def _check_neighbors(train: Examples, settings: RunSettings) -> list[Finding]:
    """Find out whether there are more than K examples, if the method searches K neighbors."""
    wanted, count, many = settings.settings.get("num_neighbors", 0), len(train), f"{train.kind}s"
    if count > wanted:
        return []
    what = f"{settings.method} looks for {wanted} neighbors of each {train.kind}, and there are {count} {many}"
    return [Finding("fault", what, (), f"add {many}, or --set num_neighbors={max(1, count // 4)}")]


def _check_memory(plan: Plan, free: int | None) -> list[Finding]:
    """Compare the estimate with the free memory in bytes, if that is known."""
    taken = plan.estimate.memory
    if free is None or taken <= free:
        return []
    what = f"training may need {taken / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free"
    fix = "smaller batches (--set pretrain.batch_size=128), a smaller --size, fewer widths"
    if plan.settings.kind == "vector":
        fix = "fewer features, or a narrower network (--set network.hidden=[128,128])"
    return [Finding("warning", what, (), fix)]


def _sorted(found: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return findings sorted by level, the worst first, and otherwise in the order they were found."""
    return tuple(sorted(found, key=lambda finding: ("fault", "warning", "note").index(finding.level)))
