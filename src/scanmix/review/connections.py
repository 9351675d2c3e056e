"""Connections of the page's server: none waits for ever for somebody who does not go on, none is open without need."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from starlette.types import Send
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""Of every answer, unless it says otherwise."""
PATIENCE = 10.0
"""Seconds in which a whole request must arrive, and some of an answer be taken."""
MOST_OPEN = 200
"""Connections at once: a browser opens six."""
LARGEST_HEAD = 16384
"""Bytes of a request without its body."""
RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


class Hurried(H11Protocol):
    """HTTP of uvicorn, which itself gives no time limit to half a request.

    Beyond `MOST_OPEN` connections the oldest that waits for its client is closed in favor of a new one.
    """

    _timer: asyncio.TimerHandle | None = None
    _unsent = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, and begin to wait for a request."""
        super().connection_made(transport)
        self._await_request()
        waiting = [each for each in self.connections if isinstance(each, Hurried) and each.is_waiting]
        if len(self.connections) > MOST_OPEN and waiting:
            min(waiting, key=lambda each: each.deadline).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Wait for the next request on the same connection."""
        self._await_request()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close"), *RAW_HEADERS]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=msg.encode()),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    @property
    def is_waiting(self) -> bool:
        """Whether it is the client's turn: a request, or the rest of one, is still to come."""
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    @property
    def deadline(self) -> float:
        """When the present wait ends, by the clock of the loop."""
        return 0.0 if self._timer is None else self._timer.when()

    def _await_request(self) -> None:
        self._stop_timer()
        self._unsent = 0
        self._timer = self.loop.call_later(PATIENCE, self._look)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Drop the connection if its client has done nothing with its time; else give it as much again."""
        unsent = self.transport.get_write_buffer_size()
        if self.is_waiting or (unsent and unsent == self._unsent):
            self.transport.abort()
            return
        self._await_request()
        self._unsent = unsent


def with_headers(send: Send) -> Send:
    """Add `HEADERS` to an answer where it does not have them."""

    async def adding(message: Any) -> None:
        if message["type"] == "http.response.start":
            there = {name for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(pair for pair in RAW_HEADERS if pair[0] not in there)]
        await send(message)

    return adding
