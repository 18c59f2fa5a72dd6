"""What clients send: both kinds of bodies, `Cache-Control`, and a key.

An input is a header's value, a line end, and a body.
"""

import json
from contextlib import suppress
from hashlib import sha256

import msgspec

from gateway.cache.keys import Keyspace
from gateway.chat.answers import may_be_kept
from gateway.chat.canonical import canonical
from gateway.chat.schemas import Quotable, chat_body, parse_chat_request, with_usage
from gateway.edge.endpoints import ranges
from gateway.errors import AuthenticationError, InvalidRequestError
from gateway.http_cache import cache_control
from gateway.keyring import Keyring
from gateway.schemas import MAX_INPUTS, parse_embedding_request
from gateway.types import CacheControl, Caller, matches
from tests.heavy.fuzzing.target import Target

_KEYSPACE = Keyspace(b"s" * 16, tenant="t", identity="i")
_KEYRING = Keyring([(sha256(b"the right key").digest(), Caller())])


def try_one(data: bytes) -> None:
    """Only an InvalidRequestError may come out; what is read can be written and named."""
    said, _, body = data.partition(b"\n")
    control = cache_control([(b"cache-control", said)])
    with suppress(AuthenticationError):
        _KEYRING.caller([(b"authorization", said)])
    with suppress(InvalidRequestError):
        _embedding(body, control)
    with suppress(InvalidRequestError):
        _chat(body, control)


def _embedding(body: bytes, control: CacheControl) -> None:
    asked = parse_embedding_request(body, control)
    assert 1 <= len(asked.inputs) <= MAX_INPUTS
    assert len({type(text) for text in asked.inputs}) == 1
    msgspec.json.encode({"model": asked.model, "input": asked.inputs, **asked.extra})
    assert len(_KEYSPACE.keys(asked.inputs, asked.seed, asked.extra)) == len(asked.inputs)
    matches("a*b*c*", asked.model)
    ranges(range(len(asked.inputs)))


def _chat(body: bytes, control: CacheControl) -> None:
    asked = parse_chat_request(body, control)
    said = {"stream_options": with_usage(asked.fields)} if asked.stream else {}
    msgspec.json.decode(chat_body(asked, model="other", **said), type=dict[str, msgspec.Raw])
    assert canonical(asked.fields).isascii()
    for policy in ("off", "seeded", "deterministic", "always"):
        may_be_kept(asked, policy)
    assert all(isinstance(text, str) for text in Quotable(asked))


_EMBEDDINGS = (
    {"model": "m", "input": "a text"},
    {"model": "m", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 8, "seed": 1},
    {"model": "m", "input": [1, 2, 3], "user": "somebody", "hint": {"a": [1.5, None]}},
    {"model": "m", "input": [[1, 2], [3]], "encoding_format": "float"},
)
_CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
_CHATS = (
    {"model": "m", "messages": [{"role": "user", "content": "hello"}]},
    {
        "model": "m",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hello"}]},
            {"role": "assistant", "tool_calls": [_CALL]},
        ],
        "stream": True,
        "stream_options": {"include_usage": True, "other": [1]},
        "seed": -5,
        "temperature": 0,
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "modalities": ["text"],
    },
)
_HEADERS = (b"no-cache", b'max-age="10", no-store', b"only-if-cached, x=y", b"Bearer the right key")

REQUEST = Target(
    try_one,
    [
        header + b"\n" + json.dumps(body).encode()
        for header in _HEADERS
        for body in (*_EMBEDDINGS, *_CHATS)
    ],
    [
        b'"input":', b'"model":', b'"messages":', b'"stream":true', b'"seed":', b'"content":',
        b"\\ud800", b"1e999", b"\xff", b"null", b"max-age=", b'"dimensions":', b'"tool_calls":',
    ],
)  # fmt: skip
