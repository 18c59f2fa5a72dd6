"""What is known of the vectors of one upstream of a space. Pure: it is told what was found out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.cache.scopes import Place
from gateway.vectors import cosine

OUT_FOR = 60.0
"""Seconds until an upstream that is out is probed again."""
_SOON, _LATER = 1.0, 30.0
"""Seconds until one that could not be probed is, at first and at most."""

State = Literal["unknown", "agrees", "out"]
Times = tuple[int, bool]
"""How often a circuit has opened so far, and whether it is open now: what was found out while it
was counts no longer than that."""


@dataclass(slots=True)
class Standing:
    """Whether its vectors are those of the space, why not, and when to look again."""

    alike: float
    """Least cosine to the reference that will do."""
    state: State = "unknown"
    reason: str | None = None
    similarity: float | None = None
    """Least cosine to the reference that was found."""
    due: float = 0.0
    """Clock time before which there is no point in probing."""
    place: Place | None = None
    """Where the reference was kept that it was compared with."""
    times: Times = (0, False)
    """Of its circuit, before the probe."""
    _pause: float = _SOON

    def holds(self, place: Place, times: Times) -> bool:
        """Whether it is known to agree with the reference that is kept there.

        Not any more where the reference was purged since, or its circuit has opened: another
        server may stand there now.
        """
        return self.state == "agrees" and self.place is place and self.times == times

    def compare(
        self, vectors: Sequence[bytes], reference: Sequence[bytes], space: str, now: float
    ) -> bool:
        """Judge unit vectors of the same texts; return whether that is news, as all below do."""
        width, known = len(vectors[0]) // 4, len(reference[0]) // 4
        if width != known:
            return self.has_width(width, known, now)
        least = min(map(cosine, vectors, reference))
        if least < self.alike:
            reason = f"its vectors are not of the space '{space}': cosine {least:.4f}"
            return self._is_now("out", reason, least, now)
        return self._is_now("agrees", None, least, now)

    def has_width(self, width: int, known: int, now: float) -> bool:
        """Note an answer of another width than the reference's."""
        reason = f"its vectors have {width} components, and those of the space {known}"
        return self._is_now("out", reason, None, now)

    def failed(self, reason: str, now: float) -> bool:
        """Note a probe that told nothing; who was out stays out."""
        if self.state == "out":
            self.due = now + OUT_FOR
            return False
        return self._is_now("unknown", reason, None, now)

    def forget(self) -> None:
        """Have it compared again, as there is another reference."""
        self.place, self.due = None, 0.0

    def _is_now(
        self, state: State, reason: str | None, similarity: float | None, now: float
    ) -> bool:
        is_news = (self.state, self.reason) != (state, reason)
        self.state, self.reason, self.similarity = state, reason, similarity
        self.due = now + {"unknown": self._pause, "out": OUT_FOR, "agrees": 0.0}[state]
        self._pause = min(2 * self._pause, _LATER) if state == "unknown" else _SOON
        return is_news
