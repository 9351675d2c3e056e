"""`make release VERSION=0.3.0`: check that a version may be published, build and check it, tag it; upload nothing.

It refuses a version that is not pyproject's, a CHANGELOG whose newest heading is not of this version and of today or
before, files that are not committed, and a tag that exists.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path

HEADING = re.compile(r"^## (\S+) \((\d{4}-\d{2}-\d{2})\)$", re.MULTILINE)
"""`## 0.2.0 (2026-11-30)`."""


def main() -> None:
    """Check, build, tag and say how to upload what is named on the command line; end with code 1 if it may not be."""
    if len(sys.argv) != 2:
        sys.exit("release: name the version: make release VERSION=0.3.0")
    version, root = sys.argv[1], Path.cwd()
    if why := refusal(root, version, date.today()):
        sys.exit(f"release: {why}")
    if subprocess.run([sys.executable, "-m", "release.dist"], cwd=root).returncode:
        sys.exit("release: nothing was tagged, as the files to upload are not right")
    git(root, "tag", "--annotate", f"v{version}", "--message", f"ScanMix {version}")
    print(f"Tagged v{version}. To publish it:\n  git push origin v{version}\n  {upload(version)}")


def refusal(root: Path, version: str, today: date) -> str | None:
    """Return why a version may not be published from a checkout, with the fix; None if it may be."""
    known = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    if version != known:
        return f"pyproject.toml has version {known}, not {version}; write it there, or release {known}"
    heading = HEADING.search((root / "CHANGELOG.md").read_text(encoding="utf-8"))
    if heading is None or heading[1] != version:
        found = "none" if heading is None else repr(heading[0])
        return f"the newest heading of CHANGELOG.md must be '## {version} ({today})'; it has {found}"
    if heading[2] > today.isoformat():
        return f"CHANGELOG.md dates {version} {heading[2]}, and today is {today}; write the date of the release"
    if changed := git(root, "status", "--porcelain"):
        return f"not all is committed; commit or remove first:\n{changed}"
    if git(root, "tag", "--list", f"v{version}"):
        return f"v{version} is tagged already; raise the version in pyproject.toml and CHANGELOG.md"
    return None


def upload(version: str) -> str:
    """Return the command that uploads what `make dist` built."""
    return f"python -m twine upload dist/scanmix-{version}-py3-none-any.whl dist/scanmix-{version}.tar.gz"


def git(root: Path, *words: str) -> str:
    """Return what git prints about a checkout; end with code 1 if it fails."""
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"release: git {words[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


if __name__ == "__main__":
    main()
