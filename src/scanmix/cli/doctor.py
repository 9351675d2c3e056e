"""`scanmix doctor`: check data before anything is trained on it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scanmix.cli.inputs import check_inputs, size_for
from scanmix.cli.options import Data, Device, Features, Finetune, Json, LimitTest, PerClass, Root, Seed, Size
from scanmix.cli.pretrained import planned
from scanmix.cli.shell import check_writable, print_table, say, settings_from, shape_of, stage_bars
from scanmix.config import as_typed, percent
from scanmix.doctor.busy import BUSY

if TYPE_CHECKING:
    from scanmix.doctor.checkup import Checkup, Plan
    from scanmix.doctor.measure import Estimate
    from scanmix.doctor.pretrained import Features as Cost
    from scanmix.doctor.pretrained import Proposal
    from scanmix.features import AnyEncoder
    from scanmix.training import RunSettings

LONG = 3600
"""Seconds of a run from which on it is said how it gets shorter."""
MOST_CLASSES = 20
"""Classes that are listed at most; if there are more, the smallest."""
MOST_PLACES = 4
"""Files or classes that are listed for one finding at most; --json has all."""


def doctor(
    data: Data,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Labels of a .npy, as for train; by default the .csv beside it.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="As for train.")] = None,
    recipe: Annotated[str | None, typer.Option(help="As for train.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="As for train.")] = None,
    json_: Json = None,
    save_recipe: Annotated[Path | None, typer.Option(help="File to write the suggested recipe to: mine.toml.")] = None,
    features: Features = None,
    finetune: Finetune = None,
    seed: Seed = 0,
    device: Device = "auto",
    per_class: PerClass = None,
    limit_test: LimitTest = None,
    size: Size = None,
    root: Root = None,
) -> None:
    """Look at data before training on it.

    Counts classes, finds what is unreadable, odd or a duplicate, estimates time and memory, suggests settings. Exit
    code 0: training can start, warnings or not; 1: it cannot.
    """
    for path in (json_, save_recipe):
        if path is not None:
            check_writable(path)
    overrides = settings_from(set_ or ())
    check_inputs(data, recipe=recipe, files=[labels])
    from scanmix.distributed.engine import find_device
    from scanmix.doctor.checkup import as_json

    find_device(device)  # raises if it is mistyped, before a million images are read
    encoder, settings, side = planned(data, features, finetune, method, recipe, overrides, seed=seed, device=device)
    checkup = checked(
        data, settings, overrides, None if features is None or encoder is None else (features, encoder),
        root=root, size=size_for(data, root, side) if size is None else size, per_class=per_class, seed=seed,
        limit_test=limit_test, labels=labels,
    )  # fmt: skip
    if json_ is not None:
        _write(json_, json.dumps(as_json(checkup), indent=2, ensure_ascii=False) + "\n")
    plan = plan_of(checkup)
    for_all: dict[str, object] = {
        "labels": labels, "per-class": per_class, "limit-test": limit_test, "root": root, "seed": seed or None,
        "device": None if device == "auto" else device,
    }  # fmt: skip
    asked: dict[str, object] = {
        "method": method, "recipe": recipe, "size": size, "features": features, "finetune": finetune
    }  # fmt: skip
    kept = save_recipe or Path("mine.toml")
    train = _line("train", data, asked | ({"recipe": kept} if plan.advice else {}) | for_all, set_)
    keep = _line("doctor", data, asked | {"save-recipe": kept} | for_all, set_)
    line = f"{keep} && {train}" if plan.advice and save_recipe is None else train
    _show_plan(data, checkup, save_recipe, line, _words("train", data, for_all))


def checked(
    data: str, settings: RunSettings, overrides: Mapping[str, Any], features: tuple[str, AnyEncoder] | None = None,
    **loading: Any,
) -> Checkup:  # fmt: skip
    """Check data with bars, and print what it is and what is odd; arguments as of `check_up`."""
    from scanmix.doctor.checkup import check_up

    with stage_bars() as tick:
        checkup = check_up(data, settings, overrides, tick, features, **loading)
    _show_data(checkup)
    _show_findings(checkup)
    return checkup


def plan_of(checkup: Checkup) -> Plan:
    """Return the plan of a checkup; without one end the program with code 1, as training cannot start."""
    if checkup.plan is None:
        say("Training cannot start before the faults are gone.")
        raise typer.Exit(1)
    return checkup.plan


def _words(command: str, data: str, given: Mapping[str, object], sets: Sequence[str] | None = None) -> list[str]:
    """Return the words of a line to type, with the options that have a value."""
    options = [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
    return ["scanmix", command, data, *options, *(word for text in sets or () for word in ("--set", text))]


def _line(command: str, data: str, given: Mapping[str, object], sets: Sequence[str] | None = None) -> str:
    """Return the line of `_words`."""
    return as_typed(_words(command, data, given, sets))


def _show_plan(data: str, checkup: Checkup, save_recipe: Path | None, line: str, shortest: Sequence[str]) -> None:
    """Show pretrained features first, where they are proposed, then the run that was asked for; end with what to type.

    Args:
        data: DATA.
        checkup: one that has a plan.
        save_recipe: file to write a suggested recipe to.
        line: trains as asked for.
        shortest: words that train on features once `--features` is added.
    """
    assert checkup.plan is not None  # training is possible
    proposed = None if checkup.proposal is None else show_proposal(checkup.proposal, shortest)
    if checkup.plan.features is not None:
        _show_features(checkup.plan.features)
    show_estimates(checkup.plan)
    _show_advice(data, checkup.plan, save_recipe)
    if proposed is None:
        say(f"Training can start: {line}")
        return
    say(f"From scratch: {line}")
    say(f"Training can start, on features first: {proposed}")


def show_proposal(proposal: Proposal, shortest: Sequence[str]) -> str | None:
    """Say why features come first and what they cost; return the line to type, None where no encoder is here."""
    from scanmix.doctor.advice import PUBLISHED_FROM
    from scanmix.doctor.pretrained import ways_to_get_one

    say(
        f"Features first: fewer than {PUBLISHED_FROM:,} photos are few for a network that learns from nothing. One "
        "that has seen millions tells them apart better, and training on its features takes seconds."
    )
    if not proposal.pretrained:
        say("No pretrained encoder is on this machine. How to get one:")
        for sentence, line in ways_to_get_one(shortest):
            say(f"- {sentence}:\n    {line}")
    if proposal.features is None:
        return None
    model = proposal.features.model
    if not proposal.pretrained:
        say(f"Until then: {model} has no weights. On so few photos it is ahead of a network from scratch, and quicker.")
    _show_features(proposal.features)
    if model.startswith("timm:"):
        tuned = as_typed(["scanmix", "doctor", shortest[2], "--finetune", model])
        say(f"To train that network on takes longer: {tuned} says how long.")
    return as_typed([*shortest, "--features", model])


def _show_features(features: Cost) -> None:
    known = f", license {features.license}" if features.license else ""
    if features.missing == 0:
        say(f"Features of {features.model}{known}: all are in the cache, and cost nothing.")
        return
    say(
        f"Features of {features.model}{known}: {_span(features.seconds, features.seconds)} for {features.missing} "
        f"pictures, measured on {features.measured}. They are kept: the next command finds them."
    )


def _show_data(checkup: Checkup) -> None:
    """Print a summary in a line or two, then the number of examples of each class; nothing if none can be read."""
    from scanmix.doctor.checks import class_counts
    from scanmix.doctor.checkup import side_lengths

    train = checkup.train
    if train is None:
        return
    many = f"{train.kind}s"
    tested = f"no test {many}" if checkup.test is None else f"{len(checkup.test)} test {many}"
    say(f"{train.name}: {len(train)} {many} of {train.num_classes} classes ({shape_of(train)}), {tested}.")
    if checkup.headers:
        modes = Counter(header.mode for header in checkup.headers).most_common()
        shorter = side_lengths(checkup.headers)
        say(
            f"Files: {', '.join(f'{count} {mode}' for mode, count in modes)}; shorter side {shorter['least']} to "
            f"{shorter['greatest']} pixels, {shorter['middle']} in the middle."
        )
    if checkup.others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in checkup.others.items())
        typer.echo(f"Other files in the class folders, not read: {kinds}.")
    counts, tests = class_counts(train), {} if checkup.test is None else class_counts(checkup.test)
    names, title = list(counts), "Classes"
    if len(names) > MOST_CLASSES:
        names = sorted(names, key=counts.__getitem__)[:MOST_CLASSES]
        title = f"The {MOST_CLASSES} smallest of {len(counts)} classes"
    columns = ["class", many, "share", *([f"test {many}"] if tests else [])]
    rows = [
        [name, str(counts[name]), percent(counts[name] / len(train)), *([str(tests.get(name, 0))] if tests else [])]
        for name in names
    ]
    print_table(title, columns, rows)


def _show_findings(checkup: Checkup) -> None:
    """Print what is odd about the data, where, and what to do."""
    if not checkup.findings:
        say("Nothing odd was found.")
        return
    rows = []
    for finding in checkup.findings:
        more = len(finding.where) - MOST_PLACES
        places = [*finding.where[:MOST_PLACES], *([f"... and {more} more"] if more > 0 else [])]
        rows.append([finding.level, finding.what, "\n".join(places), finding.fix])
    print_table("Findings", ["", "what", "where", "what to do"], rows, text_columns=4)


def show_estimates(plan: Plan) -> None:
    """Print how long training takes here, and how it gets shorter."""
    name = plan.settings.recipe or ("published" if plan.advised else "as asked")
    rows = [_estimate_row(name, plan.estimate)]
    if plan.advised is not None:
        rows.append(_estimate_row("suggested", plan.advised))
    columns = [f"{plan.settings.method} with settings", *plan.estimate.stages, "in all", "memory"]
    print_table("Time on this machine, measured on a few batches", columns, rows)
    if any(low != high for low, high in plan.estimate.stages.values()):
        say("The time of an epoch depends on how many labels look right: here one in five to nine in ten.")
    if plan.processor < BUSY:
        say(
            f"Other programs are at work: a thread gets {percent(plan.processor)} of a processor now. With the machine "
            "to itself, training takes about that share of these times."
        )
    if plan.settings.given == "image" and plan.estimate.seconds[1] > LONG:
        say(
            "Shorter: half of --size takes about a quarter of the time; --method ssr needs no pre-training; "
            "--per-class N tries it on fewer images first."
        )


def _estimate_row(name: str, estimate: Estimate) -> list[str]:
    times = [_span(low, high) for low, high in (*estimate.stages.values(), estimate.seconds)]
    return [name, *times, f"{estimate.memory / 1e9:.1f} GB"]


def _show_advice(data: str, plan: Plan, save_recipe: Path | None) -> None:
    """Name the recipe for this data, or print a suggested one with its reasons."""
    from scanmix.doctor.advice import as_recipe

    if not plan.advice:
        recipe = (
            f"Recipe: {plan.settings.recipe}." if plan.settings.recipe else "The published settings suit this data."
        )
        say(f"{recipe} --save-recipe wrote nothing." if save_recipe else recipe)
        return
    text = as_recipe(plan.advice, plan.settings.method, f"Suggested by scanmix doctor for {data}: a start.")
    if save_recipe is not None:
        _write(save_recipe, text)
        say(f"Wrote {save_recipe}: no recipe is shipped for these images alone, so the suggested one.")
        return
    say("No recipe is shipped for these images alone. This suits number and size (--save-recipe keeps it):")
    say(f"\n{text}")


def _span(low: float, high: float) -> str:
    """Format a range of seconds in a fitting unit: "3 to 7 min"."""
    units = (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48))
    unit, size = next(((unit, size) for unit, size, most in units if high < most * size), ("days", 86_400))
    first, second = (f"{value / size:.{0 if high >= 10 * size else 1}f}" for value in (low, high))
    return f"{second} {unit}" if first == second else f"{first} to {second} {unit}"


def _write(path: Path, text: str) -> None:
    from scanmix.files import write_text

    write_text(path, text)
