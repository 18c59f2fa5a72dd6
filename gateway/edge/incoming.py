"""What comes in on a connection: httptools by way of uvicorn, and stricter than both.

The parser is fed no more at a time than a head may be long, so that one of any size costs as much
as the largest that is taken. Whatever could be read in two ways ends the connection.
"""

import re

import httptools
import uvicorn
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.edge import heads
from gateway.edge.heads import MOST_FIELDS, TELLING
from gateway.edge.patience import Patience, Stage, Terms
from gateway.errors import GatewayError, SlowClientError

_OFFER = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class Incoming(HttpToolsProtocol):
    """The half of a connection that reads; see Protocol for the other."""

    def __init__(self, config: uvicorn.Config, server_state: ServerState, terms: Terms) -> None:
        super().__init__(config, server_state, {})
        # Uvicorn has it read on behind a request that is to be the last.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=False)
        self.terms = terms
        self.patience = Patience(self.loop, terms, self)
        self.deaf = False
        """Whether nothing that comes is read any more."""
        self.heading = False
        """Whether a head has begun to come."""
        self._head_size = 0
        """At least as many bytes as the head has so far."""
        self._told: list[heads.Field] = []
        self._right: list[heads.Field] | None = None
        """What an earlier head on this connection told, and could be taken."""
        self._receiving: RequestResponseCycle | None = None
        self._frame = 0
        """Bytes of a body's chunk extensions and trailers since its last own byte."""

    # For the other half to say

    @property
    def stage(self) -> Stage:
        """What the connection waits for now."""
        raise NotImplementedError

    @property
    def unread(self) -> int:
        """Bytes that the client's machine has not taken yet."""
        raise NotImplementedError

    def refuse(self, error: GatewayError) -> None:
        """Answer an error after what came before it, and close: nothing that follows is read."""
        raise NotImplementedError

    def make_last(self, cycle: RequestResponseCycle) -> None:
        """Have the connection closed behind a request's answer, which says so if it still can."""
        raise NotImplementedError

    def overhear(self, size: int) -> None:
        """Be told of so many bytes that are not read."""
        raise NotImplementedError

    def slow(self, error: SlowClientError) -> None:
        """See Watched."""
        raise NotImplementedError

    def close(self) -> None:
        """See Watched."""
        raise NotImplementedError

    def abort(self) -> None:
        """See Watched."""
        raise NotImplementedError

    # What comes in

    @property
    def newest(self) -> RequestResponseCycle | None:
        """The last request whose head came; earlier ones may have to be answered before it."""
        return self.cycle

    @property
    def reading(self) -> bool:
        """Whether we read what the client sends."""
        return not self.flow.read_paused

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol.

        A client may offer to go on in another protocol, as Java's does with HTTP/2, and must then
        be answered in this one (RFC 9110, 7.8). The parser would stop at the offer and take the
        body for the next request; so the offer is renamed before the parser sees it.
        """
        if self.deaf:
            self.overhear(len(data))
            return
        if b"pgrade:" in data or b"PGRADE:" in data:
            head, end, body = data.partition(b"\r\n\r\n")
            if self.newest is None or not self.newest.more_body:
                data = _OFFER.sub(b"\r\nx-offered:", head) + end + body
        most = self.terms.max_header
        if len(data) <= most:
            self._feed(data)
            return
        for start in range(0, len(data), most):
            self._feed(data[start : start + most])

    def _feed(self, data: bytes) -> None:
        if self.deaf:
            return
        went_on = self.heading
        self._head_size = self._head_size + len(data) if went_on else len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # An offer that came in pieces and was not seen above: what follows cannot be told apart
            # from another request, so none of it is read, and the connection ends with the answer.
            self.deaf = True
            self.make_last(self.cycle)
        except httptools.HttpParserError as error:
            self.refuse(_meant(error))
        else:
            if self.heading:
                self._more_of_head(begins=not went_on)
            elif (newest := self.newest) is not None and newest.more_body:
                self._more_of_body(newest, len(data))

    def _more_of_head(self, *, begins: bool) -> None:
        if begins and self.newest is not None:
            self.patience.head_begins()
        # The piece in which it began may have had the end of a body before it.
        if self._head_size > 2 * self.terms.max_header:
            self.refuse(heads.too_large(self.terms.max_header))

    def _more_of_body(self, cycle: RequestResponseCycle, size: int) -> None:
        if cycle is not self._receiving:
            self._receiving = cycle
            self.patience.body_begins()
        self.patience.body_comes(size)
        self._frame += size
        if self._frame > 2 * self.terms.max_header:
            self.refuse(heads.too_large(self.terms.max_header))

    # What the parser finds

    def on_message_begin(self) -> None:
        """See HttpToolsProtocol."""
        super().on_message_begin()
        self.heading = True
        self._told = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """See HttpToolsProtocol; a field behind a body is not one of the head's (RFC 9110, 6.5)."""
        if not self.heading:
            return
        name = name.lower()
        if name in TELLING:
            self._told.append((name, value))
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """See HttpToolsProtocol. What is raised here comes out of `feed_data`."""
        if self._told != self._right or self.url[:1] != b"/":
            version = self.parser.get_http_version()
            self.expect_100_continue = heads.check(self._told, version, self.url)
            if len(self._told) == 1:
                self._right = self._told
        if len(self.headers) > MOST_FIELDS:
            raise heads.too_many()
        if self._head_size > self.terms.max_header:
            heads.check_size(self.url, self.headers, self.terms.max_header)
        super().on_headers_complete()
        self.heading = False
        self._frame = 0
        # Who is answered before it was told to send its body may leave it out, or not: nobody can
        # tell what comes next.
        if self.expect_100_continue or self.terms.leaving or not self.cycle.keep_alive:
            self.make_last(self.cycle)

    def on_body(self, body: bytes) -> None:
        """See HttpToolsProtocol."""
        cycle = self.cycle
        self._frame = 0
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
            self.patience.reading_stops()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """See HttpToolsProtocol."""
        self.cycle.more_body = False
        self.cycle.message_event.set()


def _meant(error: httptools.HttpParserError) -> GatewayError:
    """Return what one of our checks raised, or that the parser could not go on."""
    if isinstance(error.__context__, GatewayError):
        return error.__context__
    return heads.unreadable("It is no HTTP/1.1.")
