"""One choice as it is written: tokens go in, what a client may see comes out.

Decides what is shown when, what ends a choice, and which tokens' probabilities belong to what is
shown. Knows nothing of contexts, threads or HTTP.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gateway.engine.chat.answer import Part, TokenChance, TokenEntry
from gateway.engine.chat.text import Writing

if TYPE_CHECKING:
    from gateway.engine.chat.session import Sampled
    from gateway.engine.chat.tools import ToolReader


class Choosing:
    """Turns the tokens of one choice into parts, in order."""

    def __init__(
        self,
        index: int,
        *,
        stops: tuple[str, ...],
        max_tokens: int,
        reader: "ToolReader | None",
    ) -> None:
        """`reader` finds tool calls in the text; None: all of it is content."""
        self._index = index
        self._max_tokens = max_tokens
        self._reader = reader
        self._writing = Writing(stops)
        self._shown = 0
        self._entries: deque[tuple[int, TokenEntry]] = deque()
        self._called = False
        self.tokens = 0
        """Tokens of the answer; the one that ends it is not one of them."""
        self.finish: str | None = None
        """Why it is over; None: it goes on."""

    def take(self, sampled: "Sampled") -> Iterator[Part]:
        """Take the next token; yield what there is to say now."""
        if sampled.end:
            self.finish = "stop"
            return
        self.tokens += 1
        if sampled.logprob is not None:
            self._entries.append((self._writing.known, _entry(sampled, sampled.logprob)))
        text = self._writing.feed(sampled.piece)
        if self._writing.stopped:
            self.finish = "stop"
        elif self.tokens >= self._max_tokens:
            self.finish = "length"
        yield from self._parts(text, last=False)

    def begin(self) -> Part:
        """Return what comes before everything else."""
        content = "" if self._reader is None else None  # there may be calls and no text
        return Part(self._index, {"role": "assistant", "content": content, "refusal": None})

    def end(self) -> Iterator[Part]:
        """Yield what was held back, and why it is over: by itself, or the context is full."""
        yield from self._parts(self._writing.finish(), last=True)
        finish = self.finish or "length"
        if finish == "stop" and self._called:
            finish = "tool_calls"
        whole = not self._writing.stopped
        yield Part(self._index, {}, self._ready(whole=whole), finish)

    def _parts(self, text: str, *, last: bool) -> Iterator[Part]:
        self._shown += len(text)
        for delta in self._deltas(text, last=last):
            yield Part(self._index, delta, self._ready(whole=False))

    def _deltas(self, text: str, *, last: bool) -> Iterator[Mapping[str, Any]]:
        if self._reader is None:
            if text:
                yield {"content": text}
            return
        found = self._reader.feed(text) if text else []
        for delta in found + (self._reader.finish() if last else []):
            said = delta.as_dict()
            self._called = self._called or "tool_calls" in said
            yield said

    def _ready(self, *, whole: bool) -> list[TokenEntry]:
        """Take out the tokens that begin in what is shown; `whole`: all of them."""
        entries, found = self._entries, []
        while entries and (whole or entries[0][0] < self._shown):
            found.append(entries.popleft()[1])
        return found


def _entry(sampled: "Sampled", logprob: float) -> TokenEntry:
    chances = [_chance(piece, chance) for _, piece, chance in sampled.top]
    token = sampled.piece.decode(errors="replace")
    return TokenEntry(token, logprob, list(sampled.piece), chances)


def _chance(piece: bytes, logprob: float) -> TokenChance:
    return TokenChance(piece.decode(errors="replace"), logprob, list(piece))
