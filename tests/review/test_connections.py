"""Connections to the page, on a real socket: half a request is not waited for, and a crowd locks nobody out."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from scanmix.review import Review
from scanmix.review import connections as hurry
from scanmix.review.server import configured, listen

LINE = "GET /{token}/api/state HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"


@pytest.fixture
def place(make_review: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, str, Review]]:
    """A page that is quickly impatient: its port, its token, and itself."""
    monkeypatch.setattr(hurry, "PATIENCE", 0.4)
    monkeypatch.setattr(hurry, "MOST_OPEN", 20)
    review = make_review()
    listening, token, _ = listen(0)
    server = uvicorn.Server(configured(review, token))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield listening.getsockname()[1], token, review
    server.should_exit = True
    thread.join(10)
    listening.close()


def opened(port: int, sent: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    connection.sendall(sent)
    return connection


def rest(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    with connection, contextlib.suppress(ConnectionResetError):
        return b"".join(iter(lambda: connection.recv(65536), b""))
    return b""


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n",
     b"POST /{token}/api/decisions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
     b"Content-Length: 90\r\n\r\n{"],
)  # fmt: skip
def test_half_a_request_is_dropped(place: tuple[int, str, Review], sent: bytes) -> None:
    port, token, review = place
    began = time.monotonic()
    sent = sent.replace(b"{token}", token.encode()).replace(b"{port}", str(port).encode())
    assert rest(opened(port, sent)) == b""
    assert 0.3 < time.monotonic() - began < 4 and review.decisions.revision == 0


def test_one_byte_now_and_then_does_not_keep_it_open(place: tuple[int, str, Review]) -> None:
    began = time.monotonic()
    with opened(place[0], b"GET / HTTP/1.1\r\nX: ") as connection, pytest.raises(OSError, match=r".*"):
        while time.monotonic() - began < 4:
            connection.sendall(b"a")
            time.sleep(0.05)
    assert time.monotonic() - began < 4


def test_a_connection_that_is_used_stays(place: tuple[int, str, Review]) -> None:
    port, token, _ = place
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.connect()
    used = connection.sock
    for _ in range(6):
        connection.request("GET", f"/{token}/api/state")
        answer = connection.getresponse()
        assert answer.status == 200 and json.load(answer)["revision"] == 0
        time.sleep(0.2)
    assert connection.sock is used
    connection.close()


def test_a_crowd_that_says_nothing_keeps_nobody_out(place: tuple[int, str, Review]) -> None:
    port, token, _ = place
    crowd = [opened(port, b"GET / HT") for _ in range(60)]
    answer = rest(opened(port, LINE.format(token=token, port=port).encode()))
    assert answer.startswith(b"HTTP/1.1 200") and json.loads(answer.partition(b"\r\n\r\n")[2])["revision"] == 0
    assert [rest(connection) for connection in crowd] == [b""] * 60


def test_what_is_no_http_is_refused_with_the_headers(place: tuple[int, str, Review]) -> None:
    port = place[0]
    for sent in (b"garbage\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"a" * 40000):
        answer = rest(opened(port, sent)).lower()
        assert answer.startswith(b"http/1.1 400") and b"content-security-policy: default-src 'none'" in answer
    missing = LINE.replace("/{token}/api/state", "?").format(port=port).encode()
    answer = rest(opened(port, missing)).lower()
    assert answer.startswith(b"http/1.1 403") and b"x-content-type-options: nosniff" in answer


def test_a_large_body_is_not_taken(place: tuple[int, str, Review]) -> None:
    port, token, review = place
    head = (
        f"POST /{token}/api/decisions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        "Content-Length: 300000000\r\n\r\n"
    )
    connection = opened(port, head.encode())
    assert connection.recv(65536).startswith(b"HTTP/1.1 413")
    connection.close()
    assert review.decisions.revision == 0
