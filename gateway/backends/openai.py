"""Any server that speaks the OpenAI API: embeddings, chats and the list of its models.

It knows nothing of caches or of the client's request; `upstream` makes the calls, `wire` reads
embeddings, `failures` errors.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import msgspec

from gateway.backends.endpoint import Endpoint
from gateway.backends.exchange import request_id
from gateway.backends.failures import read_failure
from gateway.backends.transport import Opened, Reply, Transport
from gateway.backends.upstream import ReadFailure, Upstream
from gateway.backends.wire import read_embeddings
from gateway.errors import (
    GatewayError,
    InvalidInputError,
    UnavailableError,
    UpstreamError,
    VectorsRefusedError,
)
from gateway.resilience.circuit import USUAL, Circuit, Limits
from gateway.resilience.retry import RetryPolicy
from gateway.types import ANYONE, Caller, ModelInfo, RawEmbeddings, Text, UpstreamInfo

__all__ = ["Endpoint", "OpenAIBackend"]

LISTING_TIMEOUT = 5.0
"""Seconds for an upstream's list of models: somebody waits for `GET /v1/models` meanwhile."""

_encode = msgspec.json.Encoder().encode


class SeesVectors(Protocol):
    """Is told what upstreams send in place of vectors, and of the vectors."""

    def sent(self, raw: RawEmbeddings) -> None:
        """Take note of a sound answer."""
        ...

    def refused(self, error: VectorsRefusedError) -> None:
        """Take note of one that is not accepted."""
        ...


class OpenAIBackend:
    """Embeds by `POST {base_url}/embeddings`, chats by `POST {base_url}/chat/completions`."""

    max_batch_bytes = 300_000
    """OpenAI takes 300,000 tokens a call, and no token is shorter than a byte."""
    parallel = 16

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        transport: Transport,
        retry: RetryPolicy,
        *,
        read_failure: ReadFailure = read_failure,
        limits: Limits = USUAL,
        seen: SeesVectors | None = None,
    ) -> None:
        """`limits` say when the upstream is left alone; `seen` is told of its vectors."""
        self.name = name
        self.max_batch = endpoint.max_batch
        self.forwards = endpoint.forward_key
        self._encoding = endpoint.encoding
        self._by_position = endpoint.by_position
        self._seen = seen
        self.upstream = Upstream(name, endpoint, transport, retry, read_failure, limits)
        """Who is asked, for all models."""

    @property
    def circuit(self) -> Circuit:
        """How its calls went."""
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
        """See EmbeddingBackend.embed; `fields` go into the body as they are."""
        body: dict[str, Any] = {"model": model, "input": texts, **fields}
        if self._encoding:
            body["encoding_format"] = self._encoding
        if truncate:
            body["truncate"] = True
        sizes = [_size(text) for text in texts]
        try:
            return await self.upstream.call(
                "POST",
                "/embeddings",
                _encode(body),
                deadline,
                read=lambda reply: self._read(reply, sizes),
                caller=caller,
                stand_in=stand_in,
            )
        except (InvalidInputError, UnavailableError):
            raise  # our own engine's, and our own words, which quote nothing
        except GatewayError as error:
            raise self.upstream.unquoted(error, texts) from None

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
        """See ChatBackend.chat."""
        try:
            return await self.upstream.open(
                "/chat/completions",
                body,
                stream=stream,
                deadline=deadline,
                silence=silence,
                caller=caller,
                stand_in=stand_in,
            )
        except GatewayError as error:
            raise self.upstream.unquoted(error, quotable) from None

    def refused(self, reply: Reply, quotable: Sequence[str]) -> GatewayError:
        """See ChatBackend.refused."""
        return self.upstream.refused(reply, quotable)

    async def count(
        self, texts: Sequence[Text], *, deadline: float, caller: Caller = ANYONE
    ) -> Sequence[int] | None:
        """Return None: the OpenAI API has no way to ask."""
        del texts, deadline, caller
        return None

    async def models(self, caller: Caller = ANYONE) -> Sequence[str]:
        """Return the ids of `GET {base_url}/models`; raises UpstreamError where that fails."""
        deadline = asyncio.get_running_loop().time() + LISTING_TIMEOUT
        return await self.upstream.call(
            "GET", "/models", None, deadline, read=self._read_models, caller=caller
        )

    def info(self) -> ModelInfo:
        """Return how its calls go; of the model the API does not tell."""
        state, reason = self.circuit.state, self.circuit.reason
        if state == "closed":
            return ModelInfo(upstreams=(UpstreamInfo(self.name, "ready"),))
        return ModelInfo(upstreams=(UpstreamInfo(self.name, state, reason),))

    async def aclose(self) -> None:
        """Close the connections."""
        await self.upstream.aclose()

    def _read(self, reply: Reply, sizes: Sequence[int]) -> RawEmbeddings:
        raw = self._read_vectors(reply, sizes)
        limits = {k: v for k, v in reply.headers.items() if k.startswith("x-ratelimit-")}
        return replace(raw, headers=limits, request_id=request_id(reply.headers))

    def _read_vectors(self, reply: Reply, sizes: Sequence[int]) -> RawEmbeddings:
        by_position = self._by_position
        try:
            raw = read_embeddings(reply.body, sizes, upstream=self.name, by_position=by_position)
        except VectorsRefusedError as error:
            if self._seen is not None:
                self._seen.refused(error)
            raise
        if self._seen is not None:
            self._seen.sent(raw)
        return raw

    def _read_models(self, reply: Reply) -> list[str]:
        try:
            listed = msgspec.json.decode(reply.body, type=_ModelList)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise UpstreamError(
                f"Upstream '{self.name}' did not answer with a list of models.",
                code="upstream_invalid_response",
            ) from error
        return [model.id for model in listed.data]


class _Model(msgspec.Struct):
    id: str


class _ModelList(msgspec.Struct):
    data: list[_Model]


def _size(text: Text) -> int:
    # Only a measure for sharing out a sum of tokens: characters will do, and cost nothing.
    return len(text)
