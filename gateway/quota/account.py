"""A key's account: its requests are admitted, and its upstream calls paid, within its limits."""

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType

from gateway.errors import PermissionDeniedError
from gateway.quota import refusals
from gateway.quota.book import Wish
from gateway.quota.desk import Desk
from gateway.quota.limits import Limits, nanos_of

_PAUSES = (0.01, 0.02, 0.04)
"""Seconds between attempts to have a place: one that was just left may still be on its way back."""


class KeyAccount:
    """See types.Account: one key, under the limits of one config."""

    def __init__(self, desk: Desk, limits: Limits) -> None:
        self._desk = desk
        self._limits = limits
        self.pays = limits.tokens is not None or limits.nanos is not None

    def admitted(self) -> "Admission":
        """See Account.admitted."""
        # Counters outlive a change of the config; the limits of who came last apply.
        self._desk.limits = self._limits
        return Admission(self._desk)

    async def reserve(
        self, tokens: int, dollars: float | None, *, guess: int = 0
    ) -> "Reserved | None":
        """See Account.reserve."""
        desk, limits = self._desk, self._limits
        if not self.pays:
            return None
        if limits.nanos is not None and dollars is None:
            raise PermissionDeniedError(
                "This key may spend a number of dollars a day, and what this model costs is not "
                "known; its [models.…] table in the gateway's config needs a price.",
                param="model",
            )
        most = desk.part.tokens
        if most is not None and tokens > most:
            tokens = max(most, tokens - guess)
        wish = Wish(tokens, nanos_of(dollars or 0.0))
        refused = "tokens" if most is not None and tokens > most else await desk.reserve(wish)
        if refused == "budget":
            raise refusals.budget(desk)
        if refused:
            raise refusals.tokens(desk, tokens)
        return Reserved(desk, wish)

    def headers(self) -> Mapping[str, str]:
        """See Account.headers."""
        return refusals.headers(self._desk)


class Reserved:
    """See types.Reserved."""

    def __init__(self, desk: Desk, wish: Wish) -> None:
        self._desk = desk
        self._wish: Wish | None = wish

    def settle(self, tokens: int, dollars: float) -> None:
        """See Reserved.settle."""
        wish, self._wish = self._wish, None
        if wish is not None:
            self._desk.settle(tokens - wish.tokens, nanos_of(dollars) - wish.nanos)


class Admission:
    """A request that counts against its key's limits for as long as the block runs."""

    __slots__ = ("_desk",)

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def __aenter__(self) -> None:
        desk = self._desk
        if desk.enter():
            return
        refused = await desk.ask_to_enter()
        for pause in _PAUSES:
            if refused != "concurrency":
                break
            await asyncio.sleep(pause)
            refused = await desk.ask_to_enter()
        if refused:
            raise _REFUSALS[refused](desk)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._desk.leave()


_REFUSALS: Mapping[str, Callable[[Desk], Exception]] = {
    "rate": refusals.rate,
    "concurrency": refusals.concurrency,
}
