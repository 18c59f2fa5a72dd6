"""What goes wrong in a chat is told by a status while it can be, and then within the stream."""

import json

import openai
import pytest

from gateway.sse import Events, data_of
from tests import upstream_behaviours as behave
from tests import upstream_chat_behaviours as chat_behave
from tests.chatting import HELLO, chat, chat_model, chunks, refused, said

FORMS = pytest.mark.parametrize(
    "fields",
    [{}, {"seed": 1}, {"stream": True}, {"stream": True, "seed": 1}],
    ids=["JSON", "JSON kept", "stream", "stream kept"],
)
STREAMS = pytest.mark.parametrize("fields", [{}, {"seed": 1}], ids=["relayed", "recorded"])


@pytest.fixture
def running(gateway, fake_openai):
    return gateway(chat_model(fake_openai.base_url))


@pytest.fixture
def impatient(gateway, fake_openai):
    return gateway(chat_model(fake_openai.base_url, rest='[server]\nchat_timeout = "300ms"'))


@FORMS
@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_the_clients_mistake_is_told_in_the_upstreams_words(running, fake_openai, status, fields):
    """With a 4xx, after one call."""
    fake_openai.chat.script(chat_behave.refuse(status, message="no such thing", code="odd"))
    answer = chat(running, **fields)
    assert refused(answer)[:2] == (400 if status == 422 else status, "odd")
    assert answer.json()["error"]["message"] == "no such thing"
    assert len(fake_openai.chat.calls) == 1
    assert said(chat(running, **fields))


@FORMS
@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_of_the_gateways_is_not_the_clients(running, fake_openai, status, fields):
    """A client could do nothing about a 401, and would look for the fault in its own key."""
    fake_openai.chat.always(chat_behave.refuse(status, message="sk-x is wrong"))
    answer = chat(running, **fields)
    assert refused(answer)[:2] == (502, "upstream_authentication")
    assert answer.headers["x-should-retry"] == "false"
    assert "sk-x" not in answer.text
    assert len(fake_openai.chat.calls) == 1


@FORMS
@pytest.mark.parametrize(("status", "told"), [(429, 429), (503, 503)])
def test_overload_is_asked_again_and_then_told(running, fake_openai, status, told, fields):
    """With a time to come back; a wait beyond ours is the client's."""
    fake_openai.chat.script(chat_behave.refuse(status, headers={"retry-after-ms": "1"}))
    assert said(chat(running, **fields))
    assert len(fake_openai.chat.calls) == 2
    fields = fields | ({"seed": 2} if "seed" in fields else {})
    fake_openai.chat.script(chat_behave.refuse(status, headers={"retry-after": "100000"}))
    answer = chat(running, **fields)
    assert refused(answer)[0] == told
    assert int(answer.headers["retry-after"]) >= 1
    assert int(answer.headers["retry-after-ms"]) >= 1
    assert len(fake_openai.chat.calls) == 3


@FORMS
@pytest.mark.parametrize("status", [500, 502, 504, 529])
def test_what_may_have_been_billed_is_not_asked_again(running, fake_openai, status, fields):
    """An answer may have been begun."""
    fake_openai.chat.always(chat_behave.refuse(status))
    assert refused(chat(running, **fields))[0] in (502, 504)
    assert len(fake_openai.chat.calls) == 1


@STREAMS
def test_an_error_as_first_event_is_told_by_its_status(running, fake_openai, fields):
    """Comments may come before it. SDKs then do what that status asks for."""
    error = {"message": "too many requests", "type": "rate_limit_error", "code": 429}
    for behaviour, status in (
        (chat_behave.error_event(0), 502),
        (chat_behave.error_event(0, error), 429),
        (behave.together(chat_behave.error_event(0, error), chat_behave.pings), 429),
        (chat_behave.error_event(0, error | {"code": "400"}), 400),
        (chat_behave.error_event(0, {"type": "invalid_request_error", "message": "bad"}), 400),
    ):
        fake_openai.chat.script(behaviour)
        answer = chat(running, stream=True, **fields)
        assert refused(answer)[0] == status
        if status == 429:
            assert answer.json()["error"]["message"] == "too many requests"
            assert "retry-after-ms" in answer.headers
    assert said(chat(running, stream=True, **fields))


@STREAMS
def test_an_error_with_status_200_is_told_by_its_own(running, fake_openai, fields):
    """As JSON too."""
    error = {"message": "busy", "code": 429}
    body = json.dumps({"error": error}).encode()
    for stream in (False, True):
        fake_openai.chat.script(chat_behave.refuse(200, body=body))
        assert refused(chat(running, stream=stream, **fields))[0] == 429
        fake_openai.chat.script(chat_behave.refuse(200, body=b"<html>"))
        answer = refused(chat(running, stream=stream, **fields))
        assert answer[:2] == (502, "upstream_invalid_response")
    assert said(chat(running, **fields))


@pytest.mark.parametrize(
    "whole",
    [
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"index": 0}]}',
        b'{"choices": 1}',
        b'{"id": "\\n"}',
    ],
)
def test_a_json_that_says_nothing_is_passed_and_not_kept(running, fake_openai, whole):
    """The client asked that upstream; but nobody else is told it, and it makes no stream."""
    fake_openai.chat.always(chat_behave.refuse(200, body=whole))
    for _ in range(2):
        assert chat(running, seed=1).content == whole
    assert refused(chat(running, seed=1, stream=True))[:2] == (502, "upstream_invalid_response")
    assert refused(chat(running, stream=True))[:2] == (502, "upstream_invalid_response")
    assert len(fake_openai.chat.calls) == 4


@STREAMS
def test_an_error_in_the_middle_is_passed_and_nothing_kept(running, fake_openai, fields):
    """In the upstream's own bytes; the SDK raises it."""
    fake_openai.chat.script(chat_behave.error_event(2))
    answer = chat(running, stream=True, stream_options={"include_usage": True}, **fields)
    assert answer.status_code == 200
    assert answer.content == b"".join(fake_openai.chat.calls[0].sent)
    fake_openai.chat.script(chat_behave.error_event(2))
    with pytest.raises(openai.APIError, match="The server had an error while processing"):
        drain(running, **fields)
    assert said(chat(running, stream=True, **fields))
    assert len(fake_openai.chat.calls) == 3


def drain(running, **fields):
    """Read a stream with OpenAI's SDK; return the chunks."""
    stream = running.client.chat.completions.create(
        model="m", messages=HELLO, stream=True, **fields
    )
    return list(stream)


@STREAMS
@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (chat_behave.cut(3), "upstream_unreachable"),
        (chat_behave.cut(3, inside=False), "upstream_unreachable"),
        (chat_behave.cut(-1), None),
        (chat_behave.short(3), "upstream_stream_cut"),
        (behave.together(chat_behave.split(11), chat_behave.short(150)), "upstream_stream_cut"),
    ],
)
def test_a_stream_that_is_cut_ends_with_an_error(running, fake_openai, behaviour, code, fields):
    """In the stream, and in a form that the SDK raises; nothing of it is kept."""
    fake_openai.chat.script(behaviour, behaviour)
    answer = chat(running, stream=True, **fields)
    assert answer.status_code == 200
    events = Events().feed(answer.content)
    error = json.loads(data_of(events[-1]))["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "upstream_error"
    assert error["code"] == code or code is None
    assert all("choices" in json.loads(data_of(event)) for event in events[:-1])
    with pytest.raises(openai.APIError) as raised:
        drain(running, **fields)
    assert raised.value.code == error["code"]
    assert said(chat(running, stream=True, **fields))
    assert len(fake_openai.chat.calls) == 3


@STREAMS
def test_json_that_is_cut_is_a_502(running, fake_openai, fields):
    """Nothing of it goes out."""

    async def cut(exchange):
        exchange.headers["content-length"] = "100000"
        exchange.edits.append(lambda steps: [steps[0][:50], exchange.hang_up])

    fake_openai.chat.script(cut)
    assert refused(chat(running, **fields))[:2] == (502, "upstream_unreachable")
    assert said(chat(running, **fields))


@STREAMS
def test_a_stall_ends_a_stream_in_time(impatient, fake_openai, fields):
    """chat_timeout bounds each wait for a piece; a slow stream may take longer than that."""
    hang = behave.Hang()
    fake_openai.chat.script(chat_behave.stall(hang, 3))
    answer = chat(impatient, stream=True, **fields)
    assert chunks(answer.content)[-1]["error"]["code"] == "upstream_timeout"
    fake_openai.chat.wait_for_left(1)
    fake_openai.chat.script(chat_behave.slow(0.06))
    answer = chat(impatient, stream=True, **fields)
    assert b"[DONE]" in answer.content
    assert len(chunks(answer.content)) * 0.06 > 0.3


@FORMS
def test_an_upstream_that_does_not_begin_is_given_up(impatient, fake_openai, fields):
    """Before the headers, and before the first chunk: 504, and one call."""
    for number, stalled in enumerate((False, True)):
        hang = behave.Hang()
        fake_openai.chat.script(chat_behave.stall(hang, 0) if stalled else hang)
        assert refused(chat(impatient, **fields))[:2] == (504, "upstream_timeout")
        fake_openai.chat.wait_for_left(number + 1)
        assert len(fake_openai.chat.calls) == number + 1


@STREAMS
def test_a_whole_answer_has_one_time(impatient, fake_openai, fields):
    """It may trickle, and every piece be in time."""
    fake_openai.chat.always(
        behave.together(chat_behave.stream_although_json, chat_behave.slow(0.06))
    )
    assert refused(chat(impatient, **fields))[:2] == (504, "upstream_timeout")
    fake_openai.chat.wait_for_left(1)
