"""A gateway of one's own for as long as a block runs, in the event loop of who needs it."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from msgspec.structs import replace

from gateway.backends.local import EngineStatus
from gateway.commands.opened import CommandError
from gateway.config import Config, Digest, Key, LlamaUpstream, Upstream
from gateway.edge.server import listen
from gateway.running.process import run
from gateway.running.service import Running
from gateway.running.stopping import Stopping


@dataclass(frozen=True, slots=True)
class Hosted:
    """A gateway that runs, and the one key that it takes."""

    base_url: str
    api_key: str


@asynccontextmanager
async def hosted(config: Config, tenant: str) -> AsyncIterator[Hosted]:
    """Run the gateway of this config, but on a free port of this machine, for this tenant.

    Others on this machine can reach it, and have no key of it. It loads a local model when it is
    asked for. Raises ConfigError and StartError like `process.serve`.
    """
    api_key = token_urlsafe()
    config = _for_oneself(config, Key(name="own", secret=Digest.of(api_key), tenant=tenant))
    directory = Path(tempfile.mkdtemp(prefix="embedding-gateway-"))
    listens: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stopping = Stopping()

    def announce(base_url: str, _: Mapping[str, EngineStatus]) -> None:
        listens.set_result(base_url)

    try:
        with closing(listen(config.server)) as listeners:
            # Who connects before the server has started waits in the backlog.
            running = Running(config, listeners, directory)
            serving = asyncio.create_task(run(running, announce, stopping))
            try:
                either: list[asyncio.Future[Any]] = [serving, listens]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if listens.done():
                    yield Hosted(listens.result(), api_key)
            finally:
                stopping.ask(at_once=True)
                await serving
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def check_tenant(config: Config, tenant: str) -> None:
    """Raise CommandError for a tenant that no key of the config has, where there are keys."""
    tenants = {key.tenant for key in config.keys}
    if tenants and tenant not in tenants:
        raise CommandError(
            f"no key of this config has the tenant '{tenant}', so nobody would find its vectors; "
            f"there is {', '.join(sorted(tenants))}: choose with --tenant"
        )


def _for_oneself(config: Config, key: Key) -> Config:
    server = replace(
        config.server,
        host="127.0.0.1",
        port=0,
        workers=1,
        admin=None,
        tls_cert=None,
        tls_key=None,
        log_level="warning",
        drift_every=0.0,
        log_format="auto",
    )
    upstreams: dict[str, Upstream] = {
        name: replace(upstream, load="first-use")
        if isinstance(upstream, LlamaUpstream)
        else upstream
        for name, upstream in config.upstreams.items()
    }
    return replace(config, server=server, upstreams=upstreams, keys=(key,))
