"""Any server that speaks the OpenAI API: embeddings, chats and the list of its models.

It knows nothing of caches or of the client's request; `upstream` makes the calls, `wire` reads
embeddings, `failures` errors.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from gateway.backends.failures import read_failure
from gateway.backends.transport import Opened, Reply, Transport
from gateway.backends.upstream import Endpoint, ReadFailure, Upstream
from gateway.backends.wire import read_embeddings
from gateway.errors import GatewayError, InvalidInputError, UpstreamError
from gateway.resilience.retry import RetryPolicy
from gateway.types import ModelInfo, RawEmbeddings, Text

__all__ = ["Endpoint", "OpenAIBackend"]

LISTING_TIMEOUT = 5.0
"""Seconds for an upstream's list of models: somebody waits for `GET /v1/models` meanwhile."""

_encode = msgspec.json.Encoder().encode


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
    ) -> None:
        self.name = name
        self.max_batch = endpoint.max_batch
        self._encoding = endpoint.encoding
        self._by_position = endpoint.by_position
        self._upstream = Upstream(name, endpoint, transport, retry, read_failure)

    async def embed(
        self,
        model: str,
        texts: Sequence[Text],
        *,
        fields: Mapping[str, Any],
        truncate: bool,
        deadline: float,
    ) -> RawEmbeddings:
        """See EmbeddingBackend.embed; `fields` go into the body as they are."""
        body: dict[str, Any] = {"model": model, "input": texts, **fields}
        if self._encoding:
            body["encoding_format"] = self._encoding
        if truncate:
            body["truncate"] = True
        try:
            reply = await self.call("POST", "/embeddings", _encode(body), deadline)
        except InvalidInputError:
            raise  # our own engine's, which quotes nothing
        except GatewayError as error:
            raise self._upstream.unquoted(error, texts) from None
        raw = read_embeddings(
            reply.body,
            [_size(text) for text in texts],
            upstream=self.name,
            by_position=self._by_position,
        )
        limits = {k: v for k, v in reply.headers.items() if k.startswith("x-ratelimit-")}
        return replace(raw, headers=limits) if limits else raw

    async def chat(
        self,
        body: bytes,
        *,
        stream: bool,
        quotable: Sequence[str],
        deadline: float,
        silence: float,
    ) -> Opened:
        """See ChatBackend.chat."""
        try:
            return await self._upstream.open(
                "/chat/completions", body, stream=stream, deadline=deadline, silence=silence
            )
        except GatewayError as error:
            raise self._upstream.unquoted(error, quotable) from None

    def refused(self, reply: Reply, quotable: Sequence[str]) -> GatewayError:
        """See ChatBackend.refused."""
        return self._upstream.refused(reply, quotable)

    async def count(self, texts: Sequence[Text], *, deadline: float) -> Sequence[int] | None:
        """Return None: the OpenAI API has no way to ask."""
        del texts, deadline
        return None

    async def models(self) -> Sequence[str]:
        """Return the ids of `GET {base_url}/models`; raises UpstreamError where that fails."""
        deadline = asyncio.get_running_loop().time() + LISTING_TIMEOUT
        reply = await self.call("GET", "/models", None, deadline)
        try:
            listed = msgspec.json.decode(reply.body, type=_ModelList)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise UpstreamError(
                f"Upstream '{self.name}' did not answer with a list of models.",
                code="upstream_invalid_response",
            ) from error
        return [model.id for model in listed.data]

    def info(self) -> ModelInfo:
        """Return nothing: the API does not tell."""
        return ModelInfo()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._upstream.aclose()

    async def call(self, method: str, path: str, body: bytes | None, deadline: float) -> Reply:
        """See Upstream.call."""
        return await self._upstream.call(method, path, body, deadline)


class _Model(msgspec.Struct):
    id: str


class _ModelList(msgspec.Struct):
    data: list[_Model]


def _size(text: Text) -> int:
    # Only a measure for sharing out a sum of tokens: characters will do, and cost nothing.
    return len(text)
