"""The engine over HTTP: three paths, JSON in and out, as a bare ASGI app.

Knows the wire format and which fault is which answer; not how a vector is made. A request is
tokenized whole before any of it is decoded, so a text at fault costs nothing; a client that leaves
takes its waiting texts with it.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

import msgspec

from gateway.engine.decoder import Job, Preparer, Text
from gateway.engine.faults import ItemError, RefusedError, error_body, out_of_memory, overloaded
from gateway.engine.http import GoneError, Health, Receive, Send, gone, read_body, send_json
from gateway.engine.pool import JobError, Pool, QueueFullError, Ticket
from gateway.errors import (
    GatewayError,
    InvalidInputError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    PayloadTooLargeError,
)

T = TypeVar("T")
MAX_INPUTS = 2048
CHUNK_TEXTS = 64
CHUNK_CHARACTERS = 64 << 10
"""The tokenizer's thread takes so much of one request before it looks at another."""
_ITEM = re.compile(r"\$\.input\[(\d+)\]")


class EmbeddingsBody(msgspec.Struct):
    """What `POST /v1/embeddings` reads of its body; the rest is ignored."""

    input: list[str | list[int]]
    model: str | None = None
    truncate: bool = False


class TokenizeBody(msgspec.Struct):
    """What `POST /tokenize` reads of its body."""

    input: list[str | list[int]]


class _Datum(msgspec.Struct):
    index: int
    embedding: bytes
    """Encoded as base64."""
    object: str = "embedding"


class EngineApp:
    """An ASGI app over a preparer in one thread and a pool of decoders."""

    def __init__(
        self,
        preparer: Preparer,
        tokenizing: Executor,
        pool: Pool[Job, bytes],
        health: Health,
    ) -> None:
        self._preparer = preparer
        self._tokenizing = tokenizing
        self._pool = pool
        self._health = health
        self._embeddings_body = msgspec.json.Decoder(EmbeddingsBody)
        self._tokenize_body = msgspec.json.Decoder(TokenizeBody)
        self._encoder = msgspec.json.Encoder()

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request, unless the client leaves first."""
        try:
            body = await read_body(receive)
        except GoneError:
            return
        except PayloadTooLargeError as error:
            await send_json(send, error.status, error_body(error), {"connection": "close"})
            return
        work = asyncio.ensure_future(self._answer(scope["method"], scope["path"], body))
        left = asyncio.ensure_future(gone(receive))
        try:
            await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await send_json(send, *work.result())
        finally:
            left.cancel()
            work.cancel()

    async def _answer(
        self, method: str, path: str, body: bytes
    ) -> tuple[int, bytes, Mapping[str, str]]:
        try:
            return 200, await self._route(method, path, body), {}
        except JobError as error:
            fault = _fault(error)
        except QueueFullError as error:
            fault = overloaded(error.wait)
        except GatewayError as error:
            fault = error
        return fault.status, error_body(fault), fault.headers

    async def _route(self, method: str, path: str, body: bytes) -> bytes:
        path = path.removeprefix("/v1")
        wanted = {"/embeddings": "POST", "/tokenize": "POST", "/health": "GET"}.get(path)
        if wanted is None:
            raise NotFoundError("The engine serves /v1/embeddings, /tokenize and /health.")
        if method != wanted:
            raise MethodNotAllowedError(f"{path} takes {wanted}.", headers={"allow": wanted})
        if path == "/embeddings":
            return await self._embeddings(_decode(self._embeddings_body, body))
        if path == "/tokenize":
            return await self._tokenize(_decode(self._tokenize_body, body))
        return self._encoder.encode({**self._health.fixed, **self._health.moving()})

    async def _embeddings(self, request: EmbeddingsBody) -> bytes:
        ticket = self._reserve(request.input)
        try:
            jobs = await self._chunks(
                request.input,
                lambda inputs, first: self._preparer.jobs(inputs, first, truncate=request.truncate),
            )
            counts = [job.count for job in jobs]
            self._pool.submit(ticket, jobs, counts)
            vectors = await asyncio.wrap_future(ticket.done)
        finally:
            self._pool.cancel(ticket)
        total = sum(counts)
        answer = {
            "object": "list",
            "model": request.model or "",
            "data": [_Datum(index, vector) for index, vector in enumerate(vectors)],
            "usage": {"prompt_tokens": total, "total_tokens": total},
            "input_tokens": counts,
            "truncated": [job.truncated for job in jobs],
            "system_fingerprint": self._health.fixed["fingerprint"],
        }
        return self._encoder.encode(answer)

    async def _tokenize(self, request: TokenizeBody) -> bytes:
        ticket = self._reserve(request.input)
        try:
            counts = await self._chunks(request.input, self._preparer.counts)
        finally:
            self._pool.cancel(ticket)
        return self._encoder.encode({"input_tokens": counts})

    def _reserve(self, inputs: Sequence[Text]) -> Ticket[Job, bytes]:
        if not 1 <= len(inputs) <= MAX_INPUTS:
            raise InvalidRequestError(
                f"'input' must hold 1 to {MAX_INPUTS} items; it holds {len(inputs)}.", param="input"
            )
        return self._pool.reserve(len(inputs))

    async def _chunks(
        self, inputs: Sequence[Text], step: Callable[[Sequence[Text], int], list[T]]
    ) -> list[T]:
        """Run `step` over the inputs in the tokenizer's thread, which others get in between."""
        loop = asyncio.get_running_loop()
        found: list[T] = []
        first = size = 0
        for end, text in enumerate(inputs, start=1):
            size += len(text)
            if size >= CHUNK_CHARACTERS or end - first >= CHUNK_TEXTS or end == len(inputs):
                chunk = inputs[first:end]
                found += await loop.run_in_executor(self._tokenizing, step, chunk, first)
                first, size = end, 0
        return found


def _fault(error: JobError) -> GatewayError:
    cause = error.cause
    if isinstance(cause, ItemError):
        cause.item = error.position
        return cause
    if isinstance(cause, RefusedError):
        return out_of_memory(cause)
    raise cause


def _decode(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at ")
        found = _ITEM.search(place)
        if found is not None:
            raise InvalidInputError(message, item=int(found[1])) from None
        raise InvalidRequestError(str(error)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise InvalidRequestError("The body is not valid JSON.") from None
