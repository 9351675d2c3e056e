"""The command line: `scanmix demo`, `scanmix train photos/` and the rest. PyTorch waits until it is needed."""

from __future__ import annotations

from typing import Annotated

import typer

from scanmix.cli.audit import audit
from scanmix.cli.clean import clean
from scanmix.cli.demo import demo
from scanmix.cli.doctor import doctor
from scanmix.cli.embed import embed
from scanmix.cli.evaluate import evaluate
from scanmix.cli.export import export
from scanmix.cli.methods import methods
from scanmix.cli.noise import noise
from scanmix.cli.predict import predict
from scanmix.cli.report import report
from scanmix.cli.reproduce import reproduce
from scanmix.cli.review import review
from scanmix.cli.shell import Commands, say
from scanmix.cli.train import resume, train
from scanmix.cli.verbosity import spoken

__all__ = ["app"]

app = typer.Typer(
    name="scanmix",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,  # errors stay one sentence on one line, whatever the width
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        import scanmix

        say(f"scanmix {scanmix.__version__}")
        raise typer.Exit()


@app.callback()
def scanmix_command(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Image classifiers from labels that cannot be trusted. Start with `scanmix demo`."""


for command in (
    demo, clean, doctor, train, resume, evaluate, predict, audit, report, review, export, embed, methods, noise,
    reproduce,
):  # fmt: skip
    app.command()(spoken(command))
