"""The machine and the versions that the numbers were measured with."""

from __future__ import annotations

import os
import platform
from datetime import date
from importlib import metadata
from pathlib import Path

import torch

from scanmix.training.versions import versions

LIBRARIES = ("scikit-learn", "pillow", "faiss-cpu")


def describe() -> dict[str, str]:
    """Return what a reader needs to know to judge a number."""
    found = versions()
    libraries = {name: str(found[name]) for name in ("python", "torch", "numpy")}
    libraries |= {name: _version(name) for name in LIBRARIES}
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "threads of PyTorch": str(torch.get_num_threads()),
        "memory": f"{_memory() / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
        "versions": ", ".join(f"{name} {version}" for name, version in libraries.items()),
        "commit": str(found.get("git", "unknown")),
        "date": date.today().isoformat(),
        "load before": _load(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f} programs wanted a core in the minute before (0 on an idle machine)"


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"
