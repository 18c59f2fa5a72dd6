"""From the bytes of tokens to text that may be shown: whole characters, and no stop strings.

How the text falls into tokens makes no difference to what comes out. Knows nothing of tokens,
llama.cpp or HTTP.
"""

import codecs
from collections.abc import Sequence


class Writing:
    """The text of one choice as it grows. Bytes go in; what is safe to show comes out.

    A character whose bytes are not all there waits for the rest; so does whatever may be the
    beginning of a stop string. Bytes that are no UTF-8 become U+FFFD.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._stops = _Stops(stops)
        self.known = 0
        """Characters that were made of the bytes so far, shown or not."""

    @property
    def stopped(self) -> bool:
        """Whether a stop string has been met: nothing more will come out."""
        return self._stops.found

    def feed(self, piece: bytes) -> str:
        """Return what can be shown now."""
        return self._pass(self._decode(piece))

    def finish(self) -> str:
        """Return what was held back, when no more bytes will come."""
        return self._pass(self._decode(b"", True)) + self._stops.rest()

    def _pass(self, text: str) -> str:
        self.known += len(text)
        return self._stops.feed(text) if text else ""


class _Stops:
    """Finds the stop string that is complete first, the longest of those that end together."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._matchers = [_Matcher(stop) for stop in stops if stop]
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        if self.found:
            return ""
        if not self._matchers:
            return text
        for end, char in enumerate(text, start=1):
            # All of them must see each character.
            ends = [matcher.size for matcher in self._matchers if matcher.step(char)]
            if ends:
                self.found = True
                return (self._held + text[:end])[: -max(ends)]
        whole = self._held + text
        shown = len(whole) - max(matcher.matched for matcher in self._matchers)
        self._held = whole[shown:]
        return whole[:shown]

    def rest(self) -> str:
        held, self._held = self._held, ""
        return "" if self.found else held


class _Matcher:
    """Knuth, Morris and Pratt's search for one string, a character at a time."""

    def __init__(self, wanted: str) -> None:
        self.size = len(wanted)
        self.matched = 0
        """How much of the string the text so far ends with."""
        self._wanted = wanted
        self._shorter = [0] * (self.size + 1)
        for end in range(1, self.size):
            self._shorter[end + 1] = self._next(self._shorter[end], wanted[end])

    def step(self, char: str) -> bool:
        """Take a character; return whether the string is complete."""
        self.matched = self._next(self.matched, char)
        return self.matched == self.size

    def _next(self, matched: int, char: str) -> int:
        while matched and self._wanted[matched] != char:
            matched = self._shorter[matched]
        return matched + (self._wanted[matched] == char)
