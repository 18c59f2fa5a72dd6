"""A ledger that may be away: it is left alone then, and asked again by somebody's own task."""

from collections.abc import Callable

import structlog

from gateway.cache.store import StoreError
from gateway.quota.book import Ask, Told
from gateway.quota.ledger import Ledger, MemoryLedger
from gateway.quota.limits import Limits
from gateway.resilience.breaker import Breaker

_HEALTHY = 2.0
"""Seconds after which somebody looks again whether there is anything to tell."""


class Reach:
    """One process's way to the ledger. Every change of its state is one line in the log."""

    def __init__(
        self,
        ledger: Ledger,
        workers: int,
        log: structlog.stdlib.BoundLogger,
        on_change: Callable[[bool], None],
    ) -> None:
        """`workers` are those of this gateway; `on_change` hears whether limits are shared out."""
        self.workers = workers
        self.ways = workers if isinstance(ledger, MemoryLedger) else 1
        """In how many shares a key's limits always are: workers that share no ledger."""
        self._ledger = ledger
        self._breaker = Breaker()
        self._probing = False
        self._log = log
        self._on_change = on_change
        on_change(self.ways > 1)

    @property
    def away(self) -> bool:
        """Whether the ledger did not answer when it was last asked."""
        return self._breaker.is_open

    @property
    def pause(self) -> float:
        """Seconds until somebody should look after it again."""
        return self._breaker.pause if self.away else _HEALTHY

    def probe(self) -> None:
        """Let the next exchange find out whether the ledger is back."""
        self._probing = True

    async def exchange(self, key: str, limits: Limits, ask: Ask) -> Told | None:
        """See Ledger.exchange; None where it is away."""
        if self.away and not self._probing:
            return None
        self._probing = False
        try:
            told = await self._ledger.exchange(key, limits.share(self.ways), ask)
        except StoreError as error:
            if self._breaker.failed():
                self._on_change(True)
                self._log.warning(
                    "limits are shared out: each worker enforces its part",
                    reason=error.reason,
                    error=str(error),
                )
            return None
        if self._breaker.worked():
            self._on_change(self.ways > 1)
            self._log.warning("limits are counted together again")
        return told

    async def aclose(self) -> None:
        """Let go of the ledger."""
        await self._ledger.aclose()
