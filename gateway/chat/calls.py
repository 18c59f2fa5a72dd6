"""The upstream calls of chats: asked for, read in any form, and told of at their end."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from gateway.backends.base import ChatBackend
from gateway.backends.exchange import Opened, Reply
from gateway.backends.several import Answered
from gateway.cache.scopes import Place, Scope
from gateway.chat.bills import Billed, bill_for, settle
from gateway.chat.recording import Recording
from gateway.chat.relay import Passing, Relay, check_whole, is_stream, no_answer
from gateway.chat.schemas import Quotable, chat_body, with_usage
from gateway.chat_route import ChatRoute
from gateway.completion import Assembly, Figures, Usage, Watch, look
from gateway.errors import GatewayError, InvalidRequestError
from gateway.spending import pays
from gateway.sse import DONE
from gateway.types import Caller, ChatRequest
from gateway.waiting import Waiting

OnMade = Callable[[ChatRoute, Scope, Usage | None, str | None, Caller], None]
"""Told of every answer at its end: its tokens and its fingerprint, as far as they came, and who
had it made."""


@dataclass(frozen=True, slots=True)
class Work:
    """A request on its way, and what it needs there."""

    request: ChatRequest
    route: ChatRoute
    caller: Caller
    place: Place
    deadline: float
    seed: int | None
    """The one that was drawn for it."""
    waiting: Waiting
    """For upstreams: for calls of its own, and for another's that brings its answer."""

    def passing(self, opened: Opened, watch: Watch) -> Passing:
        """Return the events of a stream that answers it."""
        upstream = self.answering(opened).name
        return Passing(opened, watch, upstream, partial(self.refused, opened))

    def answering(self, opened: Opened) -> ChatBackend:
        """Return whose answer this is."""
        answer = opened.answer if isinstance(opened, Billed) else opened
        return answer.backend if isinstance(answer, Answered) else self.route.backend

    def refused(self, opened: Opened, reply: Reply) -> GatewayError:
        """Return what an error means that came in place of an answer."""
        error = self.answering(opened).refused(reply, Quotable(self.request))
        if isinstance(opened, Billed):
            opened.bill.failed(error)
        return error


class Calls:
    """Makes them. Answers that it opens are closed by whoever asked for them."""

    def __init__(self, *, silence: float, on_made: OnMade) -> None:
        """`silence` is the seconds that an upstream may be silent within an answer."""
        self._silence = silence
        self._on_made = on_made

    async def open(self, work: Work, *, usage: bool) -> Opened:
        """Call the upstream; with `usage` a stream is asked to tell its tokens."""
        if not pays(work.caller):
            return await self._open(work, usage=usage)
        async with bill_for(work.request, work.route, work.caller) as bill:
            return Billed(await self._open(work, usage=usage), bill)

    async def _open(self, work: Work, *, usage: bool) -> Opened:
        request = work.request
        changed: dict[str, Any] = {"model": work.route.upstream_model}
        if work.seed is not None:
            changed["seed"] = work.seed
        if work.route.local:
            # Its engine keeps what prompts have in common, which must not tell of other tenants'.
            changed["prompt_cache_key"] = work.caller.tenant
        if not (usage and request.stream):
            return await self._post(work, changed)
        try:
            options = with_usage(request.fields)
            return await self._post(work, {**changed, "stream_options": options})
        except InvalidRequestError as error:
            if "stream_options" not in f"{error.param} {error.message}":
                raise
            # Some servers have not learnt of them, and the client may not have asked for any.
            return await self._post(work, changed)

    async def _post(self, work: Work, changed: dict[str, Any]) -> Opened:
        with work.waiting:
            return await work.route.backend.chat(
                chat_body(work.request, **changed),
                stream=work.request.stream,
                quotable=Quotable(work.request),
                deadline=work.deadline,
                silence=self._silence,
                caller=work.caller,
            )

    def relay(self, work: Work, opened: Opened, watch: Watch, *, drop_usage: bool) -> Relay:
        """Return a stream to be relayed; see Relay."""
        told = partial(self._tell, work, opened, watch)
        return Relay(opened, work.passing(opened, watch), told, drop_usage=drop_usage)

    async def record(self, work: Work, opened: Opened, recording: Recording) -> bytes | None:
        """Take a stream in; return the JSON that it amounts to, None where that cannot be told."""
        watch, assembly = recording.watch, Assembly()
        passing = work.passing(opened, watch)
        try:
            with work.waiting:
                async for seen in passing:
                    for event, _ in seen:
                        assembly.add(event)
                    recording.add(seen, begun=passing.begun)
        finally:
            self._tell(work, opened, watch)
        if watch.finished and not watch.done:
            assembly.add(DONE)
        return assembly.whole()

    async def whole(self, work: Work, opened: Opened) -> bytes:
        """Return the whole JSON of an answer, whichever way it is sent."""
        upstream = work.answering(opened).name
        if is_stream(opened):
            told = await self.record(work, opened, Recording())
            if told is None:
                raise no_answer(upstream)
            return told
        with work.waiting:
            whole = await opened.read()
        check_whole(whole, upstream, partial(work.refused, opened))
        self._tell(work, opened, look(whole))
        return whole

    def _tell(self, work: Work, opened: Opened, said: Watch | Figures) -> None:
        settle(opened, work.route, said.usage)
        self._on_made(work.route, work.place.scope, said.usage, said.fingerprint, work.caller)
