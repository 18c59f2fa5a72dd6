"""One call to an upstream: its place, its time, its attempts; the network is played by hand."""

import asyncio
from itertools import count

import pytest

from gateway.backends.openai import Endpoint, OpenAIBackend
from gateway.backends.transport import Reply
from gateway.errors import (
    RateLimitError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamTimeoutError,
)
from gateway.resilience.retry import RetryPolicy

AT_ONCE = RetryPolicy(chance=lambda: 0.0)
OK = Reply(200, {}, b"{}")


class Played:
    """A transport that answers what it is told to, one after the other."""

    def __init__(self, *answers):
        self.answers = iter(answers)
        self.sent, self.timeouts = [], []
        self.closed = False

    async def send(self, method, url, headers, body, *, timeout):
        self.sent.append((method, url, dict(headers), body))
        self.timeouts.append(timeout)
        answer = next(self.answers)
        if isinstance(answer, asyncio.Event):
            await answer.wait()
            return OK
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def aclose(self):
        self.closed = True


def backend(transport, retry=AT_ONCE, **endpoint):
    return OpenAIBackend("up", Endpoint("http://up/v1", **endpoint), transport, retry)


async def call(of, seconds=5.0):
    deadline = asyncio.get_running_loop().time() + seconds
    return await of.upstream.call("POST", "/embeddings", b"x", deadline, read=lambda reply: reply)


@pytest.mark.parametrize(
    "passing",
    [
        UpstreamConnectError("m"),
        UpstreamTimeoutError("m", code="upstream_connect_timeout"),
        Reply(500, {}, b""),
        Reply(503, {"retry-after": "0"}, b""),
        Reply(429, {}, b""),
        Reply(408, {}, b""),
    ],
)
def test_what_may_pass_is_tried_again(passing):
    """A connection that was not made costs nothing; a busy server may have time now."""
    played = Played(passing, passing, OK)
    assert asyncio.run(call(backend(played))) is OK
    assert played.sent == [played.sent[0]] * 3


@pytest.mark.parametrize(
    "lasting",
    [
        UpstreamTimeoutError("m"),
        UpstreamError("m", code="upstream_answer_too_large"),
        Reply(400, {}, b""),
        Reply(401, {}, b""),
    ],
)
def test_what_would_be_the_same_again_is_tried_once(lasting):
    """A slow answer may have been billed."""
    played = Played(lasting, OK)
    with pytest.raises(Exception) as caught:
        asyncio.run(call(backend(played)))
    assert caught.value.status in (400, 502, 504)
    assert len(played.sent) == 1


def test_a_retry_that_could_not_start_in_time_is_not_waited_for():
    """The error comes now and not at the deadline."""
    played = Played(Reply(429, {"retry-after": "9"}, b""), OK)
    with pytest.raises(RateLimitError):
        asyncio.run(call(backend(played), seconds=5.0))
    assert len(played.sent) == 1


def test_an_attempt_has_the_smaller_of_the_upstreams_time_and_what_remains():
    """And never a negative one."""
    for configured, remaining, expected in ((2.0, 5.0, 2.0), (9.0, 5.0, 5.0), (9.0, -5.0, 0.0)):
        played = Played(OK)
        asyncio.run(call(backend(played, timeout=configured), seconds=remaining))
        assert played.timeouts[0] == pytest.approx(expected, abs=0.1)


def test_calls_beyond_the_places_wait_for_one():
    """`concurrency` is a bound; a place is free again after a failure and a cancelled call too."""

    async def scene():
        first = asyncio.Event()
        played = Played(first, OK, UpstreamTimeoutError("m"), OK)
        of = backend(played, concurrency=1)
        holding, waiting = asyncio.ensure_future(call(of)), asyncio.ensure_future(call(of))
        await asyncio.sleep(0.01)
        assert len(played.sent) == 1
        holding.cancel()
        assert await waiting is OK
        with pytest.raises(UpstreamTimeoutError):
            await call(of)
        assert await call(of) is OK

    asyncio.run(scene())


def test_who_gets_no_place_in_time_is_told_so():
    """504, and nothing was sent for it."""

    async def scene():
        first = asyncio.Event()
        played = Played(first)
        of = backend(played, concurrency=1)
        holding = asyncio.ensure_future(call(of))
        await asyncio.sleep(0)
        with pytest.raises(UpstreamTimeoutError, match="No place at upstream 'up'") as caught:
            await call(of, seconds=0.01)
        assert "x-should-retry" not in caught.value.headers
        first.set()
        assert await holding is OK
        assert len(played.sent) == 1

    asyncio.run(scene())


def test_waits_between_attempts_grow():
    """By the policy's own steps, which are tested elsewhere."""
    steps = count(1)
    asked = []

    class Watching(RetryPolicy):
        def wait(self, attempt, _, asked_for=None):
            asked.append((attempt, asked_for))
            return None if next(steps) == 3 else 0.0

    played = Played(*[Reply(500, {"retry-after-ms": "7"}, b"")] * 3)
    with pytest.raises(UpstreamError) as caught:
        asyncio.run(call(backend(played, Watching(chance=lambda: 0.0))))
    assert asked == [(1, 0.007), (2, 0.007), (3, 0.007)]
    assert caught.value.headers["x-should-retry"] == "false"


def test_what_is_sent_says_who_we_are_and_what_we_take():
    """The body's encoding is the config's, headers are in lower case, credentials in one place."""
    played = Played(Reply(200, {}, b'{"data":[{"index":0,"embedding":[1.0]}]}'))
    of = backend(played, api_key="k", auth_header="Api-Key", headers={"X-Team": "t"}, encoding=None)

    async def embed():
        deadline = asyncio.get_running_loop().time() + 5
        return await of.embed("m", ["x"], fields={"a": 1}, truncate=True, deadline=deadline)

    raw = asyncio.run(embed())
    assert raw.rows[0].tolist() == [1.0]
    ((method, url, headers, body),) = played.sent
    assert (method, url) == ("POST", "http://up/v1/embeddings")
    assert (headers["api-key"], headers["x-team"]) == ("k", "t")
    assert "authorization" not in headers
    assert body == b'{"model":"m","input":["x"],"a":1,"truncate":true}'


def test_closing_closes_the_transport():
    """Nothing stays open."""
    played = Played()
    asyncio.run(backend(played).aclose())
    assert played.closed
