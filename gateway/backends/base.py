"""What the core asks of whoever makes vectors and answers."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gateway.backends.exchange import Opened, Reply
from gateway.errors import GatewayError
from gateway.types import ANYONE, Caller, ModelInfo, RawEmbeddings, Text


class EmbeddingBackend(Protocol):
    """An upstream that embeds. Deadlines are times of the event loop's clock, in seconds.

    Raises gateway.errors: InvalidInputError where one text is at fault (its `item` counts from
    the start of `texts`), other 4xx where the request is, UpstreamError and its kin elsewhere.
    """

    name: str
    max_batch: int
    """Texts in one call, at most."""
    max_batch_bytes: int
    """UTF-8 bytes of text in one call, at most, unless a single text is longer."""
    parallel: int
    """Calls that one request may have on the way at a time."""

    @property
    def forwards(self) -> bool:
        """Whether it is asked with the caller's own key."""
        ...

    async def embed(
        self,
        model: str,
        texts: Sequence[Text],
        *,
        fields: Mapping[str, Any],
        truncate: bool,
        deadline: float,
        caller: Caller = ANYONE,
        stand_in: bool = False,
    ) -> RawEmbeddings:
        """Return one row for each text, placed by the upstream's `index`; all of them or none.

        `caller` is who waits for a place, and may lend the upstream's key. `stand_in` says that
        another upstream can serve instead: then the first failure is final, and comes soon.
        """
        ...

    async def count(
        self, texts: Sequence[Text], *, deadline: float, caller: Caller = ANYONE
    ) -> Sequence[int] | None:
        """Return the tokens of each text, or None where the backend cannot tell beforehand."""
        ...

    async def models(self, caller: Caller = ANYONE) -> Sequence[str]:
        """Return the model names that the upstream says it serves; empty where it does not say."""
        ...

    def info(self) -> ModelInfo:
        """Return what is known of the model without asking anybody."""
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


class ChatBackend(Protocol):
    """An upstream that chats. Deadlines are times of the event loop's clock, in seconds."""

    name: str

    async def chat(
        self,
        body: bytes,
        *,
        stream: bool,
        quotable: Sequence[str],
        deadline: float,
        silence: float,
        caller: Caller = ANYONE,
        stand_in: bool = False,
    ) -> Opened:
        """Post a chat; return its answer, of a status that means success, when its headers come.

        It may be JSON although `stream` says that events were asked for. It has a place at the
        upstream until it is read to its end, broken or closed. `deadline` bounds the time until
        its headers; `silence`, in seconds, the wait for each of its pieces.

        Asked again are a connection that failed, 429 and 503, as long as no answer came, and not
        where there is a `stand_in` (see EmbeddingBackend.embed). Raises
        gateway.errors: 4xx where the request is at fault, in the upstream's words without what it
        quotes of the `quotable` texts; UpstreamError and its kin elsewhere.
        """
        ...

    def refused(self, reply: Reply, quotable: Sequence[str]) -> GatewayError:
        """Return what an error means that came under a good status, as `chat` raises it.

        `reply` has the error as its body, and the status that it amounts to.
        """
        ...
