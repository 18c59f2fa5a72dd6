"""Open answers, watched: what their headers say counts once, how they broke once more."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from gateway.backends.aiohttp_transport import AiohttpTransport
from gateway.backends.reach import TransportSettings
from gateway.errors import UpstreamConnectError, UpstreamError, UpstreamTimeoutError
from gateway.metrics.collectors import Metrics
from gateway.metrics.observed import ObservedTransport
from tests.backends.sockets import BEGUN, OK, chunk, listen, opening


def outcomes(answer, scene, **settings):
    """Run a scene with a watched transport; return the outcomes counted, and the time observed."""

    async def main():
        settings_ = {"connect_timeout": 5.0, "pool": 9, "max_answer": 1000} | settings
        registry = CollectorRegistry()
        metrics = Metrics(registry, str)
        inner = AiohttpTransport(TransportSettings(**settings_))
        watched = ObservedTransport(inner, metrics, "up", iter(range(100)).__next__)
        async with listen(answer) as wire:
            await scene(watched, wire.url)
            await watched.aclose()
        metrics.flush()
        counted = {
            sample.labels["outcome"]: sample.value
            for family in registry.collect()
            for sample in family.samples
            if sample.name == "gateway_upstream_requests_total" and sample.value
        }
        times = registry.get_sample_value(
            "gateway_upstream_duration_seconds_sum", {"upstream": "up"}
        )
        return counted, times

    return asyncio.run(main())


async def read(transport, url):
    opened = await opening(transport, url, silence=0.2, timeout=5)
    assert (opened.status, opened.headers["content-length"]) == (200, "2")
    assert await opened.read() == b"{}"
    await opened.aclose()


def test_an_answer_that_is_read_passes_through():
    """Its status, headers and bytes; its time is that until the headers."""
    assert outcomes(OK, read) == ({"ok": 1}, 1)
    busy = OK.replace(b"200 OK", b"429 Busy")

    async def refused(transport, url):
        assert (await opening(transport, url)).status == 429

    assert outcomes(busy, refused) == ({"429": 1}, 1)


def test_a_call_without_an_answer_is_counted_by_how_it_failed():
    """Before the headers it is as for `send`."""

    async def hang_up(call):
        call.hang_up()

    async def mute(call):
        await call.reader.read()

    async def failing(transport, url):
        with pytest.raises(UpstreamError):
            await opening(transport, url, timeout=0.2)

    async def cancelled(transport, url):
        call = asyncio.create_task(opening(transport, url))
        await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    brotli = BEGUN.replace(b"\r\n\r\n", b"\r\ncontent-encoding: br\r\n\r\n")
    assert outcomes(hang_up, failing) == ({"connect": 1}, 1)
    assert outcomes(mute, failing) == ({"timeout": 1}, 1)
    assert outcomes(brotli, failing) == ({"bad_answer": 1}, 1)
    assert outcomes(mute, cancelled) == ({"cancelled": 1}, 1)


@pytest.mark.parametrize(
    ("end", "error", "outcome", "whole"),
    [
        ("cut", UpstreamConnectError, "connect", True),
        ("cut", UpstreamConnectError, "connect", False),
        ("silent", UpstreamTimeoutError, "timeout", True),
        ("silent", UpstreamTimeoutError, "timeout", False),
        # Nobody bounds an answer that is read piece by piece.
        ("large", UpstreamError, "bad_answer", True),
    ],
)
def test_an_answer_that_breaks_later_counts_once_more(end, error, outcome, whole):
    """Ok by its headers, and then how it ended; the time is not observed again."""

    async def say(call):
        await call.say(BEGUN + chunk(b"x" * (2000 if end == "large" else 5)))
        if end == "cut":
            call.hang_up()
        await call.reader.read()

    async def scene(transport, url):
        opened = await opening(transport, url, silence=0.2)
        if not whole:
            assert await anext(aiter(opened))
        with pytest.raises(error):
            await (opened.read() if whole else anext(aiter(opened)))

    assert outcomes(say, scene) == ({"ok": 1, outcome: 1}, 1)


def test_who_closes_or_cancels_breaks_nothing():
    """A client that leaves is no failure of the upstream."""

    async def hold(call):
        await call.say(BEGUN + chunk(b"first"))
        await call.reader.read()

    async def closed(transport, url):
        opened = await opening(transport, url)
        async for _ in opened:
            break
        await opened.aclose()

    async def cancelled(transport, url):
        opened = await opening(transport, url)
        reading = asyncio.create_task(opened.read())
        await asyncio.sleep(0.05)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

    for scene in (closed, cancelled):
        assert outcomes(hold, scene) == ({"ok": 1}, 1)
