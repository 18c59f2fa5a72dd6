"""A backend without a network: it embeds, waits or fails as a test tells it to.

It keeps the protocol of `gateway.backends.base`; its vectors are those of the fake OpenAI.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.errors import UpstreamTimeoutError
from gateway.resilience.circuit import Circuit
from gateway.types import ANYONE, Caller, ModelInfo, RawEmbeddings, Text
from tests.upstream import token_count, truth

WIDTH = 8


@dataclass
class Backend:
    """Answers at once, unless `gate` is set to an event that is waited for first."""

    name: str = "fake"
    max_batch: int = 100
    max_batch_bytes: int = 10_000
    parallel: int = 4
    width: int | None = None
    """What it knows of its width beforehand."""
    gate: asyncio.Event | None = None
    answer: Callable[[Sequence[Text]], RawEmbeddings] | None = None
    """What it answers in place of the truth; it may raise."""
    counts: Callable[[Text], int] | None = None
    listed: Sequence[str] | Exception = ()
    calls: list[Sequence[Text]] = field(default_factory=list)
    options: list[Mapping[str, Any]] = field(default_factory=list)
    callers: list[Caller] = field(default_factory=list)
    stand_ins: list[bool] = field(default_factory=list)
    running: int = 0
    most: int = 0
    """The most calls that ran at the same time."""
    closed: bool = False
    listings: int = 0
    forwards: bool = False
    circuit: Circuit = field(default_factory=lambda: Circuit(time.monotonic))

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
        """See EmbeddingBackend.embed."""
        self.calls.append(list(texts))
        self.options.append({"model": model, "fields": fields, "truncate": truncate})
        self.stand_ins.append(stand_in)
        self.callers.append(caller)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            async with asyncio.timeout_at(deadline):
                if self.gate is not None:
                    await self.gate.wait()
                await asyncio.sleep(0)
        except TimeoutError:
            raise UpstreamTimeoutError("The gate was not opened in time.") from None
        finally:
            self.running -= 1
        return self.answer(texts) if self.answer else true(model, texts)

    async def count(self, texts: Sequence[Text], **_: Any) -> Sequence[int] | None:
        """See EmbeddingBackend.count."""
        return [self.counts(text) for text in texts] if self.counts else None

    async def models(self, caller: Caller = ANYONE) -> Sequence[str]:
        """See EmbeddingBackend.models."""
        del caller
        self.listings += 1
        if isinstance(self.listed, Exception):
            raise self.listed
        return self.listed

    def info(self) -> ModelInfo:
        """See EmbeddingBackend.info."""
        return ModelInfo(self.width, 512 if self.width else None, "mean" if self.width else None)

    async def aclose(self) -> None:
        """See EmbeddingBackend.aclose."""
        self.closed = True


def true(model: str, texts: Sequence[Text], width: int = WIDTH) -> RawEmbeddings:
    """Return the right answer for these texts."""
    rows = [truth(model, text, width) for text in texts]
    return RawEmbeddings(rows, [token_count(text) for text in texts], estimated=False)
