"""Connections of the page's server: a client that stops in the middle of a request or an answer is cut off."""

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
"""Headers of every answer that does not set them itself."""
PATIENCE = 10.0
"""Seconds within which a whole request must arrive, and within which a client must take some of an answer."""
MOST_OPEN = 200
"""Connections open at the same time; a browser opens six."""
LARGEST_HEAD = 16384
"""Most bytes of a request without its body."""
RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


class TimedProtocol(H11Protocol):
    """The HTTP protocol of uvicorn with a time limit for requests, which uvicorn lacks.

    If more than `MOST_OPEN` connections are open, the one that has waited longest for its client is closed.
    """

    _timer: asyncio.TimerHandle | None = None
    _unsent = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection and start the time limit of its first request."""
        super().connection_made(transport)
        self._await_request()
        waiting = [each for each in self.connections if isinstance(each, TimedProtocol) and each.is_waiting]
        if len(self.connections) > MOST_OPEN and waiting:
            min(waiting, key=lambda each: each.deadline).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer of a closed connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Start the time limit of the next request on the same connection."""
        self._await_request()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP with status 400 and close the connection."""
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
        """Whether the server waits for a request, or for the rest of one."""
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    @property
    def deadline(self) -> float:
        """Time at which the current wait ends, in seconds of the event loop's clock."""
        return 0.0 if self._timer is None else self._timer.when()

    def _await_request(self) -> None:
        self._stop_timer()
        self._unsent = 0
        self._timer = self.loop.call_later(PATIENCE, self._check)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        """Close the connection if its client did nothing within the time limit; else start the limit anew."""
        unsent = self.transport.get_write_buffer_size()
        if self.is_waiting or (unsent and unsent == self._unsent):
            self.transport.abort()
            return
        self._await_request()
        self._unsent = unsent


def with_headers(send: Send) -> Send:
    """Return `send` with those of `HEADERS` added that an answer does not set."""

    async def adding(message: Any) -> None:
        if message["type"] == "http.response.start":
            present = {name for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(pair for pair in RAW_HEADERS if pair[0] not in present)]
        await send(message)

    return adding
