"""A client of an embeddings API: patient with busy servers, plain about what is refused."""

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from random import random
from types import TracebackType
from typing import Any, Self

import httpx2
import msgspec
import numpy as np
from pybase64 import b64decode

from gateway import __version__
from gateway.commands.opened import CommandError
from gateway.resilience.retry import RetryPolicy, retry_after

RETRIES = RetryPolicy(chance=random, attempts=8, base=0.5, cap=20.0)
"""For who has hours of work to lose."""
_TIMEOUT = httpx2.Timeout(connect=10.0, read=600.0, write=60.0, pool=None)
_OF_TEXTS = frozenset({400, 413, 422})
"""Statuses that may be about a text."""
_PASSING = frozenset({408, 409, 429})
_NOBODY_THERE = (httpx2.ConnectError, httpx2.UnsupportedProtocol, httpx2.InvalidURL)
"""Of a server that never answered: the address is wrong, and waiting is no help."""
_ITEM = re.compile(r"'?input\[(\d+)\]'?:? ?")
_SOURCES = re.compile(r"([a-z-]+)=([0-9]{1,9})(?![0-9])")
_AGE = re.compile(r"[0-9]{1,12}")
"""Digits of a number that may be one: Python refuses thousands of them."""


class RefusedError(Exception):
    """The server will not embed one of the texts, or not all of them together.

    `item` is the text's position, where the server said it.
    """

    def __init__(self, message: str, item: int | None) -> None:
        super().__init__(message)
        self.item = item


class FailedError(CommandError):
    """The server failed, or refuses whatever it is asked; `item` may say over which text."""

    def __init__(self, message: str, item: int | None = None, code: str | None = None) -> None:
        """`code` is the server's own word for it."""
        super().__init__(message)
        self.item = item
        self.code = code


@dataclass(frozen=True, slots=True)
class Answer:
    """The vectors of some texts, in their order."""

    vectors: Sequence[bytes]
    """Little-endian float32."""
    sources: Mapping[str, int]
    """How many came from where, as far as the server says: see gateway.embedded.SOURCES."""
    keeps: bool
    """Whether it says that it keeps any."""
    unshared: bool = False
    """Whether some of them may yet be replaced, as a store is away."""
    age: int | None = None
    """Seconds since the oldest that was kept was made."""


class _Item(msgspec.Struct):
    embedding: str | list[float]
    index: int | None = None


class _Body(msgspec.Struct):
    data: list[_Item]


class _Fault(msgspec.Struct):
    message: str = ""
    param: str | None = None
    code: Any = None


class _Said(_Fault):
    error: _Fault | str | None = None


class Listed(msgspec.Struct):
    """A model that a server lists."""

    id: str
    task: str | None = None
    """ "embedding" or "chat", where the server says which."""


class _List(msgspec.Struct):
    data: list[Listed]


class Client:
    """Asks one server for vectors; used as an async context manager."""

    def __init__(
        self,
        base_url: str,
        fields: Mapping[str, Any],
        *,
        api_key: str | None = None,
        only_cached: bool = False,
        trust_env: bool = True,
        retries: RetryPolicy = RETRIES,
    ) -> None:
        """`fields` are each request's beside `input`; `only_cached` wants nothing new computed."""
        headers = {"user-agent": f"embedding-gateway/{__version__}"}
        if api_key:
            headers["authorization"] = f"Bearer {api_key}"
        if only_cached:
            headers["cache-control"] = "only-if-cached"
        self._was_there = False
        self._base_url = base_url.rstrip("/")
        self._fields = {**fields, "encoding_format": "base64"}
        self._retries = retries
        limits = httpx2.Limits(max_connections=None)
        self._http = httpx2.AsyncClient(
            headers=headers, timeout=_TIMEOUT, limits=limits, trust_env=trust_env
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def vectors(self, texts: Sequence[str], *, anew: bool = False, **fields: Any) -> Answer:
        """Return the vectors of these texts; raises RefusedError or FailedError.

        `anew` wants what is kept neither read nor changed; `fields` go into the request too.
        """
        body = msgspec.json.encode({**self._fields, **fields, "input": texts})
        headers = {"content-type": "application/json"}
        if anew:
            headers["cache-control"] = "no-cache"
        reply = await self._good("POST", "/embeddings", content=body, headers=headers)
        return _answer(reply, len(texts))

    async def models(self) -> list[Listed]:
        """Return what the server lists; raises FailedError."""
        reply = await self._good("GET", "/models")
        try:
            return msgspec.json.decode(reply.content, type=_List).data
        except (ValueError, RecursionError) as error:
            raise FailedError(
                "the server's list of models is not what OpenAI's API says"
            ) from error

    async def _good(self, method: str, path: str, **request: Any) -> httpx2.Response:
        """Return the answer whose status is 200, asked for again where that may help."""
        url = self._base_url + path
        attempt = 0
        while True:
            attempt += 1
            asked: float | None = None
            try:
                reply = await self._http.request(method, url, **request)
            except (httpx2.TransportError, httpx2.InvalidURL) as error:
                failure = FailedError(f"{url} cannot be reached: {type(error).__name__}")
                if not self._was_there and isinstance(error, _NOBODY_THERE):
                    raise failure from error
            else:
                self._was_there = True
                if reply.status_code == 200:
                    return reply
                failure = _failure(reply, url)
                if not _may_pass(reply):
                    raise failure
                asked = retry_after(reply.headers, time.time())
            wait = self._retries.wait(attempt, inf, asked)
            if wait is None:
                raise failure
            await asyncio.sleep(wait)


def _may_pass(reply: httpx2.Response) -> bool:
    if reply.headers.get("x-should-retry") == "false":
        return False
    return reply.status_code in _PASSING or reply.status_code >= 500


def _failure(reply: httpx2.Response, url: str) -> FailedError:
    """Return what an answer that is none means; raises RefusedError where it is about a text."""
    said = _said(reply.content)
    found = _ITEM.search(said.message)
    # The position is one in a batch, of which the reader knows nothing.
    message = _ITEM.sub("", said.message) or f"{url} answered with status {reply.status_code}"
    item = int(found[1]) if found else None
    if reply.status_code in _OF_TEXTS and said.param in {None, "input"}:
        raise RefusedError(message, item)
    code = said.code if isinstance(said.code, str) else None
    return FailedError(message, item, code)


def _said(body: bytes) -> _Fault:
    """Return the error in a body: in OpenAI's form, or flat as others send it."""
    try:
        said = msgspec.json.decode(body, type=_Said)
    except (ValueError, RecursionError):
        return _Fault()
    return _Fault(said.error) if isinstance(said.error, str) else said.error or said


def _answer(reply: httpx2.Response, count: int) -> Answer:
    try:
        items = msgspec.json.decode(reply.content, type=_Body).data
        places = [item.index if item.index is not None else n for n, item in enumerate(items)]
        if sorted(places) != list(range(count)):
            raise FailedError(f"the server answered {count} texts with other items than these")
        vectors = [b""] * count
        for place, item in zip(places, items, strict=True):
            vectors[place] = _floats(item.embedding)
    except (ValueError, RecursionError) as error:
        raise FailedError("the server's answer is not what OpenAI's API says") from error
    status = reply.headers.get("cache-status", "")
    sources = {source: int(texts) for source, texts in _SOURCES.findall(status)}
    age = _AGE.fullmatch(reply.headers.get("age", ""))
    return Answer(
        vectors, sources, bool(status), "unshared" in status, int(age[0]) if age else None
    )


def _floats(embedding: str | list[float]) -> bytes:
    if isinstance(embedding, str):
        raw = b64decode(embedding, validate=True)
        if len(raw) % 4:
            raise ValueError("no float32")
        return raw
    return np.array(embedding, "<f4").tobytes()
