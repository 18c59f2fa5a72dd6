"""The straight line of chat, watched: answers, tokens, dollars, the first chunk, new systems."""

from collections.abc import AsyncIterator, Callable

import structlog

from gateway.cache.scopes import Scope
from gateway.chat.chatted import Chatted, price_of
from gateway.chat.line import CreatesChat
from gateway.chat.relay import Pieces
from gateway.chat_route import ChatRoute
from gateway.completion import Usage
from gateway.metrics.chats import ChatMetrics
from gateway.metrics.keys import KeyMetrics
from gateway.types import Caller, ChatRequest


class ObservedChat:
    """The line, watched: what clients were told is counted at its end."""

    def __init__(
        self, inner: CreatesChat, metrics: ChatMetrics, clock: Callable[[], float]
    ) -> None:
        self._inner = inner
        self._metrics = metrics
        self._clock = clock

    async def create(self, request: ChatRequest, caller: Caller, *, deadline: float) -> Chatted:
        """See Chat.create."""
        began = self._clock()
        chatted = await self._inner.create(request, caller, deadline=deadline)
        if request.stream:
            self._metrics.first_chunk(chatted.model, chatted.source, self._clock() - began)
        if chatted.pieces is None:
            self._metrics.chatted(chatted)
        else:
            chatted.pieces = _Counted(chatted.pieces, lambda: self._metrics.chatted(chatted))
        return chatted


class ObservedCalls:
    """The upstream calls of chats, watched: what they took, also where nobody waits any more."""

    def __init__(
        self, metrics: ChatMetrics, keys: KeyMetrics, log: structlog.stdlib.BoundLogger
    ) -> None:
        self._metrics = metrics
        self._keys = keys
        self._log = log

    def made(
        self,
        route: ChatRoute,
        scope: Scope,
        usage: Usage | None,
        fingerprint: str | None,
        caller: Caller,
    ) -> None:
        """Count the tokens of an answer; tell of a system that was never seen before."""
        if usage is not None:
            self._metrics.made(route, usage)
            price = price_of(route)
            self._keys.spent(caller, usage.total, price.of(usage) if price else 0.0)
        if fingerprint is not None and scope.saw(fingerprint):
            self._metrics.new_fingerprint(route.name)
            self._log.info("new fingerprint", model=route.name, fingerprint=fingerprint)


class _Counted:
    """Pieces whose end is told, once, however it comes."""

    def __init__(self, inner: Pieces, on_end: Callable[[], None]) -> None:
        self._inner = inner
        self._on_end: Callable[[], None] | None = on_end

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._inner)

    async def aclose(self) -> None:
        """See Pieces.aclose."""
        on_end, self._on_end = self._on_end, None
        try:
            await self._inner.aclose()
        finally:
            if on_end is not None:
                on_end()
