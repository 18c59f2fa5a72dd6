"""One Redis server: the connections to it, how long it may take, and its errors as ours.

redis-py connects and speaks the protocol. What it leaves to us is here: a connection comes back
to the pool only when every answer on it has been read, so that nobody reads another's answer; a
verb ends in time whatever the server does; and no error of the library or the network gets out.
"""

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType, UnionType
from typing import Any, Self

from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError, ResponseError
from redis.exceptions import ConnectionError as LineError

from gateway.cache.redis_line import Address, Line
from gateway.cache.store import StoreError

Command = tuple[bytes | str | int, ...]
Reply = Any
"""Bytes, an int, a list, None, or the ResponseError that the server answered."""
Kind = type | UnionType

PLACES = 32
"""Connections to one server, at most; who finds none free waits within its budget."""

_TICKS = 5
_CODES = {
    "OOM": "full",
    "READONLY": "readonly",
    "MISCONF": "readonly",  # it cannot save, and so takes no writes
    "NOREPLICAS": "readonly",
    "NOAUTH": "refused",
    "WRONGPASS": "refused",
    "NOPERM": "refused",
    "DENIED": "refused",
}
# uvloop raises RuntimeError for a transport that is closed; ValueError, EOFError and
# RecursionError come from the parser, for what is no answer of a Redis server.
_FAILURES = (RedisError, OSError, RuntimeError, ValueError, EOFError)


class Limit:
    """Like asyncio.timeout, but fair to a server whose answer lies unread while the loop is busy.

    Time is counted in ticks. One that comes late shows that the loop was doing something else,
    and is not counted; as many are let off as are counted, so that there is an end to it.
    """

    __slots__ = ("_handle", "_let_off", "_loop", "_tick", "_ticks", "_timeout", "paused")

    def __init__(self, seconds: float) -> None:
        self.paused = False
        """Whether time does not count just now."""
        self._tick = seconds / _TICKS
        self._ticks = self._let_off = _TICKS
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_later(self._tick, self._count)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._handle.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def end(self) -> None:
        """Let all of the time be over."""
        if self._ticks:
            self._ticks = 0
            self._handle.cancel()
            self._timeout.reschedule(self._loop.time())

    def _count(self) -> None:
        if self.paused:
            pass
        elif self._let_off and self._loop.time() - self._handle.when() > self._tick:
            self._let_off -= 1
        else:
            self._ticks -= 1
        if self._ticks:
            self._handle = self._loop.call_later(self._tick, self._count)
        else:
            self._timeout.reschedule(self._loop.time())


class Server:
    """Runs commands on one server. Connects when it has to, and again when it has to."""

    def __init__(self, address: Address, line: Callable[[], Line], connect_budget: float) -> None:
        self.address = address
        self._line = line
        self._connect_budget = connect_budget
        self._places = asyncio.Semaphore(PLACES)
        self._idle: list[Line] = []
        self._connecting: set[Limit] = set()
        self._closed = False

    async def run(self, commands: Sequence[Command], budget: float) -> list[Reply]:
        """Send commands in one go and return the answer to each, errors of the server included.

        `budget` is in seconds. Raises StoreError where there is no answer: timeout, connect,
        refused or error.
        """
        if self._closed:
            raise StoreError("connect", f"{self.address}: we have taken our leave")
        try:
            async with Limit(budget) as limit, self._places:
                return await self._exchange(commands, limit)
        except TimeoutError:
            # Where one who is connected has waited in vain, so would those who still connect.
            for connecting in self._connecting:
                connecting.end()
            raise StoreError(
                "timeout", f"{self.address} did not answer within {budget * 1000:.0f} ms"
            ) from None
        except _FAILURES as error:
            raise _failure(self.address, error) from None

    async def values(self, names: Sequence[bytes], budget: float) -> list[bytes | None]:
        """Return the strings at these names; None where there is none, or something else."""
        (values,) = checked(await self.run([("MGET", *names)], budget), list)
        if len(values) != len(names):
            raise StoreError("error", f"{self.address} answered {len(values)} of {len(names)}")
        return checked(values, bytes | None)

    async def servers(self, budget: float) -> "Sequence[Server]":
        """Return all the servers that there are: this one."""
        del budget
        return [self]

    async def retire(self) -> None:
        """Close what is idle now, and what is in use when it is done."""
        self._closed = True
        await self._close_idle()

    async def aclose(self) -> None:
        """Wait for what is on its way, then close; who comes later finds no place."""
        if self._closed:
            return
        await self.retire()
        for _ in range(PLACES):
            await self._places.acquire()

    async def _exchange(self, commands: Sequence[Command], limit: Limit) -> list[Reply]:
        line = await self._take()
        if line is not None:
            try:
                return await self._ask(line, commands, limit)
            except (LineError, RuntimeError):
                # The server closed it while it was idle, and so perhaps all the others.
                await self._close_idle()
        return await self._ask(self._line(), commands, limit)

    async def _ask(self, line: Line, commands: Sequence[Command], limit: Limit) -> list[Reply]:
        """Use a connection; it is kept only when every answer on it has been read."""
        try:
            if not line.is_connected:
                limit.paused = True
                await self._connect(line)
                limit.paused = False
            await line.send_packed_command(line.pack_commands(commands))
            replies = [await _read(line) for _ in commands]
        except BaseException:
            await line.disconnect(nowait=True)
            raise
        if self._closed:
            await line.disconnect()
        else:
            self._idle.append(line)
        return replies

    async def _connect(self, line: Line) -> None:
        async with Limit(self._connect_budget) as limit:
            self._connecting.add(limit)
            try:
                await line.connect()  # type: ignore[no-untyped-call]
            finally:
                self._connecting.discard(limit)

    async def _take(self) -> Line | None:
        """Return an idle connection that is as we left it."""
        while self._idle:
            line = self._idle.pop()
            # Either it was closed, or there is an answer on it that nobody asked for.
            if not await line.can_read():
                return line
            await line.disconnect(nowait=True)
        return None

    async def _close_idle(self) -> None:
        while self._idle:
            await self._idle.pop().disconnect()


def checked(replies: list[Reply], kind: Kind) -> list[Reply]:
    """Return the replies; raise StoreError for an error, or anything else that is not `kind`."""
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise _refusal(reply)
        if not isinstance(reply, kind):
            raise StoreError("error", "the server answered something else than was asked")
    return replies


def is_wrong_type(reply: Reply) -> bool:
    """Whether the server answered that something else than expected is kept at a key."""
    return isinstance(reply, ResponseError) and _code(reply) == "WRONGTYPE"


def _refusal(error: RedisError) -> StoreError:
    """Return what the server answered as our error."""
    code = _code(error)
    refused = isinstance(error, AuthenticationError)
    reason = "refused" if refused else _CODES.get(code, "error")
    # A server that does not know a command quotes what it was sent with.
    said = str(error).removeprefix(code).partition(", with args")[0].strip()
    return StoreError(reason, f"the server answered {code}: {said[:100]}")


def _code(error: RedisError) -> str:
    """Return the first word of an error that the server answered, such as WRONGTYPE."""
    return error.status_code or str(error).partition(" ")[0]


async def _read(line: Line) -> Reply:
    try:
        return await line.read_response()
    except ResponseError as error:
        return error


def _failure(address: Address, error: Exception) -> StoreError:
    if isinstance(error, ResponseError | AuthenticationError | BusyLoadingError):
        return _refusal(error)
    if isinstance(error, LineError | OSError) or type(error) is RuntimeError:
        return StoreError("connect", f"{address}: {error}")
    return StoreError("error", f"{address} does not speak Redis's protocol")
