"""Any server that speaks the OpenAI API, spoken to over a Transport.

One call is: take a place, send, and either read the answer or decide whether to ask again. It
knows nothing of caches or of the client's request; `wire` reads embeddings, `failures` errors.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import msgspec

from gateway.backends.failures import Failure, read_failure, without
from gateway.backends.transport import Reply, Transport
from gateway.backends.wire import read_embeddings
from gateway.errors import (
    GatewayError,
    InvalidInputError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamTimeoutError,
)
from gateway.resilience.retry import RetryPolicy
from gateway.types import ModelInfo, RawEmbeddings, Text

LISTING_TIMEOUT = 5.0
"""Seconds for an upstream's list of models: somebody waits for `GET /v1/models` meanwhile."""

_encode = msgspec.json.Encoder().encode


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
    """Seconds for one attempt."""
    max_batch: int = 2048
    concurrency: int = 64


class OpenAIBackend:
    """Embeds by `POST {base_url}/embeddings`."""

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
        read_failure: Callable[[Reply, str], Failure | None] = read_failure,
    ) -> None:
        self.name = name
        self.max_batch = endpoint.max_batch
        self._endpoint = endpoint
        self._transport = transport
        self._retry = retry
        self._read_failure = read_failure
        self._places = asyncio.Semaphore(endpoint.concurrency)
        self._headers = _headers(endpoint)
        self._secrets = [
            secret
            for secret in (
                endpoint.api_key,
                *(endpoint.headers or {}).values(),
                *(endpoint.query or {}).values(),
            )
            if secret
        ]
        self._query = f"?{urlencode(endpoint.query)}" if endpoint.query else ""

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
        if self._endpoint.encoding:
            body["encoding_format"] = self._endpoint.encoding
        if truncate:
            body["truncate"] = True
        try:
            reply = await self.call("POST", "/embeddings", _encode(body), deadline)
        except InvalidInputError:
            raise  # our own engine's, which quotes nothing
        except GatewayError as error:
            raise self._unquoted(error, texts) from None
        raw = read_embeddings(
            reply.body,
            [_size(text) for text in texts],
            upstream=self.name,
            by_position=self._endpoint.by_position,
        )
        limits = {k: v for k, v in reply.headers.items() if k.startswith("x-ratelimit-")}
        return replace(raw, headers=limits) if limits else raw

    def _unquoted(self, error: GatewayError, texts: Sequence[Text]) -> GatewayError:
        """Take out of an error what the upstream quoted in it of the texts and of our secrets."""
        whole = error.message
        error.message = without(whole, texts, self._secrets)
        if not error.message:
            error.message = f"Upstream '{self.name}' refused the request."
        for name in ("param", "code"):
            value = getattr(error, name)
            if value is not None and without(value, texts, self._secrets) != value:
                setattr(error, name, None)
        return error

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
        await self._transport.aclose()

    async def call(self, method: str, path: str, body: bytes | None, deadline: float) -> Reply:
        """Send until there is a good answer, a final one, or no time left.

        Raises what `read_failure` makes of the last answer, UpstreamConnectError or
        UpstreamTimeoutError.
        """
        url = f"{self._endpoint.base_url}{path}{self._query}"
        clock = asyncio.get_running_loop().time
        attempt = 0
        while True:
            attempt += 1
            answer = await self._attempt(method, url, body, deadline)
            if isinstance(answer, Reply):
                return answer
            wait = None
            if answer.retry:
                wait = self._retry.wait(attempt, deadline - clock(), answer.after)
            if wait is None:
                raise answer.final(spent=answer.retry)
            await asyncio.sleep(wait)

    async def _attempt(
        self, method: str, url: str, body: bytes | None, deadline: float
    ) -> Reply | Failure:
        """Send once, as soon as there is a place."""
        clock = asyncio.get_running_loop().time
        try:
            if self._places.locked():
                # Only then, as a timer costs more than the place.
                async with asyncio.timeout_at(deadline):
                    await self._places.acquire()
            else:
                await self._places.acquire()
            try:
                timeout = min(deadline - clock(), self._endpoint.timeout)
                reply = await self._transport.send(
                    method, url, self._headers, body, timeout=max(timeout, 0.0)
                )
            finally:
                self._places.release()
        except TimeoutError:
            error = UpstreamTimeoutError(f"No place at upstream '{self.name}' became free in time.")
            return Failure(error, retry=False)
        except (UpstreamConnectError, UpstreamTimeoutError) as error:
            # A slow answer would be slow again, and may be billed; a connection costs nothing.
            return Failure(error, retry=error.code != "upstream_timeout")
        return self._read_failure(reply, self.name) or reply


class _Model(msgspec.Struct):
    id: str


class _ModelList(msgspec.Struct):
    data: list[_Model]


def _headers(endpoint: Endpoint) -> dict[str, str]:
    headers = {"content-type": "application/json", "accept": "application/json"}
    headers.update({name.lower(): value for name, value in (endpoint.headers or {}).items()})
    if endpoint.api_key:
        bearer = endpoint.auth_header.lower() == "authorization"
        headers[endpoint.auth_header.lower()] = (
            f"Bearer {endpoint.api_key}" if bearer else endpoint.api_key
        )
    return headers


def _size(text: Text) -> int:
    # Only a measure for sharing out a sum of tokens: characters will do, and cost nothing.
    return len(text)
