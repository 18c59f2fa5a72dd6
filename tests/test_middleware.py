"""What every request gets, seen from a bare ASGI application inside."""

import asyncio
import io
import json

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gateway.edge.endpoints import CACHE, WAITED
from gateway.edge.middleware import RequestEdge
from gateway.errors import RateLimitError
from gateway.logs import open_log
from gateway.types import Asked


class Scene:
    """One edge around one application; what it sent, observed and logged."""

    def __init__(self, app, *, level="debug"):
        self.sent, self.begun, self.observed, self.now = [], [], [], 100.0
        self.stream = io.StringIO()
        self.edge = RequestEdge(
            app,
            operation=lambda path: "embeddings" if path == "/known" else "other",
            begun=self.begun.append,
            ended=self.observed.append,
            clock=lambda: self.now,
            log=open_log(level, "json", self.stream),
        )

    def ask(self, path="/known", **scope):
        async def send(message):
            self.sent.append(message)

        async def receive():
            return {"type": "http.disconnect"}

        scope = {"type": "http", "method": "POST", "path": path, "headers": []} | scope
        asyncio.run(self.edge(scope, receive, send))
        return self

    @property
    def status(self):
        return self.sent[0]["status"]

    @property
    def headers(self):
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def lines(self):
        return list(map(json.loads, self.stream.getvalue().splitlines()))


async def fine(scope, receive, send):
    scope["gateway.model"] = "m"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
    await send({"type": "http.response.body", "body": b"x"})


def failing(error, *, begun=False):
    async def app(scope, receive, send):
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    return app


def test_an_answer_gets_its_headers_and_is_observed_once():
    """Id, time, one observation with operation, model and status, and one line at debug level."""
    scene = Scene(fine).ask()
    assert scene.headers["a"] == "b"
    assert scene.headers["openai-processing-ms"] == "0"
    assert scene.observed == [Asked("embeddings", "m", 200, 0.0)]
    (line,) = scene.lines
    assert (line["event"], line["operation"], line["status"], line["id"]) == (
        "request", "embeddings", 200, scene.headers["x-request-id"],
    )  # fmt: skip


def test_time_is_told_as_it_passes():
    """Milliseconds to the first byte for the client, seconds to the end for the metrics."""

    async def slow(scope, receive, send):
        scene.now += 0.0129
        await send({"type": "http.response.start", "status": 200, "headers": []})
        scene.now += 1
        await send({"type": "http.response.body", "body": b""})

    scene = Scene(slow)
    scene.ask()
    assert scene.headers["openai-processing-ms"] == "12"
    assert scene.observed[0].seconds == pytest.approx(1.0129)


def test_a_gateways_own_time_is_what_is_left_to_the_first_byte():
    """Waiting for an upstream is not its own, nor what a client takes to read."""

    async def slow(scope, receive, send):
        scope[CACHE], scope[WAITED] = "partial", 2.0
        scene.now += 2.25
        await send({"type": "http.response.start", "status": 200, "headers": []})
        scene.now += 5.0
        await send({"type": "http.response.body", "body": b"x"})

    scene = Scene(slow)
    scene.ask()
    assert scene.begun == ["embeddings"]
    assert scene.observed == [Asked("embeddings", None, 200, 7.25, "partial", 0.25)]


def test_paths_nobody_knows_are_one_operation_and_stand_in_no_log():
    """A client may write anything there."""
    scene = Scene(fine).ask("/a/canary/text")
    assert scene.observed[0].operation == "other"
    assert "canary" not in scene.stream.getvalue()


def test_nothing_is_logged_of_a_request_above_debug_level():
    """An access line a request would cost more than a cached answer."""
    assert Scene(fine, level="info").ask().lines == []


def test_our_errors_are_rendered_with_their_headers():
    """Status, OpenAI's body, and what the error says beside it."""
    error = RateLimitError("Slow down.", headers={"retry-after": "3"})
    scene = Scene(failing(error)).ask()
    assert (scene.status, scene.headers["retry-after"]) == (429, "3")
    assert scene.headers["content-type"] == "application/json"
    assert int(scene.headers["content-length"]) == len(scene.sent[1]["body"])
    assert json.loads(scene.sent[1]["body"])["error"]["message"] == "Slow down."
    assert scene.observed == [Asked("embeddings", None, 429, 0.0)]


def test_what_the_router_raises_is_rendered_too():
    """404 with what is served, 405 with what is allowed."""
    assert Scene(failing(HTTPException(404))).ask().status == 404
    scene = Scene(failing(HTTPException(405, headers={"Allow": "GET, HEAD"}))).ask()
    assert (scene.status, scene.headers["allow"]) == (405, "GET, HEAD")


def test_an_unforeseen_error_is_told_by_its_place_and_not_its_message():
    """The client gets a 500, the log the lines; neither gets what the message might quote."""
    scene = Scene(failing(ValueError("canary"))).ask(headers=[(b"x-request-id", b"mine")])
    error = json.loads(scene.sent[1]["body"])["error"]
    assert (scene.status, error["type"], error["code"]) == (500, "server_error", "internal_error")
    unforeseen, request = scene.lines
    assert (unforeseen["kind"], unforeseen["id"], unforeseen["level"]) == (
        "ValueError",
        "mine",
        "error",
    )
    assert "test_middleware.py" in unforeseen["at"][-1]
    assert request["status"] == 500
    assert "canary" not in scene.stream.getvalue()


def test_an_error_after_the_first_byte_cannot_be_rendered():
    """The status stands; the log has the place, and the observation what was sent."""
    scene = Scene(failing(ValueError("canary"), begun=True)).ask()
    assert len(scene.sent) == 1
    assert scene.observed == [Asked("embeddings", None, 200, 0.0)]
    assert "unforeseen error" in [line["event"] for line in scene.lines]


@pytest.mark.parametrize("error", [ClientDisconnect(), asyncio.CancelledError()])
def test_a_client_that_left_is_a_499(error):
    """Nothing is sent, nothing is an error, and the metrics know."""
    scene = Scene(failing(error))
    if isinstance(error, asyncio.CancelledError):
        with pytest.raises(asyncio.CancelledError):
            scene.ask()
    else:
        scene.ask()
    assert (scene.sent, scene.observed) == ([], [Asked("embeddings", None, 499, 0.0)])
    assert ["request"] == [line["event"] for line in scene.lines]


def test_what_is_no_request_passes_through():
    """The lifespan has no headers, no time and no end."""
    seen = []

    async def lifespan(scope, receive, send):
        seen.append(scope["type"])

    scene = Scene(lifespan).ask(type="lifespan")
    assert (seen, scene.observed, scene.lines) == (["lifespan"], [], [])
