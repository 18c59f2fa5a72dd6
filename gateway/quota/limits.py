"""The limits of a key, as the ledgers count them."""

from dataclasses import dataclass, replace

MINUTE, DAY = 60.0, 86_400
"""Seconds."""
NANOS = 1e9
"""Billionths of a US dollar, in which money is counted: a token may cost twenty of them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be used; None is no limit."""

    requests: int | None = None
    """A minute."""
    tokens: int | None = None
    """A minute."""
    places: int | None = None
    """Requests at the same time."""
    nanos: int | None = None
    """Billionths of a US dollar, each day of UTC."""

    @property
    def any(self) -> bool:
        """Whether there is any limit."""
        return self != UNLIMITED

    def share(self, ways: int, spent: int = 0) -> "Limits":
        """Return what one of so many workers may use where none knows of the others.

        Of the dollars, what is left when `spent` billionths are gone. A worker that may not do
        anything would be no use: each may have one request, and one token, at least.
        """
        if ways == 1 and not spent:
            return self
        return replace(
            self,
            requests=_part(self.requests, ways),
            tokens=_part(self.tokens, ways),
            places=_part(self.places, ways),
            nanos=None if self.nanos is None else max(0, self.nanos - spent) // ways,
        )


UNLIMITED = Limits()


def _part(limit: int | None, ways: int) -> int | None:
    return None if limit is None else max(1, limit // ways)


def nanos_of(dollars: float) -> int:
    """Return US dollars in billionths, rounded up: what costs anything does not count as nothing.

    What is only the noise of floating point, a thousandth of a billionth, does.
    """
    return -int(-(dollars * NANOS - 1e-3) // 1) if dollars > 0 else 0
