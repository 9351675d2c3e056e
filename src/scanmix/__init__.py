"""ScanMix: image classifiers from noisy labels.

train_set, test_set = scanmix.load("digits")
noisy = scanmix.add_noise(train_set, "symmetric", rate=0.8, seed=0)
run = scanmix.train(noisy, test=test_set, method="scanmix", seed=0, out="runs/first")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scanmix.audit.untrained import audit_data
    from scanmix.data.examples import Examples
    from scanmix.data.noise import add_noise
    from scanmix.data.readers import load
    from scanmix.integrations.estimator import ScanMixClassifier
    from scanmix.methods import METHODS
    from scanmix.training import open_run
    from scanmix.training.loop import resume, train

    __version__: str

__all__ = [
    "load", "add_noise", "train", "resume", "open_run", "audit_data", "METHODS", "Examples", "ScanMixClassifier",
    "__version__",
]  # fmt: skip

# Where each name lives. Looked up when first asked for: `import scanmix` must not take PyTorch's seconds.
_HOMES = {
    "load": "scanmix.data.readers",
    "add_noise": "scanmix.data.noise",
    "train": "scanmix.training.loop",
    "resume": "scanmix.training.loop",
    "open_run": "scanmix.training",
    "audit_data": "scanmix.audit.untrained",
    "METHODS": "scanmix.methods",
    "Examples": "scanmix.data.examples",
    "ScanMixClassifier": "scanmix.integrations.estimator",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        raise AttributeError(f"module 'scanmix' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, imported or not yet."""
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib import metadata  # a quarter of what `import scanmix` would take

    try:
        return metadata.version("scanmix")
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "0+unknown"
