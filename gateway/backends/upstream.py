"""One upstream's address, credentials, places and attempts, whatever it is asked for.

One call is: see whether the upstream is to be left alone, take a place, ask, tell what came of it,
and either hand the answer on or decide whether to ask again. It knows nothing of vectors and chats.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from gateway.backends.credentials import Credentials
from gateway.backends.endpoint import Endpoint
from gateway.backends.failures import Failure, read_failure, without
from gateway.backends.outcomes import Again, again, answered, broken, left_alone, unanswered
from gateway.backends.placed import PlacedAnswer
from gateway.backends.places import Places
from gateway.backends.transport import Opened, Reply, Transport
from gateway.errors import GatewayError, UpstreamError
from gateway.resilience.budget import RetryBudget
from gateway.resilience.circuit import USUAL, Circuit, Limits
from gateway.resilience.retry import RetryPolicy
from gateway.types import ANYONE, Caller, Text

A = TypeVar("A")
T = TypeVar("T")

ReadFailure = Callable[[Reply, str, str], Failure | None]
"""Reads the answer of an upstream of this name to a request that has its texts in this field."""


class Upstream:
    """Calls one upstream: at most `concurrency` at a time, and again where that may help.

    Where another upstream can serve instead (`stand_in`), it is left alone sooner, and nothing is
    asked again: the first failure is the last.
    """

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        transport: Transport,
        retry: RetryPolicy,
        read_failure: ReadFailure = read_failure,
        limits: Limits = USUAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`limits` say when it is left alone; `clock` gives seconds that never go back."""
        self.name = name
        self.circuit = Circuit(clock, limits)
        """How its calls went, whatever they were for."""
        self.places = Places(
            name,
            endpoint.concurrency,
            max_queue=endpoint.max_queue,
            max_queue_per_key=endpoint.max_queue_per_key,
            clock=clock,
        )
        self.retries: Counter[Again] = Counter()
        """Calls that were made again, by why."""
        self._url = endpoint.url
        self._credentials = Credentials(
            name, endpoint.auth_header, endpoint.api_key, forwarded=endpoint.forward_key
        )
        self._headers = endpoint.headers_for("application/json")
        self._stream_headers = endpoint.headers_for("application/json, text/event-stream")
        self._timeout = endpoint.timeout
        self._transport = transport
        self._retry = retry
        self._read_failure = read_failure
        self._budget = RetryBudget(clock)
        credentials = (
            endpoint.api_key,
            *(endpoint.headers or {}).values(),
            *(endpoint.query or {}).values(),
        )
        self._secrets = [secret for secret in credentials if secret]

    async def call(
        self,
        method: str,
        path: str,
        body: bytes | None,
        deadline: float,
        *,
        read: Callable[[Reply], T],
        caller: Caller = ANYONE,
        stand_in: bool = False,
    ) -> T:
        """Send for `caller` until there is a good answer, a final one, or no time left.

        Return what `read` makes of it; it raises UpstreamError for an answer that is no good.
        Raises what `read_failure` makes of the last answer, UpstreamConnectError,
        UpstreamTimeoutError, and UnavailableError or OwnLimitError where the call is not made.
        """
        return await self._persist(
            lambda: self._send(method, path, body, deadline, read, caller, stand_in=stand_in),
            deadline,
            stand_in=stand_in,
        )

    async def open(
        self,
        path: str,
        body: bytes,
        *,
        stream: bool,
        deadline: float,
        silence: float,
        caller: Caller = ANYONE,
        stand_in: bool = False,
    ) -> Opened:
        """Post until the headers of a good answer (2xx) are there.

        The answer keeps its place until it is read to its end, broken or closed. Only what cannot
        have begun an answer is asked again: no connection, 429 and 503. Raises as `call` does.
        """
        headers = self._stream_headers if stream else self._headers
        return await self._persist(
            lambda: self._open(path, headers, body, deadline, silence, caller, stand_in=stand_in),
            deadline,
            stand_in=stand_in,
        )

    def refused(self, reply: Reply, texts: Sequence[Text]) -> GatewayError:
        """Return what an error answer to a chat means, without what it quotes; see `unquoted`."""
        failure = self._read_failure(reply, self.name, "messages")
        error = failure.error if failure is not None else UpstreamError("")
        return self.unquoted(error, texts)

    def unquoted(self, error: GatewayError, texts: Sequence[Text]) -> GatewayError:
        """Take out of an error what the upstream quoted in it of the texts and of our secrets."""
        texts = tuple(texts)  # they may be searched for in the request first
        error.message = without(error.message, texts, self._secrets)
        if not error.message:
            error.message = f"Upstream '{self.name}' refused the request."
        for name in ("param", "code"):
            value = getattr(error, name)
            if value is not None and without(value, texts, self._secrets) != value:
                setattr(error, name, None)
        return error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def _persist(
        self,
        attempt: Callable[[], Awaitable[A | Failure]],
        deadline: float,
        *,
        stand_in: bool,
    ) -> A:
        clock = asyncio.get_running_loop().time
        self._budget.deposit()
        number = 0
        while True:
            number += 1
            answer = await attempt()
            if not isinstance(answer, Failure):
                return answer
            if stand_in:
                raise answer.error
            wait = self._wait(number, answer, deadline - clock())
            if wait is None:
                raise answer.final(spent=answer.retry)
            self.retries[again(answer.error)] += 1
            await asyncio.sleep(wait)

    def _wait(self, number: int, failure: Failure, remaining: float) -> float | None:
        """Return seconds until the call is made again after attempt `number`; None: it is not."""
        if not failure.retry or not self.circuit.permits(stand_in=False):
            return None
        wait = self._retry.wait(number, remaining, failure.after)
        return wait if wait is not None and self._budget.withdraw() else None

    async def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        deadline: float,
        read: Callable[[Reply], T],
        caller: Caller,
        *,
        stand_in: bool,
    ) -> T | Failure:
        """Send once, as soon as there is a place."""
        url = self._url(path)
        taken = await self._enter(deadline, caller, stand_in=stand_in)
        seconds = min(_remaining(deadline), self._timeout)
        try:
            headers = self._credentials.sign(self._headers, caller)
            reply = await self._transport.send(method, url, headers, body, timeout=seconds)
            failure = self._meant(reply, "input", caller)
            answer = read(reply) if failure is None else failure
        except UpstreamError as error:
            return unanswered(self.circuit, error, seconds)
        except BaseException:
            self.circuit.abandoned()
            raise
        finally:
            self.places.leave(taken)
        answered(self.circuit, reply.status, failure)
        return answer

    async def _open(
        self,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        deadline: float,
        silence: float,
        caller: Caller,
        *,
        stand_in: bool,
    ) -> Opened | Failure:
        """Post once, as soon as there is a place."""
        url = self._url(path)
        leave = partial(self.places.leave, await self._enter(deadline, caller, stand_in=stand_in))
        seconds = _remaining(deadline)
        try:
            signed = self._credentials.sign(headers, caller)
            answer = await self._transport.open(
                "POST", url, signed, body, timeout=seconds, silence=silence
            )
            words = b"" if answer.status < 300 else await _refusal(answer, deadline)
        except UpstreamError as error:
            leave()
            return unanswered(self.circuit, error, seconds)
        except BaseException:
            leave()
            self.circuit.abandoned()
            raise
        failure = self._meant(Reply(answer.status, answer.headers, words), "messages", caller)
        answered(self.circuit, answer.status, failure)
        if failure is None:
            return PlacedAnswer(answer, leave, self._broke)
        leave()
        await answer.aclose()
        # Anything else may be an answer that was begun, and billed.
        return replace(failure, retry=failure.retry and answer.status in (429, 503))

    async def _enter(self, deadline: float, caller: Caller, *, stand_in: bool) -> float:
        """Take a place; return when. Raises where the upstream is left alone, before and then."""
        if not self.circuit.permits(stand_in=stand_in):
            raise left_alone(self.name, self.circuit, stand_in=stand_in)
        taken = await self.places.take(caller, deadline)
        if not self.circuit.permits(stand_in=stand_in):
            self.places.leave(taken)
            raise left_alone(self.name, self.circuit, stand_in=stand_in)
        self.circuit.begun()
        return taken

    def _meant(self, reply: Reply, field: str, caller: Caller) -> Failure | None:
        failure = self._read_failure(reply, self.name, field)
        return self._credentials.meant(failure, reply, caller)

    def _broke(self, error: UpstreamError) -> None:
        self.circuit.failed(broken(error))


async def _refusal(answer: Opened, deadline: float) -> bytes:
    """Return the words of an error; where they do not come, its status says enough."""
    try:
        async with asyncio.timeout_at(deadline):
            return await answer.read()
    except (TimeoutError, UpstreamError):
        return b""


def _remaining(deadline: float) -> float:
    return max(deadline - asyncio.get_running_loop().time(), 0.0)
