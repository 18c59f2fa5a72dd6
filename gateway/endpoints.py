"""The HTTP handlers: read, one call, answer. Errors are raised, and rendered in `middleware`."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway import __version__
from gateway.backends.local import EngineStatus
from gateway.catalog import Catalog
from gateway.chat import CreatesChat
from gateway.chat_schemas import parse_chat_request
from gateway.embeddings import CreatesEmbeddings
from gateway.errors import NotFoundError, PayloadTooLargeError, UnsupportedMediaError
from gateway.http_cache import cache_control, cache_headers
from gateway.keyring import Keyring
from gateway.relay import Pieces
from gateway.schemas import (
    embedding_response,
    model_response,
    models_response,
    parse_embedding_request,
)

REQUEST_ID, NAMED, STREAMS = "gateway.request_id", "gateway.named", "gateway.streams"
"""What the edge and a handler tell each other of a request: its id, whether the client gave it, and
whether the answer is an event stream, into which an error can still be written."""


class EmbeddingsEndpoint:
    """`POST /v1/embeddings`, as a bare ASGI application: nothing stands between it and the wire."""

    def __init__(
        self,
        embeddings: CreatesEmbeddings,
        keyring: Keyring,
        *,
        max_body: int,
        request_timeout: float,
    ) -> None:
        self._embeddings = embeddings
        self._keyring = keyring
        self._max_body = max_body
        self._request_timeout = request_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        deadline = asyncio.get_running_loop().time() + self._request_timeout
        caller = self._keyring.caller(scope["headers"])
        control = cache_control(scope["headers"])
        request = parse_embedding_request(await read_json(scope, receive, self._max_body), control)
        scope["gateway.model"] = request.model
        embedded = await self._embeddings.create(request, caller, deadline=deadline)
        body = embedding_response(embedded)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            *cache_headers(embedded),
        ]
        if embedded.billed:
            headers.append((b"x-gateway-billed-tokens", b"%d" % embedded.billed))
        if embedded.truncated:
            headers.append((b"x-gateway-truncated", ranges(embedded.truncated)))
        for name, value in embedded.headers.items():
            headers.append((name.encode("latin-1"), value.encode("latin-1")))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class ChatEndpoint:
    """`POST /v1/chat/completions`, as a bare ASGI application."""

    def __init__(
        self, chat: CreatesChat, keyring: Keyring, *, max_body: int, chat_timeout: float
    ) -> None:
        self._chat = chat
        self._keyring = keyring
        self._max_body = max_body
        self._chat_timeout = chat_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request: as a whole, or as it comes."""
        deadline = asyncio.get_running_loop().time() + self._chat_timeout
        caller = self._keyring.caller(scope["headers"])
        control = cache_control(scope["headers"])
        request = parse_chat_request(await read_json(scope, receive, self._max_body), control)
        scope["gateway.model"] = request.model
        chatted = await self._chat.create(request, caller, deadline=deadline)
        headers = cache_headers(chatted)
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


async def read_json(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Return the whole body of a JSON request.

    Raises UnsupportedMediaError for another or a compressed type, PayloadTooLargeError beyond
    `limit` bytes (before reading it where the length is announced).
    """
    for name, value in scope["headers"]:
        if name == b"content-type":
            _check_type(value)
        elif name == b"content-encoding" and value.strip().lower() != b"identity":
            raise UnsupportedMediaError("Send the body uncompressed, without Content-Encoding.")
        elif name == b"content-length" and int(value) > limit:
            raise _too_large(limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        chunks = [body]
        size = len(body)
        while message.get("more_body"):
            message = await receive()
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            chunks.append(chunk)
        body = b"".join(chunks)
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _check_type(content_type: bytes) -> None:
    essence = content_type.split(b";", 1)[0].strip().lower()
    if essence == b"application/json" or essence.endswith(b"+json") or not essence:
        return
    raise UnsupportedMediaError(
        f"Unsupported content type: '{essence[:100].decode('latin-1')}'. This API reads "
        "'application/json'; set the header Content-Type: application/json."
    )


def _too_large(limit: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(f"The body is larger than {limit} bytes; split the request.")


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
        return _json(models_response(await self._catalog.models(caller)))

    async def one(self, request: Request) -> Response:
        """Tell of one model, by its name, an alias, or a name that fits a pattern."""
        request.scope["gateway.operation"] = "models"
        caller = self._keyring.caller(request.scope["headers"])
        name = request.path_params["id"]
        if not name:
            raise unknown_path(request.method, request.scope["path"])
        return _json(model_response(self._catalog.model(name, caller)))


class HealthEndpoints:
    """`/health/live`: the process answers. `/health/ready`: engines have loaded once.

    Neither depends on an upstream: a gateway whose upstream is down still answers from its cache.
    """

    def __init__(
        self, engines: Callable[[], Mapping[str, EngineStatus]], draining: Callable[[], bool]
    ) -> None:
        """`engines` tells the state of every engine."""
        self._engines = engines
        self._draining = draining

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
        body = msgspec.json.encode({"status": status, "engines": states})
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
