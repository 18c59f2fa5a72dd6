"""An upstream that never says the same twice, and a witness who notices what becomes of that.

    draws = Draws()
    with serve(draws.upstream(width=64)) as served: ...
    witness = Witness(draws)
    changed = witness.saw(texts, vectors)

Vectors are given as the base64 text in which they leave, and remembered as a digest of that.
"""

import threading
from base64 import b64encode
from collections import defaultdict
from collections.abc import Sequence
from hashlib import blake2b

from gateway.vectors import unit
from tests.upstream import Exchange, FakeOpenAI

NOISE = 0.01


def mark(vector: str) -> bytes:
    """Return what a vector is known by: one bit more or less makes another."""
    return blake2b(vector.encode(), digest_size=12).digest()


class Draws:
    """Every vector that upstreams have sent, by its text; safe to ask from any thread."""

    def __init__(self) -> None:
        self._drawn: dict[str, list[bytes]] = defaultdict(list)
        self._lock = threading.Lock()

    def upstream(self, width: int) -> FakeOpenAI:
        """Return an upstream whose every draw differs."""
        fake = FakeOpenAI(width=width, noise=NOISE)
        fake.always(self)
        return fake

    async def __call__(self, exchange: Exchange) -> None:
        """Note what is about to be sent; a behaviour of the upstream."""
        given = exchange.request.body["input"]
        texts = [given] if isinstance(given, str) else given
        for text, item in zip(texts, exchange.items, strict=True):
            assert item.vector is not None
            drawn = mark(b64encode(unit(item.vector).tobytes()).decode())
            with self._lock:
                self._drawn[text].append(drawn)

    @property
    def count(self) -> int:
        """How many vectors were sent so far."""
        with self._lock:
            return sum(map(len, self._drawn.values()))

    def place(self, text: str, drawn: bytes) -> int:
        """Return which draw of its text a vector is, the first being 0.

        Raises AssertionError for one that no upstream ever sent for this text.
        """
        with self._lock:
            draws = self._drawn[text]
            assert drawn in draws, f"a vector that nobody made, of {len(draws)} draws"
            return draws.index(drawn)


class Witness:
    """Remembers the vector of every text that was answered."""

    def __init__(self, draws: Draws) -> None:
        self.draws = draws
        self.vectors: dict[str, bytes] = {}
        """By text, the mark of the vector that was seen last."""

    def saw(self, texts: Sequence[str], vectors: Sequence[str]) -> list[str]:
        """Remember an answer; return the texts that had another vector before.

        Raises AssertionError for a vector that no upstream ever sent for its text.
        """
        changed = []
        for text, vector in zip(texts, vectors, strict=True):
            before, now = self.vectors.get(text), mark(vector)
            if before == now:
                continue
            self.draws.place(text, now)
            if before is not None:
                changed.append(text)
            self.vectors[text] = now
        return changed

    def saw_the_same(self, texts: Sequence[str], vectors: Sequence[str]) -> None:
        """See `saw`; raise AssertionError also where a text has another vector than before."""
        changed = self.saw(texts, vectors)
        assert not changed, f"{len(changed)} of {len(texts)} texts have another vector than before"

    def saw_newer(self, texts: Sequence[str], vectors: Sequence[str]) -> list[str]:
        """See `saw`; raise AssertionError also where a text has an older vector than before."""
        before = dict(self.vectors)
        changed = self.saw(texts, vectors)
        for text in changed:
            old, new = (self.draws.place(text, seen[text]) for seen in (before, self.vectors))
            assert old < new, "a vector that had been given up is back"
        return changed

    def copy(self) -> "Witness":
        """Return one who saw the same so far."""
        other = Witness(self.draws)
        other.vectors = dict(self.vectors)
        return other
