"""One upstream's address, credentials, places and attempts, whatever it is asked for.

One call is: take a place, ask, and either hand the answer on or decide whether to ask again. It
knows nothing of vectors and chats.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeVar
from urllib.parse import urlencode

from gateway.backends.failures import Failure, read_failure, without
from gateway.backends.transport import Opened, Reply, Transport
from gateway.errors import (
    GatewayError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamTimeoutError,
)
from gateway.resilience.retry import RetryPolicy
from gateway.types import Text

A = TypeVar("A")

ReadFailure = Callable[[Reply, str, str], Failure | None]
"""Reads the answer of an upstream of this name to a request that has its texts in this field."""

_EITHER = "application/json, text/event-stream"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an upstream is and how it wants to be addressed."""

    base_url: str
    api_key: str | None = None
    auth_header: str = "authorization"
    headers: Mapping[str, str] | None = None
    query: Mapping[str, str] | None = None
    encoding: str | None = "base64"
    """The `encoding_format` to ask for; None sends no such field."""
    by_position: bool = False
    """Whether items without any `index` may be placed by their position."""
    timeout: float = 60.0
    """Seconds for one attempt at embedding; a chat has all that its request has."""
    max_batch: int = 2048
    concurrency: int = 64


class Upstream:
    """Calls one upstream: at most `concurrency` at a time, and again where that may help."""

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        transport: Transport,
        retry: RetryPolicy,
        read_failure: ReadFailure = read_failure,
    ) -> None:
        self.name = name
        self._base_url = endpoint.base_url
        self._query = f"?{urlencode(endpoint.query)}" if endpoint.query else ""
        self._headers = _headers(endpoint, "application/json")
        self._stream_headers = _headers(endpoint, _EITHER)
        self._timeout = endpoint.timeout
        self._transport = transport
        self._retry = retry
        self._read_failure = read_failure
        self._places = asyncio.Semaphore(endpoint.concurrency)
        credentials = (
            endpoint.api_key,
            *(endpoint.headers or {}).values(),
            *(endpoint.query or {}).values(),
        )
        self._secrets = [secret for secret in credentials if secret]

    async def call(self, method: str, path: str, body: bytes | None, deadline: float) -> Reply:
        """Send until there is a good answer, a final one, or no time left.

        Raises what `read_failure` makes of the last answer, UpstreamConnectError or
        UpstreamTimeoutError.
        """
        return await self._persist(lambda: self._send(method, path, body, deadline), deadline)

    async def open(
        self, path: str, body: bytes, *, stream: bool, deadline: float, silence: float
    ) -> Opened:
        """Post until the headers of a good answer (2xx) are there.

        The answer keeps its place until it is read to its end, broken or closed. Only what cannot
        have begun an answer is asked again: no connection, 429 and 503. Raises as `call` does.
        """
        headers = self._stream_headers if stream else self._headers
        return await self._persist(
            lambda: self._open(path, headers, body, deadline, silence), deadline
        )

    def refused(self, reply: Reply, texts: Sequence[Text]) -> GatewayError:
        """Return what an error answer to a chat means, without what it quotes; see `unquoted`."""
        failure = self._read_failure(reply, self.name, "messages")
        error = failure.error if failure is not None else UpstreamError("")
        return self.unquoted(error, texts)

    def unquoted(self, error: GatewayError, texts: Sequence[Text]) -> GatewayError:
        """Take out of an error what the upstream quoted in it of the texts and of our secrets."""
        texts = tuple(texts)  # they may be searched for in the request first
        error.message = without(error.message, texts, self._secrets)
        if not error.message:
            error.message = f"Upstream '{self.name}' refused the request."
        for name in ("param", "code"):
            value = getattr(error, name)
            if value is not None and without(value, texts, self._secrets) != value:
                setattr(error, name, None)
        return error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def _persist(self, attempt: Callable[[], Awaitable[A | Failure]], deadline: float) -> A:
        clock = asyncio.get_running_loop().time
        number = 0
        while True:
            number += 1
            answer = await attempt()
            if not isinstance(answer, Failure):
                return answer
            wait = None
            if answer.retry:
                wait = self._retry.wait(number, deadline - clock(), answer.after)
            if wait is None:
                raise answer.final(spent=answer.retry)
            await asyncio.sleep(wait)

    async def _send(
        self, method: str, path: str, body: bytes | None, deadline: float
    ) -> Reply | Failure:
        """Send once, as soon as there is a place."""
        url = f"{self._base_url}{path}{self._query}"
        try:
            await self._take_place(deadline)
            try:
                timeout = min(_remaining(deadline), self._timeout)
                reply = await self._transport.send(
                    method, url, self._headers, body, timeout=timeout
                )
            finally:
                self._places.release()
        except (UpstreamConnectError, UpstreamTimeoutError) as error:
            return _unanswered(error)
        return self._read_failure(reply, self.name, "input") or reply

    async def _open(
        self, path: str, headers: Mapping[str, str], body: bytes, deadline: float, silence: float
    ) -> Opened | Failure:
        """Post once, as soon as there is a place."""
        url = f"{self._base_url}{path}{self._query}"
        try:
            await self._take_place(deadline)
            try:
                answer = await self._transport.open(
                    "POST", url, headers, body, timeout=_remaining(deadline), silence=silence
                )
            except BaseException:
                self._places.release()
                raise
        except (UpstreamConnectError, UpstreamTimeoutError) as error:
            return _unanswered(error)
        placed = PlacedAnswer(answer, self._places.release)
        words = b"" if answer.status < 300 else await _refusal(placed, deadline)
        reply = Reply(answer.status, answer.headers, words)
        failure = self._read_failure(reply, self.name, "messages")
        if failure is None:
            return placed
        await placed.aclose()
        # Anything else may be an answer that was begun, and billed.
        return replace(failure, retry=failure.retry and answer.status in (429, 503))

    async def _take_place(self, deadline: float) -> None:
        if not self._places.locked():
            await self._places.acquire()
            return
        try:
            # Only then, as a timer costs more than the place.
            async with asyncio.timeout_at(deadline):
                await self._places.acquire()
        except TimeoutError:
            raise UpstreamTimeoutError(
                f"No place at upstream '{self.name}' became free in time."
            ) from None


class PlacedAnswer:
    """An open answer that has a place until it is over: read to its end, broken, or closed."""

    __slots__ = ("_answer", "_leave", "_pieces", "headers", "status")

    def __init__(self, answer: Opened, leave: Callable[[], None]) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self._answer = answer
        self._pieces = aiter(answer)
        self._leave: Callable[[], None] | None = leave

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._pieces)
        except BaseException:
            self._over()
            raise

    async def read(self) -> bytes:
        """See Opened.read."""
        try:
            return await self._answer.read()
        finally:
            self._over()

    async def aclose(self) -> None:
        """See Opened.aclose."""
        try:
            await self._answer.aclose()
        finally:
            self._over()

    def _over(self) -> None:
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()


async def _refusal(answer: Opened, deadline: float) -> bytes:
    """Return the words of an error; where they do not come, its status says enough."""
    try:
        async with asyncio.timeout_at(deadline):
            return await answer.read()
    except (TimeoutError, UpstreamError):
        return b""


def _unanswered(error: UpstreamError) -> Failure:
    # A slow answer would be slow again, and may be billed; a connection costs nothing.
    return Failure(error, retry=error.code != "upstream_timeout")


def _remaining(deadline: float) -> float:
    return max(deadline - asyncio.get_running_loop().time(), 0.0)


def _headers(endpoint: Endpoint, accept: str) -> dict[str, str]:
    headers = {"content-type": "application/json", "accept": accept}
    headers.update({name.lower(): value for name, value in (endpoint.headers or {}).items()})
    if endpoint.api_key:
        bearer = endpoint.auth_header.lower() == "authorization"
        headers[endpoint.auth_header.lower()] = (
            f"Bearer {endpoint.api_key}" if bearer else endpoint.api_key
        )
    return headers
