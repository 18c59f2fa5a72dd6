"""The straight line of chat: from a checked request to an answer, made now or kept before.

    route -> may it be kept? -> memory -> who asks already -> stores -> upstream, relayed
          -> whole? keep it, sealed: the answer that is stored first is told from then on

It knows models, answers and recordings; it knows nothing of HTTP, or of metrics, which look at the
result from outside.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, nullcontext
from functools import partial
from typing import Any, Protocol, TypeVar

from gateway.chat.answers import Answers, Kept, Name, may_be_kept
from gateway.chat.calls import Calls, Work
from gateway.chat.chatted import Chatted, Ready, price_of
from gateway.chat.recording import Reader, Recording, Recordings
from gateway.chat.relay import is_stream, joined, no_answer, passed, request_id
from gateway.completion import Watch, look, replay
from gateway.errors import (
    InvalidRequestError,
    OwnLimitError,
    UpstreamTimeoutError,
    answer_not_cached,
    store_away,
)
from gateway.routing import RoutingTable
from gateway.spending import pays
from gateway.sse import Events
from gateway.types import CacheControl, Caller, ChatRequest
from gateway.waiting import Waiting

A = TypeVar("A")

_TURNS = 3
"""Times a request reads others' answers that fail by what may be a fault of theirs."""

_THEIRS = (InvalidRequestError, UpstreamTimeoutError, OwnLimitError)
"""Failures that may be about the request that began an answer: its user, its time, its key."""


class CreatesChat(Protocol):
    """The straight line, or something that watches it."""

    async def create(self, request: ChatRequest, caller: Caller, *, deadline: float) -> Chatted:
        """See Chat.create."""
        ...


class Chat:
    """Answers chats: relayed as they come, and where they may be kept, told again."""

    def __init__(
        self,
        routes: RoutingTable,
        answers: Answers,
        recordings: Recordings,
        calls: Calls,
        *,
        draw_seed: Callable[[], int],
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`draw_seed` gives seeds for models that run here, where the client sends none.

        `now` gives Unix times, `clock` seconds that never go back.
        """
        self._routes = routes
        self._answers = answers
        self._recordings = recordings
        self._calls = calls
        self._draw_seed = draw_seed
        self._now = now
        self._clock = clock

    async def create(self, request: ChatRequest, caller: Caller, *, deadline: float) -> Chatted:
        """Answer a chat; `deadline` is a time of the event loop's clock.

        Until then the whole answer has come, or a stream has begun. Raises gateway.errors: 4xx for
        what the client can mend, NotCachedError where only what is kept was wanted, UpstreamError
        and its kin else; so does reading the answer's pieces.
        """
        route = self._routes.chat(request.model, caller)
        # With its seed any answer can be had again.
        seed = self._draw_seed() if route.local and request.seed is None else None
        waiting = Waiting(self._clock)
        work = Work(request, route, caller, route.place(caller), deadline, seed, waiting)
        told = await self._answer(work)
        told.waited = waiting.seconds
        return told

    async def _answer(self, work: Work) -> Chatted:
        """Tell what is kept, what others are being told, or what is made now."""
        request, route = work.request, work.route
        control = request.cache
        only_kept = control.only_if_cached or route.model.offline
        lasting = may_be_kept(request, route.model.cache)
        if not lasting or control.no_store:
            if only_kept:
                raise answer_not_cached()
            return await self._ask(work, bypassed=not lasting, forced=control.no_store)
        name = self._answers.name(work.place, request)
        kept = self._answers.recall(name, stream=request.stream)
        if kept is None and (only_kept or control.dated):
            kept = await self._answers.look_up(name, stream=request.stream)
        stale = kept is not None and self._stale(kept, control)
        if kept is not None and not stale:
            return self._told(work, kept)
        if only_kept:
            raise store_away() if self._answers.away else answer_not_cached()
        if stale:
            # Something is kept, and stays: not even while the authority is away may what this
            # request is told take its place.
            return await self._ask(work, forced=True)
        return await self._share(work, name)

    # What is kept

    def _stale(self, kept: Kept, control: CacheControl) -> bool:
        if control.no_cache:
            return True
        return control.max_age is not None and kept.created < self._now() - control.max_age

    def _told(self, work: Work, kept: Kept) -> Chatted:
        """Return the answer that is kept, in the form that was asked for."""
        told = _told(work, kept.source, age=self._now() - kept.created, unshared=not kept.shared)
        if kept.streamed:
            told.pieces, told.watch = _replayed(kept.body, with_usage=work.request.include_usage)
            return told
        return _shaped(told, work, kept.body)

    # One answer for all who ask for it now

    async def _share(self, work: Work, name: Name) -> Chatted:
        """Read the answer that is on its way already, or begin it."""
        turn = 0
        while True:
            turn += 1
            recording = self._recordings.get(name.whole) if turn <= _TURNS else None
            own = recording is None
            if recording is None:
                recording = self._recordings.begin(name.whole, partial(self._make, work, name))
            try:
                return await self._read_along(work, recording, own=own)
            except _THEIRS as error:
                # What is wrong with a request is wrong with equal ones; another's limit is not.
                others_limit = isinstance(error, OwnLimitError)
                if own or (turn >= _TURNS and not others_limit):
                    raise

    async def _read_along(self, work: Work, recording: Recording, *, own: bool) -> Chatted:
        """Wait for what of a recording can be told."""
        stream = work.request.stream
        reader = Reader(recording, with_usage=work.request.include_usage)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(reader.aclose)
            # Of one's own recording the calls count, of another's all: it is asking already.
            with nullcontext() if own else work.waiting:
                if stream:
                    await recording.begun()
                else:
                    await _in_time(work, recording.ended())
            told = _of_recording(work, recording, own=own)
            if stream and recording.streamed:
                stack.pop_all()  # who takes the pieces closes them
                told.pieces, told.watch = reader, recording.watch
                return told
        kept = recording.kept
        if kept is not None and (stream or not kept.streamed):
            return self._told(work, kept)
        if recording.watch.failed:
            raise no_answer(work.route.backend.name)
        if recording.whole is None:
            # A stream that cannot be told as one JSON: this one is asked for by itself.
            return await self._ask(work)
        return _shaped(told, work, recording.whole)

    async def _make(self, work: Work, name: Name, recording: Recording) -> None:
        """Look an answer up, or have it made, told and kept."""
        recording.kept = await self._answers.look_up(name, stream=work.request.stream)
        if recording.kept is not None:
            return
        async with AsyncExitStack() as stack:
            opened = await self._calls.open(work, usage=True)
            stack.push_async_callback(opened.aclose)
            recording.headers, recording.request_id = passed(opened), request_id(opened)
            if is_stream(opened):
                recording.whole = await self._calls.record(work, opened, recording)
            else:
                recording.whole = await self._calls.whole(work, opened)
        await self._keep(name, recording)

    async def _keep(self, name: Name, recording: Recording) -> None:
        """Keep an answer that is whole and sound; from then on tell what was kept first."""
        whole, watch = recording.whole, recording.watch
        if recording.streamed and not (watch.done and watch.finished and not watch.failed):
            return
        said = look(whole) if whole is not None else None
        if said is not None and not said.complete:
            return
        kept, ours = await self._answers.keep(
            name,
            recording.so_far if whole is None else whole,
            streamed=whole is None,
            fingerprint=(said or watch).fingerprint or "",
            now=self._now(),
        )
        recording.stored, recording.unshared = ours, not kept.shared
        if whole is not None:
            recording.whole = kept.body

    # One call

    async def _ask(self, work: Work, *, bypassed: bool = False, forced: bool = False) -> Chatted:
        """Have an answer made for this request alone, and relay it."""
        request = work.request
        wanted = work.route.counted or pays(work.caller)
        counted = request.stream and not request.include_usage and wanted
        async with AsyncExitStack() as stack:
            opened = await self._calls.open(work, usage=counted)
            stack.push_async_callback(opened.aclose)
            told = _told(
                work,
                "upstream",
                headers=passed(opened),
                request_id=request_id(opened),
                seed=work.seed,
                bypassed=bypassed,
                forced=forced,
            )
            if request.stream and is_stream(opened):
                watch = Watch()
                relay = self._calls.relay(work, opened, watch, drop_usage=counted)
                with work.waiting:
                    await relay.begin()
                stack.pop_all()  # who takes the pieces closes them
                told.pieces, told.watch = relay, watch
                return told
            whole = await _in_time(work, self._calls.whole(work, opened))
        return _shaped(told, work, whole)


def _told(work: Work, source: str, **more: Any) -> Chatted:
    """Return what is told of an answer from there; its body is still to come."""
    return Chatted(work.route.name, source, price=price_of(work.route), **more)


def _of_recording(work: Work, recording: Recording, *, own: bool) -> Chatted:
    if not own:
        return _told(work, "in-flight", unshared=recording.unshared)
    return _told(
        work,
        "upstream",
        unshared=recording.unshared,
        stored=recording.stored,
        headers=recording.headers,
        request_id=recording.request_id,
        seed=work.seed,
    )


async def _in_time(work: Work, answer: Awaitable[A]) -> A:
    try:
        async with asyncio.timeout_at(work.deadline):
            return await answer
    except TimeoutError:
        raise UpstreamTimeoutError(
            f"The answer of upstream '{work.route.backend.name}' was not whole in time."
        ) from None


def _shaped(told: Chatted, work: Work, whole: bytes) -> Chatted:
    """Give an answer that is all there the form that was asked for."""
    told.whole = whole
    if work.request.stream:
        told.pieces = Ready(replay(whole, include_usage=work.request.include_usage))
    return told


def _replayed(body: bytes, *, with_usage: bool) -> tuple[Ready, Watch]:
    """Return a stream that is kept as it came, to be told again."""
    watch = Watch()
    seen = [(event, watch.see(event)) for event in Events().feed(body)]
    return Ready([joined(seen, with_usage=with_usage)]), watch
