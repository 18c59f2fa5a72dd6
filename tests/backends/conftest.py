"""Fixtures of the transport suites: both event loops, both clients."""

import pytest

from gateway.backends.aiohttp_transport import AiohttpTransport
from gateway.backends.httpx_transport import HttpxTransport
from gateway.backends.reach import TransportSettings
from tests.backends.sockets import CAP


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request):
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture(params=[AiohttpTransport, HttpxTransport], ids=["aiohttp", "httpx2"])
async def make(request, monkeypatch):
    """Make transports that are closed in the end, far from any proxy of this machine."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    made = []

    def make(**settings):
        settings = {"connect_timeout": 5.0, "pool": 100, "max_answer": CAP} | settings
        made.append(request.param(TransportSettings(**settings)))
        return made[-1]

    yield make
    for transport in made:
        await transport.aclose()
