"""What is kept under a key: a text's vector and the forms it leaves in, or the answer to a chat."""

import msgspec

from gateway.vectors import shorten, to_base64, to_floats

_OVERHEAD = 400
"""Bytes of the objects around the payload (entry, key, dictionary and LRU slots), CPython 3.11."""


class Entry(msgspec.Struct, gc=False):
    """One text's vector, or one chat's answer: then there is no vector, and its width is 0.

    Immutable but for the rendered forms, which are made at most once, and for what is said of where
    it is kept.

    Outside the garbage collector's sight, as it refers to nothing that could refer back: with
    100,000 kept, looking through them made pauses of 150 ms.
    """

    vector: bytes
    """The full-width unit vector, little-endian float32."""
    tokens: int
    """As the backend counted the text."""
    created: float
    """Unix time at which the vector was made."""
    estimated: bool = False
    """Whether `tokens` is a share of a batch's sum."""
    truncated: bool = False
    """Whether the model saw only the beginning of the text."""
    fingerprint: str = ""
    """What made it, as far as the backend says: at most 255 bytes."""
    namespace: str = ""
    """Where the stores keep it; see cache.store."""
    shared: bool = True
    """False while another worker or replica may have another vector, as the store that they share
    is away; for ever, if that one had one by then."""
    memory_only: bool = False
    """Whether a cache without stores keeps it: then no other with the same memory may store it."""
    sealed: bytes = b""
    """The answer to a chat, as cache.seal made it; it lies open only where it is memory_only."""
    base64: bytes | None = None
    floats: bytes | None = None

    @property
    def width(self) -> int:
        """Components of the full vector; 0 for what has none."""
        return len(self.vector) // 4

    @property
    def size(self) -> int:
        """Bytes of memory this entry takes, rendered forms included."""
        size = _OVERHEAD + len(self.vector) + len(self.sealed)
        if self.base64 is not None:
            size += len(self.base64)
        if self.floats is not None:
            size += len(self.floats)
        return size

    def has(self, *, base64: bool) -> bool:
        """Whether that form was rendered before."""
        return (self.base64 if base64 else self.floats) is not None

    def render(self, *, base64: bool) -> bytes:
        """Return the JSON of the full-width vector, a string or an array, ready to be sent."""
        if base64:
            if self.base64 is None:
                self.base64 = to_base64(self.vector)
            return self.base64
        if self.floats is None:
            self.floats = to_floats(self.vector)
        return self.floats

    def render_short(self, dimensions: int, *, base64: bool) -> bytes:
        """Return the JSON of the vector cut to `dimensions` and scaled to unit length again."""
        if dimensions == self.width:
            return self.render(base64=base64)
        short = shorten(self.vector, dimensions)
        return to_base64(short) if base64 else to_floats(short)
