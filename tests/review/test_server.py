import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from scanmix.config import UserError
from scanmix.review import Review, make_app
from scanmix.review.decisions import CORRECTED, LOG
from scanmix.review.server import FILES, listen

TOKEN = "secret"
HOME = "http://127.0.0.1:8000"


@pytest.fixture
def review(make_review: Any) -> Review:
    return make_review()  # type: ignore[no-any-return]


@pytest.fixture
def client(review: Review) -> Iterator[TestClient]:
    with TestClient(make_app(review, TOKEN), base_url=HOME) as client:
        yield client


def ask(client: TestClient, wish: Any, path: str = "decisions", **headers: str) -> Any:
    return client.post(f"/{TOKEN}/api/{path}", json=wish, headers=headers)


def test_the_page_and_its_files_load_nothing_from_elsewhere(client: TestClient) -> None:
    for name in ("", *FILES):
        answer = client.get(f"/{TOKEN}/{name}")
        assert answer.status_code == 200
        assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "") and "https://" not in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "no-referrer"
    assert client.get(f"/{TOKEN}/server.py").status_code == 404
    assert client.get(f"/{TOKEN}/..%2fserver.py").status_code == 404


def test_a_decision_comes_back_with_the_state(client: TestClient, tmp_path: Path) -> None:
    answer = ask(client, {"rows": [0, 1], "choice": "accept", "label": None, "since": 0}).json()
    assert answer["revision"] == 1 and answer["rows"] == [[0, 2, 1], [1, 2, 2]]
    assert answer["progress"]["decided"] == 2
    assert (tmp_path / LOG).read_text().count("\n") == 2 and ",accept\n" in (tmp_path / CORRECTED).read_text()
    assert client.get(f"/{TOKEN}/api/state?since=1").json()["rows"] == []
    undone = ask(client, {"since": 1}, "undo").json()
    assert undone["done"] == 0 and undone["rows"] == [[0, 0, 0], [1, 0, 1]]
    assert ask(client, {"since": 2}, "undo").json()["done"] is None


def test_two_tabs_see_each_other(client: TestClient) -> None:
    ask(client, {"rows": [0], "choice": "keep", "since": 0})
    second = ask(client, {"rows": [1], "choice": "accept", "since": 0}).json()
    assert [row for row, *_ in second["rows"]] == [0, 1]


def test_table_row_and_state(client: TestClient, review: Review) -> None:
    table = client.get(f"/{TOKEN}/api/table").json()
    assert table["title"] == "made up" and len(table["order"]) == 12
    assert client.get(f"/{TOKEN}/api/rows/3").json()["reason"] == review.audit["reason"][3]
    assert client.get(f"/{TOKEN}/api/rows/12").status_code == 404
    assert client.get(f"/{TOKEN}/api/state?since=x").json()["revision"] == 0


def test_pictures(client: TestClient) -> None:
    answer = client.get(f"/{TOKEN}/pictures/small/0")
    assert answer.headers["content-type"] == "image/png" and "max-age" in answer.headers["cache-control"]
    assert client.get(f"/{TOKEN}/pictures/small/12").status_code == 404
    assert client.get(f"/{TOKEN}/pictures/huge/0").status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example:8000", ""])
def test_another_host_name_is_turned_away(client: TestClient, host: str) -> None:
    assert client.get(f"/{TOKEN}/", headers={"host": host}).status_code == 403


def test_a_forwarded_port_is_welcome(client: TestClient) -> None:
    assert client.get(f"/{TOKEN}/", headers={"host": "localhost:9999"}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/wrong/", "/api/table", "/secre/api/table", "/secret2/api/table"])
def test_without_the_token_there_is_nothing(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 403 and "token" in answer.text


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:9"},
     {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}],
)  # fmt: skip
def test_another_site_may_not_decide(client: TestClient, review: Review, headers: dict[str, str]) -> None:
    answer = ask(client, {"rows": [0], "choice": "keep", "since": 0}, **headers)
    assert answer.status_code == 403 and review.decisions.revision == 0


def test_a_form_may_not_decide(client: TestClient, review: Review) -> None:
    body = json.dumps({"rows": [0], "choice": "keep", "since": 0})
    answer = client.post(f"/{TOKEN}/api/decisions", content=body, headers={"content-type": "text/plain"})
    assert answer.status_code == 403 and review.decisions.revision == 0


def test_the_page_itself_may(client: TestClient) -> None:
    wish = {"rows": [0], "choice": "keep", "since": 0}
    assert ask(client, wish, origin=HOME, **{"sec-fetch-site": "same-origin"}).status_code == 200


@pytest.mark.parametrize(
    "wish",
    [{}, [], {"rows": "0", "choice": "keep", "since": 0}, {"rows": [99], "choice": "keep", "since": 0},
     {"rows": [0], "choice": "burn", "since": 0}, {"rows": [0], "choice": "keep", "since": 0, "more": 1}],
)  # fmt: skip
def test_nonsense_is_answered_with_a_sentence(client: TestClient, review: Review, wish: Any) -> None:
    answer = ask(client, wish)
    assert answer.status_code == 400 and answer.json()["error"] and review.decisions.revision == 0


def test_a_folder_that_cannot_be_written_is_told(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "review-log.jsonl")

    monkeypatch.setattr("scanmix.review.decisions._append", fail)
    answer = ask(client, {"rows": [0], "choice": "keep", "since": 0})
    assert answer.status_code == 507
    assert answer.json()["error"] == "review-log.jsonl cannot be written: No space left on device"


def test_it_listens_on_the_loopback_address_and_a_taken_port_is_told() -> None:
    first, token, url = listen(0)
    with first:
        assert first.getsockname()[0] == "127.0.0.1" and url.endswith(f"/{token}/") and len(token) >= 20
        with pytest.raises(UserError, match="cannot be used"):
            listen(first.getsockname()[1])
