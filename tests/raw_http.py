"""Raw bytes to a server, and what comes back, read as strictly as a proxy should.

After what is to be tried, a harmless request goes out on the same connection: it is answered as
itself, or the connection is closed. Anything else would be somebody else's answer.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

CANARY = b"GET /health/live HTTP/1.1\r\nhost: canary\r\nconnection: close\r\n\r\n"
_LIVE = b'{"status":"live"}'
_HANGS = 20.0
_STATUS = re.compile(rb"HTTP/1\.1 ([1-5]\d\d) [A-Za-z \-']+")
_FIELD = re.compile(rb"([a-z0-9-]+): ([^\x00-\x1f\x7f]*)")


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer."""

    status: int
    fields: dict[bytes, bytes]
    body: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that came back for some bytes."""

    replies: Sequence[Reply]
    """Without the canary's."""
    in_step: bool
    """Whether the canary was answered; else the connection was closed before it."""
    raw: bytes

    @property
    def finals(self) -> list[int]:
        """The statuses of all answers but 100."""
        return [reply.status for reply in self.replies if reply.status != 100]


async def exchange(port: int, raw: bytes, *, head: bool = False) -> Outcome:
    """Send bytes and then the canary; return what came. `head`: the first answer has no body.

    Raises TimeoutError where the connection stays open without an end, AssertionError where what
    came back is no sequence of answers.
    """
    async with asyncio.timeout(_HANGS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(raw)
            # Time for an answer that comes without more being sent: nothing tells that none will.
            first = await _within(reader, 0.15)
            writer.write(CANARY)
            received = first + await _all(reader)
        finally:
            writer.close()
    replies = parse(received, head=head)
    in_step = bool(replies) and replies[-1].body == _LIVE
    return Outcome(replies[:-1] if in_step else replies, in_step, received)


async def _within(reader: asyncio.StreamReader, seconds: float) -> bytes:
    try:
        return await asyncio.wait_for(reader.read(2**20), seconds)
    except (TimeoutError, ConnectionError):
        return b""


async def _all(reader: asyncio.StreamReader) -> bytes:
    received = b""
    try:
        while chunk := await reader.read(2**20):
            received += chunk
    except ConnectionError:
        pass
    return received


def parse(received: bytes, *, head: bool = False) -> list[Reply]:
    """Return the answers; raise AssertionError for anything else than whole ones in a row."""
    replies = []
    while received:
        before, end, received = received.partition(b"\r\n\r\n")
        assert end, before
        line, *lines = before.split(b"\r\n")
        status = _STATUS.fullmatch(line)
        assert status, line
        matches = [_FIELD.fullmatch(field) for field in lines]
        assert all(matches), lines
        fields = {match[1]: match[2] for match in matches}
        code = int(status[1])
        empty = code in (100, 204) or (head and not replies)
        length = 0 if empty else int(fields[b"content-length"])
        assert len(received) >= length, received
        replies.append(Reply(code, fields, received[:length]))
        received = received[length:]
    return replies
