"""Upstream calls, paid by who begins them: reserved before they are made, settled with the bill.

Callers whose tokens and dollars are not limited pay nothing for it.
"""

from collections.abc import Iterable
from types import TracebackType
from typing import Self

from gateway.errors import GatewayError, UpstreamTimeoutError
from gateway.types import Caller, Reserved, Text

_BYTES = 4
"""Of a token, more or less: what a call takes is known when it is billed."""


class Bill:
    """What one upstream call may cost, for as long as the block runs, or until `settle`.

    With a call that may have been billed although it failed, what was reserved stays spent.
    """

    def __init__(self, caller: Caller, tokens: int, dollars: float | None, guess: int = 0) -> None:
        """`tokens` are expected, and `guess` more of them may be; see Account.reserve."""
        self._caller = caller
        self._tokens = tokens
        self._dollars = dollars
        self._guess = guess
        self._reserved: Reserved | None = None

    async def __aenter__(self) -> Self:
        account = self._caller.account
        if account is not None:
            self._reserved = await account.reserve(self._tokens, self._dollars, guess=self._guess)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.failed(error)

    def settle(self, tokens: int, dollars: float) -> None:
        """Pay what was billed."""
        if self._reserved is not None:
            self._reserved.settle(tokens, dollars)

    def failed(self, error: BaseException) -> None:
        """Pay nothing for a call that failed, unless it may have been billed all the same."""
        unsure = isinstance(error, UpstreamTimeoutError) or not isinstance(error, GatewayError)
        if not unsure and getattr(error, "code", None) not in _ANSWERED:
            self.settle(0, 0.0)


_ANSWERED = frozenset(
    {"upstream_invalid_response", "upstream_answer_too_large", "upstream_stream_cut"}
)
"""Codes of errors for answers that came, and were of no use."""


def pays(caller: Caller) -> bool:
    """Whether it has to be known what the caller's calls cost."""
    return caller.account is not None and caller.account.pays


def expected_tokens(texts: Iterable[Text]) -> int:
    """Return about how many tokens texts have: ids are known, text is counted by its bytes."""
    return sum(
        len(text) if isinstance(text, tuple) else -(-len(text.encode(errors="replace")) // _BYTES)
        for text in texts
    )
