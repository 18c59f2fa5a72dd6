"""What the straight line of chat makes of a request: an answer, and what it took to make it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Self

from msgspec import Struct

from gateway.chat.relay import Pieces
from gateway.chat_route import ChatRoute
from gateway.completion import Usage, Watch, look


class Price(NamedTuple):
    """US dollars for a million tokens; 0 where nothing is known."""

    input: float
    output: float

    def of(self, usage: Usage) -> float:
        """Return the US dollars that an answer costs."""
        millionths = usage.prompt_tokens * self.input + usage.completion_tokens * self.output
        return millionths / 1e6


def price_of(route: ChatRoute) -> Price | None:
    """Return what the config says a model costs; None where it says nothing."""
    if not route.counted:
        return None
    return Price(route.model.price_in or 0.0, route.model.price_out or 0.0)


class Chatted(Struct):
    """The answer: one JSON, or a stream that is still coming."""

    model: str
    """As the route names it."""
    source: str
    """"memory", "store", "in-flight" or "upstream"."""
    whole: bytes | None = None
    pieces: Pieces | None = None
    """To be sent in place of `whole`, and closed by whoever takes it."""
    price: Price | None = None
    watch: Watch | None = None
    """Looks at the stream; knows its tokens at its end."""
    headers: Mapping[str, str] = {}
    """What the upstream said of itself and of its limits."""
    request_id: bytes = b""
    """The upstream's, where it gives one."""
    seed: int | None = None
    """The one that was drawn for a request without."""
    age: float | None = None
    """Seconds since an answer that was kept was made."""
    stored: bool = False
    """Whether it was made for this request and is kept."""
    forced: bool = False
    """Whether something kept was not taken because of the request's Cache-Control."""
    bypassed: bool = False
    """Whether an answer to this request is never kept."""
    unshared: bool = False
    """Whether it is provisional, as the store that replicas share is away."""
    waited: float = 0.0
    """Seconds in which an upstream was waited for, of a stream until it began."""

    @property
    def sources(self) -> Mapping[str, int]:
        """The one answer by where it came from, as for vectors."""
        return {self.source: 1}

    @property
    def usage(self) -> Usage | None:
        """Its tokens, as far as they are told; of a stream only at its end."""
        if self.watch is not None:
            return self.watch.usage
        return look(self.whole).usage if self.whole is not None else None


class Ready:
    """A stream that is all there; see relay.Pieces."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces: Iterator[bytes] = iter(pieces)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """See Pieces.aclose."""
