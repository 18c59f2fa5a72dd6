"""Many who ask for the same chat at once, and answers that are not fit to be told again."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import upstream_behaviours as behave
from tests import upstream_chat_behaviours as chat_behave
from tests.chatting import chat, chat_model, said, whole
from tests.upstream_chat import DONE, event


@pytest.fixture
def running(gateway, fake_openai):
    return gateway(chat_model(fake_openai.base_url))


@pytest.fixture
def pool():
    with ThreadPoolExecutor(100) as made:
        yield made


def test_a_hundred_at_once_are_one_call(running, fake_openai, pool):
    """Streams and not, with tokens and without: one text for all of them."""
    hang = behave.Hang()
    fake_openai.chat.script(hang)
    forms = [{}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}]
    asked = [pool.submit(chat, running, seed=1, user=str(n), **forms[n % 3]) for n in range(100)]
    hang.reached.result(10)
    running.wait_until(lambda: running.chats_followed == 100)
    hang.release()
    answers = [answer.result(30) for answer in asked]
    assert len({said(answer) for answer in answers}) == 1
    assert len({whole(answer)["id"] for answer in answers}) == 1
    assert len(fake_openai.chat.calls) == 1
    sources = [answer.headers["cache-status"].split('"')[1] for answer in answers]
    assert sorted(sources) == ["in-flight=1"] * 99 + ["upstream=1"]


@pytest.mark.parametrize("at", [1, 5, -1])
def test_who_comes_in_the_middle_reads_from_the_start(running, fake_openai, pool, at):
    """And goes on with the one who was there first."""
    hang = behave.Hang()
    fake_openai.chat.script(chat_behave.stall(hang, at))
    first = pool.submit(chat, running, seed=1, stream=True)
    hang.reached.result(10)
    later = [pool.submit(chat, running, seed=1, stream=stream) for stream in (True, False, True)]
    running.wait_until(lambda: running.chats_followed == 4)
    hang.release()
    answers = [each.result(10) for each in (first, *later)]
    assert len({said(answer) for answer in answers}) == 1
    assert answers[0].content == answers[1].content == answers[3].content
    assert len(fake_openai.chat.calls) == 1


def test_a_failure_is_for_those_who_waited(running, fake_openai, pool):
    """Whoever comes later asks anew."""
    hang = behave.Hang()
    fake_openai.chat.script(behave.together(hang, chat_behave.refuse(500)))
    asked = [pool.submit(chat, running, seed=1, stream=n % 2 == 0) for n in range(10)]
    hang.reached.result(10)
    running.wait_until(lambda: running.chats_followed == 10)
    hang.release()
    assert {answer.result(10).status_code for answer in asked} == {502}
    assert len(fake_openai.chat.calls) == 1
    assert said(chat(running, seed=1))


def test_a_refusal_of_anothers_request_is_not_ones_own(running, fake_openai, pool):
    """It may be about its `user`: those who waited with it ask once more, together."""
    hang = behave.Hang()

    async def judge(exchange):
        if exchange.call.request.body["user"] == "bad":
            await hang(exchange)
            await chat_behave.refuse(400, message="what a name")(exchange)

    fake_openai.chat.always(judge)
    bad = pool.submit(chat, running, seed=1, user="bad")
    hang.reached.result(10)
    good = [pool.submit(chat, running, seed=1, user="good", stream=n % 2 == 0) for n in range(9)]
    running.wait_until(lambda: running.chats_followed == 10)
    hang.release()
    assert bad.result(10).status_code == 400
    assert len({said(answer.result(10)) for answer in good}) == 1
    assert len(fake_openai.chat.calls) == 2


def test_requests_that_are_all_refused_give_up(running, fake_openai, pool):
    """After a few turns each believes what it is told."""
    hang = behave.Hang()
    fake_openai.chat.always(behave.together(hang, chat_behave.refuse(400)))
    asked = [pool.submit(chat, running, seed=1) for _ in range(20)]
    hang.reached.result(10)
    running.wait_until(lambda: running.chats_followed == 20)
    hang.release()
    assert {answer.result(10).status_code for answer in asked} == {400}
    assert len(fake_openai.chat.calls) <= 5


# What is no answer


@pytest.mark.parametrize("stream", [False, True], ids=["JSON", "stream"])
@pytest.mark.parametrize(
    "behaviour",
    [
        chat_behave.error_event(2), chat_behave.cut(3), chat_behave.short(3),
        chat_behave.short(1), chat_behave.cut(-1), chat_behave.error_event(0),
        chat_behave.no_done,
    ],
)  # fmt: skip
def test_what_is_broken_is_not_kept(running, fake_openai, pool, behaviour, stream):
    """Nor told to those who wait for a JSON as if it were whole."""
    hang = behave.Hang()
    fake_openai.chat.script(behave.together(hang, chat_behave.stream_although_json, behaviour))
    first = pool.submit(chat, running, seed=1, stream=stream)
    hang.reached.result(10)
    other = pool.submit(chat, running, seed=1, stream=False)
    running.wait_until(lambda: running.chats_followed == 2)
    hang.release()
    first.result(10)
    if behaviour is not chat_behave.no_done:
        assert other.result(10).status_code == 502
    calls = len(fake_openai.chat.calls)
    assert calls == 1
    assert "fwd=miss" in chat(running, seed=1).headers["cache-status"]
    assert len(fake_openai.chat.calls) == 2


def test_a_stream_that_cannot_be_one_json_is_kept_for_streams(running, fake_openai, pool):
    """In the bytes it came in; a JSON is asked for by itself, and is then for both."""
    fake_openai.chat.script(chat_behave.unmergeable)
    usage = {"stream_options": {"include_usage": True}}
    first = chat(running, seed=1, stream=True, **usage)
    again = chat(running, seed=1, stream=True, **usage)
    assert first.content == again.content == b"".join(fake_openai.chat.calls[0].sent)
    assert again.headers["cache-status"] == 'gateway; hit; detail="memory=1"'
    without = chat(running, seed=1, stream=True)
    assert without.content == bare(fake_openai.chat.calls[0].sent)
    assert len(fake_openai.chat.calls) == 1
    told = chat(running, seed=1)
    assert "fwd=miss; stored" in told.headers["cache-status"]
    assert len(fake_openai.chat.calls) == 2
    assert said(chat(running, seed=1, stream=True)) == said(told)


@pytest.mark.parametrize("last", [chat_behave.ERROR, None], ids=["an error", "no end"])
def test_a_stream_that_cannot_be_one_json_must_be_whole_too(running, fake_openai, last):
    """Though [DONE] stands at its end."""

    async def broken(exchange):
        error = [event({"error": last})] if last else []
        exchange.edits.append(lambda steps: [*steps[:3], *error, DONE])

    fake_openai.chat.script(behave.together(chat_behave.unmergeable, broken))
    chat(running, seed=1, stream=True)
    assert "fwd=miss" in chat(running, seed=1, stream=True).headers["cache-status"]
    assert len(fake_openai.chat.calls) == 2


def test_a_json_beside_a_stream_that_cannot_be_one_is_asked_for_by_itself(
    running, fake_openai, pool
):
    """Also where that stream was found in a store: see test_chat_kept."""
    hang = behave.Hang()
    fake_openai.chat.script(behave.together(hang, chat_behave.unmergeable))
    first = pool.submit(chat, running, seed=1, stream=True)
    hang.reached.result(10)
    other = pool.submit(chat, running, seed=1)
    running.wait_until(lambda: running.chats_followed == 2)
    hang.release()
    assert first.result(10).content == bare(fake_openai.chat.calls[0].sent)
    assert other.result(10).headers["content-type"] == "application/json"
    assert said(other.result(10))
    assert len(fake_openai.chat.calls) == 2


def bare(sent):
    """Return a stream without the chunk that only the gateway asked for."""
    return b"".join(event for event in sent if b'"choices": []' not in event)
