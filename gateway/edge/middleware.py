"""What every request gets, whatever it asks: an id, its time, a line in the log, an end.

Plain ASGI: a wrapper that reads no body costs a microsecond, where a framework's own costs 145.
"""

import asyncio
import logging
import re
import secrets
import traceback
from collections.abc import Callable
from itertools import count

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.edge.endpoints import (
    ACCOUNT,
    CACHE,
    NAMED,
    REQUEST_ID,
    SPARED,
    STREAMS,
    WAITED,
    unknown_path,
)
from gateway.edge.origins import Headers, Origins, preflight
from gateway.errors import (
    GatewayError,
    InvalidRequestError,
    MethodNotAllowedError,
    UnavailableError,
    retry_headers,
)
from gateway.reasons import Reason
from gateway.sse import event
from gateway.types import Account, Asked

ENDING = "gateway.ending"
"""In the scope of a request that is cancelled because the server ends; one whose client has left
has none."""

_CLIENT_LEFT = 499
_ACCEPTABLE_ID = re.compile(rb"[A-Za-z0-9._:\-]{1,128}").fullmatch


class RequestEdge:
    """Outermost: gives `x-request-id` (the client's, if it sent one) and `openai-processing-ms`.

    It is also where every exception ends. Those of `gateway.errors` become OpenAI's error body; an
    unforeseen one is logged by its place, without its message, which might quote a text.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        operation: Callable[[str], str],
        begun: Callable[[str], None] = lambda _: None,
        ended: Callable[[Asked], None],
        clock: Callable[[], float],
        log: structlog.stdlib.BoundLogger,
        origins: Origins | None = None,
        refused: Callable[[Reason], None] = lambda _: None,
    ) -> None:
        """`operation` names what a path is for, out of a closed set.

        `begun` is told it of every request, and `ended` what became of it; `refused` is told why,
        where a request is turned away by the gateway itself.
        """
        self._app = app
        self._origins = origins or Origins()
        self._refused = refused
        self._operation = operation
        self._begun = begun
        self._on_end = ended
        self._clock = clock
        self._log = log
        self._verbose = log.is_enabled_for(logging.DEBUG)
        self._prefix = f"req_{secrets.token_hex(8)}"
        self._numbers = count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = self._clock()
        # Of the path only this: what a client writes there may be a text or a key.
        operation = self._operation(scope["path"])
        self._begun(operation)
        host, origin = self._name(scope)
        status = 0
        first = 0.0
        allowed: Headers = ()

        async def answer(message: Message) -> None:
            nonlocal status, first
            if message["type"] == "http.response.start":
                status = message["status"]
                first = self._clock() - began
                milliseconds = b"%d" % (first * 1000)
                if ACCOUNT in scope:
                    _tell_limits(message, scope[ACCOUNT])
                message["headers"].append((b"x-request-id", scope[REQUEST_ID]))
                message["headers"].append((b"openai-processing-ms", milliseconds))
                message["headers"].extend(allowed)
            await send(message)

        scope["app"] = self._app  # has the router raise what it would else answer itself
        try:
            if origin is not None or self._origins.closed:
                allowed = self._origins.admit(host, origin)
            told = preflight(scope) if allowed else None
            await (self._app(scope, receive, answer) if told is None else _nothing(told, answer))
        except ClientDisconnect:
            status = _CLIENT_LEFT
        except (Exception, asyncio.CancelledError) as error:
            # The one border: nothing may pass beyond it, but for who is called off by his client.
            if isinstance(error, asyncio.CancelledError) and ENDING not in scope:
                raise
            known = self._known(error, scope)
            await (_tell_stream(known, scope, send) if status else render(known, answer))
        finally:
            self._ended(scope, operation, status or _CLIENT_LEFT, first, self._clock() - began)

    def _ended(
        self, scope: Scope, operation: str, status: int, first: float, seconds: float
    ) -> None:
        """Tell of a request at its end; `first` and `seconds` are to its first and last byte."""
        waited = scope.get(WAITED)
        overhead = None if waited is None else max(0.0, first - waited)
        cache = scope.get(CACHE, "")
        model = scope.get("gateway.model")
        spared = scope.get(SPARED)
        self._on_end(Asked(operation, model, status, seconds, cache, overhead, spared))
        if self._verbose:
            ms, name = round(seconds * 1000, 2), scope[REQUEST_ID].decode()
            self._log.debug("request", operation=operation, status=status, ms=ms, id=name)

    def _known(self, error: BaseException, scope: Scope) -> GatewayError:
        """Return the error to answer with, counted if it is a refusal."""
        known = self._meant(error, scope)
        if known.reason is not None:
            self._refused(known.reason)
        # Its frames hold the request's body, and one of them will hold the error itself: together
        # they would stay until somebody looks for cycles.
        known.__traceback__ = None
        return known

    def _meant(self, error: BaseException, scope: Scope) -> GatewayError:
        """Return what any error is to a client; log one that nobody foresaw."""
        if isinstance(error, GatewayError):
            return error
        if isinstance(error, asyncio.CancelledError):
            return UnavailableError(
                "The gateway is being stopped; send the request again.",
                code="shutting_down",
                headers=retry_headers(1.0),
                reason="draining",
            )
        if isinstance(error, HTTPException):
            return _of_router(error, scope)
        if isinstance(error, RecursionError):
            # Nothing here recurses but what follows a request's own depth: what could just be read
            # may be too deep to be written again from a place further down.
            text = "The body of your request is nested too deeply."
            return InvalidRequestError(text, reason="depth")
        frames = traceback.extract_tb(error.__traceback__)
        self._log.error(
            "unforeseen error",
            kind=type(error).__name__,
            at=[f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-6:]],
            id=scope[REQUEST_ID].decode(),
        )
        return GatewayError(
            "The gateway failed in a way nobody foresaw; its log has the place under this "
            "request's id.",
            code="internal_error",
        )

    def _name(self, scope: Scope) -> tuple[bytes | None, bytes | None]:
        """Give the request its id: the client's own, or one that may still be an upstream's.

        Return the headers Host and Origin, since all are looked at here.
        """
        host = origin = given = None
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
            elif name == b"origin":
                origin = value
            elif name == b"x-request-id" and given is None and _ACCEPTABLE_ID(value):
                given = bytes(value)
        scope[NAMED] = given is not None
        scope[REQUEST_ID] = given or f"{self._prefix}{next(self._numbers):08x}".encode()
        return host, origin


def _tell_limits(message: Message, account: Account) -> None:
    """Say what a key has left of its own limits, in place of what an upstream said of its."""
    told = account.headers()
    if told:
        others = [h for h in message["headers"] if not h[0].startswith(b"x-ratelimit-")]
        message["headers"] = [*others, *((k.encode(), v.encode()) for k, v in told.items())]


def _of_router(error: HTTPException, scope: Scope) -> GatewayError:
    """Return our form of what starlette's router raises: 404 and 405."""
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return MethodNotAllowedError(
            f"{scope['path'][:100]} takes {allowed}, not {scope['method']}.",
            headers={"allow": allowed},
        )
    return unknown_path(scope["method"], scope["path"])


async def _tell_stream(error: GatewayError, scope: Scope, send: Send) -> None:
    # The status has gone out; OpenAI's SDKs raise this where they find it.
    if scope.get(STREAMS):
        await send({"type": "http.response.body", "body": event(error.body())})


async def _nothing(headers: Headers, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": list(headers)})
    await send({"type": "http.response.body", "body": b""})


async def render(error: GatewayError, send: Send) -> None:
    """Send an error as OpenAI's SDKs expect it."""
    body = error.body()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        *((k.encode("latin-1"), v.encode("latin-1")) for k, v in error.headers.items()),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
