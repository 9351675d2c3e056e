"""How much a command says: `-q` of every command says nothing but errors, `-v` says more."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Annotated, Any

import typer

from scanmix.cli.shell import say
from scanmix.config import UserError

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors alone.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Also print versions, cache, seconds, and where an error arose.")
]
NAMED = ("torch", "numpy", "scikit-learn", "timm", "onnxruntime", "transformers")
"""Packages whose versions `-v` prints, as far as they are installed."""


def spoken(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command that also takes `--quiet` and `--verbose`."""

    @functools.wraps(command)
    def run(*args: Any, quiet: bool = False, verbose: bool = False, **options: Any) -> Any:
        if quiet and verbose:
            raise UserError("--quiet says less and --verbose more: leave one of them out")
        with _silence() if quiet else _details() if verbose else contextlib.nullcontext():
            return command(*args, **options)

    signature = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in (("quiet", Quiet), ("verbose", Verbose))
    ]
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])  # type: ignore[attr-defined]
    run.__annotations__ |= {"quiet": Quiet, "verbose": Verbose}
    return run


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Print nothing inside the block, and show no bars; an error is printed behind it."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


@contextlib.contextmanager
def _details() -> Iterator[None]:
    """Print, on stderr, versions and cache before the block, where an error arose, and what it took."""
    from scanmix import __version__

    found = {"Python": platform.python_version()}
    for name in NAMED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    packages = ", ".join(f"{name} {version}" for name, version in found.items())
    say(f"scanmix {__version__}; {packages}; {platform.platform()}, {os.cpu_count()} processors", err=True)
    say(f"Cache: {os.environ.get('SCANMIX_CACHE') or 'that of the user'} (SCANMIX_CACHE)", err=True)
    clock, processor = time.perf_counter(), time.process_time()
    try:
        yield
    except UserError:
        traceback.print_exc(file=sys.stderr)
        raise
    finally:
        took, worked = time.perf_counter() - clock, time.process_time() - processor
        say(f"{took:.1f} seconds by the clock, {worked:.1f} of a processor in this process", err=True)
