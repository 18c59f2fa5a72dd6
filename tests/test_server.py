"""Sockets and the protocol class: what a connection does to the request that runs on it."""

import asyncio
import io
import logging
import socket
from contextlib import suppress

import pytest

from gateway.config import Server as Settings
from gateway.edge.server import bind, make_server


def test_a_taken_address_is_an_error_that_leaves_no_socket():
    """Whoever starts the gateway is told; nothing stays open (warnings are errors here)."""
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            bind("127.0.0.1", taken.getsockname()[1])


def addresses():
    """Yield the kinds of address that this machine has."""
    yield "127.0.0.1", socket.AF_INET
    with suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        yield "::1", socket.AF_INET6


@pytest.mark.parametrize(("host", "family"), list(addresses()))
def test_an_address_of_either_kind_can_be_bound_and_handed_to_workers(host, family):
    """A child process is given the socket, so it has to be inheritable."""
    with bind(host, 0) as bound:
        assert (bound.family, bound.get_inheritable()) == (family, True)


@pytest.fixture
def said():
    """What uvicorn logs, wherever else its lines go."""
    stream, logger = io.StringIO(), logging.getLogger("uvicorn.error")
    handler, level = logging.StreamHandler(stream), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(level)


class Lingering:
    """Answers when it is told to; notes how the request ended."""

    def __init__(self):
        self.begun, self.go = asyncio.Event(), asyncio.Event()
        self.ended = asyncio.get_running_loop().create_future()

    async def __call__(self, scope, _, send):
        if scope["type"] != "http":
            return
        self.begun.set()
        try:
            await self.go.wait()
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})
            self.ended.set_result("answered")
        except asyncio.CancelledError:
            self.ended.set_result("cancelled")
            raise


async def serving(scene, said):
    app = Lingering()
    server = make_server(app, Settings())
    with bind("127.0.0.1", 0) as bound:
        running = asyncio.ensure_future(server.serve([bound]))
        reader, writer = await asyncio.open_connection(*await _listening(server, bound))
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await app.begun.wait()
        await scene(app, server, reader, writer)
        server.should_exit = True
        await running
    return said.getvalue()


async def _listening(server, bound):
    while not server.started:
        await asyncio.sleep(0.005)
    return bound.getsockname()


def test_a_connection_that_closes_cancels_its_request_quietly(said):
    """A client that leaves is no error of ours: nothing is logged."""

    async def leave(app, server, reader, writer):
        writer.close()
        assert await app.ended == "cancelled"
        await writer.wait_closed()

    assert asyncio.run(serving(leave, said)) == ""


def test_a_request_that_the_server_cancels_is_not_taken_for_a_client_that_left(said):
    """The end of the grace is the server's doing, and it may say so."""

    async def cut_short(app, server, reader, writer):
        (task,) = server.server_state.tasks
        task.cancel()
        assert await app.ended == "cancelled"
        assert (await reader.read()).startswith(b"HTTP/1.1 500 ")
        writer.close()
        await writer.wait_closed()

    assert "Exception in ASGI application" in asyncio.run(serving(cut_short, said))


def test_an_answered_request_is_not_cancelled_when_the_connection_closes_later(said):
    """Keep-alive: the connection outlives its requests."""

    async def answered(app, server, reader, writer):
        app.go.set()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204 ")
        assert await app.ended == "answered"
        writer.close()
        await writer.wait_closed()

    assert asyncio.run(serving(answered, said)) == ""
