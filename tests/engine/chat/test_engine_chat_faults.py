"""What a client is told when a writer fails. The writers here are plain Python, and fail."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from gateway.engine.faults import RefusedError
from gateway.engine.http import Health
from gateway.engine.pool import Pool
from gateway.errors import GatewayError, InvalidRequestError

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("llama")]


class Failing:
    """A hand that puts some parts and then fails; a preparer that takes any body."""

    def __init__(self, error, parts):
        self.error, self.parts = error, parts

    def __call__(self, job):
        for part in self.parts:
            job.outbox.put(part)
        raise self.error

    def close(self):
        pass

    def prepare(self, body):
        request = {"seed": 1, "n": 1, "model": "m", "top_logprobs": None, "include_usage": False}
        request |= {"schema": None, "stream": json.loads(body)}
        return SimpleNamespace(request=SimpleNamespace(**request))


def said(error, *, parts=(), stream=False):
    """Return the status, the headers and the body that an app sends."""
    from gateway.engine.chat.app import ChatApp

    hand = Failing(error, parts)
    pool = Pool(lambda _: hand, 1, max_queue=1, clock=time.monotonic)
    asked = [{"type": "http.request", "body": json.dumps(stream).encode()}]
    sent = []

    async def receive():
        if asked:
            return asked.pop()
        return await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    async def run(app):
        await app({"method": "POST", "path": "/v1/chat/completions"}, receive, send)

    try:
        with ThreadPoolExecutor(1) as preparing:
            health = Health({"fingerprint": "fp"}, dict)
            app = ChatApp(
                hand, preparing, pool, health, clock=time.time, randbits=lambda bits: bits
            )
            asyncio.run(run(app))
    finally:
        pool.close()
    head, *bodies = sent
    headers = {name.decode(): value.decode() for name, value in head["headers"]}
    return head["status"], headers, b"".join(message["body"] for message in bodies)


def errors():
    from gateway.engine.chat.faults import DecodeFailedError, GrammarError

    return {
        (500, "decode_failed"): DecodeFailedError("code 3"),
        (400, None): GrammarError("leads nowhere"),
        (503, "engine_out_of_memory"): RefusedError("no memory"),
        (500, "x"): GatewayError("x", code="x"),
    }


@pytest.mark.parametrize("stream", [False, True])
def test_before_the_first_part_a_failure_is_a_refusal_with_its_status(stream):
    """Streamed or not."""
    for (status, code), error in errors().items():
        found, headers, body = said(error, stream=stream)
        assert (status, code) == (found, json.loads(body)["error"]["code"])
        assert "application/json" == headers["content-type"]
        assert ("retry-after" in headers) == (status == 503)


def test_after_the_first_part_a_failure_is_an_event_of_the_stream():
    """The last one: a stream that failed is not done."""
    from gateway.engine.chat.answer import Part

    for (_, code), error in errors().items():
        status, headers, body = said(error, parts=[Part(0, {"content": "a"})], stream=True)
        first, last, rest = body.split(b"\n\n")
        assert (200, b"") == (status, rest)
        assert headers["content-type"].startswith("text/event-stream")
        assert "a" == json.loads(first[6:])["choices"][0]["delta"]["content"]
        assert code == json.loads(last[6:])["error"]["code"]


def test_an_answer_that_is_not_streamed_fails_as_a_whole():
    """Though parts of it were there."""
    from gateway.engine.chat.answer import Part

    status, _, body = said(InvalidRequestError("no"), parts=[Part(0, {"content": "a"})])
    assert (400, "no") == (status, json.loads(body)["error"]["message"])
