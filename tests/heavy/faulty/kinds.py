"""Every fault, and what may come of it: the statuses and codes of gateway.errors.

What breaks a stream that has begun is told in it, as an event; its code is what it would have been.
"""

from dataclasses import replace

from tests.heavy.faulty import bodies, chats, connections
from tests.heavy.faulty.kind import Kind
from tests.heavy.faulty.server import Call

_ANY = connections.ANY | bodies.ANY
_VECTORS = _ANY | connections.VECTORS | bodies.VECTORS
_CHATS = _ANY | bodies.CHATS | chats.CHATS
_STREAMS = _ANY | bodies.STREAMS | chats.STREAMS


def kinds(*, chat: bool, stream: bool) -> list[str]:
    """Return the names of all that may befall such a call."""
    return list(_of(chat=chat, stream=stream))


def expected(kind: str, *, chat: bool, stream: bool) -> Kind:
    """Return what may come of a fault in such a call."""
    found = _of(chat=chat, stream=stream)[kind]
    if not stream:
        return found
    # Some of it may have been told already.
    within = {(0, code) for _, code in found.outcomes if code is not None}
    return replace(found, outcomes=found.outcomes | within)


async def strike(call: Call) -> None:
    """Do what the call's text says."""
    await expected(call.kind, chat=call.is_chat, stream=call.is_stream).do(call)


def _of(*, chat: bool, stream: bool) -> dict[str, Kind]:
    return _STREAMS if stream else _CHATS if chat else _VECTORS
