"""`scanmix noise`: draw label noise and save it, so that it can be used again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scanmix.cli.inputs import check_inputs
from scanmix.cli.options import Data, PerClass, Root, Seed
from scanmix.cli.shell import Written, begins_with, check_writable, print_table, say
from scanmix.config import UserError, percent, unknown_name

NOISE = Written("a noise file of scanmix", begins_with('"kind"', '"asked_rate"', '"actual_rate"'))


def noise(
    data: Data,
    kind: Annotated[
        str,
        typer.Option(
            help="symmetric, symmetric-exclusive (never the same class), asymmetric, instance, or semantic:NETWORK, "
            "where NETWORK is vgg, densenet, resnet, densenet100 or resnet34."
        ),
    ] = "symmetric",
    rate: Annotated[float, typer.Option(help="Share of labels the noise selects, 0 to 1.")] = 0.8,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="File to write (JSON).")] = Path("noise.json"),
    per_class: PerClass = None,
    root: Root = None,
) -> None:
    """Draw label noise and save it for `--noise file:PATH`.

    Prints the rate asked for and the rate that came out: a symmetric draw gives some labels back.
    """
    check_inputs(data)
    from scanmix.data.noise import DRAWN, SEMANTIC_NETWORKS, save_noise
    from scanmix.data.readers import load
    from scanmix.progress import progress
    from scanmix.semantic_noise import apply_noise

    kinds = (*DRAWN, *(f"semantic:{network}" for network in SEMANTIC_NETWORKS))
    if kind not in kinds:
        raise unknown_name("noise", kind, kinds)
    if not 0 <= rate <= 1:
        raise UserError(f"--rate {rate:g} is not a share; give a number from 0 to 1, such as 0.8")
    check_writable(out, NOISE, inputs=[data])
    train, _ = load(data, root=root, per_class=per_class, seed=seed)
    with progress("noise", None) as bar:
        noisy = apply_noise(train, f"{kind}:{rate}", seed, bar)
    save_noise(noisy, out)
    report = noisy.noise
    assert report is not None  # save_noise has refused examples without one
    counts = train.labels.bincount(minlength=train.num_classes).tolist()
    shares = [1 - row[label] if counts[label] else 0.0 for label, row in enumerate(report.transition)]
    rows = [
        [name, str(count), percent(share)] for name, count, share in zip(noisy.class_names, counts, shares, strict=True)
    ]
    print_table(f"{kind} noise on {noisy.name}, seed {seed}", ["class", "images", "wrong labels"], rows)
    say(f"Noise: asked {percent(rate)}, actual {percent(report.actual_rate)} of {len(noisy)} labels.")
    again = f" --per-class {per_class} --seed {seed}" if per_class else ""
    say(f"Wrote {out}. Next: scanmix train {data} --noise file:{out}{again}")
