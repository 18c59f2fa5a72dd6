"""Clients that leave a chat, at any chunk: what nobody reads any more is called off."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import upstream_behaviours as behave
from tests import upstream_chat_behaviours as chat_behave
from tests.chatting import begin, chat, chat_model, read_until, said
from tests.heavy.chat_leaving import look_into, run

LATE = 2.0
"""Seconds: more than it takes by far, and less than any timeout."""
FORMS = pytest.mark.parametrize(
    "fields", [{}, {"seed": 1}, {"stream": True}, {"stream": True, "seed": 1}], ids=range(4)
)


@pytest.fixture
def running(gateway, fake_openai):
    return gateway(chat_model(fake_openai.base_url))


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as made:
        yield made


def reset(connection):
    """Leave without a word."""
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.close()


@FORMS
@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["closes", "resets"])
def test_the_upstreams_call_ends_with_its_only_client(running, fake_openai, fields, leave):
    """Before the headers; nobody pays for what nobody reads, and the next one asks anew."""
    hang = behave.Hang()
    fake_openai.chat.script(hang)
    before = look_into(running)
    connection = begin(running, **fields)
    hang.reached.result(10)
    leaving = time.monotonic()
    leave(connection)
    fake_openai.chat.wait_for_left(1)
    assert fake_openai.chat.calls[0].left - leaving < LATE
    running.wait_until(lambda: look_into(running) == before)
    assert running.metric("gateway_requests_total", operation="chat", code="499") == 1
    answer = chat(running, **fields)
    assert said(answer)
    assert len(fake_openai.chat.calls) == 2


@pytest.mark.parametrize("seed", [None, 1], ids=["relayed", "recorded"])
@pytest.mark.parametrize("at", range(1, 6))
def test_at_any_chunk(running, fake_openai, seed, at):
    """A stream that is half told is not kept, and its call is closed at once."""
    hang = behave.Hang()
    fake_openai.chat.script(chat_behave.stall(hang, at))
    before = look_into(running)
    connection = begin(running, stream=True, seed=seed, stream_options={"include_usage": True})
    hang.reached.result(10)
    read_until(connection, fake_openai.chat.calls[0].sent[-1])
    leaving = time.monotonic()
    connection.close()
    fake_openai.chat.wait_for_left(1)
    assert fake_openai.chat.calls[0].left - leaving < LATE
    running.wait_until(lambda: look_into(running) == before)
    chat(running, seed=seed)
    assert len(fake_openai.chat.calls) == 2


def test_a_client_that_does_not_read_holds_only_itself_up(running, fake_openai):
    """A relayed stream waits for its reader, and is closed with it."""
    text = [{"role": "user", "content": "x"}]
    long = behave.together(lengthened(3000), chat_behave.slow(0.0))
    fake_openai.chat.script(long)
    before = look_into(running)
    connection = begin(running, stream=True, messages=text)
    fake_openai.chat.wait_for_calls(1)
    assert said(chat(running))
    connection.close()
    running.wait_until(lambda: look_into(running) == before)
    assert fake_openai.chat.calls[0].ended == "left"


def lengthened(times):
    """Make a stream some megabytes long."""

    async def behave(exchange):
        exchange.edits.append(lambda steps: [*steps[:1], *(steps[1:2] * times * 10), *steps[1:]])

    return behave


def test_who_reads_along_goes_on_when_the_first_one_leaves(running, fake_openai, pool):
    """And the other way round; only when both have left, the call ends."""
    for leaver in (0, 1):
        fake_openai.chat.forget()
        hang = behave.Hang()
        fake_openai.chat.script(chat_behave.stall(hang, 3))
        before = look_into(running)
        pair = [begin(running, stream=True, seed=leaver)]
        hang.reached.result(10)
        pair.append(begin(running, stream=True, seed=leaver))
        for connection in pair:
            read_until(connection, fake_openai.chat.calls[0].sent[1])
        pair[leaver].close()
        running.wait_until(lambda: running.requests_running == 1)
        assert fake_openai.chat.calls[0].ended is None
        hang.release()
        assert b"[DONE]" in read_until(pair[1 - leaver], b"[DONE]")
        pair[1 - leaver].close()
        running.wait_until(lambda before=before: look_into(running) == before)
        assert fake_openai.chat.calls[0].ended == "whole"
        assert "; hit" in chat(running, seed=leaver).headers["cache-status"]


def test_when_both_have_left_the_call_ends(running, fake_openai):
    """In either order, and a JSON with a stream."""
    for order in (1, -1):
        fake_openai.chat.forget()
        hang = behave.Hang()
        fake_openai.chat.script(chat_behave.stall(hang, 3))
        before = look_into(running)
        pair = [begin(running, stream=True, seed=9)]
        hang.reached.result(10)
        pair.append(begin(running, seed=9))
        running.wait_until(lambda: running.chats_followed == 2)
        for connection in pair[::order]:
            assert fake_openai.chat.calls[0].ended is None
            connection.close()
        fake_openai.chat.wait_for_left(1)
        running.wait_until(lambda before=before: look_into(running) == before)


def test_who_closes_at_done_leaves_an_answer_that_is_kept(running, fake_openai):
    """SDKs close there, perhaps before the upstream's own end has come; it has been paid for."""
    for seed in range(20):
        hang = behave.Hang()
        fake_openai.chat.script(ending_late(hang))
        connection = begin(running, stream=True, seed=seed)
        read_until(connection, b"[DONE]\n\n")
        connection.close()
        running.wait_until(lambda: running.requests_running == 0)
        hang.release()
    for seed in range(20):
        running.wait_until(lambda seed=seed: "; hit" in told(running, seed))
    assert len(fake_openai.chat.calls) == 20


def told(running, seed):
    """Return the Cache-Status of what is kept, or nothing."""
    answer = chat(running, seed=seed, headers={"cache-control": "only-if-cached"})
    return answer.headers.get("cache-status", "")


def ending_late(hang):
    """Hold back the end of the body, behind [DONE]."""
    return chat_behave.stall(hang, 10_000)


def test_a_crowd_comes_and_goes(tmp_path):
    """A short run of tests/heavy/chat_leaving."""
    outcome = run(tmp_path, 150, seed=1)
    assert outcome.left > 20
    assert outcome.stayed > 20
    assert outcome.called_off > 5
