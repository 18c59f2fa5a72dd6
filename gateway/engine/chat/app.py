"""The engine for chat over HTTP: two paths, JSON or a stream out, as a bare ASGI app.

Knows the wire and which fault is which answer; not how text is made. A request is checked whole
before it waits for a context, and nothing is sent before its first token is there: a refusal keeps
its status. A client that leaves takes its place in the queue, or its context, with it.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any

import msgspec

from gateway.engine.chat.answer import Answer, Choice, Usage, event
from gateway.engine.chat.context import Cancel
from gateway.engine.chat.faults import GrammarError
from gateway.engine.chat.outbox import Outbox
from gateway.engine.chat.preparing import ChatPreparer, Prepared
from gateway.engine.chat.writer import ChatJob
from gateway.engine.faults import RefusedError, out_of_memory, overloaded
from gateway.engine.http import GoneError, Health, Receive, Send, begin, gone, read_body, send_json
from gateway.engine.pool import JobError, Pool, QueueFullError, Ticket
from gateway.errors import (
    GatewayError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    PayloadTooLargeError,
)

SEED_HEADER = "x-gateway-seed"
_SEED_BITS = 32
_ID_BITS = 96


class ChatApp:
    """An ASGI app over a preparer in one thread and a pool of writers."""

    def __init__(
        self,
        preparer: ChatPreparer,
        preparing: Executor,
        pool: Pool[ChatJob, Usage],
        health: Health,
        *,
        clock: Callable[[], float],
        randbits: Callable[[int], int],
    ) -> None:
        """`clock` gives seconds since 1970; `randbits` so many random bits, for ids and seeds."""
        self._preparer = preparer
        self._preparing = preparing
        self._pool = pool
        self._health = health
        self._clock = clock
        self._randbits = randbits

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request, unless the client leaves first."""
        reply = _Reply(send)
        try:
            body = await read_body(receive)
        except GoneError:
            return
        except PayloadTooLargeError as error:
            error.headers["connection"] = "close"
            await reply.fail(error)
            return
        work = asyncio.ensure_future(self._answer(scope["method"], scope["path"], body, reply))
        left = asyncio.ensure_future(gone(receive))
        try:
            await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            left.cancel()
            work.cancel()

    async def _answer(self, method: str, path: str, body: bytes, reply: "_Reply") -> None:
        try:
            if _is_chat(method, path.removeprefix("/v1")):
                await self._chat(body, reply)
            else:
                health = {**self._health.fixed, **self._health.moving()}
                await reply.whole(msgspec.json.encode(health), {})
        except QueueFullError as error:
            await reply.fail(overloaded(error.wait))
        except GatewayError as error:
            await reply.fail(error)

    async def _chat(self, body: bytes, reply: "_Reply") -> None:
        loop = asyncio.get_running_loop()
        ticket = self._pool.reserve(1)
        try:
            prepared = await loop.run_in_executor(self._preparing, self._preparer.prepare, body)
            job, headers = self._job(prepared, loop)
            # The thread that has done the job says so, whatever came of it.
            ticket.done.add_done_callback(lambda _: job.outbox.end())
            self._pool.submit(ticket, [job], [1.0])
            try:
                send = _stream if prepared.request.stream else _whole
                await send(reply, self._form(prepared), job, ticket, headers)
            except JobError as error:
                raise _fault(error, prepared) from error
            finally:
                job.leave()
        finally:
            self._pool.cancel(ticket)

    def _job(
        self, prepared: Prepared, loop: asyncio.AbstractEventLoop
    ) -> tuple[ChatJob, Mapping[str, str]]:
        """Return the job and the headers that tell of a seed drawn for it."""
        seed, headers = prepared.request.seed, {}
        if seed is None:
            seed = self._randbits(_SEED_BITS)
            headers = {SEED_HEADER: str(seed)}
        return ChatJob(prepared, seed, Cancel(), Outbox(loop)), headers

    def _form(self, prepared: Prepared) -> Answer:
        request = prepared.request
        return Answer(
            id=f"chatcmpl-{self._randbits(_ID_BITS):024x}",
            created=int(self._clock()),
            model=request.model,
            fingerprint=self._health.fixed["fingerprint"],
            with_logprobs=request.top_logprobs is not None,
            include_usage=request.include_usage,
        )


async def _stream(
    reply: "_Reply",
    answer: Answer,
    job: ChatJob,
    ticket: Ticket[ChatJob, Usage],
    headers: Mapping[str, str],
) -> None:
    async for parts in job.outbox.batches():
        await reply.part(answer.events(parts), headers)
    (usage,) = ticket.done.result()
    await reply.end(answer.ending(usage))


async def _whole(
    reply: "_Reply",
    answer: Answer,
    job: ChatJob,
    ticket: Ticket[ChatJob, Usage],
    headers: Mapping[str, str],
) -> None:
    choices = [Choice() for _ in range(job.prepared.request.n)]
    async for parts in job.outbox.batches():
        for part in parts:
            choices[part.index].add(part)
    (usage,) = ticket.done.result()
    await reply.whole(answer.whole(choices, usage), headers)


class _Reply:
    """The answer on its way out. Once a stream has begun, a fault is one of its events."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = False

    async def whole(self, body: bytes, headers: Mapping[str, str]) -> None:
        await send_json(self._send, 200, body, headers)

    async def part(self, events: bytes, headers: Mapping[str, str]) -> None:
        if not self._begun:
            self._begun = True
            fields = {"content-type": "text/event-stream; charset=utf-8", **headers}
            await begin(self._send, 200, {**fields, "cache-control": "no-cache"})
        await self._send({"type": "http.response.body", "body": events, "more_body": True})

    async def end(self, events: bytes) -> None:
        await self._send({"type": "http.response.body", "body": events})

    async def fail(self, error: GatewayError) -> None:
        if self._begun:
            await self.end(event(error.body()))
        else:
            await send_json(self._send, error.status, error.body(), error.headers)


def _is_chat(method: str, path: str) -> bool:
    """Return whether it is the one path or the other; raises GatewayError for all others."""
    wanted = {"/chat/completions": "POST", "/health": "GET"}.get(path)
    if wanted is None:
        raise NotFoundError("The engine serves /v1/chat/completions and /health.")
    if method != wanted:
        raise MethodNotAllowedError(f"{path} takes {wanted}.", headers={"allow": wanted})
    return path == "/chat/completions"


def _fault(error: JobError, prepared: Prepared) -> Exception:
    cause = error.cause
    if isinstance(cause, GrammarError):
        field = "tools" if prepared.request.schema is None else "response_format"
        return InvalidRequestError(f"The grammar made of '{field}' {cause}.", param=field)
    if isinstance(cause, RefusedError):
        return out_of_memory(cause)
    return cause
