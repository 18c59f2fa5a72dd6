"""What an upstream's calls teach about it, and what then becomes of the next ones."""

import asyncio
from collections import Counter

import pytest

from gateway.backends.endpoint import Endpoint
from gateway.backends.outcomes import again, broken
from gateway.backends.transport import Reply
from gateway.backends.upstream import Upstream
from gateway.errors import (
    GatewayError,
    RateLimitError,
    UnavailableError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamTimeoutError,
)
from gateway.resilience.circuit import Limits
from gateway.resilience.retry import RetryPolicy
from gateway.types import Caller, Credential
from tests.backends.test_openai import OK, Played

AT_ONCE = RetryPolicy(chance=lambda: 0.0)
SOON_LOST = Limits(least=1, patience=0.0)
"""One failure, and nobody is let through."""
BROKEN = Reply(500, {}, b"")


class Clock:
    """Seconds that pass when they are told to."""

    now = 100.0

    def __call__(self):
        return self.now


def upstream(*answers, limits=SOON_LOST, retry=AT_ONCE, clock=None, **endpoint):
    """Return an upstream whose transport plays these answers."""
    played = Played(*answers)
    of = Upstream(
        "up",
        Endpoint("http://up/v1", **endpoint),
        played,
        retry,
        limits=limits,
        clock=clock or Clock(),
    )
    return of, played


async def call(of, seconds=5.0, **options):
    deadline = asyncio.get_running_loop().time() + seconds
    read = options.pop("read", lambda reply: reply)
    return await of.call("POST", "/embeddings", b"x", deadline, read=read, **options)


def outcome(of, **options):
    """Call once; return the answer or the error."""
    try:
        return asyncio.run(call(of, **options))
    except GatewayError as error:
        return error


def refuse(_):
    raise UpstreamError("no good", code="upstream_invalid_response")


@pytest.mark.parametrize(
    ("answer", "state", "reason"),
    [
        (OK, "closed", None),
        (Reply(400, {}, b""), "closed", None),
        (Reply(401, {}, b""), "closed", None),
        (Reply(302, {}, b""), "closed", None),
        (Reply(429, {}, b""), "closed", None),
        (Reply(500, {}, b'{"message": "input is too large to process"}'), "closed", None),
        (Reply(500, {}, b""), "open", "5xx"),
        (Reply(503, {}, b""), "open", "5xx"),
        (Reply(408, {}, b""), "open", "timeout"),
        (Reply(504, {}, b""), "open", "timeout"),
        (UpstreamConnectError("m"), "open", "connect"),
        (UpstreamTimeoutError("m", code="upstream_connect_timeout"), "open", "connect"),
        (UpstreamTimeoutError("m"), "open", "timeout"),
        (UpstreamError("m", code="upstream_answer_too_large"), "open", "bad_answer"),
    ],
)
def test_what_an_attempt_teaches(answer, state, reason):
    """An upstream that says what is wrong with a request, or with a key, is well."""
    of, _ = upstream(answer)
    outcome(of, stand_in=True)
    assert (of.circuit.state, of.circuit.reason) == (state, reason)


def test_an_answer_that_is_no_good_is_a_failure():
    """Told by who reads it, and not asked for again."""
    of, played = upstream(OK, OK)
    assert outcome(of, read=refuse).message == "no good"
    assert (of.circuit.state, of.circuit.reason) == ("open", "bad_answer")
    assert len(played.sent) == 1


def test_who_had_no_time_teaches_nothing():
    """It may have waited for a place until just before its deadline."""
    of, _ = upstream(UpstreamTimeoutError("m"))
    assert outcome(of, seconds=0.5).status == 504
    assert of.circuit.state == "closed"
    of, _ = upstream(UpstreamTimeoutError("m"), timeout=0.5)
    assert outcome(of, seconds=0.2).status == 504
    assert of.circuit.state == "closed"


def test_a_call_that_is_called_off_teaches_nothing():
    """And its place is free again."""

    async def scene():
        of, _ = upstream(asyncio.Event(), OK, concurrency=1)
        task = asyncio.ensure_future(call(of))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert of.places.in_flight == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (of.circuit.state, of.places.in_flight) == ("closed", 0)
        assert await call(of) is OK

    asyncio.run(scene())


def test_an_upstream_that_is_lost_is_not_asked():
    """503 at once, with the time of the next try; then one call decides."""
    clock = Clock()
    of, played = upstream(BROKEN, OK, OK, clock=clock)
    first = outcome(of)
    assert (first.status, first.headers) == (502, {"x-should-retry": "false"})
    error = outcome(of)
    assert (error.status, error.code) == (503, "upstream_unavailable")
    assert error.headers == {"retry-after": "5", "retry-after-ms": "5000"}
    assert error.reason is None
    assert len(played.sent) == 1
    clock.now += 5.0
    assert outcome(of) is OK
    assert of.circuit.state == "closed"


def test_who_waits_for_a_place_at_an_upstream_that_is_lost_meanwhile_is_told_so():
    """Rather than one after the other being late in its turn."""

    async def scene():
        of, played = upstream(UpstreamConnectError("m"), concurrency=1, retry=AT_ONCE)
        taken = await of.places.take(Caller(), asyncio.get_running_loop().time() + 5)
        waiting = [asyncio.ensure_future(call(of)) for _ in range(5)]
        await asyncio.sleep(0)
        assert of.places.waiting == 5
        of.places.leave(taken)
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert [end.code for end in ends] == ["upstream_unreachable"] + ["upstream_unavailable"] * 4
        assert len(played.sent) == 1
        assert (of.places.in_flight, of.places.waiting) == (0, 0)

    asyncio.run(scene())


def test_one_call_at_a_time_finds_out_whether_it_is_back():
    """Others are refused meanwhile."""

    async def scene():
        clock = Clock()
        back = asyncio.Event()
        of, _ = upstream(BROKEN, back, OK, clock=clock)
        with pytest.raises(UpstreamError):
            await call(of)
        clock.now += 5.0
        probe = asyncio.ensure_future(call(of))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError):
            await call(of)
        back.set()
        assert await probe is OK
        assert await call(of) is OK

    asyncio.run(scene())


def test_with_a_stand_in_the_first_failure_is_the_last():
    """It may do better, and the client is not told to stop by the first of two."""
    of, played = upstream(BROKEN, OK, limits=Limits())
    error = outcome(of, stand_in=True)
    assert (error.status, error.headers, len(played.sent)) == (502, {}, 1)


def test_with_a_stand_in_an_upstream_that_wants_fewer_calls_is_spared():
    """Alone it is asked on: its limits are several."""
    clock = Clock()
    of, played = upstream(Reply(429, {"retry-after": "7"}, b""), OK, OK, clock=clock)
    assert outcome(of, stand_in=True).status == 429
    error = outcome(of, stand_in=True)
    assert (error.code, len(played.sent)) == ("upstream_unavailable", 1)
    assert error.headers["retry-after-ms"] == "7000"
    assert outcome(of) is OK
    clock.now += 7.0
    assert outcome(of, stand_in=True) is OK


def test_a_quota_that_is_used_up_does_not_come_back_soon():
    """It is spared for as long as anybody is."""
    body = b'{"error": {"message": "m", "code": "insufficient_quota"}}'
    of, _ = upstream(Reply(429, {"retry-after": "1"}, body))
    outcome(of)
    assert of.circuit.cooling == 160.0


def test_anothers_limit_says_nothing_of_the_upstream():
    """Where callers bring their own keys."""
    of, _ = upstream(Reply(429, {"retry-after": "7"}, b""), forward_key=True)
    error = outcome(of, caller=Caller(credential=Credential("sk-theirs")), stand_in=True)
    assert (error.status, of.circuit.cooling) == (429, 0.0)


def test_when_most_calls_fail_few_are_made_again():
    """Five are in reserve, and each further ten calls pay for one; the client need not try more."""
    of, played = upstream(*[BROKEN] * 500, limits=Limits(calls=0))
    errors = [outcome(of) for _ in range(100)]
    assert 100 + 5 + 9 <= len(played.sent) <= 100 + 5 + 10
    assert of.retries == Counter({"5xx": len(played.sent) - 100})
    assert all(error.headers == {"x-should-retry": "false"} for error in errors)


def test_overload_is_not_final_because_the_budget_is_spent():
    """A 429 and a 503 say when to come back, and SDKs do."""
    for status in (429, 503):
        of, _ = upstream(*[Reply(status, {"retry-after": "0"}, b"")] * 99, limits=Limits(calls=0))
        for _ in range(20):
            error = outcome(of)
            assert error.status == status
            assert "x-should-retry" not in error.headers
            assert "retry-after" in error.headers


def test_who_is_refused_a_place_was_no_call():
    """Nothing is learned of the upstream, nothing is sent, and nothing is asked again."""

    async def scene():
        of, played = upstream(asyncio.Event(), concurrency=1, max_queue=1)
        tasks = [asyncio.ensure_future(call(of)) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError) as caught:
            await call(of)
        assert caught.value.code == "overloaded"
        assert (of.circuit.state, len(played.sent), of.retries) == ("closed", 1, Counter())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (RateLimitError("m"), "throttled"),
        (UpstreamConnectError("m"), "connect"),
        (UpstreamTimeoutError("m"), "timeout"),
        (UpstreamTimeoutError("m", code="upstream_connect_timeout"), "connect"),
        (UpstreamError("m"), "5xx"),
        (UnavailableError("m"), "5xx"),
    ],
)
def test_why_a_call_is_made_again_is_one_of_few_words(error, why):
    """They are labels."""
    assert again(error) == why


def test_an_answer_that_breaks_is_told_by_how():
    """As one that never came."""
    assert broken(UpstreamConnectError("m")) == "connect"
    assert broken(UpstreamTimeoutError("m")) == "timeout"
    assert broken(UpstreamError("m")) == "bad_answer"
