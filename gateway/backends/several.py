"""Several upstreams that serve one model: each request goes to one, and on where that fails.

Who is asked first is the order of the config, or chance by weight; who fails often, or asked to be
left alone, is asked last. For embeddings only those are asked that are known to make vectors of
the model's space. To the lines these are backends like any other.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

import msgspec

from gateway.backends.base import ChatBackend
from gateway.backends.exchange import Opened, Reply
from gateway.backends.failover import others_may_chat, others_may_embed
from gateway.backends.member import Member
from gateway.backends.turns import Turns
from gateway.errors import GatewayError
from gateway.types import ANYONE, Caller, ModelInfo, RawEmbeddings, Text, UpstreamInfo

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class Members(Protocol):
    """Says which upstreams of a model make vectors of its space; see gateway.spaces.space."""

    @property
    def width(self) -> int | None:
        """Components of the space's vectors, once that is known."""
        ...

    async def vouched(self, members: Sequence[Member], deadline: float) -> Sequence[Member]:
        """Return those that are known to, in their order; at least one.

        Raises UnavailableError where none is, and UpstreamTimeoutError at the deadline.
        """
        ...

    def check(self, member: Member, raw: RawEmbeddings) -> None:
        """Raise UpstreamError for an answer that is none of this space."""
        ...

    def info(self, member: Member) -> UpstreamInfo:
        """Return how the upstream is, and whether it is known to."""
        ...


class _Upstreams:
    """What both kinds say of themselves."""

    def __init__(self, members: Sequence[Member], turns: Turns) -> None:
        self.name = ", ".join(member.backend.name for member in members)
        self.forwards = any(member.backend.forwards for member in members)
        self._members = members
        self._turns = turns

    async def models(self, caller: Caller = ANYONE) -> Sequence[str]:
        """Return what all of them serve that say what they serve; see EmbeddingBackend.models."""
        said = await asyncio.gather(
            *(member.backend.models(caller) for member in self._members), return_exceptions=True
        )
        lists: list[Sequence[str]] = []
        failures: list[GatewayError] = []
        for names in said:
            if isinstance(names, GatewayError):
                failures.append(names)
            elif isinstance(names, BaseException):
                raise names
            elif names:
                lists.append(names)
        if failures and not lists:
            raise failures[0]
        first, *others = lists or [()]
        return [name for name in first if all(name in names for names in others)]

    async def aclose(self) -> None:
        """Leave the upstreams open: they serve other models too."""


class EmbeddingUpstreams(_Upstreams):
    """Upstreams that make vectors of one space, as one EmbeddingBackend."""

    def __init__(self, members: Sequence[Member], space: Members, turns: Turns) -> None:
        super().__init__(members, turns)
        self._space = space
        # The most careful of them is right for all.
        backends = [member.backend for member in members]
        self.max_batch = min(backend.max_batch for backend in backends)
        self.max_batch_bytes = min(backend.max_batch_bytes for backend in backends)
        self.parallel = min(backend.parallel for backend in backends)

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
        del stand_in  # who could serve instead is here

        async def call(member: Member, stand_in: bool) -> RawEmbeddings:
            raw = await member.backend.embed(
                member.model or model,
                texts,
                fields=fields,
                truncate=truncate,
                deadline=deadline,
                caller=caller,
                stand_in=stand_in,
            )
            self._space.check(member, raw)
            return raw

        members = await self._space.vouched(self._members, deadline)
        return await self._turns.ask(members, call, others_may_embed, deadline)

    async def count(
        self, texts: Sequence[Text], *, deadline: float, caller: Caller = ANYONE
    ) -> Sequence[int] | None:
        """Return what the first one counts that can: models of one space read texts alike."""
        members = await self._space.vouched(self._members, deadline)
        for member in members:
            try:
                counts = await member.backend.count(texts, deadline=deadline, caller=caller)
            except GatewayError as error:
                if not others_may_embed(error):
                    raise
                continue
            if counts is not None:
                return counts
        return None

    def info(self) -> ModelInfo:
        """See EmbeddingBackend.info."""
        infos = [member.backend.info() for member in self._members]
        return ModelInfo(
            width=self._space.width,
            context=min((info.context for info in infos if info.context), default=None),
            pooling=next((info.pooling for info in infos if info.pooling), None),
            upstreams=[self._space.info(member) for member in self._members],
        )


class ChatUpstreams(_Upstreams):
    """Upstreams that answer chats, as one ChatBackend."""

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
        """See ChatBackend.chat; the answer is an Answered."""
        del stand_in

        async def call(member: Member, stand_in: bool) -> Opened:
            opened = await member.backend.chat(
                _addressed(member, body, caller),
                stream=stream,
                quotable=quotable,
                deadline=deadline,
                silence=silence,
                caller=caller,
                stand_in=stand_in,
            )
            return Answered(opened, member.backend)

        return await self._turns.ask(self._members, call, others_may_chat, deadline)

    def refused(self, reply: Reply, quotable: Sequence[str]) -> GatewayError:
        """See ChatBackend.refused; of an Answered, ask its `backend`."""
        return self._members[0].backend.refused(reply, quotable)

    def info(self) -> ModelInfo:
        """Return how they are; the window is the shortest that is known."""
        contexts = [member.backend.info().context for member in self._members]
        return ModelInfo(
            context=min(filter(None, contexts), default=None),
            upstreams=[member.info() for member in self._members],
        )


class Answered:
    """An open answer that knows which of several upstreams gave it."""

    __slots__ = ("_opened", "_pieces", "backend", "headers", "status")

    def __init__(self, opened: Opened, backend: ChatBackend) -> None:
        self.backend = backend
        self.status = opened.status
        self.headers = opened.headers
        self._opened = opened
        self._pieces = aiter(opened)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._pieces)

    async def read(self) -> bytes:
        """See Opened.read."""
        return await self._opened.read()

    async def aclose(self) -> None:
        """See Opened.aclose."""
        await self._opened.aclose()


def _addressed(member: Member, body: bytes, caller: Caller) -> bytes:
    """Return a chat's body as this upstream wants it, all other fields byte for byte."""
    changed: dict[str, Any] = {}
    if member.model is not None:
        changed["model"] = member.model
    if member.local:
        # Its engine keeps what prompts have in common, which must not tell of other tenants'.
        changed["prompt_cache_key"] = caller.tenant
    return _encode({**_decode_fields(body), **changed}) if changed else body
