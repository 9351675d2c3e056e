"""The page's server: one process on the loopback address, which is the only writer of the decisions."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from scanmix.audit import Audit
from scanmix.config import STRICT, UserError
from scanmix.review.decisions import Decisions
from scanmix.review.rows import Queue, detail, progress, table
from scanmix.review.thumbnails import SIDES, Thumbnails

Asked = TypeVar("Asked")
HOST = "127.0.0.1"
LOCK = "review.lock"
"""There is one server, and one writer, for a run."""
PAGE = Path(__file__).parent / "page"
FILES = ("index.html", "review.css", "source.js", "draw.js", "grid.js", "review.js")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, eq=False)
class Review:
    """All that the page shows of a run."""

    title: str
    audit: Audit
    queue: Queue
    decisions: Decisions
    thumbnails: Thumbnails

    def state(self, revision: int) -> dict[str, Any]:
        """Return what has changed since a revision, and how far the review is."""
        return self.decisions.since(revision) | {"progress": progress(self.audit, self.queue, self.decisions)}


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class Wish:
    """What a page asks to be decided."""

    rows: list[int]
    choice: str
    since: int
    label: int | None = None


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class UndoWish:
    """The last revision that a page knows, when it asks for the last change to be taken back."""

    since: int


def make_app(review: Review, token: str) -> ASGIApp:
    """Return the page as an ASGI application; every address begins with the token."""
    everything = _json({"title": review.title, **table(review.audit, review.queue)})

    def send_file(request: Request) -> Response:
        name = request.path_params.get("name") or "index.html"
        return FileResponse(PAGE / name) if name in FILES else PlainTextResponse("no such file", 404)

    def send_table(request: Request) -> Response:
        return everything

    def send_row(request: Request) -> Response:
        row = request.path_params["row"]
        return (
            _json(detail(review.audit, row)) if row < len(review.thumbnails) else _json({"error": "no such row"}, 404)
        )

    def send_state(request: Request) -> Response:
        since = request.query_params.get("since", "0")
        return _json(review.state(int(since) if since.isdecimal() else 0))

    def send_picture(request: Request) -> Response:
        row, size = request.path_params["row"], request.path_params["size"]
        if size not in SIDES or row >= len(review.thumbnails):
            return PlainTextResponse("no such picture", 404)
        picture = review.thumbnails.get(row, size)
        keep = "no-store" if picture.missing else "private, max-age=86400"
        return Response(picture.content, media_type=picture.media_type, headers={"Cache-Control": keep})

    async def decide(request: Request) -> Response:
        def work(wish: Wish) -> dict[str, Any]:
            rows = review.decisions.decide(wish.rows, wish.choice, wish.label)
            return {"done": rows[0], **review.state(wish.since)}

        return await _answer(request, Wish, work)

    async def undo(request: Request) -> Response:
        def work(wish: UndoWish) -> dict[str, Any]:
            rows = review.decisions.undo()
            return {"done": rows[0] if rows else None, **review.state(wish.since)}

        return await _answer(request, UndoWish, work)

    routes = [
        Route("/", send_file),
        Route("/api/table", send_table),
        Route("/api/state", send_state),
        Route("/api/rows/{row:int}", send_row),
        Route("/api/decisions", decide, methods=["POST"]),
        Route("/api/undo", undo, methods=["POST"]),
        Route("/pictures/{size}/{row:int}", send_picture),
        Route("/{name}", send_file),
    ]
    return _guarded(Starlette(routes=[Mount(f"/{token}", routes=routes)]), token)


def serve(review: Review, listening: socket.socket, token: str) -> None:
    """Answer on a bound socket until Ctrl-C, which is passed on as KeyboardInterrupt."""
    config = uvicorn.Config(make_app(review, token), log_level="error", lifespan="off", timeout_graceful_shutdown=10)
    uvicorn.Server(config).run(sockets=[listening])


def listen(port: int) -> tuple[socket.socket, str, str]:
    """Bind the loopback address; return the socket, a new token and the address of the page.

    Raises:
        UserError: the port is taken.
    """
    listening = socket.socket()
    if hasattr(socket, "SO_REUSEADDR") and hasattr(socket, "AF_UNIX"):  # on Windows it would share a port in use
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise UserError(f"port {port} cannot be used: {error.strerror}; leave --port out to take a free one") from None
    listening.listen()
    token = secrets.token_urlsafe(16)
    return listening, token, f"http://{HOST}:{listening.getsockname()[1]}/{token}/"


def _guarded(app: ASGIApp, token: str) -> ASGIApp:
    """Turn away what does not come from the page itself: other host names, other sites, no token."""

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        why = _refusal(Request(scope), token) if scope["type"] == "http" else None
        await (PlainTextResponse(why, 403)(scope, receive, send) if why else app(scope, receive, _with_headers(send)))

    return guard


def _refusal(request: Request, token: str) -> str | None:
    headers, host = request.headers, request.headers.get("host", "")
    if host.rpartition(":")[0] not in (HOST, "localhost"):
        return "this page answers on the loopback address only"
    if not secrets.compare_digest(request.url.path.split("/")[1].encode(), token.encode()):
        return "the address lacks the token; use the one that scanmix review printed last"
    if request.method == "POST":
        foreign = headers.get("origin", f"http://{host}") != f"http://{host}"
        if foreign or headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return "only the page itself may decide"
        if headers.get("content-type", "").partition(";")[0] != "application/json":
            return "decisions are JSON"
    return None


def _with_headers(send: Send) -> Send:
    async def adding(message: Any) -> None:
        if message["type"] == "http.response.start":
            there = {name for name, _ in message["headers"]}
            extra = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            message["headers"] = [*message["headers"], *(pair for pair in extra if pair[0] not in there)]
        await send(message)

    return adding


async def _answer(request: Request, kind: type[Asked], work: Callable[[Asked], dict[str, Any]]) -> Response:
    """Check what was asked, do it outside of the event loop, and turn what goes wrong into a sentence."""
    try:
        wish = pydantic.TypeAdapter(kind).validate_json(await request.body())
        return _json(await run_in_threadpool(work, wish))
    except pydantic.ValidationError as error:
        return _json({"error": f"not understood: {error.errors()[0]['msg']}"}, 400)
    except UserError as error:
        return _json({"error": str(error)}, 400)
    except OSError as error:
        return _json({"error": f"{error.filename or 'the run folder'} cannot be written: {error.strerror}"}, 507)


def _json(content: Any, status: int = 200) -> Response:
    return Response(json.dumps(content, separators=(",", ":")), status, media_type="application/json")
