"""Chats by an engine of ours: its replacement is waited for, its errors are its own words."""

import asyncio
import json
from contextlib import asynccontextmanager, suppress

import pytest

from gateway.backends.aiohttp_transport import AiohttpTransport
from gateway.backends.local import LocalBackend
from gateway.backends.reach import TransportSettings
from gateway.errors import GatewayError, InvalidRequestError, UnavailableError, UpstreamConnectError
from gateway.resilience.retry import RetryPolicy
from gateway.types import ModelInfo

PATIENT = RetryPolicy(chance=lambda: 1.0, attempts=None, base=0.01, cap=0.02)
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 5\r\n\r\n"


def reply(status, body, *headers):
    lines = [b"HTTP/1.1 %d X" % status, b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def error(message, **keys):
    return json.dumps({"error": {"message": message, "type": "t"} | keys}).encode()


@asynccontextmanager
async def engine(tmp_path, *answers, state="ready", retry=PATIENT):
    """Serve these answers on a Unix socket, one a connection; b"" hangs up. Yields a backend."""
    left, paths, talks = iter(answers), [], set()

    async def talk(reader, writer):
        talks.add(asyncio.current_task())
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            paths.append(head.split()[1])
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
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
        "local", AiohttpTransport(settings), retry, ModelInfo(), status,
        contexts=1, concurrency=9, max_queue=9,
    )  # fmt: skip
    backend.paths = paths
    try:
        yield backend
    finally:
        await backend.aclose()
        server.close()
        await asyncio.gather(*talks)


async def chat(backend, seconds=10.0, quotable=("messages", "a text")):
    deadline = asyncio.get_running_loop().time() + seconds
    return await backend.chat(
        b'{"model":"m"}', stream=True, quotable=quotable, deadline=deadline, silence=5.0
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
