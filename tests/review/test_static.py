import json
import re
from pathlib import Path
from typing import Any

import pytest

from scanmix.review import static, write_static


def embedded(path: Path) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(encoding="utf-8"))
    assert found
    return json.loads(found[1])


def test_one_file_holds_all_and_no_path(make_review: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "MOST", 5)
    review = make_review(30, paths=[f"/home/me/{i}.png" for i in range(30)])
    review.audit["reason"][0] = "</script><script>alert(1)</script>"
    review.decisions.decide([1, 20], "accept")
    page = tmp_path / "share.html"
    assert write_static(review, page) == 5
    text = page.read_text(encoding="utf-8")
    assert "/home/me" not in text and "alert(1)</script>" not in text
    assert "src=" not in re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL) and 'href="review' not in text
    content = embedded(page)
    shown = content["table"]["id"]
    assert content["table"]["order"] == [0, 1, 2, 3, 4] and shown[:5] == review.audit["id"][:5].tolist()
    assert len(content["pictures"]) == len(shown) == len(content["table"]["given"])
    for row, known in enumerate(content["rows"]):
        assert [shown[near] for near in known["neighbors"]] == [f"made/{row + i:05d}" for i in range(1, 7)]
    assert content["state"]["rows"] == [[1, 2, 2]]
    assert content["rows"][0]["reason"] == review.audit["reason"][0]
