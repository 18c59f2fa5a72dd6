"""Chats by an engine of ours: its replacement is waited for, its errors are its own words."""

import asyncio
import json
from contextlib import asynccontextmanager, suppress

import pytest

from gateway.backends.aiohttp_transport import AiohttpTransport
from gateway.backends.endpoint import Endpoint
from gateway.backends.local import ADDRESS, LocalBackend
from gateway.backends.reach import TransportSettings
from gateway.errors import GatewayError, InvalidRequestError, UnavailableError, UpstreamConnectError
from gateway.resilience.retry import RetryPolicy
from gateway.types import Caller, ModelInfo

PATIENT = RetryPolicy(chance=lambda: 1.0, attempts=None, base=0.01, cap=0.02)
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 5\r\n\r\n"


def reply(status, body, *headers):
    lines = [b"HTTP/1.1 %d X" % status, b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def error(message, **keys):
    return json.dumps({"error": {"message": message, "type": "t"} | keys}).encode()


@asynccontextmanager
async def engine(tmp_path, *answers, state="ready", retry=PATIENT, **endpoint):
    """Serve these answers on a Unix socket, one a connection; b"" hangs up. Yields a backend."""
    left, paths, talks = iter(answers), [], set()

    async def talk(reader, writer):
        talks.add(asyncio.current_task())
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            paths.append(head.split()[1])
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
            await reader.readexactly(length)
            writer.write(next(left))
            await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    path, status = tmp_path / "engine.sock", tmp_path / "status"
    status.write_text(json.dumps({"state": state, "reason": "no such file"}))
    server = await asyncio.start_unix_server(talk, path)
    settings = TransportSettings(connect_timeout=5.0, pool=9, max_answer=99_999, uds=str(path))
    backend = LocalBackend(
        "local",
        Endpoint(ADDRESS, **endpoint),
        AiohttpTransport(settings),
        retry,
        ModelInfo(),
        status,
        contexts=1,
    )
    backend.paths = paths
    try:
        yield backend
    finally:
        await backend.aclose()
        server.close()
        await asyncio.gather(*talks)


async def chat(backend, seconds=10.0, quotable=("messages", "a text"), stand_in=False):
    return await backend.chat(
        b'{"model":"m"}',
        stream=True,
        quotable=quotable,
        deadline=asyncio.get_running_loop().time() + seconds,
        silence=5.0,
        stand_in=stand_in,
    )


def test_an_engine_that_is_replaced_is_waited_for(tmp_path):
    """As often as it takes, as long as no headers came; then the answer is read as it is."""

    async def scene():
        async with engine(tmp_path, b"", b"HTTP/1.1 2", b"", STREAM + b"hello") as backend:
            assert await (await chat(backend)).read() == b"hello"
            assert len(backend.paths) == 4
            assert {path.removeprefix(b"/v1") for path in backend.paths} == {b"/chat/completions"}

    asyncio.run(scene())


def test_an_engine_that_dies_within_its_answer_is_not_asked_again(tmp_path):
    """Something was told already."""

    async def scene():
        async with engine(tmp_path, STREAM + b"hel") as backend:
            opened = await chat(backend)
            with pytest.raises(UpstreamConnectError):
                await opened.read()
            assert len(backend.paths) == 1

    asyncio.run(scene())


def test_an_engine_that_does_not_come_back_is_a_503(tmp_path):
    """With the wait in the SDKs' headers; one that failed for good says why."""
    brief = RetryPolicy(chance=lambda: 1.0, attempts=3, base=0.01)

    async def scene():
        async with engine(tmp_path, *[b""] * 3, retry=brief) as backend:
            with pytest.raises(UnavailableError) as caught:
                await chat(backend)
            assert caught.value.code == "engine_unavailable"
            assert caught.value.headers["retry-after"] == "1"
        async with engine(tmp_path / "..", state="failed") as backend:
            with pytest.raises(UnavailableError, match="no such file"):
                await chat(backend)

    asyncio.run(scene())


def test_an_engines_errors_keep_their_words_and_fields(tmp_path):
    """It quotes nobody, so nothing is taken out; 503 and 500 keep their headers."""
    busy = (b"retry-after: 3", b"retry-after-ms: 3000")
    final = b"x-should-retry: false"

    async def failure(answer):
        async with engine(tmp_path, answer) as backend:
            with pytest.raises(GatewayError) as caught:
                await chat(backend)
            return caught.value

    wrong = reply(400, error("'messages' is empty.", param="messages", code="c"))
    raised = asyncio.run(failure(wrong))
    assert type(raised) is InvalidRequestError
    assert (raised.message, raised.param, raised.code) == ("'messages' is empty.", "messages", "c")
    raised = asyncio.run(failure(reply(503, error("Full."), *busy)))
    assert (raised.status, raised.headers["retry-after-ms"]) == (503, "3000")
    raised = asyncio.run(failure(reply(500, error("It died thrice."), final)))
    assert (raised.status, raised.headers["x-should-retry"]) == (500, "false")


def test_with_a_stand_in_an_engine_that_is_not_there_is_not_waited_for(tmp_path):
    """It is being started, or has just died: another upstream serves meanwhile."""

    async def failure(**options):
        async with engine(tmp_path, **options) as backend:
            with pytest.raises(UnavailableError) as caught:
                await chat(backend, stand_in=True)
            return caught.value.code, len(backend.paths)

    assert asyncio.run(failure(state="starting")) == ("engine_unavailable", 0)
    assert asyncio.run(failure(state="failed")) == ("engine_failed", 0)

    async def scene():
        async with engine(tmp_path, b"", STREAM + b"hello") as backend:
            with pytest.raises(UnavailableError):
                await chat(backend, stand_in=True)
            assert len(backend.paths) == 1
            assert await (await chat(backend, stand_in=True)).read() == b"hello"

    asyncio.run(scene())


def test_an_engine_that_keeps_dying_is_not_given_up_by_who_has_no_other(tmp_path):
    """Its keeper sees to it, so no call is refused because of those before."""

    async def scene():
        async with engine(tmp_path, *[b""] * 50, STREAM + b"hello") as backend:
            assert await (await chat(backend)).read() == b"hello"
            assert backend.circuit.state == "closed"

    asyncio.run(scene())


def test_how_an_engine_is_shows_where_it_has_most_to_do(tmp_path):
    """Its figures need no place; an error is none of them."""

    async def scene():
        health = reply(200, b'{"queue_depth": 7}')
        ending = reply(503, error("The engine ends."))
        async with engine(tmp_path, ending, health, concurrency=1) as backend:
            taken = await backend.upstream.places.take(Caller(), 1e9)
            assert await backend.health(5.0) is None
            assert await backend.health(5.0) == {"queue_depth": 7}
            backend.upstream.places.leave(taken)

    asyncio.run(scene())


def test_what_an_engine_refuses_because_it_is_full_is_counted_as_ours(tmp_path):
    """As it is our own; another engine that is away is not."""

    async def reason(code):
        async with engine(tmp_path, reply(503, error("m", code=code))) as backend:
            with pytest.raises(UnavailableError) as caught:
                await chat(backend)
            return caught.value.reason

    assert asyncio.run(reason("engine_overloaded")) == "overload"
    assert asyncio.run(reason("engine_out_of_memory")) is None
