import asyncio
import json
import xml.etree.ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from scanmix.config import UserError
from scanmix.files import CannotWrite
from scanmix.review import Review, make_app
from scanmix.review.connections import HEADERS
from scanmix.review.decisions import CORRECTED, LOG
from scanmix.review.server import ANY_HOST, FILES, LARGEST_BODY, listen

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
        raise CannotWrite("review-log.jsonl cannot be written: No space left on device")

    monkeypatch.setattr("scanmix.review.decisions.append_text", fail)
    answer = ask(client, {"rows": [0], "choice": "keep", "since": 0})
    assert answer.status_code == 507
    assert answer.json()["error"] == "review-log.jsonl cannot be written: No space left on device"


def test_it_listens_on_the_loopback_address_and_a_taken_port_is_told() -> None:
    first, token, url = listen(0)
    with first:
        assert first.getsockname()[0] == "127.0.0.1" and url.endswith(f"/{token}/") and len(token) >= 20
        with pytest.raises(UserError, match="cannot be used"):
            listen(first.getsockname()[1])


def test_it_listens_where_it_is_told_and_an_address_of_others_is_refused() -> None:
    everywhere, token, url = listen(0, "0.0.0.0")
    with everywhere:
        assert everywhere.getsockname()[0] == "0.0.0.0"
        assert url == f"http://127.0.0.1:{everywhere.getsockname()[1]}/{token}/"
    for host in ("192.0.2.1", "no such host", "x" * 70):  # the first is for examples: no machine has it
        with pytest.raises(UserError, match=rf"of {host} cannot be used: .*--host is an IPv4 address"):
            listen(0, host)


def test_other_machines_need_the_token_and_their_other_pages_cannot_decide(review: Review) -> None:
    with TestClient(make_app(review, TOKEN, ANY_HOST), base_url="http://box.lan:8123") as client:
        assert client.get(f"/{TOKEN}/").status_code == 200
        assert client.get("/guess/").status_code == 403 and client.get("/").status_code == 403
        wish = {"rows": [0], "choice": "keep", "since": 0}
        assert ask(client, wish, origin="http://evil").status_code == 403 and review.decisions.revision == 0
        assert ask(client, wish, origin="http://box.lan:8123").status_code == 200
        for host in ("box.lan", "box.lan:99999", "box lan:80", "127.0.0.1:x@evil", "[::1", "b/x:1", ":80"):
            assert client.get(f"/{TOKEN}/", headers={"host": host}).text == "no such host"


NONSENSE = ["9" * 5000, "9" * 30, "-1", "+1", "%D9%A3", "1.0", "1e3", "0x1", "", " 1", "%00", "12"]


@pytest.mark.parametrize("number", NONSENSE)
def test_no_number_in_an_address_is_too_odd(client: TestClient, number: str) -> None:
    for path in (f"api/rows/{number}", f"pictures/small/{number}"):
        answer = client.get(f"/{TOKEN}/{path}")
        assert answer.status_code == 404 and answer.headers["x-content-type-options"] == "nosniff", path
    state = client.get(f"/{TOKEN}/api/state?since={number}")
    assert state.status_code == 200 and state.json()["revision"] == 0
    assert client.get(f"/{TOKEN}/api/rows/0003").status_code == 200


@pytest.mark.parametrize(
    "body",
    [b"[" * 20000, b'{"a":' * 20000, b"\xff", b"", b"null", b'{"rows":[0],"choice":"keep","since":1e999}',
     b'{"rows":[0],"choice":"keep","since":-1}', b'{"rows":[-1],"choice":"keep","since":0}',
     b'{"rows":[' + b"9" * 5000 + b'],"choice":"keep","since":0}',
     b'{"rows":[99999999999999999999],"choice":"keep","since":0}',
     b'{"rows":[0],"choice":"relabel","label":' + b"9" * 4000 + b',"since":0}',
     b'{"rows":[0],"choice":"keep","since":' + b"9" * 25 + b"}", b'{"rows":[true],"choice":"keep","since":0}',
     b'{"rows":[0],"choice":"\\ud800","since":0}'],
)  # fmt: skip
def test_no_body_is_too_odd(client: TestClient, review: Review, body: bytes) -> None:
    for path in ("decisions", "undo"):
        answer = client.post(f"/{TOKEN}/api/{path}", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400 and "not understood" in answer.json()["error"]
        assert len(answer.text) < 300
    assert review.decisions.revision == 0


def test_a_body_beyond_the_limit_is_told(client: TestClient, review: Review) -> None:
    sent = b'{"rows":[0],"choice":"keep","since":0}'
    for extra, status in ((LARGEST_BODY - len(sent), 200), (LARGEST_BODY - len(sent) + 1, 413)):
        body = sent + b" " * extra
        for content in (body, iter([body[:99999], body[99999:]])):  # with its length, and in pieces
            answer = client.post(
                f"/{TOKEN}/api/decisions", content=content, headers={"content-type": "application/json"}
            )
            assert answer.status_code == status
            assert status == 200 or f"more than {LARGEST_BODY} bytes" in answer.json()["error"]
    assert review.decisions.revision == 2


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:x@evil", "127.0.0.1:80@evil", "localhost:evil", "127.0.0.1:", "localhost", "127.0.0.1:99999", "[::1",
     "127.0.0.1:8000:1", "127.0.0.1:8000/", "localhost:80 80", "127.0.0.1:-1", "evil:8000", "LOCALHOST.evil:80",
     "127.0.0.1:" + "9" * 5000],
)  # fmt: skip
def test_a_host_is_this_machine_and_a_port_of_digits(client: TestClient, host: str) -> None:
    answer = client.get(f"/{TOKEN}/", headers={"host": host})
    assert answer.status_code == 403 and "loopback" in answer.text


def test_every_refusal_carries_the_headers(client: TestClient) -> None:
    wish = {"rows": [0], "choice": "keep", "since": 0}
    answers = [
        client.get("/"), client.get(f"/{TOKEN}/", headers={"host": "evil"}), ask(client, wish, origin="null"),
        client.get(f"/{TOKEN}/none"), client.put(f"/{TOKEN}/api/decisions"), ask(client, {}),
    ]  # fmt: skip
    assert [answer.status_code for answer in answers] == [403, 403, 403, 404, 405, 400]
    for answer in answers:
        for name, value in HEADERS.items():
            assert answer.headers[name] == value


@pytest.mark.parametrize("path", ["", "*", "x", "x:1", "//", "/\ud800", "http://127.0.0.1:8000/"])
def test_a_path_of_any_form_is_answered(review: Review, path: str) -> None:
    """As they come from the wire: clients that are well made send none of these."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": b"", "query_string": b"", "root_path": "",
        "scheme": "http", "http_version": "1.1", "headers": [(b"host", b"127.0.0.1:8000")], "server": None,
    }  # fmt: skip

    async def answer() -> None:
        await make_app(review, TOKEN)(scope, receive, send)

    asyncio.run(answer())
    assert sent[0]["status"] == 403 and (b"referrer-policy", b"no-referrer") in sent[0]["headers"]


def test_a_full_disk_is_told_and_says_what_holds(
    client: TestClient, review: Review, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        raise CannotWrite(f"{path.name} cannot be written: No space left on device")

    monkeypatch.setattr("scanmix.review.decisions.write_text", full)
    answer = ask(client, {"rows": [0], "choice": "keep", "since": 0})
    assert answer.status_code == 507 and answer.json()["saved"] is True
    assert "corrected.csv cannot be written: No space left" in answer.json()["error"]
    assert review.decisions.codes[0] == 1


def test_a_picture_that_is_gone_under_an_odd_name_is_a_drawing(make_review: Any) -> None:
    review = make_review(paths=["/nowhere/\x1b[31m\x01.png"] * 12)
    with TestClient(make_app(review, TOKEN), base_url=HOME) as client:
        answer = client.get(f"/{TOKEN}/pictures/small/0")
    assert answer.status_code == 200
    xml.etree.ElementTree.fromstring(answer.text)  # a control character would end it
