"""The same JSON-RPC over HTTP, for programs without ZeroMQ: `POST /rpc` on loopback, off by default.

A frame's pixels, which follow the JSON frame on ZeroMQ, stand in the JSON as `base64` of their description here.
"""

from __future__ import annotations

import base64
import binascii
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import Any
from urllib.parse import urlsplit

import anyio
import structlog
import uvicorn
from anyio import to_thread
from pydantic_core import from_json, to_json
from starlette.applications import Starlette
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from focusd.errors import FocusdError
from focusd.protocol.messages import MAX_JSON_BYTES, MAX_MESSAGE_BYTES, Part

log = structlog.get_logger(__name__)

Reply = Callable[[list[Part], str], Awaitable[bytes | None]]
"""Answers the content of a message (JSON, then pixels) of a sender; None: no answer is wanted."""

LOOPBACK = "127.0.0.1"
NAMES = [LOOPBACK, "localhost"]
"""What a client may call this machine. Another name is that of a page that had its name point here."""
MAX_BODY_BYTES = MAX_MESSAGE_BYTES * 4 // 3 + (1 << 18)
"""Pixels grow by a third in base64."""
MOST_CONNECTIONS = 64
IDLE_S = 30
"""A connection that sends nothing for so long is closed."""
BODY_S = 10.0
"""For so long one body may take to come."""


class HttpError(FocusdError):
    """The HTTP port is taken or cannot be bound."""


@asynccontextmanager
async def serving_http(port: int | None, reply: Reply) -> AsyncIterator[str | None]:
    """Serve HTTP inside the `async with`, in this event loop; yields the URL, None if it is switched off.

    Raises:
        HttpError: the port cannot be bound.
    """
    if port is None:
        yield None
        return
    with _bound(port) as listening:
        settings = uvicorn.Config(
            _app(reply),
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            limit_concurrency=MOST_CONNECTIONS,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=1,
        )
        server = _Server(settings)
        url = f"http://{LOOPBACK}:{listening.getsockname()[1]}/rpc"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listening])
            log.info("serving", http=url)
            try:
                yield url
            finally:
                server.should_exit = True


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the process's signals to the daemon."""
        yield


@contextmanager
def _bound(port: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((LOOPBACK, port))
        except OSError as error:
            raise HttpError(
                f"the HTTP port {port} cannot be used ({error.strerror}): choose another one in [http] port"
            ) from error
        yield listening


def _app(reply: Reply) -> Starlette:
    reading = anyio.CapacityLimiter(1)  # a body with pixels takes three times its size until it is decoded

    async def rpc(request: Request) -> Response:
        if refused := _refusal(request):
            return refused
        try:
            async with reading if _may_be_long(request) else nullcontext():
                content = await to_thread.run_sync(_content, await _body(request))
        except _RefusedError as error:
            return PlainTextResponse(f"{error}\n", error.status)
        host = request.client.host if request.client else ""
        answer = await reply(content, f"http {host}")
        return (
            Response(status_code=204) if answer is None else Response(answer, media_type="application/json")
        )

    app = Starlette(routes=[Route("/rpc", rpc, methods=["POST"])])
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=NAMES)
    return app


class _RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _refusal(request: Request) -> Response | None:
    """What a request is answered that a web page of somebody else may have sent."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        return PlainTextResponse("this daemon answers pages of its own origin only\n", 403)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        return PlainTextResponse("send JSON-RPC 2.0 with the header Content-Type: application/json\n", 415)
    return None


def _may_be_long(request: Request) -> bool:
    """Whether a request may hold pixels; one that says its length cannot send more."""
    said = request.headers.get("content-length", "")
    return not said.isdecimal() or int(said) > MAX_JSON_BYTES


async def _body(request: Request) -> bytes:
    """Return what was sent.

    Raises:
        _RefusedError: it is too long, or comes too slowly.
    """
    body = bytearray()
    with anyio.move_on_after(BODY_S) as waiting:
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY_BYTES:
                raise _RefusedError(413, f"the request is longer than {MAX_BODY_BYTES} bytes")
    if waiting.cancelled_caught:
        raise _RefusedError(408, f"the request did not come within {BODY_S:g} s")
    return bytes(body)


def _content(body: bytes) -> list[Part]:
    """Return the JSON frame and the frames of pixels that the same request has on ZeroMQ.

    Raises:
        _RefusedError: a `base64` is none.
    """
    if b'"base64"' not in body:
        return [body]
    try:
        request: Any = from_json(body)
        frames = request["params"]["frames"]
        pixels: list[Part] = [base64.b64decode(frame.pop("base64"), validate=True) for frame in frames]
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error) as error:
        raise _RefusedError(400, "each of params.frames needs its pixels as base64, or none does") from error
    return [to_json(request), *pixels]
