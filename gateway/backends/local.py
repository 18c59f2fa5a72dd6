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

from gateway.backends.failures import Failure
from gateway.backends.openai import Endpoint, OpenAIBackend
from gateway.backends.transport import Opened, Reply, Transport
from gateway.errors import (
    GatewayError,
    InvalidInputError,
    InvalidRequestError,
    UnavailableError,
    UpstreamConnectError,
    retry_headers,
)
from gateway.resilience.retry import RetryPolicy
from gateway.types import ModelInfo, RawEmbeddings, Text

T = TypeVar("T")

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

    def __init__(
        self,
        name: str,
        transport: Transport,
        retry: RetryPolicy,
        info: ModelInfo,
        status_file: Path,
        *,
        contexts: int,
        concurrency: int,
        max_queue: int,
    ) -> None:
        self.name = name
        # Twice the contexts: one part being decoded, one ready behind it. But one request's parts
        # must fit into the engine's queue, or it could never be served.
        self.max_batch = min(PART_TEXTS, max_queue)
        self.parallel = min(2 * contexts, max_queue // self.max_batch)
        self._retry = retry
        self._info = info
        self._status_file = status_file
        endpoint = Endpoint("http://engine", timeout=3600.0, concurrency=concurrency)
        once = RetryPolicy(chance=retry.chance, attempts=1)
        self._calls = OpenAIBackend(
            name, endpoint, transport, once, read_failure=read_engine_failure
        )

    async def embed(
        self,
        model: str,
        texts: Sequence[Text],
        *,
        fields: Mapping[str, Any],
        truncate: bool,
        deadline: float,
    ) -> RawEmbeddings:
        """See EmbeddingBackend.embed."""
        return await self._patiently(
            lambda: self._calls.embed(
                model, texts, fields=fields, truncate=truncate, deadline=deadline
            ),
            deadline,
        )

    async def chat(
        self,
        body: bytes,
        *,
        stream: bool,
        quotable: Sequence[str],
        deadline: float,
        silence: float,
    ) -> Opened:
        """See ChatBackend.chat; sent again to the next engine as long as no headers came."""
        del quotable  # our own engine quotes nothing
        return await self._patiently(
            lambda: self._calls.chat(
                body, stream=stream, quotable=(), deadline=deadline, silence=silence
            ),
            deadline,
        )

    def refused(self, reply: Reply, quotable: Sequence[str]) -> GatewayError:
        """See ChatBackend.refused."""
        return self._calls.refused(reply, quotable)

    async def count(self, texts: Sequence[Text], *, deadline: float) -> Sequence[int]:
        """Return the tokens that each text has in the model's own vocabulary, specials included."""
        body = msgspec.json.encode({"input": texts})
        reply = await self._patiently(
            lambda: self._calls.call("POST", "/tokenize", body, deadline), deadline
        )
        return msgspec.json.decode(reply.body, type=_Counted).input_tokens

    async def _patiently(self, call: Callable[[], Awaitable[T]], deadline: float) -> T:
        """Call until it is answered, however often the engine is replaced meanwhile."""
        clock = asyncio.get_running_loop().time
        attempt = 0
        while True:
            attempt += 1
            self._refuse_if_failed()
            try:
                return await call()
            except UpstreamConnectError as error:
                wait = self._retry.wait(attempt, deadline - clock())
                if wait is None:
                    raise UnavailableError(
                        f"The engine of '{self.name}' is being started again.",
                        code="engine_unavailable",
                        headers=retry_headers(1.0),
                    ) from error
                await asyncio.sleep(wait)

    async def models(self) -> Sequence[str]:
        """Return nothing: an engine serves the one model that the config names."""
        return ()

    def info(self) -> ModelInfo:
        """Return what the engine says, and before it has loaded what the file says."""
        status = self.status()
        if status.facts is None:
            return replace(self._info, state=status.state)
        facts = status.facts
        return ModelInfo(facts.width, facts.context, facts.pooling, status.state)

    def status(self) -> EngineStatus:
        """Return what its keeper wrote."""
        try:
            return msgspec.json.decode(self._status_file.read_bytes(), type=EngineStatus)
        except (OSError, msgspec.DecodeError):
            return EngineStatus("starting")

    async def health(self, timeout: float) -> Mapping[str, Any] | None:  # noqa: ASYNC109
        """Return the engine's own figures; None where it is not running. Never wakes it."""
        if self.status().state != "ready":
            return None
        deadline = asyncio.get_running_loop().time() + timeout
        try:
            reply = await self._calls.call("GET", "/health", None, deadline)
            return msgspec.json.decode(reply.body, type=dict[str, Any])
        except (GatewayError, msgspec.DecodeError):
            return None

    async def aclose(self) -> None:
        """Close the connections; the engine belongs to its keeper."""
        await self._calls.aclose()

    def _refuse_if_failed(self) -> None:
        status = self.status()
        if status.state == "failed":
            raise UnavailableError(
                f"The engine of '{self.name}' cannot run: {status.reason}",
                code="engine_failed",
                headers=retry_headers(30.0) | {"x-should-retry": "false"},
            )


class _Counted(msgspec.Struct):
    input_tokens: list[int]


class _EngineError(msgspec.Struct):
    message: str
    type: str = "server_error"
    param: str | None = None
    code: str | None = None
    item: int | None = None


class _EngineErrorBody(msgspec.Struct):
    error: _EngineError


def read_engine_failure(reply: Reply, upstream: str, field: str) -> Failure | None:
    """Return what an engine's answer means; it speaks our own errors, with `item` beside them."""
    del field  # it names fields itself
    if reply.status == 200:
        return None
    try:
        said = msgspec.json.decode(reply.body, type=_EngineErrorBody).error
    except (msgspec.DecodeError, RecursionError):
        said = _EngineError(f"The engine of '{upstream}' answered with status {reply.status}.")
    headers = {
        name: reply.headers[name]
        for name in ("retry-after", "retry-after-ms", "x-should-retry")
        if name in reply.headers
    }
    error: GatewayError
    if reply.status == 400 and said.item is not None:
        error = InvalidInputError(said.message, item=said.item, code=said.code)
    elif 400 <= reply.status < 500:
        error = InvalidRequestError(said.message, param=said.param, code=said.code)
    elif reply.status == 503:
        error = UnavailableError(said.message, code=said.code, headers=headers)
    else:
        error = GatewayError(said.message, param=said.param, code=said.code, headers=headers)
    return Failure(error, retry=False)
