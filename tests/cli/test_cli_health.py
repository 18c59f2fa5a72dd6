"""`gateway health`: what it says of a gateway, and that nothing else is asked."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.backends.sockets import make_authority
from tests.cli.commands import gateway
from tests.processes import gateway_process
from tests.redis_server import free_port
from tests.running import one_model
from tests.served import Served, serve

NOBODY = "http://127.0.0.1:9"
SLOW_TO_GO = one_model(f"{NOBODY}/v1", rest='[server]\ndrain_delay = "3s"')


def test_a_gateway_that_is_ready_and_one_that_is_about_to_stop():
    """Who drains still answers, and is not ready; nothing but its address has to be known."""
    with gateway_process(SLOW_TO_GO) as served:
        asked = ("health", "--url", served.address)
        assert gateway(*asked).stdout == "ready\n"
        # Proxies are for the world outside, and the config may have been broken since.
        alone = {"HTTP_PROXY": NOBODY, "http_proxy": NOBODY, "GATEWAY_CONFIG": "/nowhere.toml"}
        assert gateway("health", GATEWAY_HEALTH_URL=served.address, **alone).stdout == "ready\n"
        served.process.send_signal(signal.SIGTERM)
        served.wait_for(lambda: served.events("stopping"), timeout=10, what="its end")
        said = gateway(*asked, code=1).stderr
        assert said == f"error: {served.address}/health/ready: draining\n"
        assert gateway(*asked, "--live").stdout == "live\n"
        served.ends_well()


def test_nobody_is_not_ready():
    """Nobody answers, or somebody else: exit code 1 and one line."""
    address = f"http://127.0.0.1:{free_port()}"
    said = gateway("health", "--url", address, code=1).stderr
    assert said.startswith(f"error: {address}/health/ready: ")
    assert "refused" in said


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://x", "http://", "http://x/v1", "http://x:y"]
)
def test_an_address_that_is_none_is_refused(url):
    """Without a traceback."""
    said = gateway("health", "--url", url, code=1).stderr
    assert said.startswith(f"error: {url}/health/ready: ")
    assert said.count("\n") == 1


async def _elsewhere(_: Request) -> Response:
    return RedirectResponse("/health/live")


async def _page(_: Request) -> Response:
    return Response("<p>ready</p>", media_type="text/html")


@pytest.fixture
def stranger() -> Iterator[Served]:
    """A server that is no gateway."""
    routes = [Route("/health/ready", _elsewhere), Route("/health/live", _page)]
    with serve(Starlette(routes=routes)) as served:
        yield served


@pytest.mark.parametrize("options", [[], ["--live"]])
def test_a_stranger_is_not_ready(stranger, options):
    """A redirection is not followed, and what is no gateway's answer is none."""
    assert gateway("health", "--url", stranger.address, *options, code=1).stderr.count("\n") == 1


async def _drop_by_drop() -> AsyncIterator[bytes]:
    while True:
        yield b" "
        await asyncio.sleep(0.1)


async def _flood() -> AsyncIterator[bytes]:
    yield b'{"status": "ready"'
    while True:
        yield b" " * 1_000_000
        await asyncio.sleep(0)  # else the server would never learn that its client has left


@pytest.mark.parametrize(("body", "said"), [(_drop_by_drop, "timed out"), (_flood, "truncated")])
def test_an_answer_without_an_end_is_none(body, said):
    """Neither is it waited for beyond the limit of whoever asks, nor is all of it held."""

    async def answer(_: Request) -> Response:
        return StreamingResponse(body())

    with serve(Starlette(routes=[Route("/health/ready", answer)])) as served:
        assert said in gateway("health", "--url", served.address, code=1).stderr


def test_a_strangers_words_do_nothing_to_a_terminal():
    """They stay one line, in which nothing is an escape sequence."""

    async def answer(_: Request) -> Response:
        return JSONResponse({"status": "\x1b]0;mine\x07\nready"})

    with serve(Starlette(routes=[Route("/health/ready", answer)])) as served:
        assert gateway("health", "--url", served.address).stdout == "�]0;mine��ready\n"


def test_any_certificate_will_do(tmp_path: Path):
    """It is asked on this machine, mostly under another name than the certificate's."""
    authority, certificate, key = make_authority(tmp_path)
    tls = f'[server]\ntls_cert = "{certificate}"\ntls_key = "{key}"'
    with gateway_process(one_model(f"{NOBODY}/v1", rest=tls), authority=authority) as served:
        assert served.address.startswith("https:")
        assert gateway("health", "--url", served.address).stdout == "ready\n"


HEAVY = {"asyncio", "httpx2", "numpy", "starlette", "structlog", "uvicorn", "uvloop"}
RUN = """
import sys
from gateway.cli import main
try:
    main(["health", "--url", sys.argv[1]])
except SystemExit:
    print(*{name.partition(".")[0] for name in sys.modules})
"""


def test_it_reads_few_libraries():
    """A container runs it every few seconds."""
    ran = subprocess.run(
        [sys.executable, "-c", RUN, NOBODY], check=True, capture_output=True, timeout=30, text=True
    )
    imported = set(ran.stdout.split())
    assert {"click", "http"} <= imported
    assert imported & HEAVY == set()
