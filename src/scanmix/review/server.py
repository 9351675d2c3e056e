"""The server of the review page: one process, by default on the loopback address, the only writer of the decisions."""

from __future__ import annotations

import json
import re
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pydantic
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from scanmix.audit import Audit
from scanmix.config import STRICT, UserError
from scanmix.files import CannotWrite
from scanmix.review.connections import LARGEST_HEAD, TimedProtocol, with_headers
from scanmix.review.decisions import MOST, Decisions, OnlyInLog
from scanmix.review.rows import Queue, detail, progress, table
from scanmix.review.thumbnails import SIDES, Thumbnails

Body = TypeVar("Body")
HOST = "127.0.0.1"
EVERYWHERE = "0.0.0.0"
"""What a socket is bound to that answers at every address of its machine."""
LOCK = "review.lock"
"""File that keeps a second server, and so a second writer, away from a run."""
PAGE = Path(__file__).parent / "page"
FILES = ("index.html", "review.css", "source.js", "draw.js", "grid.js", "filters.js", "progress.js", "review.js")
"""Files of `PAGE` that are served; no others are."""
LARGEST_BODY = 1 << 20
"""Most bytes of a request: enough for a decision about some hundred thousand labels."""
LOOPBACK = re.compile(rf"(?:{re.escape(HOST)}|localhost):[0-9]{{1,5}}")
"""Host headers that name this machine; the port may be a forwarded one."""
ANY_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}:[0-9]{1,5}")
"""Host headers where the page is offered to other machines: any name or IPv4 address, as this machine has many."""
Whole = Annotated[int, pydantic.Field(ge=0, lt=MOST)]


@dataclass(frozen=True, eq=False)
class Review:
    """Everything that the page shows about a run."""

    title: str
    audit: Audit
    queue: Queue
    decisions: Decisions
    thumbnails: Thumbnails

    def state(self, revision: int) -> dict[str, Any]:
        """Return what has changed since a revision, and the progress of the review."""
        return self.decisions.since(revision) | {"progress": progress(self.audit, self.queue, self.decisions)}


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class DecisionRequest:
    """A page asks for a choice for rows; `since` is the last revision that it knows."""

    rows: list[Whole]
    choice: str
    since: Whole
    label: Whole | None = None


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class UndoRequest:
    """A page asks to undo the last change; `since` is the last revision that it knows."""

    since: Whole


def make_app(review: Review, token: str, hosts: re.Pattern[str] = LOOPBACK) -> ASGIApp:
    """Return the page as an ASGI application; every address starts with the token, and `hosts` match Host headers."""
    # One answer, made once and kept: its memory grows with N, but every tab asks for it only once.
    everything = _json({"title": review.title, **table(review.audit, review.queue)})

    def send_file(request: Request) -> Response:
        name = request.path_params.get("name") or "index.html"
        return FileResponse(PAGE / name) if name in FILES else PlainTextResponse("no such file", 404)

    def send_table(request: Request) -> Response:
        return everything

    def send_row(request: Request) -> Response:
        row = _number(request.path_params["row"], len(review.thumbnails))
        return _json({"error": "no such row"}, 404) if row is None else _json(detail(review.audit, row))

    def send_state(request: Request) -> Response:
        return _json(review.state(_number(request.query_params.get("since", "0"), MOST) or 0))

    def send_image(request: Request) -> Response:
        row, size = _number(request.path_params["row"], len(review.thumbnails)), request.path_params["size"]
        if size not in SIDES or row is None:
            return PlainTextResponse("no such image", 404)
        image = review.thumbnails.get(row, size)
        caching = "no-store" if image.missing else "private, max-age=86400"
        return Response(image.content, media_type=image.media_type, headers={"Cache-Control": caching})

    async def decide(request: Request) -> Response:
        def work(body: DecisionRequest) -> dict[str, Any]:
            rows = review.decisions.decide(body.rows, body.choice, body.label)
            return {"done": rows[0], **review.state(body.since)}

        return await _answer(request, DecisionRequest, work)

    async def undo(request: Request) -> Response:
        def work(body: UndoRequest) -> dict[str, Any]:
            rows = review.decisions.undo()
            return {"done": rows[0] if rows else None, **review.state(body.since)}

        return await _answer(request, UndoRequest, work)

    routes = [
        Route("/", send_file),
        Route("/api/table", send_table),
        Route("/api/state", send_state),
        Route("/api/rows/{row}", send_row),
        Route("/api/decisions", decide, methods=["POST"]),
        Route("/api/undo", undo, methods=["POST"]),
        Route("/pictures/{size}/{row}", send_image),
        Route("/{name}", send_file),
    ]
    return _guarded(Starlette(routes=[Mount(f"/{token}", routes=routes)]), token, hosts)


def configured(review: Review, token: str, hosts: re.Pattern[str] = LOOPBACK) -> uvicorn.Config:
    """Return the settings of the server."""
    return uvicorn.Config(
        make_app(review, token, hosts), http=TimedProtocol, ws="none", log_level="error", lifespan="off",
        server_header=False, timeout_graceful_shutdown=10, h11_max_incomplete_event_size=LARGEST_HEAD,
    )  # fmt: skip


def serve(review: Review, listening: socket.socket, token: str) -> None:
    """Serve the page on a bound socket until Ctrl-C.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    hosts = LOOPBACK if listening.getsockname()[0] == HOST else ANY_HOST
    uvicorn.Server(configured(review, token, hosts)).run(sockets=[listening])


def listen(port: int, host: str = HOST) -> tuple[socket.socket, str, str]:
    """Bind an address of this machine; return the socket, a new token and the URL of the page.

    Args:
        port: 0 takes a free one.
        host: an IPv4 address or a name of this machine; 0.0.0.0 is all its addresses, of which the URL has the loopback
            one.

    Raises:
        UserError: the port or the address cannot be used.
    """
    listening = socket.socket()
    if hasattr(socket, "SO_REUSEADDR") and hasattr(socket, "AF_UNIX"):  # Windows would share a port in use
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, UnicodeError) as error:  # the second: a name that cannot be one
        listening.close()
        why = error.strerror if isinstance(error, OSError) else "no such name"
        fix = "leave --port out to take a free one"
        fix += "" if host == HOST else "; --host is an IPv4 address or a name of this machine, or 0.0.0.0 for all"
        raise UserError(f"port {port} of {host} cannot be used: {why}; {fix}") from None
    listening.listen()
    token = secrets.token_urlsafe(16)
    bound, port = listening.getsockname()
    return listening, token, f"http://{HOST if bound == EVERYWHERE else bound}:{port}/{token}/"


def _guarded(app: ASGIApp, token: str, hosts: re.Pattern[str]) -> ASGIApp:
    """Return `app` behind a check that refuses what does not come from the page: other hosts, sites, no token."""

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        why = _refusal(scope, token, hosts) if scope["type"] == "http" else None
        await (PlainTextResponse(why, 403) if why else app)(scope, receive, with_headers(send))

    return guard


def _refusal(scope: Scope, token: str, hosts: re.Pattern[str]) -> str | None:
    """Return why a request is refused, or None. Checks headers one by one, since a URL made of them may be invalid."""
    headers = Headers(scope=scope)
    host = headers.get("host", "")
    if hosts.fullmatch(host) is None or int(host.rpartition(":")[2]) >= 1 << 16:
        return "this page answers on the loopback address only" if hosts is LOOPBACK else "no such host"
    first = scope["path"].removeprefix("/").partition("/")[0]
    if not secrets.compare_digest(first.encode("utf-8", "replace"), token.encode()):
        return "the address lacks the token; use the one that scanmix review printed last"
    if scope["method"] == "POST":
        cross_origin = headers.get("origin", f"http://{host}") != f"http://{host}"
        if cross_origin or headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return "only the page itself may decide"
        if headers.get("content-type", "").partition(";")[0] != "application/json":
            return "decisions are JSON"
    return None


def _number(text: str, end: int) -> int | None:
    """Return a whole number in 0..end - 1 written with the digits 0 to 9; None for any other text of any length."""
    digits = text.lstrip("0") or text[-1:]
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= len(str(end))):
        return None
    return int(digits) if int(digits) < end else None


async def _answer(request: Request, kind: type[Body], work: Callable[[Body], dict[str, Any]]) -> Response:
    """Check a request, do its work outside of the event loop, and answer errors with a sentence.

    Args:
        request: its body is JSON.
        kind: what the body is read as.
        work: takes the body and returns the answer.
    """
    try:
        content = await _body(request)
        if content is None:
            return _json({"error": f"that is more than {LARGEST_BODY} bytes; decide for fewer labels at once"}, 413)
        body = pydantic.TypeAdapter(kind).validate_json(content, strict=True)
        return _json(await run_in_threadpool(work, body))
    except ClientDisconnect:  # there is nobody to answer
        return Response(status_code=400)
    except pydantic.ValidationError as error:
        return _json({"error": f"not understood: {error.errors(include_input=False)[0]['msg']}"}, 400)
    except CannotWrite as error:
        return _json({"error": str(error), "saved": isinstance(error, OnlyInLog)}, 507)
    except UserError as error:
        return _json({"error": str(error)}, 400)
    except OSError as error:
        return _json({"error": f"{error.filename or 'the run folder'} cannot be written: {error.strerror}"}, 507)


async def _body(request: Request) -> bytes | None:
    """Return the body of a request; None, without reading on, if it is longer than `LARGEST_BODY`."""
    if _number(request.headers.get("content-length", "0"), LARGEST_BODY + 1) is None:
        return None
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > LARGEST_BODY:
            return None
    return bytes(content)


def _json(content: Any, status: int = 200) -> Response:
    """Return an answer in JSON."""
    headers = {"Connection": "close"} if status == 413 else None  # the rest of the body is not read
    return Response(json.dumps(content, separators=(",", ":")), status, headers, media_type="application/json")
