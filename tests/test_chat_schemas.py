"""Bodies of chats: whatever comes is refused as a client's mistake, or goes up as it came."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gateway.chat.schemas import Quotable, chat_body, parse_chat_request, with_usage
from gateway.errors import InvalidRequestError

HELLO = [{"role": "user", "content": "hello"}]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abé", max_size=3), inner),
    max_leaves=12,
)
KNOWN = st.sampled_from(["model", "messages", "stream", "stream_options", "seed", "user", "n"])


@given(body=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body):
    """With one kind of error."""
    with pytest.raises(InvalidRequestError):
        parse_chat_request(body)


@given(fields=st.dictionaries(KNOWN | st.text("xyz", max_size=3), JSON))
def test_any_fields_are_read_or_refused(fields):
    """By what the gateway itself reads, with the field that is wrong; all others go up."""
    body = json.dumps(fields, ensure_ascii=False).encode()
    refused = None
    try:
        request = parse_chat_request(body)
    except InvalidRequestError as error:
        refused = error
    if refused is None:
        assert json.loads(chat_body(request, model="other")) == fields | {"model": "other"}
    else:
        assert refused.param in {"model", "messages", "stream", "stream_options", "seed"}


@given(others=st.dictionaries(st.text("xyzé", min_size=1, max_size=4), JSON), message=JSON)
def test_all_else_goes_up_as_it_came(others, message):
    """In its place, with its spaces; the model's name is another, and nothing is added."""
    fields = {"before": 1.0, "model": "m", "messages": [message], **others}
    parts = [f"{json.dumps(n)}:{json.dumps(v, indent=1)}" for n, v in fields.items()]
    request = parse_chat_request(f"{{{','.join(parts)}}}".encode())
    sent = chat_body(request, model="other").decode()
    parts[1] = '"model":"other"'
    assert json.loads(sent) == fields | {"model": "other"}
    for value in fields.values():
        assert value == "m" or json.dumps(value, indent=1) in sent


def request_of(**fields):
    return parse_chat_request(json.dumps({"model": "m", "messages": HELLO} | fields).encode())


def test_tokens_are_wanted_only_of_streams():
    """A JSON tells them anyway."""
    options = {"include_usage": True}
    assert request_of(stream=True, stream_options=options).include_usage
    assert not request_of(stream_options=options).include_usage
    assert not request_of(stream=True).include_usage
    assert not request_of(stream=True, stream_options={"include_usage": None}).include_usage


def test_what_is_asked_for_beside_is_kept():
    """The options of a stream are the client's, but for the tokens."""
    fields = {"stream_options": Raw(b'{"a":1.0,"include_usage":false,"b":1e999}')}
    changed = with_usage(fields)
    assert changed == {"a": Raw(b"1.0"), "include_usage": True, "b": Raw(b"1e999")}
    assert with_usage({"stream_options": Raw(b"null")}) == {"include_usage": True}
    assert with_usage({}) == {"include_usage": True}


def test_what_may_be_quoted_is_what_messages_say():
    """Texts, their parts and the arguments of calls; anything else of any shape is passed over."""
    messages = [
        {"content": "one"}, {"content": [{"type": "text", "text": "two"}, {"text": 1}, "x", None]},
        {"tool_calls": [{"function": {"arguments": "three"}}, {"function": 1}, 2]},
        {"tool_calls": 1, "content": None}, "four", 5, None, [], {"content": {"text": "six"}},
        {"content": math.pi},
    ]  # fmt: skip
    quotable = Quotable(request_of(messages=messages))
    assert list(quotable) == ["one", "two", "three"]
    assert (len(quotable), quotable[1]) == (3, "two")
