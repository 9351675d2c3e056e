"""How an optional package is installed into this environment, for the hints of errors."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from scanmix.config.words import as_typed

CHECKOUT = Path(__file__).parents[3]
"""Where the source lies if scanmix runs from a checkout."""


def install(extra: str) -> str:
    """Return the line that installs an extra, from where scanmix itself came: a folder, a file, a repository, or PyPI.

    An installer leaves a note of the place, `direct_url.json` (PEP 610); there is none for an index such as PyPI.
    """
    from importlib import metadata  # takes long to import, and is needed for hints alone

    try:
        note = metadata.distribution("scanmix").read_text("direct_url.json")
        origin = json.loads(note or "{}")
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        origin = {"url": CHECKOUT.as_uri(), "dir_info": {"editable": True}}
    url = origin.get("url", "")
    if vcs := origin.get("vcs_info"):
        what = f"scanmix[{extra}] @ {vcs['vcs']}+{url}@{vcs['commit_id']}"
    elif url.startswith("file:"):
        what = f"{url2pathname(urlparse(url).path)}[{extra}]"
    else:
        what = f"scanmix[{extra}]"
    editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
    return f"pip install {editable}{as_typed([what])}"
