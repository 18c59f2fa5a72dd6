"""The real gateway on a real uvicorn and a free port, in a thread of this process.

In-process, so that its coverage counts; with a registry, a log and an engine directory of its own,
so that one test sees nothing of another.
"""

import asyncio
import io
import threading
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import httpx2
import openai
import uvloop
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from gateway.app import Gateway
from gateway.backends.transport import Transport, TransportSettings, open_transport
from gateway.config import Config
from gateway.edge.server import Server, bind, make_server
from gateway.foundation import Foundation
from gateway.logs import open_log
from gateway.running.door import Door

Open = Callable[[TransportSettings], Transport]
QUIET = '[server]\ndrift_every = "0s"\n'
"""For a gateway that may run for more than half a minute, and whose upstream counts its calls."""


def one_model(base_url: str, *, upstream: str = "", model: str = "", rest: str = "") -> str:
    """Return the config of one model `m` behind one upstream, with further lines for each."""
    return f"""
        {rest}
        [upstreams.fake]
        kind = "openai"
        base_url = "{base_url}"
        {upstream}
        [models.m]
        upstreams = ["fake"]
        {model}
    """


class Running:
    """A gateway that listens, from `start` to `stop`."""

    def __init__(
        self,
        config: Config,
        directory: Path,
        *,
        open_transport: Open = open_transport,
        asks: bool = False,
    ) -> None:
        """`asks` lets it ask models whether they have drifted, which else nobody does here."""
        self.config = config
        self.asks = asks
        self.directory = directory
        """Where engines would have their sockets: whatever is written there was written by us."""
        self.registry = CollectorRegistry()
        self._stream = io.StringIO()
        self._open_transport = open_transport
        self._ready = threading.Event()
        self.servers: list[Server] = []
        self._sockets = [bind("127.0.0.1", 0)]
        if config.server.admin is not None:
            self._sockets.append(bind("127.0.0.1", 0))
        self._clients: list[Any] = []
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)
        self._door: Door | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.draining = False

    @property
    def address(self) -> str:
        """The root address of the public listener."""
        return f"http://127.0.0.1:{self._sockets[0].getsockname()[1]}"

    @property
    def port(self) -> int:
        """The port of the public listener."""
        return int(self._sockets[0].getsockname()[1])

    @property
    def admin_address(self) -> str:
        """The root address of the admin listener, where the config has one."""
        return f"http://127.0.0.1:{self._sockets[1].getsockname()[1]}"

    @property
    def base_url(self) -> str:
        """What an SDK is given."""
        return f"{self.address}/v1"

    @property
    def log(self) -> str:
        """Every line logged so far."""
        return self._stream.getvalue()

    @cached_property
    def http(self) -> httpx2.Client:
        """A plain client at the root address, closed with the gateway."""
        return self.kept(httpx2.Client(base_url=self.address, timeout=30))

    @cached_property
    def client(self) -> openai.OpenAI:
        """OpenAI's client in its default settings, but for retries, closed with the gateway."""
        return self.sdk(max_retries=0)

    @property
    def gateway(self) -> Gateway | None:
        """The gateway of the current config, once there is one."""
        return self._door.current if self._door else None

    @property
    def gateways(self) -> list[Gateway]:
        """The current one, and those of earlier configs that still answer requests."""
        return self._door.gateways if self._door else []

    @property
    def requests_running(self) -> int:
        """Requests that the server works on now."""
        return len(self.servers[0].server_state.tasks)

    @property
    def chats_followed(self) -> int:
        """Requests that read an answer to a chat while it comes."""
        recordings = self.gateway._recordings._by_key if self.gateway else {}
        return sum(recording._readers for recording in list(recordings.values()))

    @property
    def connections(self) -> int:
        """Clients that are connected now."""
        return len(self.servers[0].server_state.connections)

    def wait_until(self, true: Callable[[], bool], timeout: float = 10.0) -> None:
        """Return as soon as something is true of this gateway; raises TimeoutError."""
        end = time.monotonic() + timeout
        while not true():
            if time.monotonic() > end:
                raise TimeoutError
            time.sleep(0.002)

    def sdk(self, **options: Any) -> openai.OpenAI:
        """Return OpenAI's client with these options."""
        given = {"base_url": self.base_url, "api_key": "any"} | options
        return self.kept(openai.OpenAI(**given))

    def kept(self, client: Any) -> Any:
        """Close a client together with the gateway."""
        self._clients.append(client)
        return client

    def embed(self, texts: Any, model: str = "m", **fields: Any) -> httpx2.Response:
        """Post to /v1/embeddings; `headers` go out as such, all other fields into the body."""
        headers = fields.pop("headers", None)
        body = {"model": model, "input": texts} | fields
        return self.http.post("/v1/embeddings", json=body, headers=headers)

    def vectors(self, texts: Any, model: str = "m", **fields: Any) -> list[list[float]]:
        """Return the vectors of a good answer, as floats."""
        answer = self.embed(texts, model, **fields)
        assert answer.status_code == 200, answer.text
        return [item["embedding"] for item in answer.json()["data"]]

    def samples(self, address: str | None = None, **options: Any) -> list[Sample]:
        """Return every sample of /metrics."""
        page = httpx2.get(f"{address or self.address}/metrics", **options)
        assert page.status_code == 200, page.text
        families = text_string_to_metric_families(page.text)
        return [sample for family in families for sample in family.samples]

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        return sum(
            sample.value
            for sample in self.samples()
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def start(self) -> Self:
        """Start, and return when everything listens."""
        self._thread.start()
        if not self._ready.wait(15) or self.gateway is None:
            raise RuntimeError("the gateway did not start")
        return self

    def reload(self, config: Config) -> None:
        """Go over to another config, as a reload does once it is read and found good."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._change(config), self._loop).result(15)

    def stop(self) -> None:
        """Close the clients and tell the servers to end."""
        for client in self._clients:
            client.close()
        for server in self.servers:
            server.should_exit = True

    def join(self) -> None:
        """Return when every connection is closed."""
        self._thread.join(15)
        assert not self._thread.is_alive()

    async def _change(self, config: Config) -> None:
        assert self._door is not None
        current = self._door.current
        self.config = config
        await self._door.change(Gateway(config, current.foundation, current))

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        log = open_log(self.config.server.log_level, "json", self._stream)
        foundation = Foundation(
            self.config,
            self.directory,
            log,
            open_transport=self._open_transport,
            registry=self.registry,
            draining=lambda: self.draining,
            asks=self.asks,
        )
        door = self._door = Door(Gateway(self.config, foundation))
        self._loop = asyncio.get_running_loop()
        apps = [door.public, door.admin]
        self.servers = [
            make_server(app, self.config.server, refused=foundation.metrics.requests.refused)
            for app in apps
            if app is not None
        ]
        await foundation.start()
        await door.current.start()
        serving = [
            asyncio.create_task(server.serve([bound]))
            for server, bound in zip(self.servers, self._sockets, strict=True)
        ]
        while not all(server.started for server in self.servers):
            await asyncio.sleep(0.005)
        self._ready.set()
        await asyncio.gather(*serving)
        await door.aclose()
        await foundation.aclose()
