"""The page as one read-only HTML file to share: the most doubtful rows with images and reasons inside.

Nothing can be decided on it, so it needs no server and no rule for what a choice means.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

from scanmix.files import write_text
from scanmix.review.rows import detail, table
from scanmix.review.server import PAGE, Review

MOST = 500
"""Most rows in the file."""
ALLOWED = "default-src 'none'; img-src data:; script-src 'unsafe-inline'; style-src 'unsafe-inline'"


def write_static(review: Review, path: Path) -> int:
    """Write one read-only HTML file that opens without a server; return its number of rows.

    It holds no paths of files, since they reveal folder names of this machine.

    Raises:
        CannotWrite: the file cannot be written.
    """
    text = (PAGE / "index.html").read_text(encoding="utf-8")
    policy = f'<meta http-equiv="Content-Security-Policy" content="{ALLOWED}">'
    count, content = _content(review)
    text = text.replace("</title>", f"</title>\n{policy}", 1)
    text = re.sub(r'<link rel="stylesheet" href="([\w.]+)">', lambda found: f"<style>\n{_page(found[1])}</style>", text)
    data = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")  # no text can end the element
    text = text.replace("<!-- data -->", f'<script type="application/json" id="data">{data}</script>')
    text = re.sub(
        r'<script defer src="([\w.]+)"></script>', lambda found: f"<script>\n{_page(found[1])}</script>", text
    )
    write_text(path, text)
    return count


def _page(name: str) -> str:
    """Return the text of a file of the page."""
    return (PAGE / name).read_text(encoding="utf-8")


def _content(review: Review) -> tuple[int, dict[str, Any]]:
    """Return how many rows there are, and the data of the page.

    Neighbors that are not among the rows are numbered after them, and only their image and label are kept.
    """
    audit, whole = review.audit, table(review.audit, review.queue)
    count = min(MOST, len(audit["id"]))
    details = [detail(audit, row) for row in range(count)]
    near = dict.fromkeys(row for known in details for row in known["neighbors"] if row >= count)
    shown = [*range(count), *near]
    number = {row: i for i, row in enumerate(shown)}
    for known in details:
        known["neighbors"] = [number[row] for row in known["neighbors"]]
    columns = ("id", "given", "suggested", "kind", "score", "confidence", "before")
    state = review.state(0)
    return count, {
        "table": {
            **whole,
            **{name: [whole[name][row] for row in shown] for name in columns},
            "title": review.title,
            "path": [""] * len(shown),
            "order": list(range(count)),
        },
        "rows": details,
        "state": {**state, "rows": [entry for entry in state["rows"] if entry[0] < count]},
        "pictures": [_data_url(review, row) for row in shown],
    }


def _data_url(review: Review, row: int) -> str:
    """Return the small image of a row as a `data:` URL."""
    image = review.thumbnails.get(row)
    return f"data:{image.media_type};base64,{base64.b64encode(image.content).decode()}"
