"""Requests as bytes, made beforehand or nearly so: what they ask is distinct where it must be."""

import os
import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path

import msgspec

from benchmarks.upstream import MODEL

TOKENS = 20
"""Tokens of a sentence of the bundled model, [CLS] and [SEP] included."""


def post(fields: object, path: bytes = b"/v1/embeddings") -> bytes:
    """Return a whole `POST` with this JSON."""
    body = msgspec.json.encode(fields)
    return _HEAD % (path, len(body)) + body


_HEAD = (
    b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer sk-benchmark\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n"
)


def numbered_requests(form: str = "base64") -> Iterator[bytes]:
    """Return requests for one text each, no two alike, without end."""
    first = int.from_bytes(os.urandom(5)) * 10**6
    return requests_of(count(first), form)


def requests_of(numbers: Iterable[int], form: str = "base64") -> Iterator[bytes]:
    """Yield a request for the text of each number."""
    text = "What is the answer to question number {:020d}?"
    whole = post({"input": text.format(0), "model": MODEL, "encoding_format": form})
    begin, end = whole.split(b"%020d" % 0)
    for number in numbers:
        yield b"%b%020d%b" % (begin, number, end)


def sentences() -> Iterator[str]:
    """Yield rows of English words, each row of `TOKENS` tokens, for ever.

    Each word of the list is one token of BERT's uncased vocabulary.
    """
    words = Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split()
    # Other ones each time, so that no cache on disk knows them.
    rng = random.Random(os.urandom(16))
    while True:
        yield " ".join(rng.choices(words, k=TOKENS - 2))


def sentence_requests(model: str, batch: int) -> Iterator[bytes]:
    """Yield requests of `batch` distinct sentences each, for ever."""
    source = sentences()
    while True:
        texts = list(islice(source, batch))
        yield post({"input": texts, "model": model, "encoding_format": "base64"})


def chat_request(model: str, text: str, *, stream: bool, **fields: object) -> bytes:
    """Return a whole `POST /v1/chat/completions` with one message of a user."""
    messages = [{"role": "user", "content": text}]
    asked = {"model": model, "messages": messages, "stream": stream, **fields}
    return post(asked, b"/v1/chat/completions")


def same_request(inputs: str | Sequence[str], form: str) -> bytes:
    """Return the one request that a cache is asked over and over."""
    return post({"input": inputs, "model": MODEL, "encoding_format": form})
