"""A GGUF model on this machine: an engine process behind a Unix socket, spoken to like an upstream.

Whoever started the engine (gateway.engines) keeps its listening socket open while the process is
replaced, so a call that finds the engine gone waits for the next one. A call that was cut in the
middle is sent again until the request's deadline: embedding twice does no harm, and of a chat
nothing was told yet.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gateway.backends.engine_words import read_engine_failure, read_token_counts
from gateway.backends.openai import Endpoint, OpenAIBackend, SeesVectors
from gateway.backends.transport import Opened, Reply, Transport
from gateway.backends.upstream import Upstream
from gateway.engine_counts import COUNTS, EngineCounts, read_counts
from gateway.errors import (
    GatewayError,
    UnavailableError,
    UpstreamConnectError,
    retry_headers,
)
from gateway.resilience.circuit import Circuit, Limits
from gateway.resilience.retry import RetryPolicy
from gateway.types import ANYONE, Caller, ModelInfo, RawEmbeddings, Text, UpstreamInfo

T = TypeVar("T")

ADDRESS = "http://engine"
"""By the socket of the engine; the name is never looked up."""
_NEVER = Limits(calls=0)
"""An engine that is away is waited for: its keeper starts another one."""

PART_TEXTS = 16
PART_BYTES = 8192
"""One call to the engine: long enough to hide HTTP's cost (under 1 % of the decoding), short
enough that little is lost with an engine that dies and that others' texts come in between."""


class EngineFacts(msgspec.Struct, frozen=True):
    """What an engine says of the model that it has loaded."""

    context: int
    """Tokens of the longest text it takes, or of the longest chat."""
    contexts: int
    """Texts or chats it decodes at a time."""
    width: int | None = None
    """Of its vectors; one that chats has none."""
    pooling: str | None = None


class EngineStatus(msgspec.Struct, frozen=True):
    """What the engine's keeper last wrote about it."""

    state: str
    """"waiting" (for its first use), "starting", "ready" or "failed"."""
    restarts: int = 0
    pid: int | None = None
    reason: str | None = None
    """Why it failed for good."""
    facts: EngineFacts | None = None
    """Of the last engine that was ready."""


class LocalBackend:
    """Embeds or chats by an engine process; see Upstream for how a call is made."""

    max_batch_bytes = PART_BYTES
    forwards = False

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        transport: Transport,
        retry: RetryPolicy,
        info: ModelInfo,
        status_file: Path,
        *,
        contexts: int,
        seen: SeesVectors | None = None,
    ) -> None:
        """`seen` is told of its vectors."""
        self.name = name
        self.max_batch = endpoint.max_batch
        # Twice the contexts: one part being decoded, one ready behind it. But one request's parts
        # must fit into the engine's queue, or it could never be served.
        self.parallel = min(2 * contexts, endpoint.concurrency)
        self._retry = retry
        self._info = info
        self._status_file = status_file
        once = RetryPolicy(chance=retry.chance, attempts=1)
        self._transport = transport
        self._calls = OpenAIBackend(
            name,
            endpoint,
            transport,
            once,
            read_failure=read_engine_failure,
            limits=_NEVER,
            seen=seen,
        )

    @property
    def upstream(self) -> Upstream:
        """Who makes the calls."""
        return self._calls.upstream

    @property
    def circuit(self) -> Circuit:
        """Always closed: its keeper sees to the engine."""
        return self.upstream.circuit

    async def embed(
        self,
        model: str,
        texts: Sequence[Text],
        *,
        fields: Mapping[str, Any],
        truncate: bool,
        deadline: float,
        caller: Caller = ANYONE,
        stand_in: bool = False,
    ) -> RawEmbeddings:
        """See EmbeddingBackend.embed."""
        return await self._patiently(
            lambda: self._calls.embed(
                model,
                texts,
                fields=fields,
                truncate=truncate,
                deadline=deadline,
                caller=caller,
                stand_in=stand_in,
            ),
            deadline,
            stand_in=stand_in,
        )

    async def chat(
        self,
        body: bytes,
        *,
        stream: bool,
        quotable: Sequence[str],
        deadline: float,
        silence: float,
        caller: Caller = ANYONE,
        stand_in: bool = False,
    ) -> Opened:
        """See ChatBackend.chat; sent again to the next engine as long as no headers came."""
        del quotable  # our own engine quotes nothing
        return await self._patiently(
            lambda: self._calls.chat(
                body,
                stream=stream,
                quotable=(),
                deadline=deadline,
                silence=silence,
                caller=caller,
                stand_in=stand_in,
            ),
            deadline,
            stand_in=stand_in,
        )

    def refused(self, reply: Reply, quotable: Sequence[str]) -> GatewayError:
        """See ChatBackend.refused."""
        return self._calls.refused(reply, quotable)

    async def count(
        self, texts: Sequence[Text], *, deadline: float, caller: Caller = ANYONE
    ) -> Sequence[int]:
        """Return the tokens that each text has in the model's own vocabulary, specials included."""
        body = msgspec.json.encode({"input": texts})
        return await self._patiently(
            lambda: self.upstream.call(
                "POST", "/tokenize", body, deadline, read=read_token_counts, caller=caller
            ),
            deadline,
        )

    async def _patiently(
        self, call: Callable[[], Awaitable[T]], deadline: float, *, stand_in: bool = False
    ) -> T:
        """Call until it is answered, however often the engine is replaced meanwhile.

        Where another upstream can serve instead, an engine that is not there is not waited for.
        """
        clock = asyncio.get_running_loop().time
        attempt = 0
        while True:
            attempt += 1
            self._refuse_if_away(stand_in=stand_in)
            try:
                return await call()
            except UpstreamConnectError as error:
                wait = None if stand_in else self._retry.wait(attempt, deadline - clock())
                if wait is None:
                    raise self._starting() from error
                await asyncio.sleep(wait)

    async def models(self, caller: Caller = ANYONE) -> Sequence[str]:
        """Return nothing: an engine serves the one model that the config names."""
        del caller
        return ()

    def info(self) -> ModelInfo:
        """Return what the engine says, and before it has loaded what the file says."""
        status = self.status()
        upstreams = (UpstreamInfo(self.name, status.state, status.reason),)
        if status.facts is None:
            return replace(self._info, state=status.state, upstreams=upstreams)
        facts = status.facts
        return ModelInfo(facts.width, facts.context, facts.pooling, status.state, upstreams)

    def status(self) -> EngineStatus:
        """Return what its keeper wrote."""
        try:
            return msgspec.json.decode(self._status_file.read_bytes(), type=EngineStatus)
        except (OSError, msgspec.DecodeError):
            return EngineStatus("starting")

    def counts(self) -> EngineCounts:
        """Return what the engine has done in all its lives."""
        return read_counts(self._status_file.with_suffix(COUNTS))

    async def health(self, timeout: float) -> Mapping[str, Any] | None:  # noqa: ASYNC109
        """Return the engine's own figures; None where it is not running. Never wakes it."""
        if self.status().state != "ready":
            return None
        try:
            # Not by way of the places: how an engine is must show where it has most to do.
            reply = await self._transport.send(
                "GET", f"{ADDRESS}/health", {}, None, timeout=timeout
            )
            figures = msgspec.json.decode(reply.body, type=dict[str, Any])
        except (GatewayError, msgspec.DecodeError):
            return None
        return figures if reply.status == 200 else None

    async def aclose(self) -> None:
        """Close the connections; the engine belongs to its keeper."""
        await self._calls.aclose()

    def _refuse_if_away(self, *, stand_in: bool) -> None:
        status = self.status()
        if status.state == "failed":
            raise UnavailableError(
                f"The engine of '{self.name}' cannot run: {status.reason}",
                code="engine_failed",
                headers=retry_headers(30.0) | {"x-should-retry": "false"},
            )
        if stand_in and status.state == "starting":
            raise self._starting()

    def _starting(self) -> UnavailableError:
        return UnavailableError(
            f"The engine of '{self.name}' is being started again.",
            code="engine_unavailable",
            headers=retry_headers(1.0),
        )
