"""The seams, watched: what passes through is counted and timed, and is what it was.

The straight line, the stores and the transports know nothing of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from gateway.backends.transport import Reply, Transport
from gateway.cache.keys import Key
from gateway.cache.store import CacheStore, Namespace, StoreError, Usage
from gateway.embedded import Embedded
from gateway.embeddings import CreatesEmbeddings
from gateway.errors import UpstreamConnectError, UpstreamError, UpstreamTimeoutError
from gateway.metrics import Metrics
from gateway.types import Caller, EmbeddingRequest


class ObservedEmbeddings:
    """The straight line, watched."""

    def __init__(self, inner: CreatesEmbeddings, metrics: Metrics) -> None:
        self._inner = inner
        self._metrics = metrics

    async def create(
        self, request: EmbeddingRequest, caller: Caller, *, deadline: float
    ) -> Embedded:
        """See Embeddings.create."""
        embedded = await self._inner.create(request, caller, deadline=deadline)
        self._metrics.embedded(request.model, embedded)
        return embedded


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
            self._metrics.operation(self.name, operation, result, self._clock() - began)


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
        self._calls = metrics.calls
        self._upstream = upstream
        self._seconds = metrics.call_seconds.labels(upstream)
        self._ok = metrics.calls.labels(upstream, "ok")
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
        began = self._clock()
        outcome = "cancelled"
        try:
            reply = await self._inner.send(method, url, headers, body, timeout=timeout)
            outcome = _outcome(reply.status)
        except UpstreamTimeoutError:
            outcome = "timeout"
            raise
        except UpstreamConnectError:
            outcome = "connect"
            raise
        except UpstreamError:
            outcome = "bad_answer"
            raise
        finally:
            self._seconds.observe(self._clock() - began)
            if outcome == "ok":
                self._ok.inc()
            else:
                self._calls.labels(self._upstream, outcome).inc()
        return reply

    async def aclose(self) -> None:
        """See Transport.aclose."""
        await self._inner.aclose()


def _outcome(status: int) -> str:
    if status < 300:
        return "ok"
    if status == 429:
        return "429"
    return "3xx" if status < 400 else "4xx" if status < 500 else "5xx"
