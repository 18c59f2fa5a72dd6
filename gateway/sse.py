"""Server-sent events (WHATWG HTML, 9.2): a stream's bytes cut into whole events, and written.

The bytes of an event are never changed: whoever relays the pieces sends what the upstream sent.
"""

import re

from gateway.errors import UpstreamError

DONE = b"data: [DONE]\n\n"
"""The event that ends a stream of OpenAI's."""

LARGEST_EVENT = 8 * 2**20
"""Bytes of an event that is not at its end yet; a stream that goes on longer is not one."""

_BOM = b"\xef\xbb\xbf"
# Possessive (`?+`), so that CRLF is one line end and never two; a CR is one already before the next
# byte is there. A line end where an event would begin goes out at once, with nothing in it: the LF
# of a CRLF that two pieces share is not held back.
_LINE_END = re.compile(rb"\n|\r\n?+")
_BLANK_LINE = re.compile(rb"(?:\n|\r\n?+)(?:\n|\r\n?+)")


class Events:
    """Cuts a byte stream into events, wherever its pieces begin and end."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._searched = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the events that this piece ends, each with its blank line, bytes untouched.

        All events and `rest`, put together, are the bytes that came. Raises UpstreamError for an
        event that does not end within LARGEST_EVENT bytes.
        """
        # The usual piece is one event of one line, or a few.
        if not self._pending and piece.endswith(b"\n\n") and b"\r" not in piece:
            if piece.find(b"\n") == len(piece) - 2:
                return [piece]
            return [part + b"\n\n" for part in piece[:-2].split(b"\n\n")]
        self._pending += piece
        events = self._cut()
        if len(self._pending) > LARGEST_EVENT:
            raise UpstreamError(
                f"The upstream's stream holds an event of more than {LARGEST_EVENT:,} bytes.",
                code="upstream_invalid_response",
            )
        return events

    def rest(self) -> bytes:
        """Return what is left at the stream's end: an event that was cut off, which is none."""
        return bytes(self._pending)

    def _cut(self) -> list[bytes]:
        pending, begin, events = self._pending, 0, []
        # The last byte that is known already may be the first half of a blank line.
        search = max(0, self._searched - 1)
        while begin < len(pending):
            at = _LINE_END.match(pending, begin) or _BLANK_LINE.search(pending, search)
            if at is None:
                break
            events.append(bytes(pending[begin : at.end()]))
            begin = search = at.end()
        del pending[:begin]
        self._searched = len(pending)
        return events


def read(event: bytes) -> tuple[bytes, bytes | None]:
    """Return an event's name, empty if it has none, and its data (see `data_of`)."""
    # The usual event is one line.
    if event.startswith(b"data: ") and event.endswith(b"\n\n") and b"\r" not in event:
        data = event[6:-2]
        if b"\n" not in data:
            return b"", data
    name, lines = b"", []
    for line in event.removeprefix(_BOM).splitlines():
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            lines.append(value)
        elif field == b"event":
            name = value
    return name, b"\n".join(lines) if lines else None


def data_of(event: bytes) -> bytes | None:
    """Return an event's data lines, joined; None for one without: a comment, a blank line."""
    return read(event)[1]


def event(data: bytes) -> bytes:
    """Return an event with this data, a `data:` line for each of its lines."""
    if b"\n" not in data and b"\r" not in data:
        return b"data: %b\n\n" % data
    lines = _LINE_END.split(data)
    return b"".join([b"data: %b\n" % line for line in lines]) + b"\n"
