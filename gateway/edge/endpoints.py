"""The HTTP handlers: read, one call, answer. Errors are raised, and rendered in `middleware`."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway import __version__
from gateway.backends.local import EngineStatus
from gateway.catalog import Catalog
from gateway.chat.line import CreatesChat
from gateway.chat.relay import Pieces
from gateway.chat.schemas import parse_chat_request
from gateway.edge.bodies import Bodies
from gateway.embeddings import CreatesEmbeddings
from gateway.errors import NotFoundError
from gateway.http_cache import cache_control, cache_told
from gateway.keyring import Keyring
from gateway.schemas import (
    embedding_response,
    model_response,
    models_response,
    parse_embedding_request,
)
from gateway.types import Caller, Spared

REQUEST_ID, NAMED, STREAMS = "gateway.request_id", "gateway.named", "gateway.streams"
"""What the edge and a handler tell each other of a request: its id, whether the client gave it, and
whether the answer is an event stream, into which an error can still be written."""

CACHE, WAITED, SPARED = "gateway.cache", "gateway.waited", "gateway.spared"
"""What the cache did for an answer, the seconds in which it waited for an upstream, and what became
of its texts: told to the edge with the answer."""

ACCOUNT = "gateway.account"
"""The account of who asks, where the key has limits; the edge tells what is left in it."""


def admission(scope: Scope, caller: Caller) -> AbstractAsyncContextManager[None]:
    """Return what counts a request against its key's limits for as long as it lasts.

    Entering it raises OwnLimitError where there is too little left.
    """
    if caller.account is None:
        return _FREE
    scope[ACCOUNT] = caller.account
    return caller.account.admitted()


_FREE = nullcontext()


PAGE = 64 * 2**10
"""Bytes of a large answer that are written at a time: what a connection keeps unread."""
LARGE = 16 * PAGE
"""Bytes of an answer that is written so; smaller ones are quicker in one piece."""


class PostEndpoint:
    """A bare ASGI application: nothing stands between it and the wire."""

    def __init__(self, keyring: Keyring, bodies: Bodies) -> None:
        self._keyring = keyring
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request: as a whole, or as it comes."""
        caller = self._keyring.caller(scope["headers"])
        async with admission(scope, caller):
            await self._answer(caller, scope, receive, send)

    async def _answer(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError


class EmbeddingsEndpoint(PostEndpoint):
    """`POST /v1/embeddings`."""

    def __init__(
        self,
        embeddings: CreatesEmbeddings,
        keyring: Keyring,
        *,
        bodies: Bodies,
        request_timeout: float,
    ) -> None:
        super().__init__(keyring, bodies)
        self._embeddings = embeddings
        self._request_timeout = request_timeout

    async def _answer(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        control = cache_control(scope["headers"])
        request = parse_embedding_request(await self._bodies.read(scope, receive), control)
        # The time that a client takes to ask is its own.
        deadline = asyncio.get_running_loop().time() + self._request_timeout
        scope["gateway.model"] = request.model
        embedded = await self._embeddings.create(request, caller, deadline=deadline)
        scope[CACHE], told = cache_told(embedded)
        scope[WAITED] = embedded.waited
        scope[SPARED] = Spared(embedded.sources, embedded.tokens - embedded.billed, embedded.price)
        pieces = embedding_response(embedded)
        size = sum(map(len, pieces))
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % size),
            *told,
        ]
        if embedded.billed:
            headers.append((b"x-gateway-billed-tokens", b"%d" % embedded.billed))
        if embedded.truncated:
            headers.append((b"x-gateway-truncated", ranges(embedded.truncated)))
        for name, value in embedded.headers.items():
            headers.append((name.encode("latin-1"), value.encode("latin-1")))
        if embedded.request_id:
            headers.append((b"x-upstream-request-id", embedded.request_id))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if size <= LARGE:
            await send({"type": "http.response.body", "body": b"".join(pieces)})
            return
        for page in pages(pieces):
            await send({"type": "http.response.body", "body": page, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class ChatEndpoint(PostEndpoint):
    """`POST /v1/chat/completions`."""

    def __init__(
        self, chat: CreatesChat, keyring: Keyring, *, bodies: Bodies, chat_timeout: float
    ) -> None:
        super().__init__(keyring, bodies)
        self._chat = chat
        self._chat_timeout = chat_timeout

    async def _answer(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        control = cache_control(scope["headers"])
        request = parse_chat_request(await self._bodies.read(scope, receive), control)
        deadline = asyncio.get_running_loop().time() + self._chat_timeout
        scope["gateway.model"] = request.model
        chatted = await self._chat.create(request, caller, deadline=deadline)
        scope[CACHE], headers = cache_told(chatted)
        scope[WAITED] = chatted.waited
        if chatted.seed is not None:
            headers.append((b"x-gateway-seed", b"%d" % chatted.seed))
        for name, value in chatted.headers.items():
            headers.append((name.encode("latin-1"), value.encode("latin-1")))
        if chatted.request_id:
            headers.append((b"x-upstream-request-id", chatted.request_id))
            if not scope[NAMED]:
                # So that what an SDK shows is what the upstream's people can look for.
                scope[REQUEST_ID] = chatted.request_id
        if chatted.pieces is not None:
            scope[STREAMS] = True
            await _stream(chatted.pieces, headers, send)
            return
        body = chatted.whole or b""
        headers.append((b"content-type", b"application/json"))
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _stream(pieces: Pieces, headers: list[tuple[bytes, bytes]], send: Send) -> None:
    """Send an event stream, each piece as soon as it is there."""
    headers.append((b"content-type", b"text/event-stream; charset=utf-8"))
    headers.append((b"cache-control", b"no-cache"))
    # Else nginx holds a stream back until it has a page of it.
    headers.append((b"x-accel-buffering", b"no"))
    async with aclosing(pieces):
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def pages(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join pieces to pages of about PAGE bytes.

    A large answer is written as it is read: its vectors lie in the cache, and who reads slowly, or
    not at all, costs no copy of them.
    """
    page: list[bytes] = []
    size = 0
    for piece in pieces:
        page.append(piece)
        size += len(piece)
        if size >= PAGE:
            yield b"".join(page)
            page, size = [], 0
    if page:
        yield b"".join(page)


def ranges(positions: Sequence[int]) -> bytes:
    """Return ascending positions as `0-2,7`, so that 2,048 of them fit into a header of 8 KiB."""
    runs: list[list[int]] = []
    for position in positions:
        if runs and position == runs[-1][-1] + 1:
            runs[-1][1:] = [position]
        else:
            runs.append([position])
    return ",".join("-".join(map(str, run)) for run in runs).encode()


class ModelEndpoints:
    """`GET /v1/models` and `GET /v1/models/{id}`."""

    def __init__(self, catalog: Catalog, keyring: Keyring) -> None:
        self._catalog = catalog
        self._keyring = keyring

    async def all(self, request: Request) -> Response:
        """List what the caller may use."""
        caller = self._keyring.caller(request.scope["headers"])
        async with admission(request.scope, caller):
            return _json(models_response(await self._catalog.models(caller)))

    async def one(self, request: Request) -> Response:
        """Tell of one model, by its name, an alias, or a name that fits a pattern."""
        caller = self._keyring.caller(request.scope["headers"])
        name = request.path_params["id"]
        if not name:
            raise unknown_path(request.method, request.scope["path"])
        async with admission(request.scope, caller):
            return _json(model_response(self._catalog.model(name, caller)))


class HealthEndpoints:
    """`/health/live`: the process answers. `/health/ready`: engines have loaded once.

    Neither depends on an upstream: a gateway whose upstream is down still answers from its cache.
    """

    def __init__(
        self,
        engines: Callable[[], Mapping[str, EngineStatus]],
        draining: Callable[[], bool],
        config: Callable[[], Mapping[str, Any]],
    ) -> None:
        """`engines` tells the state of every engine, `config` which config is in effect."""
        self._engines = engines
        self._draining = draining
        self._config = config

    async def live(self, request: Request) -> Response:  # noqa: ARG002
        """Answer."""
        return _json(b'{"status":"live"}')

    async def ready(self, request: Request) -> Response:  # noqa: ARG002
        """Answer 200, or 503 while engines load or the server is being stopped."""
        engines = self._engines()
        # One that was loaded before is no reason to be taken out of service while it restarts.
        loading = [e for e in engines.values() if e.state == "starting" and e.facts is None]
        status = "draining" if self._draining() else "loading" if loading else "ready"
        states = {name: engine.state for name, engine in engines.items()}
        said = {"status": status, "engines": states, "config": self._config()}
        body = msgspec.json.encode(said)
        return _json(body, status=200 if status == "ready" else 503)


SERVED = (
    "POST /v1/embeddings",
    "POST /v1/chat/completions",
    "GET /v1/models",
    "GET /v1/models/{id}",
    "GET /health/live",
    "GET /health/ready",
    "GET /metrics",
)


async def root(request: Request) -> Response:
    """Say what this is to somebody who opens the base address."""
    base = str(request.base_url)
    said = {"name": "embedding-gateway", "version": __version__, "base_url": f"{base}v1"}
    return _json(msgspec.json.encode({**said, "served": SERVED}))


def unknown_path(method: str, path: str) -> NotFoundError:
    """Return the 404 that names what is served, and the usual slip where it is one."""
    shown = path if len(path) <= 100 else path[:100] + "…"
    hint = ""
    if "/v1/v1/" in path:
        hint = " The path has /v1 twice: the base_url of an OpenAI SDK ends with one /v1."
    elif path.rstrip("/") != path:
        hint = " Leave out the slash at the end."
    return NotFoundError(
        f"Nothing is served at {method} {shown}.{hint} Served: {', '.join(SERVED)}.",
        code="unknown_url",
    )


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")
