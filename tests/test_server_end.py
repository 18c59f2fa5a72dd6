"""How a server ends: what runs is answered, and who waits on a connection is told, not cut off."""

import asyncio
import json
from contextlib import asynccontextmanager

from gateway.config import Server as Settings
from gateway.edge.middleware import RequestEdge
from gateway.edge.server import bind, make_server
from gateway.logs import open_log

ASK = b"GET /%b HTTP/1.1\r\nhost: x\r\n\r\n"
STREAM = {"type": "http.response.start", "status": 200, "headers": []}


class Slow:
    """Answers when it is told to, as a whole or as a stream, of which a piece comes at once."""

    def __init__(self):
        self.go = asyncio.Event()
        self.begun = asyncio.Semaphore(0)

    async def __call__(self, scope, _, send):
        if scope["path"] == "/stream":
            scope["gateway.streams"] = True
            await send(dict(STREAM, headers=[]))
            await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        if scope["path"] != "/quick":
            self.begun.release()
            await self.go.wait()
        if scope["path"] != "/stream":
            head = [(b"content-length", b"2")]
            await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def serving(grace=30.0):
    """Serve it behind the edge that every request passes; yield all there is."""
    app = Slow()
    edge = RequestEdge(
        app,
        operation=lambda _: "other",
        ended=lambda _: None,
        clock=asyncio.get_running_loop().time,
        log=open_log("error", "json"),
    )
    server = make_server(edge, Settings(drain_timeout=grace))
    with bind("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        running = asyncio.create_task(server.serve([bound]))
        while not server.started:
            await asyncio.sleep(0.005)
        writers = []

        async def ask(path):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(writer)
            writer.write(ASK % path)
            return reader, writer

        async with asyncio.timeout(20):
            yield app, server, running, ask
            server.should_exit = True
            await running
    for writer in writers:
        writer.close()


def test_after_leaving_every_answer_says_that_it_is_the_last():
    """Of a request that runs, of one on a waiting connection, of one on a new connection."""

    async def scene():
        async with serving() as (app, server, _, ask):
            waiting, writer = await ask(b"quick")
            assert b"connection: close" not in await waiting.readuntil(b"ok")
            runs, _ = await ask(b"whole")
            await app.begun.acquire()
            server.leave()
            app.go.set()
            assert b"connection: close" in await runs.read()
            writer.write(ASK % b"quick")
            assert b"connection: close" in await waiting.read()
            new, _ = await ask(b"quick")
            assert b"connection: close" in await new.read()

    asyncio.run(scene())


def test_a_stream_that_has_begun_leaves_its_connection_as_it_said():
    """Its head said that there may be another request: that one is told that it is the last."""

    async def scene():
        async with serving() as (app, server, _, ask):
            reader, writer = await ask(b"stream")
            await app.begun.acquire()
            await reader.readuntil(b"data: 1\n\n")
            server.leave()
            app.go.set()
            await reader.readuntil(b"0\r\n\r\n")
            writer.write(ASK % b"quick")
            assert b"connection: close" in await reader.read()

    asyncio.run(scene())


def test_what_runs_has_its_time_and_the_server_ends_with_it():
    """A waiting connection is closed only then, as a request may be on its way on it."""

    async def scene():
        async with serving() as (app, server, running, ask):
            waiting, writer = await ask(b"quick")
            await waiting.readuntil(b"ok")
            runs, _ = await ask(b"whole")
            await app.begun.acquire()
            server.should_exit = True
            await asyncio.sleep(0.5)
            assert not running.done()
            assert server.requests == 1
            writer.write(ASK % b"quick")
            assert (await waiting.read()).endswith(b"ok")
            app.go.set()
            assert (await runs.read()).endswith(b"ok")
            await running

    asyncio.run(scene())


def test_what_runs_too_long_is_ended_with_an_error_where_one_can_be_told():
    """A stream with an event and a proper end; what has not begun with a 503; both say why."""

    async def scene():
        async with serving(grace=0.2) as (app, server, running, ask):
            whole, _ = await ask(b"whole")
            stream, _ = await ask(b"stream")
            await app.begun.acquire()
            await app.begun.acquire()
            server.should_exit = True
            head, _, body = (await whole.read()).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1" in head
            assert json.loads(body)["error"]["code"] == "shutting_down"
            said = await stream.read()
            assert said.endswith(b"0\r\n\r\n")
            event = said[said.index(b'data: {"error"') :].split(b"\r\n")[0]
            assert json.loads(event.strip()[6:])["error"]["code"] == "shutting_down"
            await running

    asyncio.run(scene())


def test_nobody_keeps_the_server_from_ending():
    """A connection that says nothing, one in the midst of a head, one that does not read."""

    async def scene():
        async with serving(grace=0.2) as (_, server, running, ask):
            await ask(b"silent" + b" " * 9)
            reader, _ = await ask(b"quick")
            await reader.readuntil(b"ok")
            _, half = await ask(b"quick")
            half.write(b"GET / HT")
            server.should_exit = True
            await running
            assert not server.server_state.connections

    asyncio.run(scene())


def test_other_settings_hold_for_connections_that_are_open():
    """After a reload; a bad certificate would change nothing."""

    async def scene():
        async with serving() as (_, server, _, ask):
            reader, writer = await ask(b"quick")
            await reader.readuntil(b"ok")
            server.take(Settings(max_header=4096))
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 5000 + b"\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 431 ")

    asyncio.run(scene())
