"""An answer's body: decoded as it comes, and never more of it kept than was allowed."""

import zlib
from collections.abc import Iterator, Mapping

from gateway.backends.exchange import undecodable
from gateway.errors import UpstreamError

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
"""zlib's own flag for "look at the first bytes"."""

_UNFOLDED = 65536
"""Bytes that compressed data become at a time: a bomb is noticed before it has gone off."""
_MOST_FOLDED, _FREELY = 100, 2**20
"""How many times its size an answer may unfold to, beyond a first megabyte: a stream of chunks that
say the same comes to 20, and a bomb to 1,000. Unfolding it would hold up everybody for as long."""


class Decoder:
    """Takes bytes off the wire and gives back what they mean, as soon as it is known."""

    __slots__ = ("_begun", "_inflater", "_left")

    def __init__(self, headers: Mapping[str, str]) -> None:
        """Raise UpstreamError for an encoding that nobody asked for and we do not know."""
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise undecodable("is compressed in a way that was not asked for")
        plain = encoding in ("", "identity")
        self._inflater = None if plain else zlib.decompressobj(_GZIP_OR_ZLIB)
        self._begun = False
        self._left = _FREELY

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the pieces that these bytes complete, none of them empty.

        Raises UpstreamError where they are corrupt, or go on after the compressed data has ended.
        """
        if self._inflater is None:
            yield chunk
        else:
            yield from self._unfolded(self._inflater, chunk)

    def finish(self) -> None:
        """Raise UpstreamError where the compressed data stops short."""
        if self._inflater is not None and self._begun and not self._inflater.eof:
            raise undecodable("stops in the middle of its compressed data")

    def _unfolded(self, inflater: "zlib._Decompress", chunk: bytes) -> Iterator[bytes]:
        self._begun = True
        if inflater.eof:
            raise undecodable("goes on after its compressed data has ended")
        self._left += _MOST_FOLDED * len(chunk)
        full = True
        while full:
            try:
                piece = inflater.decompress(chunk, _UNFOLDED)
            except zlib.error:
                raise undecodable("is said to be compressed, and is not") from None
            self._left -= len(piece)
            if self._left < 0:
                raise _too_large(f"unfolds to more than {_MOST_FOLDED} times what was sent")
            if piece:
                yield piece
            # A full piece may not be all, though every byte of the chunk was taken.
            full = len(piece) == _UNFOLDED
            chunk = inflater.unconsumed_tail
        if inflater.unused_data:
            raise undecodable("goes on after its compressed data has ended")


class Body:
    """Collects an answer's decoded body, and never more than `limit` bytes of it."""

    __slots__ = ("_limit", "_pieces", "_size")

    def __init__(self, headers: Mapping[str, str], limit: int) -> None:
        """Raise UpstreamError where the headers already say that it is too large."""
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0
        declared = headers.get("content-length", "")
        # Before anything is read: what is this long compressed is longer decoded.
        if declared.isascii() and declared.isdigit() and int(declared) > limit:
            raise _too_large(self._beyond)

    def keep(self, piece: bytes) -> None:
        """Take the next piece; raises UpstreamError over the limit."""
        self._size += len(piece)
        if self._size > self._limit:
            raise _too_large(self._beyond)
        self._pieces.append(piece)

    def whole(self) -> bytes:
        """Return everything that was kept."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    @property
    def _beyond(self) -> str:
        return f"is larger than the {self._limit} bytes the gateway reads"


def _too_large(what: str) -> UpstreamError:
    return UpstreamError(f"The upstream's answer {what}.", code="upstream_answer_too_large")
