"""Chats by an upstream: attempts, places and errors, over real connections to a fake OpenAI."""

import asyncio
import json

import pytest

from gateway.backends.aiohttp_transport import AiohttpTransport
from gateway.backends.openai import Endpoint, OpenAIBackend
from gateway.backends.reach import TransportSettings
from gateway.errors import (
    GatewayError,
    InvalidRequestError,
    UnavailableError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamTimeoutError,
)
from gateway.resilience.retry import RetryPolicy
from tests import upstream_chat_behaviours as behave
from tests.backends.sockets import listen
from tests.upstream import FakeOpenAI, serve
from tests.upstream_behaviours import Hang
from tests.upstream_chat import DONE

AT_ONCE = RetryPolicy(chance=lambda: 0.0)
SECRET = "the treasure lies under the third palm tree on the beach"
MESSAGES = [{"role": "user", "content": SECRET}]


@pytest.fixture(scope="module")
def served():
    fake = FakeOpenAI()
    with serve(fake):
        yield fake


@pytest.fixture
def fake(served):
    served.forget()
    return served


def run(address, scene, retry=AT_ONCE, **endpoint):
    """Run a scene with a backend for this address."""

    async def main():
        settings = TransportSettings(connect_timeout=5.0, pool=50, max_answer=100_000)
        endpoint_ = Endpoint(address, api_key="sk-ours-and-secret", **endpoint)
        backend = OpenAIBackend("up", endpoint_, AiohttpTransport(settings), retry)
        try:
            return await scene(backend)
        finally:
            await backend.aclose()

    return asyncio.run(main())


async def chat(
    backend, *, stream=True, seconds=10.0, silence=10.0, quotable=(SECRET,), stand_in=False
):
    body = json.dumps({"model": "m", "messages": MESSAGES, "stream": stream}).encode()
    return await backend.chat(
        body,
        stream=stream,
        quotable=quotable,
        deadline=asyncio.get_running_loop().time() + seconds,
        silence=silence,
        stand_in=stand_in,
    )


async def whole(backend, **options):
    return await (await chat(backend, **options)).read()


def refused(address, **options):
    """Return the error that a chat ends with."""

    async def scene(backend):
        with pytest.raises(GatewayError) as caught:
            await chat(backend, **options)
        return caught.value

    return run(address, scene)


@pytest.mark.parametrize("stream", [True, False])
def test_what_is_sent_and_what_comes_back(fake, stream):
    """The body's bytes go out as they are, with our key; status, headers and bytes come back."""

    async def scene(backend):
        opened = await chat(backend, stream=stream)
        return opened.status, dict(opened.headers), await opened.read()

    status, headers, body = run(fake.base_url, scene)
    (call,) = fake.chat.calls
    assert json.loads(call.request.raw) == {"model": "m", "messages": MESSAGES, "stream": stream}
    assert call.request.headers["authorization"] == "Bearer sk-ours-and-secret"
    assert ("text/event-stream" in call.request.headers["accept"]) == stream
    assert "application/json" in call.request.headers["accept"]
    assert (status, body) == (200, b"".join(call.sent))
    assert headers["x-request-id"].startswith("req_")
    assert headers["content-type"].startswith("text/event-stream" if stream else "application/json")


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_upstream_is_asked_again(fake, status):
    """No answer was begun; and nobody waits longer than it asks for."""
    fake.chat.script(behave.refuse(status, headers={"retry-after-ms": "1"}), behave.refuse(status))
    assert run(fake.base_url, whole).endswith(DONE)
    assert len(fake.chat.calls) == 3


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [
        (behave.refuse(400), 400),
        (behave.refuse(401), 502),
        (behave.refuse(404), 404),
        (behave.refuse(408), 504),
        (behave.refuse(409), 400),
        (behave.refuse(429, code="insufficient_quota"), 429),
        (behave.refuse(500), 502),
        (behave.refuse(502), 502),
        (behave.refuse(504), 504),
        (behave.refuse(307, headers={"location": "http://127.0.0.1:9/"}), 502),
    ],
)
def test_what_may_have_been_billed_is_not_asked_again(fake, behaviour, status):
    """A chat may cost a lot, and some of it was perhaps done."""
    fake.chat.always(behaviour)
    assert refused(fake.base_url).status == status
    assert len(fake.chat.calls) == 1


def test_a_connection_that_breaks_before_the_headers_is_made_again():
    """As an idle one does that the server closed meanwhile; with our attempts spent we say so."""
    for breaks, good in ((2, True), (3, False)):

        async def say(call, breaks=breaks):
            if call.wire.connections <= breaks:
                call.hang_up()
            else:
                await call.say(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

        async def scene(backend, say=say, good=good):
            async with listen(say) as wire:
                backend.upstream._url = lambda path: wire.url + path
                if good:
                    assert await whole(backend) == b"{}"
                else:
                    with pytest.raises(UpstreamConnectError) as caught:
                        await chat(backend)
                    assert caught.value.headers["x-should-retry"] == "false"
                assert wire.connections == 3

        run("http://set-later", scene)


def test_a_slow_upstream_is_not_asked_again(fake):
    """504 at the deadline, after one call, which is called off."""
    fake.chat.always(Hang())

    async def scene(backend):
        with pytest.raises(UpstreamTimeoutError) as caught:
            await chat(backend, seconds=0.2)
        return caught.value

    assert run(fake.base_url, scene).code == "upstream_timeout"
    fake.chat.wait_for_left()
    assert len(fake.chat.calls) == 1


def test_a_long_answer_has_the_time_of_its_request(fake):
    """The upstream's `timeout` is for vectors; JSON that takes long has no headers before."""
    fake.chat.script(behave.slow(0.0, headers=0.3))
    assert b"chat.completion" in run(
        fake.base_url, lambda backend: whole(backend, stream=False), timeout=0.01
    )


def test_silence_after_the_headers_is_the_readers_error(fake):
    """Not asked again either: an answer was begun."""
    hang = Hang()
    fake.chat.always(behave.stall(hang, 2))

    async def scene(backend):
        opened = await chat(backend, silence=0.2)
        with pytest.raises(UpstreamTimeoutError):
            await opened.read()

    run(fake.base_url, scene)
    assert len(fake.chat.calls) == 1
    fake.chat.wait_for_left()


@pytest.mark.parametrize("way", ["read", "iterated", "closed", "cut", "cancelled", "refused"])
def test_an_answer_has_its_place_until_it_is_over(fake, way):
    """One place: the next chat waits while an answer is open, and not a moment longer."""
    hang = Hang()
    first = {
        "cut": behave.cut(2),
        "closed": behave.stall(hang, 2),
        "cancelled": behave.stall(hang, 2),
        "refused": behave.refuse(400),
    }.get(way)
    fake.chat.script(first or behave.batched(3))

    async def end(backend):
        if way == "refused":
            with pytest.raises(InvalidRequestError):
                await chat(backend)
            return
        opened = await chat(backend)
        with pytest.raises(UpstreamTimeoutError, match="No place at upstream 'up'"):
            await chat(backend, seconds=0.05)
        if way == "closed":
            await opened.aclose()
        elif way == "cancelled":
            reading = asyncio.create_task(opened.read())
            await asyncio.sleep(0.05)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        elif way == "iterated":
            assert b"".join([piece async for piece in opened]).endswith(DONE)
        else:
            await asyncio.gather(opened.read(), return_exceptions=True)
        # Twice is once: a place that is given back too often would let two in.
        await opened.aclose()

    async def scene(backend):
        await end(backend)
        opened = await chat(backend)
        with pytest.raises(UpstreamTimeoutError, match="No place"):
            await chat(backend, seconds=0.05)
        await opened.aclose()

    run(fake.base_url, scene, concurrency=1)


def test_who_leaves_the_queue_for_a_place_takes_none_along(fake):
    """Cancelled while waiting, and while its headers were awaited: the next one has its turn."""
    hang = Hang()
    fake.chat.script(hang)

    async def scene(backend):
        asking = asyncio.create_task(chat(backend))
        await asyncio.wrap_future(hang.reached)
        waiting = asyncio.create_task(chat(backend))
        await asyncio.sleep(0.01)
        for task in (waiting, asking):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert (await whole(backend)).endswith(DONE)

    run(fake.base_url, scene, concurrency=1)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (413, "Too much."),
        (500, "input (9000 tokens) is too large to process. increase the physical batch size"),
    ],
)
def test_what_is_too_long_is_said_of_the_messages(fake, status, message):
    """Not of `input`, which a chat does not have."""
    fake.chat.script(behave.refuse(status, message=message))
    error = refused(fake.base_url)
    assert (error.param, error.message) == ("messages", message)
    assert 400 <= error.status < 500


def test_an_error_quotes_neither_the_request_nor_our_key(fake):
    """P8: texts are taken out of the upstream's words, whole or in part, and so is the key."""
    fake.chat.always(
        behave.refuse(400, message=f"Cannot say '{SECRET[:30]}' to sk-ours-and-secret.")
    )
    error = refused(fake.base_url)
    assert error.message == "Cannot say '[text]' to [key]."
    # Of a huge prompt the message is dropped as soon as it quotes anything, and kept otherwise.
    huge = ["x" * 100, "palm " * 200_000 + SECRET + " beach" * 200_000]
    assert refused(fake.base_url, quotable=huge).message == "Upstream 'up' refused the request."
    fake.chat.always(behave.refuse(400, message="The context is 128000 tokens long."))
    assert refused(fake.base_url, quotable=huge).message == "The context is 128000 tokens long."


def test_an_error_whose_words_do_not_come_has_its_status():
    """Cut, silent until the deadline, or too large: the status says enough."""

    async def cut(call):
        await call.say(b"HTTP/1.1 400 Bad\r\ncontent-length: 9\r\n\r\n{")
        call.hang_up()

    async def silent(call):
        await call.say(b"HTTP/1.1 503 Busy\r\ncontent-length: 9\r\nretry-after: 60\r\n\r\n{")
        await call.reader.read()

    async def large(call):
        await call.say(b"HTTP/1.1 400 Bad\r\ncontent-length: 999999\r\n\r\n{")
        await call.reader.read()

    expected = {cut: InvalidRequestError, silent: UnavailableError, large: InvalidRequestError}
    for say, kind in expected.items():

        async def scene(backend, say=say, kind=kind):
            async with listen(say) as wire:
                backend.upstream._url = lambda path: wire.url + path
                with pytest.raises(kind):
                    await chat(backend, seconds=0.3)
                await asyncio.wait_for(wire.left.wait(), 5)
                assert wire.connections == 1

        run("http://set-later", scene)


def test_an_answer_nobody_can_decode_is_refused():
    """By its headers, before the chat is said to have begun; it is not asked for again."""

    async def say(call):
        await call.say(b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 9\r\n\r\n")
        await call.reader.read()

    async def scene(backend):
        async with listen(say) as wire:
            backend.upstream._url = lambda path: wire.url + path
            with pytest.raises(UpstreamError, match="compressed"):
                await chat(backend)
            assert wire.connections == 1

    run("http://set-later", scene)


def test_many_chats_at_a_time_keep_apart(fake):
    """60 over 20 places, some of which are left early: each reads its own answer, in order."""
    fake.chat.always(behave.batched(2))

    async def scene(backend):
        async def one(number):
            opened = await chat(backend)
            if number % 3 == 0:
                await anext(aiter(opened))
                await opened.aclose()
                return None
            return await opened.read()

        return await asyncio.gather(*(one(number) for number in range(60)))

    answers = [answer for answer in run(fake.base_url, scene, concurrency=20) if answer]
    assert len(set(answers)) == 40
    said = {b"".join(call.sent) for call in fake.chat.calls}
    assert set(answers) <= said


def test_an_answer_that_breaks_is_held_against_the_upstream(fake):
    """Headers alone are half an answer; one that is closed or cancelled says nothing."""

    async def scene(backend):
        hang = Hang()
        fake.chat.script(behave.stall(hang, 2))
        await (await chat(backend)).aclose()
        assert backend.circuit.reason is None
        for behaviour, reason in ((behave.cut(2), "connect"), (behave.stall(Hang(), 2), "timeout")):
            fake.chat.script(behaviour)
            opened = await chat(backend, silence=0.1)
            with pytest.raises(UpstreamError):
                await opened.read()
            assert backend.circuit.reason == reason

    run(fake.base_url, scene)


def test_a_chat_with_a_stand_in_is_asked_once(fake):
    """Another upstream may be quicker than the second try."""

    async def scene(backend):
        fake.chat.script(behave.refuse(503), behave.batched(2))
        with pytest.raises(UnavailableError):
            await chat(backend, stand_in=True)
        assert len(fake.chat.calls) == 1
        assert (await whole(backend, stand_in=True)).endswith(DONE)

    run(fake.base_url, scene)
