"""The hint of a missing package fits how scanmix was installed."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from scanmix.config import install


@pytest.mark.parametrize(
    ("origin", "line"),
    [
        (None, "pip install 'scanmix[onnx]'"),
        ({"url": "file:///src/scan%20mix", "dir_info": {}}, "pip install '/src/scan mix[onnx]'"),
        ({"url": "file:///src/scanmix", "dir_info": {"editable": True}}, "pip install -e '/src/scanmix[onnx]'"),
        (
            {"url": "file:///tmp/scanmix-0.2.0-py3-none-any.whl", "archive_info": {"hash": "sha256=1"}},
            "pip install '/tmp/scanmix-0.2.0-py3-none-any.whl[onnx]'",
        ),
        (
            {"url": "https://host/scanmix.git", "vcs_info": {"vcs": "git", "commit_id": "4f1"}},
            "pip install 'scanmix[onnx] @ git+https://host/scanmix.git@4f1'",
        ),
    ],
)  # fmt: skip
def test_an_extra_comes_from_where_scanmix_came(origin: Any, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Installed:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return None if origin is None else json.dumps(origin)

    monkeypatch.setattr(metadata, "distribution", lambda name: Installed())
    assert install("onnx") == line


def test_a_checkout_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    assert install("timm") == f"pip install -e '{Path(__file__).parents[2]}[timm]'"


def test_a_start_does_not_wait_for_the_hint() -> None:
    code = "import sys, scanmix.config; sys.exit('importlib.metadata' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
