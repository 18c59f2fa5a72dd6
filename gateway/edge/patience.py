"""How long a connection is waited for: one timer, which knows what is being waited for.

It is set anew when it fires, or when something begins that may not take long; a request that comes
in one piece and is answered at once never touches it. So it costs a busy connection nothing.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from gateway.errors import SlowClientError
from gateway.reasons import Reason

KEEP_ALIVE = 75.0
"""Seconds that a connection may wait for its next request: longer than load balancers keep theirs,
so that it is they who close."""
LINGER = 2.0
"""Seconds in which what is left of a body is read after its answer. Who is cut off while it sends
may never read why."""
SLOWEST = 1_000
"""Bytes a second that a body must come with, and an answer be taken with. Old mobile networks have
three times as many; Apache's mod_reqtimeout asks for 500."""


@dataclass(slots=True)
class Terms:
    """What all connections of a listener go by; may change while they are open."""

    header_timeout: float
    """Seconds for a head, from its first byte; for the first one, from the connection's start."""
    body_timeout: float
    """Seconds in which a body, or the reading of an answer, must come on by SLOWEST."""
    max_header: int
    """Bytes of a head."""
    refused: Callable[[Reason], None]
    """Told of every request that did not even begin."""
    leaving: bool = False
    """Whether every answer is the last of its connection."""


class Stage(Enum):
    """What a connection waits for."""

    HEAD = auto()
    BODY = auto()
    ANSWER = auto()
    """From the application."""
    READER = auto()
    """For the client to take what was written."""
    REST = auto()
    """Of a body that has its answer."""
    NEXT = auto()
    """Request on a connection that is kept."""
    FAREWELL = auto()
    """The client's end of a connection that we have ended."""


class Watched(Protocol):
    """A connection, as its patience sees it."""

    @property
    def stage(self) -> Stage:
        """What it waits for now."""
        ...

    @property
    def unread(self) -> int:
        """Bytes that the client's machine has not taken yet."""
        ...

    @property
    def reading(self) -> bool:
        """Whether we read what the client sends."""
        ...

    def slow(self, error: SlowClientError) -> None:
        """What should come does not come in time."""
        ...

    def close(self) -> None:
        """Close, once all that was written is taken."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class Patience:
    """One connection's timer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, terms: Terms, connection: Watched) -> None:
        """It begins with `start`, and ends with `stop`."""
        self._loop = loop
        self._terms = terms
        self._connection = connection
        self._timer: asyncio.TimerHandle | None = None
        self._since = 0.0
        """When the head began, or the last answer ended."""
        self._received = 0
        """Bytes of a body since the timer was set."""
        self._excused = False
        """Whether we have not read all the while since then."""
        self._unread = 0
        """As it was when the timer was set."""

    def start(self) -> None:
        """Wait for the head of the first request, of which nothing has come."""
        self.head_begins()

    def stop(self) -> None:
        """Wait for nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def head_begins(self) -> None:
        """Wait for the end of a head."""
        self._since = self._loop.time()
        self._set(self._terms.header_timeout)

    def body_begins(self) -> None:
        """Wait for the end of a body."""
        self._received = 0
        self._excused = not self._connection.reading
        self._set(self._terms.body_timeout)

    def body_comes(self, size: int) -> None:
        """Note so many bytes of it."""
        self._received += size

    def reading_stops(self) -> None:
        """Note that it is we who do not read on: that is not held against the client."""
        self._excused = True

    def answered(self, *, wholly_read: bool) -> None:
        """Wait for the next request, or for the rest of the body that has its answer."""
        self._since = self._loop.time()
        if not wholly_read:
            self._set(LINGER)

    def writing_stops(self) -> None:
        """Wait for the client to take what was written."""
        self._unread = self._connection.unread
        self._set(self._terms.body_timeout)

    def farewell(self) -> None:
        """Wait for the client to take what was written, and to close as well."""
        self._unread = self._connection.unread
        self._set(LINGER)

    def _set(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        match self._connection.stage:
            case Stage.HEAD:
                self._look_at_head()
            case Stage.BODY:
                self._look_at_body()
            case Stage.READER:
                self._look_at_reader()
            case Stage.NEXT:
                self._wait_for_next()
            case Stage.ANSWER:
                self._set(KEEP_ALIVE)
            case Stage.REST:
                self._connection.close()
            case Stage.FAREWELL:
                self._connection.abort()

    def _look_at_head(self) -> None:
        limit = self._terms.header_timeout
        left = self._since + limit - self._loop.time()
        if left > 0:
            self._set(left)
            return
        self._set(limit)
        self._connection.slow(SlowClientError(f"The headers took longer than {limit:g} seconds."))

    def _look_at_body(self) -> None:
        seconds, received = self._terms.body_timeout, self._received
        excused = self._excused
        self.body_begins()
        if received < seconds * SLOWEST and not excused:
            text = f"In {seconds:g} seconds only {received} bytes of the body came."
            self._connection.slow(SlowClientError(text))

    def _look_at_reader(self) -> None:
        before = self._unread
        self.writing_stops()
        if self._unread > before - self._terms.body_timeout * SLOWEST:
            self._connection.abort()

    def _wait_for_next(self) -> None:
        left = self._since + KEEP_ALIVE - self._loop.time()
        if left > 0:
            self._set(left)
        else:
            self._connection.close()
