"""A fake OpenAI: embeddings and chats, served by a real uvicorn on a real socket.

    fake = FakeOpenAI()
    with serve(fake):
        ...  # talk to fake.base_url; then look at fake.requests, fake.texts, fake.calls

It behaves as documented until told otherwise: `script(*behaviours)` for the next calls, one each,
or `always(behaviour)` (see `upstream_behaviours`); `flavour` makes it another kind of server (see
`upstream_flavours`). Chats are the business of `fake.chat` (see `upstream_chat`). It knows nothing
of the gateway.
"""

import json
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np

from tests.served import serve
from tests.upstream_chat import FakeChat
from tests.upstream_flavours import FLAVOURS, Flavour, RefusalError, limit_headers

__all__ = ["Behaviour", "Exchange", "FakeOpenAI", "Item", "Request", "serve"]

OPENAI_MODELS = ("text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002")


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it arrived; `headers` have lower-case names, `body` is decoded JSON."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    raw: bytes


@dataclass(slots=True)
class Item:
    """One entry of `data` before it is written; a vector of None is written as null."""

    index: int | None
    vector: np.ndarray | None


@dataclass(slots=True)
class Exchange:
    """A call in the making: behaviours change it before it is written."""

    request: Request
    items: list[Item]
    answer: dict[str, Any]
    base64: bool
    headers: dict[str, str]
    flavour: Flavour
    gone: Callable[[], Awaitable[None]]
    """Returns when the client has hung up."""
    status: int = 200
    body: bytes | None = None
    """Sent as it is, in place of items and answer."""
    edit: Callable[[bytes], bytes] | None = None
    """Applied to the finished body."""
    cut: float | None = None
    """The part of the body after which the connection is closed, 0 for right after the headers."""
    hang_up: bool = False
    """Close the connection without a word."""

    def write(self) -> bytes:
        """Return the body's bytes; a non-finite number becomes NaN or Infinity, as json does."""
        body = self.body
        if body is None:
            data = [self._write(item) for item in self.items]
            body = json.dumps(self.answer | {"data": data}).encode()
        return self.edit(body) if self.edit else body

    def _write(self, item: Item) -> dict[str, Any]:
        entry: dict[str, Any] = {"object": "embedding"}
        if item.index is not None:
            entry["index"] = item.index
        entry["embedding"] = self.flavour.write(item.vector, base64=self.base64)
        return entry | (self.flavour.item_keys if self.base64 else {})


Behaviour = Callable[[Exchange], Awaitable[None]]


@dataclass
class FakeOpenAI:
    """The app. Counters are safe to read from any thread; `base_url` is set once it is served."""

    width: int = 1536
    noise: float = 0.0
    """Standard deviation added to each component of the unit vector anew on every call."""
    key: str | None = None
    models: Sequence[str] = ()
    """The names it serves; none: any name."""
    max_batch: int | None = None
    """Default: what the flavour takes, 2048 for OpenAI."""
    allow: Sequence[str] = ()
    """Body fields beyond OpenAI's that are no mistake."""
    flavour: str = "openai"
    base_url: str = ""
    chat: FakeChat = field(default_factory=FakeChat)
    _requests: list[Request] = field(default_factory=list)
    _scripted: deque[Behaviour] = field(default_factory=deque)
    _always: Behaviour | None = None
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def vector(self, model: str, text: str | Sequence[int]) -> np.ndarray:
        """Return the vector of a text: float32 (width,), the same for ever, of any length."""
        return truth(model, text, self.width)

    def script(self, *behaviours: Behaviour) -> None:
        """Let the next embedding calls behave so, one each."""
        with self._changed:
            self._scripted.extend(behaviours)

    def always(self, behaviour: Behaviour | None) -> None:
        """Let every unscripted embedding call behave so, from now on; None ends it."""
        with self._changed:
            self._always = behaviour

    @property
    def requests(self) -> list[Request]:
        """Every request so far, in the order of arrival."""
        with self._changed:
            return list(self._requests)

    @property
    def calls(self) -> int:
        """How many embedding calls have arrived."""
        return sum(request.path.endswith("/embeddings") for request in self.requests)

    @property
    def texts(self) -> list[Any]:
        """Every input that was asked for, in the order of arrival."""
        return [t for r in self.requests if isinstance(r.body, dict) for t in _inputs(r.body)]

    def wait_for_calls(self, count: int, timeout: float = 10.0) -> None:
        """Block until so many embedding calls have arrived; raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.calls >= count, timeout):
                raise TimeoutError(f"{self.calls} of {count} calls arrived")

    def forget(self) -> None:
        """Forget requests, scripts and behaviours, for the next test on the same server."""
        with self._changed:
            self._requests.clear()
            self._scripted.clear()
            self._always = None
        self.chat.forget()

    def served_at(self, address: str) -> None:
        """Take the address in; `serve` calls this."""
        self.base_url = f"{address}/v1"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Speak ASGI."""
        if scope["type"] != "http":
            return
        request = await _read(scope, receive)
        with self._changed:
            self._requests.append(request)
            number = len(self._requests)
            behaviour = self._behaviour(request)
            self._changed.notify_all()
        flavour = FLAVOURS[self.flavour]
        headers = limit_headers(number) | flavour.headers
        if request.path.endswith("/chat/completions") and self._is_welcome(request):
            await self.chat.answer(request, headers, flavour, self.models, scope, receive, send)
            return
        exchange = Exchange(
            request=request,
            items=[],
            answer={},
            base64=False,
            headers=headers,
            flavour=flavour,
            gone=lambda: _gone(receive),
        )
        try:
            self._answer(exchange)
        except RefusalError as refusal:
            exchange.status, exchange.body = refusal.status, refusal.body
        if behaviour is not None:
            await behaviour(exchange)
        await _send(exchange, scope, send)

    def _behaviour(self, request: Request) -> Behaviour | None:
        if not request.path.endswith("/embeddings"):
            return None
        return self._scripted.popleft() if self._scripted else self._always

    def _is_welcome(self, request: Request) -> bool:
        return not self.key or request.headers.get("authorization") == f"Bearer {self.key}"

    def _answer(self, exchange: Exchange) -> None:
        request, flavour = exchange.request, exchange.flavour
        if not self._is_welcome(request):
            raise flavour.unauthorized(request.headers.get("authorization", ""))
        match (request.method, request.path.removeprefix("/v1")):
            case ("GET", "/models"):
                listed = [
                    {"id": name, "object": "model", "created": 1705948997, "owned_by": "system"}
                    for name in self.models or OPENAI_MODELS
                ]
                exchange.body = json.dumps({"object": "list", "data": listed}).encode()
            case ("POST", "/embeddings"):
                self._embed(exchange)
            case _:
                raise flavour.refusal(404, f"Invalid URL ({request.method} {request.path})")

    def _embed(self, exchange: Exchange) -> None:
        body, flavour = exchange.request.body, exchange.flavour
        flavour.check(body, self.width, self.max_batch, self.models, self.allow)
        model, inputs = body["model"], _inputs(body)
        vectors = [self._noisy(self.vector(model, text)) for text in inputs]
        exchange.items = [
            Item(index, flavour.shape(vector, body.get("dimensions")))
            for index, vector in enumerate(vectors)
        ]
        exchange.base64 = flavour.base64 and body.get("encoding_format") == "base64"
        tokens = sum(map(token_count, inputs)) if flavour.usage else 0
        exchange.answer = {
            "object": "list",
            "model": flavour.model or model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        } | flavour.answer_keys

    def _noisy(self, vector: np.ndarray) -> np.ndarray:
        if not self.noise:
            return vector
        norm = np.linalg.norm(vector)
        noise = np.random.default_rng().standard_normal(len(vector)) * self.noise
        return ((vector / norm + noise) * norm).astype(np.float32)


def truth(model: str, text: str | Sequence[int], width: int) -> np.ndarray:
    """Return the vector that (model, text) has here: normal numbers, norm between 0.1 and 50."""
    seed = blake2b(json.dumps([model, text]).encode(), digest_size=16).digest()
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(seed)))
    vector = rng.standard_normal(width)
    return (vector / np.linalg.norm(vector) * rng.uniform(0.1, 50)).astype(np.float32)


def token_count(text: str | Sequence[int]) -> int:
    """Return the tokens that this upstream counts for an input: four bytes each, or the ids."""
    return max(1, len(text.encode()) // 4) if isinstance(text, str) else len(text)


def _inputs(body: dict[str, Any]) -> list[Any]:
    given = body.get("input", [])
    single = isinstance(given, str) or (given and isinstance(given[0], int))
    return [given] if single else list(given)


async def _read(scope: Any, receive: Any) -> Request:
    raw = b""
    more = True
    while more:
        message = await receive()
        raw += message.get("body", b"")
        more = message.get("more_body", False)
    headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
    try:
        body = json.loads(raw) if raw else None
    except ValueError:
        body = None
    return Request(scope["method"], scope["path"], headers, body, raw)


async def _gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(exchange: Exchange, scope: Any, send: Any) -> None:
    if exchange.hang_up:
        scope["transport"].close()
        await exchange.gone()
        return
    body = exchange.write()
    headers = exchange.headers | {"content-length": str(len(body))}
    raw = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]
    await send({"type": "http.response.start", "status": exchange.status, "headers": raw})
    if exchange.cut is None:
        await send({"type": "http.response.body", "body": body})
        return
    part = body[: int(len(body) * exchange.cut)]
    await send({"type": "http.response.body", "body": part, "more_body": True})
    scope["transport"].close()
    await exchange.gone()
