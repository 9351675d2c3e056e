"""The page as one file to hand around: the worst rows with pictures and reasons inside, and nothing to decide."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

from scanmix.pretrain.artifacts import write_aside
from scanmix.review.rows import detail, table
from scanmix.review.server import PAGE, Review

MOST = 500
"""Rows in the file."""
ALLOWED = "default-src 'none'; img-src data:; script-src 'unsafe-inline'; style-src 'unsafe-inline'"


def write_static(review: Review, path: Path) -> int:
    """Write one HTML file that opens from anywhere, read-only; return its number of rows.

    Paths stay out of it: they tell of the machine.

    Raises:
        OSError: it cannot be written.
    """
    text = (PAGE / "index.html").read_text(encoding="utf-8")
    policy = f'<meta http-equiv="Content-Security-Policy" content="{ALLOWED}">'
    count, content = _content(review)
    text = text.replace("</title>", f"</title>\n{policy}", 1)
    text = re.sub(r'<link rel="stylesheet" href="([\w.]+)">', lambda found: f"<style>\n{_page(found[1])}</style>", text)
    data = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")  # no text can end the script
    text = text.replace("<!-- data -->", f'<script type="application/json" id="data">{data}</script>')
    text = re.sub(
        r'<script defer src="([\w.]+)"></script>', lambda found: f"<script>\n{_page(found[1])}</script>", text
    )
    write_aside(path, lambda aside: aside.write_text(text, encoding="utf-8"))
    return count


def _page(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")


def _content(review: Review) -> tuple[int, dict[str, Any]]:
    audit, whole = review.audit, table(review.audit, review.queue)
    rows = list(range(min(MOST, len(audit["id"]))))
    details = [detail(audit, row) for row in rows]
    shown = sorted({*rows, *(near for known in details for near in known["neighbors"])})
    # Neighbors keep their row numbers, so columns are cut after the last row that is shown.
    columns = {name: whole[name][: shown[-1] + 1] for name in ("id", "given", "suggested", "kind", "score", "confidence")}
    return len(rows), {
        "table": {**whole, **columns, "title": review.title, "path": [""] * (shown[-1] + 1), "order": rows},
        "rows": details,
        "state": review.state(0),
        "pictures": {row: _data_url(review, row) for row in shown},
    }


def _data_url(review: Review, row: int) -> str:
    picture = review.thumbnails.get(row)
    return f"data:{picture.media_type};base64,{base64.b64encode(picture.content).decode()}"
