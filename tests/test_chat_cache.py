"""Answers told again: which requests may share one, in which forms, and what Cache-Control says."""

import json

import msgspec
import pytest

from gateway.chat.answers import may_be_kept
from gateway.types import ChatRequest
from tests import upstream_chat_behaviours as chat_behave
from tests.chatting import HELLO, chat, chat_model, said, whole

POLICIES = """
[models.always]
task = "chat"
cache = "always"
upstreams = ["fake"]
[models.deterministic]
task = "chat"
cache = "deterministic"
upstreams = ["fake"]
[models.off]
task = "chat"
cache = "off"
upstreams = ["fake"]
"""
KEYS = """
[[keys]]
name = "one"
secret = "0123456789abcdef-1"
tenant = "one"
[[keys]]
name = "two"
secret = "0123456789abcdef-2"
tenant = "two"
"""


@pytest.fixture
def running(gateway, fake_openai):
    return gateway(chat_model(fake_openai.base_url, model='aliases = ["alias"]') + POLICIES)


def twice(running, fake, **fields):
    """Ask twice; return whether the second answer was the first one, without another call."""
    before = len(fake.chat.calls)
    first, second = chat(running, **fields), chat(running, **fields)
    again = len(fake.chat.calls) == before + 1
    assert (said(first) == said(second)) is again
    assert ("; hit" in second.headers["cache-status"]) is again
    assert ("age" in second.headers) is again
    if not again:
        assert len(fake.chat.calls) == before + 2
        bypassed = 'gateway; fwd=bypass; detail="upstream=1"'
        assert {first.headers["cache-status"], second.headers["cache-status"]} == {bypassed}
    return again


CASES = [
    ("m", {"seed": 7}, True),
    ("m", {"seed": 0}, True),
    ("m", {"seed": -(2**63)}, True),
    ("m", {"seed": 7, "temperature": 1.5, "n": 2, "logprobs": True}, True),
    ("m", {}, False),
    ("m", {"seed": None}, False),
    ("m", {"temperature": 0}, False),
    ("deterministic", {"temperature": 0}, True),
    ("deterministic", {"temperature": 0.0}, True),
    ("deterministic", {"temperature": -0.0}, True),
    ("deterministic", {"seed": 7}, True),
    ("deterministic", {}, False),
    ("deterministic", {"temperature": 0.1}, False),
    ("deterministic", {"temperature": None}, False),
    ("always", {}, True),
    ("always", {"temperature": 2}, True),
    ("off", {"seed": 7}, False),
    ("off", {"temperature": 0}, False),
    ("m", {"seed": 7, "store": True}, False),
    ("m", {"seed": 7, "store": False}, True),
    ("m", {"seed": 7, "store": None}, True),
    ("always", {"web_search_options": {}}, False),
    ("always", {"web_search_options": None}, True),
    ("always", {"audio": {"voice": "x", "format": "wav"}}, False),
    ("always", {"modalities": ["text", "audio"]}, False),
    ("always", {"modalities": ["text"]}, True),
    ("always", {"tools": []}, True),
    ("m", {"seed": 7, "plugins": [{"id": "web"}]}, False),
    ("deterministic", {"temperature": False}, False),
]


@pytest.mark.parametrize(("model", "fields", "kept"), CASES)
@pytest.mark.parametrize("stream", [False, True], ids=["JSON", "stream"])
def test_what_may_be_kept(running, fake_openai, model, fields, kept, stream):
    """By the model's policy; never what is stored elsewhere, has looked at the web, or speaks."""
    assert twice(running, fake_openai, model=model, stream=stream, **fields) is kept


@pytest.mark.parametrize(
    ("tools", "kept"),
    [
        ([{"type": "function", "function": {"name": "f"}}], True),
        ([{"type": "web_search"}], False),
        ([{"type": "function", "function": {"name": "f"}}, {"type": "mcp"}], False),
        (["odd"], False),
        (None, True),
    ],
)
def test_what_an_upstreams_own_tools_say_is_not_kept(tools, kept):
    """They look at the web, or at something else that changes."""
    fields = {"tools": msgspec.Raw(json.dumps(tools).encode())}
    assert may_be_kept(ChatRequest("m", fields, seed=1), "seeded") is kept


def test_numbers_beyond_any_reader_are_kept_apart_and_harmless(running, fake_openai):
    """They go up as they are; here they stand for themselves."""
    for number in ("1e999", "1" * 400):
        body = '{"model":"%s","messages":%s,"seed":1,"temperature":%s,"store":%s}'
        for model in ("m", "deterministic"):
            text = body % (model, json.dumps(HELLO), number, number)
            answer = running.http.post("/v1/chat/completions", content=text)
            assert said(answer)
            assert answer.headers["cache-status"] == 'gateway; fwd=bypass; detail="upstream=1"'


@pytest.mark.parametrize("first", [False, True], ids=["JSON first", "stream first"])
def test_one_answer_in_both_forms(running, fake_openai, first):
    """The same id, words, fingerprint and tokens, whichever form came first."""
    usage = {"stream_options": {"include_usage": True}}
    told = [
        whole(chat(running, seed=1, stream=stream, **(usage if stream else {})))
        for stream in (first, not first, first)
    ]
    assert told[0] == told[1] == told[2]
    assert told[0]["usage"]["total_tokens"] > 0
    assert len(fake_openai.chat.calls) == 1
    without = chat(running, seed=1, stream=True)
    assert b'"usage"' not in without.content


def test_json_is_told_again_byte_for_byte(running, fake_openai):
    """Unknown fields and spaces too."""
    fake_openai.chat.always(chat_behave.extra_fields)
    first, second = chat(running, seed=1), chat(running, seed=1)
    assert first.content == second.content == b"".join(fake_openai.chat.calls[0].sent)


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "somebody"}, {"stream": True}, {"stream": False}, {"model": "alias"},
        {"stream": True, "stream_options": {"include_usage": True}}, {"temperature": 1},
    ],
)  # fmt: skip
def test_how_an_answer_travels_does_not_change_it(running, fake_openai, fields):
    """Nor who is told, nor how a number is spelt, nor by which of its names a model is called."""
    first = chat(running, seed=1, temperature=1.0, user="me")
    assert said(chat(running, **({"seed": 1, "temperature": 1.0} | fields))) == said(first)
    assert len(fake_openai.chat.calls) == 1


def test_the_order_of_fields_and_spaces_do_not_matter(running, fake_openai):
    """Two clients in two languages write the same request in two ways."""
    one = b'{"model":"m","seed":1,"x":{"a":1,"b":[2.0]},"messages":[{"role":"user","content":"a"}]}'
    two = (
        b'{"messages": [{"content": "\\u0061", "role": "user"}],'
        b' "x": {"b": [2], "a": 1.0}, "seed": 1, "model": "m"}'
    )
    told = [said(running.http.post("/v1/chat/completions", content=body)) for body in (one, two)]
    assert told[0] == told[1]
    assert len(fake_openai.chat.calls) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 2}, {"temperature": 0.5}, {"temperature": None}, {"n": 1}, {"max_tokens": 9},
        {"messages": [{"role": "user", "content": "hello "}]}, {"unheard_of": 1}, {"tools": []},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]},
        {"metadata": {"a": "b"}}, {"model": "always"}, {"stop": ["a", "b"]}, {"stop": ["b", "a"]},
    ],
)  # fmt: skip
def test_any_other_field_makes_another_answer(running, fake_openai, fields):
    """Whatever an upstream may learn to read tomorrow."""
    first = chat(running, seed=1)
    assert said(chat(running, **({"seed": 1} | fields))) != said(first)
    assert len(fake_openai.chat.calls) == 2


def test_tenants_are_told_apart(gateway, fake_openai):
    """Nobody can find out what others have asked."""
    running = gateway(chat_model(fake_openai.base_url, rest=KEYS))
    one, two = (
        [chat(running, seed=1, headers={"authorization": f"Bearer 0123456789abcdef-{n}"})] * 2
        for n in (1, 2)
    )
    assert said(one[0]) != said(two[0])
    assert "fwd=miss" in two[0].headers["cache-status"]


# Cache-Control


def control(running, value, **fields):
    return chat(running, headers={"cache-control": value}, **({"seed": 1} | fields))


STREAM = pytest.mark.parametrize("stream", [False, True], ids=["JSON", "stream"])


@STREAM
def test_no_cache_brings_a_fresh_answer_and_keeps_the_old(running, fake_openai, stream):
    """As for vectors; where nothing is kept it is a request like any other."""
    first = control(running, "no-cache", stream=stream)
    assert "fwd=miss" in first.headers["cache-status"]
    fresh = control(running, "no-cache", stream=stream)
    assert said(fresh) != said(first)
    assert fresh.headers["cache-status"] == 'gateway; fwd=request; detail="upstream=1"'
    assert said(chat(running, seed=1)) == said(first)
    assert len(fake_openai.chat.calls) == 2


@STREAM
def test_no_store_keeps_nothing(running, fake_openai, stream):
    """Neither is anything kept read, nor anything kept."""
    first = control(running, "no-store", stream=stream)
    assert first.headers["cache-status"] == 'gateway; fwd=request; detail="upstream=1"'
    kept = chat(running, seed=1)
    assert said(kept) != said(first)
    assert said(control(running, "no-store", stream=stream)) != said(kept)
    assert len(fake_openai.chat.calls) == 3


@STREAM
def test_only_if_cached_asks_nobody(running, fake_openai, stream):
    """504, as RFC 9111 has it, and the SDKs are told not to repeat it."""
    for fields in ({}, {"seed": None}, {"store": True}):
        answer = control(running, "only-if-cached", stream=stream, **fields)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "not_cached")
        assert answer.json()["error"]["param"] == "messages"
        assert answer.headers["x-should-retry"] == "false"
    assert fake_openai.chat.calls == []
    first = chat(running, seed=1)
    assert said(control(running, "only-if-cached", stream=stream)) == said(first)
    assert control(running, "only-if-cached, no-cache", stream=stream).status_code == 504


def test_max_age_says_how_old_an_answer_may_be(running, fake_openai):
    """In seconds since it was made."""
    first = chat(running, seed=1)
    assert said(control(running, "max-age=100")) == said(first)
    fresh = control(running, "max-age=0")
    assert said(fresh) != said(first)
    assert "fwd=request" in fresh.headers["cache-status"]
    assert len(fake_openai.chat.calls) == 2


def test_what_the_headers_say(running):
    """Made and kept; kept; how old."""
    made, kept = chat(running, seed=1), chat(running, seed=1)
    assert made.headers["cache-status"] == 'gateway; fwd=miss; stored; detail="upstream=1"'
    assert "age" not in made.headers
    assert kept.headers["cache-status"] == 'gateway; hit; detail="memory=1"'
    assert 0 <= int(kept.headers["age"]) < 60
    assert "x-ratelimit-remaining-requests" in made.headers
    assert "x-ratelimit-remaining-requests" not in kept.headers
    assert "x-upstream-request-id" not in kept.headers


def test_an_offline_model_tells_only_what_is_kept(gateway, fake_openai, tmp_path):
    """From the store of one that was not."""
    rest = f'[cache]\nstore = "sqlite://{tmp_path}/cache.db"'
    first = chat(gateway(chat_model(fake_openai.base_url, rest=rest)), seed=1)
    offline = gateway(chat_model(fake_openai.base_url, rest=rest, model="offline = true"))
    for stream in (False, True):
        assert said(chat(offline, seed=1, stream=stream)) == said(first)
        for fields in ({"seed": 2}, {}):
            assert chat(offline, stream=stream, **fields).status_code == 504
    assert len(fake_openai.chat.calls) == 1
