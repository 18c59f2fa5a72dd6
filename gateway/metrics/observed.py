"""The seams, watched: what passes through is counted and timed, and is what it was.

The stores and the transports know nothing of it.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Self, TypeVar

from gateway.backends.transport import Opened, Reply, Transport
from gateway.cache.keys import Key
from gateway.cache.store import CacheStore, Namespace, StoreError, Usage
from gateway.errors import UpstreamConnectError, UpstreamError, UpstreamTimeoutError
from gateway.metrics.collectors import Metrics

A = TypeVar("A", bound=Reply | Opened)


class ObservedStore:
    """A store, watched: every operation has a result and a duration."""

    def __init__(self, inner: CacheStore, metrics: Metrics, clock: Callable[[], float]) -> None:
        self.name = inner.name
        self._inner = inner
        self._metrics = metrics
        self._clock = clock

    async def get(self, namespace: Namespace, keys: Sequence[Key]) -> Mapping[Key, bytes]:
        """See CacheStore.get."""
        with self._watched("get"):
            return await self._inner.get(namespace, keys)

    async def add(self, namespace: Namespace, values: Mapping[Key, bytes]) -> Mapping[Key, bytes]:
        """See CacheStore.add."""
        with self._watched("add"):
            return await self._inner.add(namespace, values)

    async def discard(self, namespace: Namespace, values: Mapping[Key, bytes]) -> int:
        """See CacheStore.discard."""
        with self._watched("discard"):
            return await self._inner.discard(namespace, values)

    async def facts(self) -> Mapping[str, bytes]:
        """See CacheStore.facts."""
        with self._watched("facts"):
            return await self._inner.facts()

    async def settle(self, name: str, value: bytes) -> bytes:
        """See CacheStore.settle."""
        return await self._inner.settle(name, value)

    async def swap(self, name: str, old: bytes, new: bytes) -> bool:
        """See CacheStore.swap."""
        return await self._inner.swap(name, old, new)

    async def usage(self) -> Usage:
        """See CacheStore.usage."""
        return await self._inner.usage()

    async def aclose(self) -> None:
        """See CacheStore.aclose."""
        await self._inner.aclose()

    @contextmanager
    def _watched(self, operation: str) -> Iterator[None]:
        began = self._clock()
        result = "cancelled"
        try:
            yield
            result = "ok"
        except StoreError as error:
            result = error.reason
            raise
        finally:
            self._metrics.caches.operation(self.name, operation, result, self._clock() - began)


class ObservedTransport:
    """A transport, watched: every call has an outcome and a duration."""

    def __init__(
        self,
        inner: Transport,
        metrics: Metrics,
        upstream: str,
        clock: Callable[[], float],
    ) -> None:
        self._inner = inner
        self._metrics = metrics.upstreams
        self._upstream = upstream
        self._clock = clock

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        timeout: float,  # noqa: ASYNC109
    ) -> Reply:
        """See Transport.send."""
        return await self._watched(self._inner.send(method, url, headers, body, timeout=timeout))

    async def open(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        timeout: float,  # noqa: ASYNC109
        silence: float,
    ) -> Opened:
        """See Transport.open; the time is that until the answer's headers."""
        answer = await self._watched(
            self._inner.open(method, url, headers, body, timeout=timeout, silence=silence)
        )
        return ObservedAnswer(answer, self._count)

    async def aclose(self) -> None:
        """See Transport.aclose."""
        await self._inner.aclose()

    async def _watched(self, call: Awaitable[A]) -> A:
        began = self._clock()
        outcome = "cancelled"
        try:
            answer = await call
            outcome = _outcome(answer.status)
            self._metrics.answered(self._upstream, answer.headers)
        except UpstreamError as error:
            outcome = _failure(error)
            raise
        finally:
            self._metrics.took(self._upstream, self._clock() - began)
            self._count(outcome)
        return answer

    def _count(self, outcome: str) -> None:
        self._metrics.called(self._upstream, outcome)


class ObservedAnswer:
    """An open answer, watched: one that breaks counts once more, by how it broke."""

    __slots__ = ("_answer", "_count", "_pieces", "headers", "status")

    def __init__(self, answer: Opened, count: Callable[[str], None]) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self._answer = answer
        self._pieces = aiter(answer)
        self._count = count

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._pieces)
        except UpstreamError as error:
            self._count(_failure(error))
            raise

    async def read(self) -> bytes:
        """See Opened.read."""
        try:
            return await self._answer.read()
        except UpstreamError as error:
            self._count(_failure(error))
            raise

    async def aclose(self) -> None:
        """See Opened.aclose."""
        await self._answer.aclose()


def _failure(error: UpstreamError) -> str:
    if isinstance(error, UpstreamTimeoutError):
        return "timeout"
    return "connect" if isinstance(error, UpstreamConnectError) else "bad_answer"


def _outcome(status: int) -> str:
    if status < 300:
        return "ok"
    if status == 429:
        return "429"
    return "3xx" if status < 400 else "4xx" if status < 500 else "5xx"
