"""A gateway of one's own for as long as a block runs, in the event loop of who needs it."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from gateway.backends.local import EngineStatus
from gateway.config import Config, LlamaUpstream, Upstream
from gateway.process import Running, run
from gateway.server import listen


@asynccontextmanager
async def hosted(config: Config) -> AsyncIterator[str]:
    """Run the gateway of this config, but on a free port of this machine; yield its base_url.

    It asks for no key, and loads a local model when it is asked for. Raises ConfigError and
    StartError like `process.serve`.
    """
    config = _for_oneself(config)
    directory = Path(tempfile.mkdtemp(prefix="embedding-gateway-"))
    listens: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stopping = asyncio.Event()

    def announce(base_url: str, _: Mapping[str, EngineStatus]) -> None:
        listens.set_result(base_url)

    try:
        listeners = listen(config.server)
        # Who connects before the server has started waits in the backlog.
        running = Running(config, listeners, directory)
        serving = asyncio.create_task(run(running, announce, stopping))
        try:
            either: list[asyncio.Future[Any]] = [serving, listens]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if listens.done():
                yield listens.result()
        finally:
            stopping.set()
            await serving
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _for_oneself(config: Config) -> Config:
    server = replace(
        config.server,
        host="127.0.0.1",
        port=0,
        workers=1,
        admin=None,
        tls_cert=None,
        tls_key=None,
        log_level="warning",
        log_format="auto",
    )
    upstreams: dict[str, Upstream] = {
        name: replace(upstream, load="first-use")
        if isinstance(upstream, LlamaUpstream)
        else upstream
        for name, upstream in config.upstreams.items()
    }
    return replace(config, server=server, upstreams=upstreams, keys=())
