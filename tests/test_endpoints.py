"""The handler of embeddings by itself: how a body is read, what the headers of an answer say."""

import asyncio
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from gateway.edge.bodies import Bodies
from gateway.edge.endpoints import EmbeddingsEndpoint, ranges
from gateway.embedded import Embedded
from gateway.errors import PayloadTooLargeError
from gateway.keyring import Keyring
from gateway.types import CacheControl


def chunks(*parts, left=False):
    """Return the receive of a client that sends these parts, and leaves after them or stays."""
    messages = [
        {"type": "http.request", "body": part, "more_body": left or number < len(parts) - 1}
        for number, part in enumerate(parts)
    ]
    messages.append({"type": "http.disconnect"})
    waiting = iter(messages)

    async def receive():
        return next(waiting)

    return receive


def read(receive, limit=100):
    return asyncio.run(Bodies(limit).read({"headers": []}, receive))


@given(parts=st.lists(st.binary(max_size=9), min_size=1, max_size=6), limit=st.integers(0, 60))
def test_a_body_is_read_whole_or_refused(parts, limit):
    """However it is cut, by its bytes alone."""
    whole = b"".join(parts)
    if len(whole) <= limit:
        assert read(chunks(*parts), limit) == whole
        return
    with pytest.raises(PayloadTooLargeError):
        read(chunks(*parts), limit)


def test_an_announced_length_over_the_limit_is_refused_unread():
    """Nobody waits for sixteen megabytes to refuse them."""

    async def receive():
        raise AssertionError("it was read")

    scope = {"headers": [(b"content-length", b"101")]}
    with pytest.raises(PayloadTooLargeError):
        asyncio.run(Bodies(100).read(scope, receive))


def test_a_body_without_end_is_refused_at_the_limit():
    """Chunks tell no length beforehand; not one more is taken than is needed to know."""
    taken = 0

    async def receive():
        nonlocal taken
        taken += 1
        assert taken <= 11, "it was read beyond the limit"
        return {"type": "http.request", "body": b"x" * 10, "more_body": True}

    with pytest.raises(PayloadTooLargeError):
        read(receive)
    assert taken == 11


@pytest.mark.parametrize("parts", [(), (b"{",), (b"{", b"}")])
def test_a_client_that_leaves_in_the_middle_is_no_request(parts):
    """What came of it is forgotten."""
    with pytest.raises(ClientDisconnect):
        read(chunks(*parts, left=True))


@given(st.sets(st.integers(0, 2047)))
@example(set(range(0, 2048, 2)))
@example({7})
def test_positions_are_told_as_ranges_that_fit_into_a_header(positions):
    """Read back they are the same, and 8 KiB hold any of them."""
    said = ranges(sorted(positions)).decode()
    parts = [part.split("-") for part in said.split(",") if part]
    told = [n for first, *last in parts for n in range(int(first), int((last or [first])[0]) + 1)]
    assert told == sorted(positions)
    assert len(said) < 8192


def test_an_answer_says_what_was_cut_and_what_was_billed():
    """By the positions of the inputs; how old it is; what the upstream said of its limits."""

    class Line:
        async def create(self, request, caller, *, deadline):
            self.asked = request, caller, deadline
            return Embedded(
                model="m",
                fragments=[b"[1.0]", b"[1.0]"],
                tokens=9,
                sources={"memory": 1, "upstream": 1},
                age=12.9,
                truncated=[0, 1],
                billed=7,
                stored=1,
                headers={"x-ratelimit-limit-requests": "3"},
            )

    async def scene():
        line, sent = Line(), []

        async def send(message):
            sent.append(message)

        endpoint = EmbeddingsEndpoint(line, Keyring([]), bodies=Bodies(100), request_timeout=60)
        scope = {"headers": [(b"cache-control", b"max-age=60")]}
        body = b'{"model":"m","input":["a","b"],"seed":7}'
        before = asyncio.get_running_loop().time()
        await endpoint(scope, chunks(body), send)
        request, caller, deadline = line.asked
        assert (list(request.inputs), request.seed, caller.tenant) == (["a", "b"], 7, "default")
        assert request.cache == CacheControl(max_age=60)
        assert 60 <= deadline - before < 61
        assert scope["gateway.model"] == "m"
        return sent

    start, body = asyncio.run(scene())
    assert {name.decode(): value.decode() for name, value in start["headers"]} == {
        "content-type": "application/json",
        "content-length": str(len(body["body"])),
        "cache-status": 'gateway; fwd=partial; stored; detail="memory=1, upstream=1"',
        "age": "12",
        "x-gateway-billed-tokens": "7",
        "x-gateway-truncated": "0-1",
        "x-ratelimit-limit-requests": "3",
    }
    assert json.loads(body["body"])["usage"]["total_tokens"] == 9
