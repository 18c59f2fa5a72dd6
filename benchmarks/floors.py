"""What any gateway here would cost at least: `python -m benchmarks.floors NAME PORT WHAT`.

    starlette  a starlette route that passes a body on through aiohttp; WHAT is the upstream's base
    bare       the same without starlette
    relay      as bare, but for chats: bytes are sent on as they come
    ready      the answer to each known body, ready-made; WHAT is a directory of N.request, N.answer

Each on uvicorn with uvloop and httptools, without access log, as the gateway runs. They check,
parse and keep nothing.
"""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

JSON = {"content-type": "application/json"}
HEALTH = b"{}"


def starlette_app(upstream: str) -> ASGIApp:
    """Return the pass-through with starlette."""
    sessions: list[aiohttp.ClientSession] = []

    async def embeddings(request: Request) -> Response:
        body = await request.body()
        async with sessions[0].post(f"{upstream}/embeddings", data=body, headers=JSON) as answer:
            return Response(await answer.read(), answer.status, media_type="application/json")

    async def health(request: Request) -> Response:  # noqa: ARG001
        return Response(HEALTH)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001
        async with aiohttp.ClientSession() as session:
            sessions.append(session)
            yield

    routes = [Route("/health", health), Route("/v1/embeddings", embeddings, methods=["POST"])]
    return Starlette(routes=routes, lifespan=lifespan)


class BareApp:
    """The pass-through as an ASGI callable."""

    path = "/embeddings"

    def __init__(self, upstream: str) -> None:
        self._url = upstream + self.path
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            await answer(send, HEALTH)
            return
        if self._session is None:
            self._session = aiohttp.ClientSession()
        body = (await receive())["body"]
        async with self._session.post(self._url, data=body, headers=JSON) as reply:
            await self.pass_on(reply, send)

    async def pass_on(self, reply: aiohttp.ClientResponse, send: Send) -> None:
        """Send the upstream's answer on."""
        await answer(send, await reply.read())


class RelayApp(BareApp):
    """The same for chats: each piece of a body goes on as it comes."""

    path = "/chat/completions"

    async def pass_on(self, reply: aiohttp.ClientResponse, send: Send) -> None:
        """Send the upstream's answer on."""
        headers = [(b"content-type", reply.headers["content-type"].encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for piece in reply.content.iter_any():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class ReadyApp:
    """Looks the answer up by the body's bytes."""

    def __init__(self, directory: str) -> None:
        asked = Path(directory).glob("*.request")
        self._answers = {
            path.read_bytes(): path.with_suffix(".answer").read_bytes() for path in asked
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            await answer(send, HEALTH)
            return
        await answer(send, self._answers[(await receive())["body"]])


async def answer(send: Send, body: bytes) -> None:
    """Send a JSON body with status 200."""
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main(name: str, port: str, what: str) -> None:
    """Serve one floor until a signal comes."""
    apps: dict[str, Callable[[str], ASGIApp]] = {
        "starlette": starlette_app,
        "bare": BareApp,
        "relay": RelayApp,
        "ready": ReadyApp,
    }
    uvicorn.run(
        apps[name](what),
        host="127.0.0.1",
        port=int(port),
        loop="uvloop",
        http="httptools",
        lifespan="on" if name == "starlette" else "off",
        access_log=False,
        server_header=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
