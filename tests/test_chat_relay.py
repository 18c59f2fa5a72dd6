"""Chats through a real gateway: what goes up and comes down is what was sent, byte for byte."""

import json
import re

import openai
import pytest

from tests import upstream_behaviours as behave
from tests import upstream_chat_behaviours as chat_behave
from tests.chatting import HELLO, begin, body_of, chat, chat_model, chunks, read_until, said, whole

PRICED = 'price = { input = 1.0, output = 2.0 }\naliases = ["alias"]\nupstream_model = "gpt-x"'


@pytest.fixture
def running(gateway, fake_openai):
    return gateway(chat_model(fake_openai.base_url))


@pytest.fixture
def priced(gateway, fake_openai):
    return gateway(chat_model(fake_openai.base_url, model=PRICED))


def post(running, body, **headers):
    return running.http.post("/v1/chat/completions", content=body, headers=headers)


ODD = (
    b'{ "messages" : [ {"role":"user","content":"h\\u00e9\xc3\xa9","weight":1.0,"x":1e2}] ,'
    b'"big":123456789012345678901234567890, "one" :1.0,"tiny":1E-400,"n":1,'
    b'"model":"m","nested":{"b":1,"a":[1.50,null,true]},"logit_bias":{"50256":-100},'
    b'"unheard_of":"\\/\\u0041"}'
)


def test_every_field_goes_up_byte_for_byte(priced, fake_openai):
    """Only the model's name is another: no number, escape or unknown field is touched."""
    assert post(priced, ODD).status_code == 200
    sent = fake_openai.chat.calls[0].request.raw
    asked = re.sub(rb"\s+(?=[^\"]*(?:\"[^\"]*\"[^\"]*)*$)", b"", ODD)
    assert re.sub(rb"\s+(?=[^\"]*(?:\"[^\"]*\"[^\"]*)*$)", b"", sent) == asked.replace(
        b'"model":"m"', b'"model":"gpt-x"'
    )
    assert b'"big":123456789012345678901234567890' in sent
    assert b'{"role":"user","content":"h\\u00e9\xc3\xa9","weight":1.0,"x":1e2}' in sent


def test_a_name_that_stands_there_twice_goes_up_once(running, fake_openai):
    """The last one counts here, and so must count there."""
    body = b'{"model":"other","messages":[],"messages":%b,"seed":1,"model":"m","seed":2}'
    answer = post(running, body % json.dumps(HELLO).encode())
    assert answer.status_code == 200
    sent = fake_openai.chat.calls[0].request.raw
    assert (sent.count(b'"model"'), sent.count(b'"seed"'), sent.count(b'"messages"')) == (1, 1, 1)
    assert fake_openai.chat.calls[0].request.body["seed"] == 2


def test_no_header_of_ours_goes_up(gateway, fake_openai):
    """Neither the client's key, nor what it says of caches, nor who it is."""
    fake_openai.key = "sk-up"
    toml = chat_model(fake_openai.base_url, upstream='api_key = "sk-up"')
    running = gateway(toml + '\n[[keys]]\nname = "a"\nsecret = "client-key-0123456789"')
    answer = chat(
        running,
        headers={
            "authorization": "Bearer client-key-0123456789", "cache-control": "no-cache",
            "x-request-id": "mine", "user-agent": "me", "cookie": "a=b", "x-stainless-os": "Linux",
            "openai-organization": "org", "x-forwarded-for": "10.0.0.1",
        },
    )  # fmt: skip
    assert answer.status_code == 200
    headers = fake_openai.chat.calls[0].request.headers
    assert headers["authorization"] == "Bearer sk-up"
    assert sorted(headers) == [
        "accept", "accept-encoding", "authorization", "content-length", "content-type", "host",
        "user-agent",
    ]  # fmt: skip
    assert headers["user-agent"] == "embedding-gateway"


def test_limits_ids_and_the_account_come_down(running, fake_openai):
    """What an SDK shows is what the upstream's people can look for."""

    async def tell(exchange):
        exchange.headers |= {
            "x-request-id": "req_up", "openai-organization": "org", "openai-processing-ms": "99999",
            "set-cookie": "a=b", "server": "nginx", "x-envoy": "y",
        }  # fmt: skip

    fake_openai.chat.always(tell)
    for stream in (False, True):
        answer = chat(running, stream=stream)
        headers = answer.headers
        assert headers["x-request-id"] == headers["x-upstream-request-id"] == "req_up"
        assert headers["openai-organization"] == "org"
        assert int(headers["openai-processing-ms"]) < 99999
        assert "x-ratelimit-remaining-requests" in headers
        assert not {"set-cookie", "x-envoy", "x-gateway-seed"} & set(headers)
        mine = chat(running, stream=stream, headers={"x-request-id": "mine"}).headers
        assert (mine["x-request-id"], mine["x-upstream-request-id"]) == ("mine", "req_up")


def test_a_whole_answer_comes_down_byte_for_byte(running, fake_openai):
    """Unknown fields too."""
    fake_openai.chat.script(chat_behave.extra_fields)
    answer = chat(running)
    assert answer.content == b"".join(fake_openai.chat.calls[0].sent)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-status"] == 'gateway; fwd=bypass; detail="upstream=1"'


@pytest.mark.parametrize(
    "behaviour",
    [
        chat_behave.split(1), chat_behave.split(7), chat_behave.split(100), chat_behave.batched(3),
        chat_behave.crlf, chat_behave.bom, chat_behave.pings, chat_behave.extra_fields,
        chat_behave.unmergeable, chat_behave.nameless, chat_behave.no_usage,
        behave.together(chat_behave.crlf, chat_behave.pings, chat_behave.split(5)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("seeded", [False, True], ids=["relayed", "recorded"])
def test_a_stream_comes_down_byte_for_byte(running, fake_openai, behaviour, seeded):
    """However its pieces are cut, and whoever reads it beside."""
    fake_openai.chat.script(behaviour)
    fields = {"seed": 1} if seeded else {}
    answer = chat(running, stream=True, stream_options={"include_usage": True}, **fields)
    assert answer.status_code == 200
    assert answer.content == b"".join(fake_openai.chat.calls[0].sent)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"


@pytest.mark.parametrize("seeded", [False, True], ids=["relayed", "recorded"])
def test_each_event_comes_down_when_it_is_there(running, fake_openai, seeded):
    """While the upstream still holds the next one back."""
    hang = behave.Hang()
    fake_openai.chat.script(chat_behave.stall(hang, 2))
    fields = {"seed": 1} if seeded else {}
    connection = begin(running, stream=True, stream_options={"include_usage": True}, **fields)
    with connection:
        first, second = fake_events(fake_openai, hang)
        received = read_until(connection, second)
        assert received.index(first) < received.index(second)
        assert b"[DONE]" not in received
        hang.release()
        assert b"[DONE]" in read_until(connection, b"[DONE]")


def fake_events(fake_openai, hang):
    hang.reached.result(10)
    sent = fake_openai.chat.calls[0].sent
    assert len(sent) == 2
    return sent


def test_tokens_are_asked_for_where_they_have_a_price(priced, running, fake_openai):
    """And what only the gateway asked for is left out again."""
    answer = chat(priced, stream=True, stream_options={"include_obfuscation": False, "x": 1.0})
    call = fake_openai.chat.calls[-1]
    assert call.request.body["stream_options"] == {
        "include_obfuscation": False, "x": 1.0, "include_usage": True,
    }  # fmt: skip
    assert b'"x":1.0' in call.request.raw
    assert answer.content == b"".join(event for event in call.sent if b'"choices": []' not in event)
    assert priced.metric("gateway_cost_usd_total", kind="spent") > 0
    chat(priced, stream=True, stream_options=None)
    assert fake_openai.chat.calls[-1].request.body["stream_options"] == {"include_usage": True}
    for fields in ({}, {"stream_options": {"include_usage": False}}):
        chat(running, stream=True, **fields)
        assert fake_openai.chat.calls[-1].request.body.get("stream_options") == fields.get(
            "stream_options"
        )
    chat(priced)
    assert "stream_options" not in fake_openai.chat.calls[-1].request.body


def test_who_asks_for_the_tokens_is_told_them(priced, fake_openai):
    """As the upstream tells them."""
    for fields in ({}, {"seed": 1}):
        answer = chat(priced, stream=True, stream_options={"include_usage": True}, **fields)
        assert answer.content == b"".join(fake_openai.chat.calls[-1].sent)
        assert chunks(answer.content)[-1]["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("fields", [{}, {"seed": 1}], ids=["priced", "kept"])
def test_a_server_that_knows_no_stream_options_is_asked_without(priced, fake_openai, fields):
    """The client did not ask for them."""

    async def refuse(exchange):
        if "stream_options" in exchange.call.request.body:
            message = "Extra inputs are not permitted: stream_options"
            await chat_behave.refuse(422, message=message)(exchange)

    fake_openai.chat.always(refuse)
    answer = chat(priced, stream=True, **fields)
    assert said(answer)
    assert len(fake_openai.chat.calls) == 2
    asked = chat(priced, stream=True, stream_options={"include_usage": True})
    assert asked.status_code == 400


@pytest.mark.parametrize("seeded", [False, True], ids=["relayed", "recorded"])
@pytest.mark.parametrize("fields", [{}, {"n": 3}, {"logprobs": True, "top_logprobs": 2}])
def test_json_in_place_of_a_stream_is_told_as_a_stream(running, fake_openai, seeded, fields):
    """Some servers cannot stream, or not with tools."""
    fake_openai.chat.script(chat_behave.json_although_stream)
    fields = fields | ({"seed": 1} if seeded else {})
    answer = chat(running, stream=True, stream_options={"include_usage": True}, **fields)
    assert answer.headers["content-type"].startswith("text/event-stream")
    sent = json.loads(fake_openai.chat.calls[0].sent[0])
    assert whole(answer) == sent


@pytest.mark.parametrize("seeded", [False, True], ids=["relayed", "recorded"])
def test_a_stream_in_place_of_json_is_told_as_json(running, fake_openai, seeded):
    """Some servers stream whatever is asked for."""
    fake_openai.chat.script(chat_behave.stream_although_json)
    answer = chat(running, **({"seed": 1} if seeded else {}))
    assert answer.headers["content-type"] == "application/json"
    message = answer.json()["choices"][0]["message"]
    told = [
        chunk["choices"][0]["delta"].get("content") or ""
        for chunk in chunks(b"".join(fake_openai.chat.calls[0].sent))
    ]
    assert message["content"] == "".join(told) != ""


def test_a_stream_that_cannot_be_one_json_is_no_json(running, fake_openai):
    """It is the upstream's fault, and nothing that a client could mend."""
    fake_openai.chat.always(
        behave.together(chat_behave.stream_although_json, chat_behave.unmergeable)
    )
    answer = chat(running)
    assert (answer.status_code, answer.json()["error"]["code"]) == (
        502, "upstream_invalid_response",
    )  # fmt: skip


@pytest.mark.parametrize("stream", [True, False], ids=["as a stream", "as JSON"])
def test_a_stream_without_done_is_an_answer_all_the_same(running, fake_openai, stream):
    """Where every choice has ended; but it is not kept, as it may have lacked something."""
    fake_openai.chat.always(behave.together(chat_behave.stream_although_json, chat_behave.no_done))
    for _ in range(2):
        answer = chat(running, stream=stream, seed=1)
        assert answer.status_code == 200
        assert b'"finish_reason":"stop"' in answer.content.replace(b" ", b"")
    assert len(fake_openai.chat.calls) == 2


def test_the_path_without_v1_serves_too(running, fake_openai):
    """As for embeddings: some clients leave it out."""
    answer = running.http.post("/chat/completions", content=body_of())
    assert said(answer)


def test_the_sdk_streams_and_ends(running):
    """Every chunk is one of the SDK's types, and the connection serves the next request."""
    for fields in ({}, {"seed": 1}, {"seed": 1}):
        stream = running.client.chat.completions.create(
            model="m", messages=HELLO, stream=True, **fields
        )
        told = [chunk for chunk in stream if chunk.choices]
        assert isinstance(told[0], openai.types.chat.ChatCompletionChunk)
        assert told[-1].choices[0].finish_reason == "stop"
