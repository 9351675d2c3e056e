"""The versions of the software that made a run, as `run.toml` has them."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from scanmix.config import Table


def versions() -> Table:
    """Return versions by name, and the commit if scanmix is imported from a checkout."""
    found = {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}
    try:
        found["scanmix"] = metadata.version("scanmix")
    except metadata.PackageNotFoundError:
        found["scanmix"] = "not installed"
    commit = _git_commit(Path(__file__))
    return found | ({"git": commit} if commit else {})


def _git_commit(file: Path) -> str | None:
    """Commit of the checkout that `file` is tracked in, "-dirty" if anything there was changed; else None."""
    git = ["git", "-C", str(file.parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", file.name], capture_output=True, check=True)
        name = [*git, "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40"]
        return subprocess.run(name, capture_output=True, check=True, text=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None
