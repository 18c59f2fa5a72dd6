"""One connection: what goes out on it, and how it ends."""

import asyncio
import fcntl
import http
import socket
import struct
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from gateway.edge.incoming import Incoming
from gateway.edge.middleware import ENDING, render
from gateway.edge.patience import Stage, Terms
from gateway.errors import GatewayError, SlowClientError

HEARD_OUT = 2**20
"""Bytes that are read, and forgotten, from who still sends when the connection is over."""
_NOT_AT_ALL = struct.pack("ii", 1, 0)
"""As SO_LINGER: what was not sent yet is not, and the other end is told so."""


class Protocol(Incoming):
    """One connection. When the client closes it, the request that runs on it is cancelled.

    ASGI only lets an application ask whether the client is still there, which costs a task for
    every request; the connection knows, and costs nothing.
    """

    def __init__(self, config: uvicorn.Config, server_state: ServerState, terms: Terms) -> None:
        super().__init__(config, server_state, terms)
        self._application: Any = self.app
        self.app = self._attended
        self._running: asyncio.Task[Any] | None = None
        self._scope: Scope = {}
        self._answered: RequestResponseCycle | None = None
        """The request that runs; of several on their way the first."""
        self._called_off = False
        self._parting = False
        self._overheard = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self.patience.start()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    async def _attended(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._running, self._scope = asyncio.current_task(), scope
        try:
            await self._application(scope, receive, send)
        except asyncio.CancelledError:
            if not self._called_off:
                raise
        finally:
            self._running = None

    def on_response_complete(self) -> None:
        """See HttpToolsProtocol."""
        self.server_state.total_requests += 1
        if self._parting or self.transport.is_closing():
            return
        self.flow.resume_reading()
        if ENDING in self._scope:
            self.close()
        elif self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self.patience.answered(wholly_read=not self.cycle.more_body)

    # Who waits for whom

    @property
    def busy(self) -> bool:
        """Whether a request runs, or has begun to come."""
        newest = self.newest
        runs = newest is not None and not newest.response_complete
        return runs or (self.heading and not self.deaf)

    @property
    def stage(self) -> Stage:
        """What the connection waits for now."""
        cycle = self.newest
        if self.flow.write_paused:
            return Stage.READER
        if self._parting or self.transport.is_closing():
            return Stage.READER if self.unread else Stage.FAREWELL
        if cycle is None or (self.heading and not self.deaf):
            return Stage.HEAD
        if not cycle.response_complete:
            return Stage.BODY if cycle.more_body else Stage.ANSWER
        return Stage.REST if cycle.more_body else Stage.NEXT

    @property
    def unread(self) -> int:
        """Bytes that the client's machine has not taken yet: kept here, and in the kernel."""
        kept = self.transport.get_write_buffer_size()
        with suppress(OSError, AttributeError):  # not every system tells
            connection = self.transport.get_extra_info("socket")
            queued = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
            kept += int.from_bytes(queued, sys.byteorder)
        return kept

    def slow(self, error: SlowClientError) -> None:
        """See Watched. Who has sent nothing at all is told nothing."""
        if self.busy:
            self.refuse(error)
        else:
            self.close()

    def pause_writing(self) -> None:
        """See asyncio.Protocol. Who reads nothing holds an upstream's place, or a context."""
        super().pause_writing()
        self.patience.writing_stops()

    # How it ends

    def refuse(self, error: GatewayError) -> None:
        """Answer an error after what came before it, and close: nothing that follows is read."""
        self.deaf = True
        if error.reason is not None:
            self.terms.refused(error.reason)
        cycle = self.newest
        in_body = cycle is not None and cycle.more_body and not self.heading
        if cycle is None or (cycle.response_complete and not in_body):
            self._say(error)
        elif not in_body or cycle.response_complete:
            # What did begin is answered; the end of the connection says the rest.
            self.make_last(cycle)
        elif self.pipeline and self.pipeline[0][0] is cycle:
            self.make_last(cycle)
            self.pipeline[0] = (cycle, _answering(error))
        elif cycle.response_started:
            self.abort()
        else:
            self._call_off()
            cycle.disconnected = True
            self._say(error)

    def _say(self, error: GatewayError) -> None:
        body, phrase = error.body(), http.HTTPStatus(error.status).phrase.encode()
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            b"connection: close\r\n\r\n%b" % (error.status, phrase, len(body), body)
        )
        self._part()

    def make_last(self, cycle: RequestResponseCycle) -> None:
        """Have the connection closed behind a request's answer, which says so if it still can."""
        if cycle.response_complete:
            self._part()
            return
        cycle.keep_alive = False
        cycle.transport = _Last(self.transport, self._part)  # type: ignore[assignment]

    def _part(self) -> None:
        """Close; but who still sends is heard out for a while, or it might not read its answer.

        A socket that is closed with something unread in it takes back what it has sent.
        """
        if self._parting or self.transport.is_closing():
            return
        newest = self.newest
        read = newest is not None and not newest.more_body and not self.heading
        if (read and not self.deaf) or not self.transport.can_write_eof():
            self.close()
            return
        self.deaf = self._parting = True
        self.transport.write_eof()
        self.flow.resume_reading()
        self.patience.farewell()

    def overhear(self, size: int) -> None:
        """Be told of so many bytes that are not read: there is an end to that as well."""
        self._overheard += size
        if self._overheard > HEARD_OUT:
            self.flow.pause_reading()

    def close(self) -> None:
        """Close, once all that was written is taken."""
        self.deaf = True
        self.transport.close()
        self.patience.writing_stops()

    def abort(self) -> None:
        """Close at once. Else the kernel would go on holding what nobody takes."""
        with suppress(OSError, AttributeError):
            connection = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOT_AT_ALL)
        self.transport.abort()

    def leave(self) -> None:
        """Close behind the next answer that can say so; a connection without one waits."""
        newest = self.newest
        if newest is not None and not newest.response_started:
            self.make_last(newest)

    def end(self) -> None:
        """Have the running request end at once, with an error if one can still be told."""
        self.pipeline.clear()
        if self._running is None:
            self.close()
            return
        self._scope[ENDING] = True
        self._running.cancel()

    def shutdown(self) -> None:
        """See HttpToolsProtocol: close, behind what runs."""
        if self.busy:
            self.leave()
        else:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        super().connection_lost(exc)
        self.deaf = True
        self.patience.stop()
        self._call_off()

    def _call_off(self) -> None:
        if self._running is not None and self._answered is not None:
            self._called_off = True
            self._answered.disconnected = True
            self._running.cancel()


class _Last:
    """What the last answer of a connection is written to: its end is ours to make."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


def _answering(error: GatewayError) -> Any:
    """Return an application that answers an error."""

    async def answer(_: Scope, __: Receive, send: Send) -> None:
        await render(error, send)

    return answer
