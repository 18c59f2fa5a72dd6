"""A gateway of two workers on an ordinary day: upstreams, a local model, keys, a store; and all
that happens to it, so that everything which is ever counted has been counted once.

It is the same day each time.
"""

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests import upstream_behaviours as behave
from tests.deploy.prometheus_server import Prometheus
from tests.processes import GatewayProcess, gateway_process
from tests.redis_server import wait_for
from tests.upstream import FakeOpenAI

KEY, ADMIN = "the-team-key", "the-metrics-key"
SMALL, LARGE, LOCAL, CHAT = "text-embedding-3-small", "text-embedding-3-large", "minilm", "gpt-mini"


def config(openai: FakeOpenAI, azure: FakeOpenAI, folder: Path, *, server: str = "") -> str:
    """Return the config; vectors lie in the folder."""
    return f"""
[server]
workers = 2
log_format = "json"
drain_delay = "0s"
drift_delay = "0s"
watch = false
{server}
[cache]
store = "sqlite://{folder}/cache.db"
[[keys]]
name = "team"
secret = "{KEY}"
usd_per_day = 1000
[[keys]]
name = "prometheus"
secret = "{ADMIN}"
admin = true
[upstreams.openai]
kind = "openai"
base_url = "{openai.base_url}"
[upstreams.azure]
kind = "openai"
base_url = "{azure.base_url}"
[upstreams.builtin]
kind = "llama"
model = "builtin:all-minilm-l6-v2"
contexts = 1
[models."{SMALL}"]
task = "embedding"
upstreams = ["openai", "azure"]
space = "small"
[models."{LARGE}"]
task = "embedding"
upstreams = ["openai"]
[models."{LOCAL}"]
upstreams = ["builtin"]
[models."{CHAT}"]
task = "chat"
upstreams = ["openai"]
price = {{ input = 1.0, output = 2.0 }}
"""


@dataclass
class Client:
    """Asks over a connection of its own each time, so that either worker may answer."""

    http: httpx2.Client
    answered: int = 0
    """How many requests have had an answer, whichever."""

    def post(self, path: str, body: Any, key: str = KEY, **headers: str) -> int:
        """Send a request, read the answer to its end, and return its status."""
        headers |= {"authorization": f"Bearer {key}"}
        answer = self.http.post(path, json=body, headers=headers | {"connection": "close"})
        self.answered += 1
        return answer.status_code

    def embed(self, texts: Any, model: str = SMALL, key: str = KEY, **headers: str) -> int:
        """Ask for vectors."""
        return self.post("embeddings", {"model": model, "input": texts}, key, **headers)

    def chat(self, said: str, **fields: Any) -> int:
        """Ask for a chat."""
        body = {"model": CHAT, "messages": [{"role": "user", "content": said}]}
        return self.post("chat/completions", body | fields)


@dataclass
class Day:
    """The gateway, those it asks, and its clients."""

    served: GatewayProcess
    openai: FakeOpenAI
    client: Client
    toml: str
    _texts: Iterator[int]

    def text(self) -> str:
        """Return a text that was never asked for."""
        return f"text {next(self._texts)}"

    def page(self) -> str:
        """Return what it tells Prometheus."""
        headers = {"authorization": f"Bearer {ADMIN}"}
        return httpx2.get(f"{self.served.address}/metrics", headers=headers, trust_env=False).text

    def compared(self) -> set[str]:
        """Return the models that have been looked at for drift: what is asked for that is over."""
        return set(re.findall(r'^gateway_drift_distance\{model="(.+?)"', self.page(), re.MULTILINE))

    def hour(self) -> None:
        """Let everything happen once that is counted."""
        self._vectors()
        self._troubles()
        for stream in (False, True):
            said = self.text()
            assert [self.client.chat(said, seed=1, stream=stream) for _ in range(3)] == [200] * 3
        self.served.reload(self.toml)

    def _vectors(self) -> None:
        old, new = self.text(), self.text()
        for model in (SMALL, LARGE, LOCAL):
            assert self.client.embed(old, model) == 200
            assert self.client.embed([old, old], model) == 200
            assert self.client.embed([old, new], model) == 200
            assert self.client.embed(old, model, **{"cache-control": "no-cache"}) == 200

    def _troubles(self) -> None:
        """An upstream is full, fails, and sends what no one can use; clients err."""
        embed, script = self.client.embed, self.openai.script
        script(behave.rate_limit("0"))
        assert embed(self.text(), LARGE) == 200
        script(behave.status(500))
        assert embed(self.text(), SMALL) == 200
        script(behave.nan)
        assert embed(self.text(), LARGE) == 502
        assert embed("x", "unknown") == 404
        assert embed("x", key="wrong") == 401
        assert embed(self.text(), **{"cache-control": "only-if-cached"}) == 504


@dataclass
class Watched:
    """A gateway after some hours, and the Prometheus that has watched it."""

    day: Day
    prometheus: Prometheus


@contextmanager
def day(openai: FakeOpenAI, azure: FakeOpenAI, folder: Path, *, server: str = "") -> Iterator[Day]:
    """Run the gateway; both upstreams are served already."""
    toml = config(openai, azure, folder, server=server)
    with (
        gateway_process(toml) as served,
        httpx2.Client(base_url=served.base_url, timeout=30, trust_env=False) as http,
    ):
        running = Day(served, openai, Client(http), toml, itertools.count())
        wait_for(lambda: len(running.compared()) == 3)
        yield running
