"""From a text to its vector, with the journal told of every step that could kill the process.

`Preparer` makes tokens (one thread), `Decoder` makes vectors (one thread each). Both say what they
are at before they begin. Knows texts and the model; nothing of HTTP or queues.
"""

import threading
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from unicodedata import normalize

from gateway.engine.faults import ItemError, RefusedError, TextCrashesEngineError
from gateway.engine.journal import Journal
from gateway.engine.sizing import ID_BYTES, SHORT
from gateway.errors import InvalidInputError

if TYPE_CHECKING:
    # What is here runs without llama.cpp, over anything of the same shape.
    from gateway.engine.model import Context, Tokenizer

D = TypeVar("D")
T = TypeVar("T")
Text = str | list[int]

MIN_TEXT_BYTES = 128 << 10
BYTES_PER_TOKEN = 64
"""Far more than any real text has; see `text_bytes`."""
MAX_TEXT_BYTES = 1 << 20
STACK_PER_BYTE = 1024
"""Bytes of stack for each byte of text: the regular expressions of some tokenizers recurse once a
character, some 640 bytes each (measured: 100,000 equal characters end a thread of 8 MiB)."""
_PROBE = b"The quick brown fox jumps over the lazy dog. "


def text_bytes(limit: int) -> int:
    """Return the longest text, in bytes of UTF-8, that is given to the tokenizer."""
    return min(max(MIN_TEXT_BYTES, limit * BYTES_PER_TOKEN), MAX_TEXT_BYTES)


@dataclass(frozen=True, slots=True)
class Job:
    """One text, ready to be decoded."""

    digest: bytes
    tokens: bytes
    truncated: bool

    @property
    def count(self) -> int:
        """Tokens to decode."""
        return len(self.tokens) // ID_BYTES


class Guard:
    """Keeps suspects apart: at most one is in work at a time, whatever thread has it.

    A text that was only beside the culprit then never dies with it a second time.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._alone = threading.Lock()

    def run(self, slot: int, digest: bytes, step: Callable[[D], T], data: D) -> T:
        """Return `step(data)`, with `digest` in the journal's `slot` while it runs."""
        if not self._journal.suspected(digest):
            return self._entered(slot, digest, step, data)
        with self._alone:
            return self._entered(slot, digest, step, data)

    def _entered(self, slot: int, digest: bytes, step: Callable[[D], T], data: D) -> T:
        self._journal.enter(slot, digest)
        try:
            return step(data)
        finally:
            self._journal.leave(slot)


class Preparer:
    """Turns inputs into jobs, or says which of them cannot be one; for one thread."""

    def __init__(
        self,
        tokenizer: "Tokenizer",
        journal: Journal,
        guard: Guard,
        slot: int,
        limit: int,
        vocab: int,
    ) -> None:
        self._tokenizer = tokenizer
        self._journal = journal
        self._guard = guard
        self._slot = slot
        self._limit = limit
        self._vocab = vocab
        self._text_bytes = text_bytes(limit)

    def jobs(self, inputs: Sequence[Text], first: int, *, truncate: bool) -> list[Job]:
        """Return a job for each input; `first` is the position of the first in the request.

        Raises InvalidInputError or TextCrashesEngineError with the position of the one at fault.
        """
        return [
            self._job(text, item, truncate=truncate)
            for item, text in enumerate(inputs, start=first)
        ]

    def counts(self, inputs: Sequence[Text], first: int) -> list[int]:
        """Return the tokens of each input, specials included, however many; raises as `jobs`."""
        found = (self._tokens(text, item, cut=True) for item, text in enumerate(inputs, first))
        return [len(tokens) // ID_BYTES for _, tokens, _ in found]

    def _job(self, text: Text, item: int, *, truncate: bool) -> Job:
        digest, tokens, cut = self._tokens(text, item, cut=truncate)
        count = len(tokens) // ID_BYTES
        if count == 0:
            raise InvalidInputError("must not be empty: it has no tokens", item=item)
        if count > self._limit:
            if not truncate:
                raise self._too_long(
                    f"you requested {count} tokens ({count} in your prompt; 0 for the completion)",
                    item,
                )
            tokens, cut = self._tokenizer.cut(tokens, self._limit), True
        return Job(digest, tokens, cut)

    def _tokens(self, text: Text, item: int, *, cut: bool) -> tuple[bytes, bytes, bool]:
        """Return digest, tokens, and whether the text was cut before it was tokenized."""
        if isinstance(text, list):
            data = self._ids(text, item)
            return self._digest(b"ids", data, item), data, False
        if self._tokenizer.decomposes and not text.isascii():
            text = normalize("NFD", text)
        data = text.encode()  # of JSON, which cannot hold a lone surrogate
        digest = self._digest(b"text", data, item)
        kept = data
        if len(data) > self._text_bytes:
            if not cut:
                raise self._too_long(f"your text has {len(data)} bytes", item)
            kept = data[: self._text_bytes].decode(errors="ignore").encode()
        tokens = self._guard.run(self._slot, digest, self._tokenizer.tokenize, kept)
        return digest, tokens, kept is not data

    def _digest(self, kind: bytes, data: bytes, item: int) -> bytes:
        digest = self._journal.digest(kind, data)
        if self._journal.refused(digest):
            error = TextCrashesEngineError()
            error.item = item
            raise error
        return digest

    def _ids(self, ids: list[int], item: int) -> bytes:
        if not ids:
            raise InvalidInputError("must not be empty", item=item)
        if min(ids) < 0 or max(ids) >= self._vocab:
            raise InvalidInputError(
                f"holds a token id outside the model's vocabulary (0 to {self._vocab - 1})",
                item=item,
            )
        return array("i", ids).tobytes()

    def _too_long(self, requested: str, item: int) -> InvalidInputError:
        return InvalidInputError(
            f"This model's maximum context length is {self._limit} tokens, however {requested}."
            " Please reduce your prompt; or completion length.",
            item=item,
            code="context_length_exceeded",
        )


class Decoder:
    """One thread's hand: a context and its slot in the journal."""

    def __init__(
        self,
        context: "Context",
        journal: Journal,
        guard: Guard,
        slot: int,
        on_decoded: Callable[[int, int], None] = lambda _, __: None,
    ) -> None:
        """`on_decoded` is told of texts and tokens."""
        self._context = context
        self._journal = journal
        self._guard = guard
        self._slot = slot
        self._on_decoded = on_decoded

    def __call__(self, job: Job) -> bytes:
        """Return the vector; raises ItemError, or RefusedError where memory has run out."""
        vector = self._guard.run(self._slot, job.digest, self._embed, job.tokens)
        if self._journal.suspected(job.digest):
            self._journal.clear(job.digest)
        self._on_decoded(1, job.count)
        return vector

    def close(self) -> None:
        """Give the context's memory back."""
        self._context.close()

    def _embed(self, tokens: bytes) -> bytes:
        """Decode; once more in a fresh context where the first attempt fails."""
        try:
            return self._context.embed(tokens)
        except ItemError:
            self._context.close()
        try:
            return self._context.embed(tokens)
        except ItemError:
            self._context.close()
            raise


def probe(context: "Context", tokenizer: "Tokenizer", limit: int) -> tuple[bytes, ...]:
    """Embed a short and a longer text twice; return their vectors; raises RefusedError.

    What the texts are does not matter: it proves that vectors come, are finite, are not zero and
    do not change.
    """
    long = tokenizer.tokenize(_PROBE * (SHORT // 8))
    texts = {tokenizer.cut(tokens, limit) for tokens in (tokenizer.tokenize(_PROBE), long)}
    vectors = []
    for tokens in sorted(texts, key=len):
        try:
            first, second = context.embed(tokens), context.embed(tokens)
        except ItemError as error:
            raise RefusedError(f"the model fails on a plain text: {error.message}") from error
        if first != second:
            raise RefusedError("the model gave two vectors for one text, decoded twice")
        vectors.append(first)
    return tuple(vectors)
