"""Keys and values such as stores keep, for tests and for the processes that they start."""

from gateway.cache.entry import Entry
from gateway.cache.record import pack

NAMESPACE, OTHER = "0" * 24 + ".0", "f" * 24 + ".3"


def key(number: int) -> bytes:
    """Return a key; its first byte, which spreads what expires, differs from its neighbours'."""
    return (number * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "big") + number.to_bytes(24, "big")


def record(number: int, created: float) -> bytes:
    """Return what is kept under `key(number)` for an entry made at that time."""
    return pack(key(number), Entry(number.to_bytes(8, "little"), 1, created=created))
