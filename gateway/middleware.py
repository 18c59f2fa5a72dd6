"""What every request gets, whatever it asks: an id, its time, a line in the log, an end.

Plain ASGI: a wrapper that reads no body costs a microsecond, where a framework's own costs 145.
"""

import logging
import re
import secrets
import traceback
from collections.abc import Callable, Mapping
from itertools import count

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.endpoints import NAMED, REQUEST_ID, STREAMS, unknown_path
from gateway.errors import GatewayError, InvalidRequestError, MethodNotAllowedError
from gateway.sse import event

Observe = Callable[[str, str | None, int, float], None]
"""Told of every request at its end: operation, model asked for, status, seconds."""

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
        operations: Mapping[str, str],
        observe: Observe,
        clock: Callable[[], float],
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """`operations` names what the known paths are for; any other path is "other"."""
        self._app = app
        self._operations = operations
        self._observe = observe
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
        self._name(scope)
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                milliseconds = b"%d" % ((self._clock() - began) * 1000)
                message["headers"].append((b"x-request-id", scope[REQUEST_ID]))
                message["headers"].append((b"openai-processing-ms", milliseconds))
            await send(message)

        scope["app"] = self._app  # has the router raise what it would else answer itself
        try:
            await self._app(scope, receive, answer)
        except ClientDisconnect:
            status = _CLIENT_LEFT
        except Exception as error:  # noqa: BLE001 - the one border: nothing may pass beyond it
            known = self._known(error, scope)
            if not status:
                await _render(known, answer)
            elif scope.get(STREAMS):
                # The status has gone out; OpenAI's SDKs raise this where they find it.
                await send({"type": "http.response.body", "body": event(known.body())})
        finally:
            seconds = self._clock() - began
            status = status or _CLIENT_LEFT
            # Not the path: what a client writes there may be a text or a key.
            operation = scope.get("gateway.operation") or self._operations.get(
                scope["path"], "other"
            )
            self._observe(operation, scope.get("gateway.model"), status, seconds)
            if self._verbose:
                ms, name = round(seconds * 1000, 2), scope[REQUEST_ID].decode()
                self._log.debug("request", operation=operation, status=status, ms=ms, id=name)

    def _known(self, error: Exception, scope: Scope) -> GatewayError:
        """Return the error to answer with; log one that nobody foresaw."""
        if isinstance(error, GatewayError):
            return error
        if isinstance(error, HTTPException):
            return _of_router(error, scope)
        if isinstance(error, RecursionError):
            # Nothing here recurses but what follows a request's own depth: what could just be read
            # may be too deep to be written again from a place further down.
            return InvalidRequestError("The body of your request is nested too deeply.")
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

    def _name(self, scope: Scope) -> None:
        """Give the request its id: the client's own, or one that may still be an upstream's."""
        for name, value in scope["headers"]:
            if name == b"x-request-id" and _ACCEPTABLE_ID(value):
                scope[REQUEST_ID], scope[NAMED] = bytes(value), True
                return
        scope[REQUEST_ID] = f"{self._prefix}{next(self._numbers):08x}".encode()
        scope[NAMED] = False


def _of_router(error: HTTPException, scope: Scope) -> GatewayError:
    """Return our form of what starlette's router raises: 404 and 405."""
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return MethodNotAllowedError(
            f"{scope['path'][:100]} takes {allowed}, not {scope['method']}.",
            headers={"allow": allowed},
        )
    return unknown_path(scope["method"], scope["path"])


async def _render(error: GatewayError, send: Send) -> None:
    """Send an error as OpenAI's SDKs expect it."""
    body = error.body()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        *((k.encode("latin-1"), v.encode("latin-1")) for k, v in error.headers.items()),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
