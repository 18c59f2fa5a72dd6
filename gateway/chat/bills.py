"""What a chat costs who asks for it: about so much beforehand, and as billed at its end."""

from collections.abc import AsyncIterator

import msgspec

from gateway.backends.exchange import Opened
from gateway.chat.chatted import price_of
from gateway.chat.schemas import Quotable
from gateway.chat_route import ChatRoute
from gateway.completion import Usage
from gateway.spending import Bill, expected_tokens
from gateway.types import Caller, ChatRequest

_USUAL_ANSWER = 512
"""Tokens of an answer whose request names no maximum; a small limit allows for less."""
_FEWEST_BYTES = 4
"""Of what tools are described by, for each token: as many as of text."""


class Billed:
    """An open answer that its caller pays for; see Opened. Until it is told, what was expected."""

    __slots__ = ("answer", "bill", "headers", "status")

    def __init__(self, answer: Opened, bill: Bill) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.answer = answer
        self.bill = bill

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self.answer)

    async def read(self) -> bytes:
        """See Opened.read."""
        return await self.answer.read()

    async def aclose(self) -> None:
        """See Opened.aclose."""
        await self.answer.aclose()


def bill_for(request: ChatRequest, route: ChatRoute, caller: Caller) -> Bill:
    """Return what a chat is expected to cost."""
    usage, guess = _expected(request)
    price = price_of(route)
    return Bill(caller, usage.total, price.of(usage) if price else None, guess)


def settle(opened: Opened, route: ChatRoute, usage: Usage | None) -> None:
    """Pay for an answer what it tells of its tokens; for one that does not, what was expected."""
    if isinstance(opened, Billed) and usage is not None:
        price = price_of(route)
        opened.bill.settle(usage.total, price.of(usage) if price else 0.0)


def _expected(request: ChatRequest) -> tuple[Usage, int]:
    """Return about what a chat takes, and how many tokens of that are no more than a guess.

    Images and other attachments are not text; what they cost is seen when it is billed.
    """
    tools = len(bytes(request.fields.get("tools", b""))) // _FEWEST_BYTES
    prompt = expected_tokens(Quotable(request)) + tools
    answer = _number(request, "max_completion_tokens") or _number(request, "max_tokens")
    answers = _number(request, "n") or 1
    if answer is None:
        return Usage(prompt, _USUAL_ANSWER * answers), _USUAL_ANSWER * answers
    return Usage(prompt, answer * answers), 0


def _number(request: ChatRequest, name: str) -> int | None:
    """Return a field that is a sensible number; upstreams judge any other."""
    try:
        number = msgspec.json.decode(request.fields.get(name, b"null"), type=int | None)
    except (msgspec.DecodeError, RecursionError):
        return None
    return number if number is not None and 0 < number < 10**6 else None
