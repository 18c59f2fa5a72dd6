"""How a fake upstream can misbehave: each is something some real server has done to somebody.

A behaviour changes an `Exchange` before it is written. Those with arguments are made by a
function; `together` combines several into one.
"""

import asyncio
import gzip
import json
import threading
from collections.abc import Mapping
from concurrent.futures import Future

import numpy as np

from tests.upstream import Behaviour, Exchange, Item


async def well(exchange: Exchange) -> None:
    """Behave."""


async def shuffle(exchange: Exchange) -> None:
    """Send the items in another order, each with its right index."""
    exchange.items = exchange.items[1:][::-1] + exchange.items[:1]


async def short(exchange: Exchange) -> None:
    """Leave the last item out."""
    exchange.items.pop()


async def long(exchange: Exchange) -> None:
    """Send one item too many."""
    exchange.items.append(Item(len(exchange.items), exchange.items[-1].vector))


async def duplicate_index(exchange: Exchange) -> None:
    """Give the last item the index of the first; a single item is sent twice."""
    if len(exchange.items) == 1:
        exchange.items *= 2
    exchange.items[-1].index = exchange.items[0].index


async def negative_index(exchange: Exchange) -> None:
    """Give the last item the index -1, which Python takes for the last place."""
    exchange.items[-1].index = -1


def missing_index(*, every: bool = False) -> Behaviour:
    """Leave out the last item's index, or every one."""

    async def behave(exchange: Exchange) -> None:
        for item in exchange.items if every else exchange.items[-1:]:
            item.index = None

    return behave


async def wrong_width(exchange: Exchange) -> None:
    """Cut one component off the last vector."""
    _change(exchange, lambda vector: vector[:-1])


async def nan(exchange: Exchange) -> None:
    """Put a NaN into the last vector: in the base64, or as the word NaN in the JSON."""
    _change(exchange, lambda vector: np.append(vector[:-1], np.float32(np.nan)))


async def inf(exchange: Exchange) -> None:
    """Put an infinity into the last vector."""
    _change(exchange, lambda vector: np.append(vector[:-1], np.float32(np.inf)))


async def zero(exchange: Exchange) -> None:
    """Make the last vector all zeros."""
    _change(exchange, np.zeros_like)


async def null_embedding(exchange: Exchange) -> None:
    """Send null for the last vector."""
    exchange.items[-1].vector = None


async def empty_data(exchange: Exchange) -> None:
    """Send no items."""
    exchange.items = []


async def integers(exchange: Exchange) -> None:
    """Send every vector as whole numbers, without decimal points."""
    for item in exchange.items:
        assert item.vector is not None
        item.vector = np.rint(item.vector * 100).astype(np.int64)


async def float_although_base64(exchange: Exchange) -> None:
    """Send numbers, whatever was asked for."""
    exchange.base64 = False


async def no_usage(exchange: Exchange) -> None:
    """Leave `usage` out."""
    exchange.answer.pop("usage", None)


async def wrong_model_name(exchange: Exchange) -> None:
    """Say that another model has answered."""
    exchange.answer["model"] = "another-model"


async def broken_json(exchange: Exchange) -> None:
    """Send a whole HTTP answer whose JSON stops in the middle."""
    exchange.edit = lambda body: body[: len(body) // 2]


async def zipped(exchange: Exchange) -> None:
    """Compress the answer though nobody asked."""
    exchange.headers["content-encoding"] = "gzip"
    exchange.edit = gzip.compress


async def cut_body(exchange: Exchange) -> None:
    """Close the connection in the middle of the body."""
    exchange.cut = 0.5


async def close_after_headers(exchange: Exchange) -> None:
    """Close the connection after the headers."""
    exchange.cut = 0.0


async def close_before_answer(exchange: Exchange) -> None:
    """Close the connection without a word."""
    exchange.hang_up = True


async def redirect(exchange: Exchange) -> None:
    """Point to another place, which the client's key should not be carried to."""
    exchange.status, exchange.body = 307, b""
    exchange.headers["location"] = "http://127.0.0.1:9/v1/embeddings"


async def html_error(exchange: Exchange) -> None:
    """Answer as a proxy in between would."""
    exchange.headers["content-type"] = "text/html"
    exchange.status = 502
    exchange.body = b"<html><body><center><h1>502 Bad Gateway</h1></center></body></html>"


async def flat_error(exchange: Exchange) -> None:
    """Answer with an error that is not under `error`, as TEI does when it has no room."""
    exchange.status = 429
    flat = {"message": "Model is overloaded", "code": 429, "type": "overloaded"}
    exchange.body = json.dumps(flat).encode()


def status(
    code: int, headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> Behaviour:
    """Answer with this status, and OpenAI's kind of error unless there is a body."""

    async def behave(exchange: Exchange) -> None:
        exchange.headers |= headers or {}
        refusal = exchange.flavour.refusal(code, "The server had an error.", kind="server_error")
        exchange.status, exchange.body = code, refusal.body if body is None else body

    return behave


def rate_limit(retry_after: str | None = None, code: str = "rate_limit_exceeded") -> Behaviour:
    """Answer 429 as OpenAI does, with this `retry-after` (seconds or a date)."""

    async def behave(exchange: Exchange) -> None:
        kind = "insufficient_quota" if code == "insufficient_quota" else "requests"
        message = "Rate limit reached for requests."
        refusal = exchange.flavour.refusal(429, message, kind=kind, code=code)
        exchange.status, exchange.body = 429, refusal.body
        if retry_after is not None:
            exchange.headers["retry-after"] = retry_after

    return behave


def slow(seconds: float) -> Behaviour:
    """Answer after so many seconds."""

    async def behave(exchange: Exchange) -> None:
        await asyncio.sleep(seconds)

    return behave


def huge(size: int) -> Behaviour:
    """Add so many bytes of padding to the answer."""

    async def behave(exchange: Exchange) -> None:
        exchange.answer["padding"] = "x" * size

    return behave


class Hang:
    """Answers no call until it is released; tells when one has arrived, and when one was given up.

    `reached` and `abandoned` are futures of `concurrent.futures`: wait with `.result(timeout)`, or
    in a coroutine with `await asyncio.wrap_future(…)`.
    """

    def __init__(self) -> None:
        self.reached: Future[None] = Future()
        self.abandoned: Future[None] = Future()
        self._lock = threading.Lock()
        self._released = False
        self._held: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def release(self) -> None:
        """Let every call go on, those to come too."""
        with self._lock:
            self._released = True
            for loop, event in self._held:
                loop.call_soon_threadsafe(event.set)

    async def __call__(self, exchange: Exchange) -> None:
        """Hold this call."""
        event = asyncio.Event()
        held = (asyncio.get_running_loop(), event)
        with self._lock:
            if self._released:
                event.set()
            self._held.append(held)
        _settle(self.reached)
        go = asyncio.ensure_future(event.wait())
        gone = asyncio.ensure_future(exchange.gone())
        try:
            await asyncio.wait({go, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            with self._lock:
                self._held.remove(held)
            go.cancel()
            gone.cancel()
        if gone.done():
            _settle(self.abandoned)


def together(*behaviours: Behaviour) -> Behaviour:
    """Behave in all of these ways, one after the other."""

    async def behave(exchange: Exchange) -> None:
        for one in behaviours:
            await one(exchange)

    return behave


def _change(exchange: Exchange, change) -> None:
    item = exchange.items[-1]
    assert item.vector is not None
    item.vector = change(item.vector)


def _settle(future: "Future[None]") -> None:
    if not future.done():
        future.set_result(None)
