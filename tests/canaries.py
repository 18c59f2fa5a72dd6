"""A gateway full of canaries: secrets of every kind, and a text that nobody may repeat.

What it says is kept: answers, its log at debug level, its metrics. Afterwards all of it is
searched, together with its files and what its processes were started with.
"""

import json
import os
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil

from tests.processes import GatewayProcess, gateway_process
from tests.redis_server import RedisServer
from tests.upstream import FakeOpenAI

MARK = "c4n4ry"
"""In every secret; the text has words of its own."""
TEXT = f'The {MARK}\'s "diary",\nline 2: käfig 鳥籠 \U0001f425'
SECRETS = {
    "KEY": f"client-key-{MARK}",
    "OTHER_KEY": f"other-key-{MARK}",
    "FEW_KEY": f"few-key-{MARK}",
    "UPSTREAM_KEY": f"sk-upstream-{MARK}",
    "HEADER": f"header-{MARK}",
    "QUERY": f"query-{MARK}",
    "CACHE_SECRET": f"cache-secret-{MARK}",
    "REDIS_PASSWORD": f"redis-{MARK}",
    "PROXY_PASSWORD": f"proxy-{MARK}",
}
_FORMS = (MARK, "käfig", "鳥籠", json.dumps("käfig 鳥籠")[1:-1])
NEVER = {*_FORMS, *(b64encode(secret.encode()).decode()[:-4] for secret in SECRETS.values())}

CONFIG = """
[server]
log_level = "debug"
request_timeout = "2s"
chat_timeout = "2s"
max_body = "2MiB"
header_timeout = "1s"
hosts = ["gateway.test"]
[cache]
memory = "64KiB"
store = ["sqlite://{place}/near.db", "redis://gateway:${{env:REDIS_PASSWORD}}@127.0.0.1:{redis}"]
secret = "${{env:CACHE_SECRET}}"
[[keys]]
name = "admin"
secret = "${{env:KEY}}"
admin = true
[[keys]]
name = "other"
secret = "${{env:OTHER_KEY}}"
models = ["m"]
tenant = "other"
[[keys]]
name = "few"
secret = "${{env:FEW_KEY}}"
requests_per_minute = 1
[upstreams.fake]
kind = "openai"
base_url = "{upstream}"
api_key = "${{env:UPSTREAM_KEY}}"
headers = {{ x-secret = "${{env:HEADER}}" }}
query = {{ sig = "${{env:QUERY}}" }}
[upstreams.behind]
kind = "openai"
base_url = "{upstream}"
proxy = "http://somebody:${{env:PROXY_PASSWORD}}@127.0.0.1:9"
[models.m]
task = "embedding"
upstreams = ["fake"]
[models.short]
task = "embedding"
upstreams = ["fake"]
tokenizer = "cl100k_base"
max_tokens = 5
[models.chat]
task = "chat"
upstreams = ["fake"]
[models.behind]
upstreams = ["behind"]
{more}
"""


def clean(*places: str) -> None:
    """Raise AssertionError where a canary sits."""
    for place in places:
        for word in NEVER:
            at = place.find(word)
            assert at < 0, f"{word} in …{place[max(0, at - 300) : at + 100]}…"


class Cage:
    """The gateway, what is around it, and all that was heard of it."""

    def __init__(
        self, served: GatewayProcess, fake: FakeOpenAI, redis: RedisServer, place: Path, toml: str
    ) -> None:
        self.served = served
        self.fake = fake
        self.redis = redis
        self.place = place
        self.toml = toml
        self.heard: list[str] = []
        self._client = httpx2.Client(base_url=served.address, timeout=30)

    def ask(
        self, path: str, body: Any = None, *, key: str = "KEY", method: str = "POST", **more: Any
    ) -> httpx2.Response:
        """Send a request with one of the keys; keep what is said to it."""
        headers = {"authorization": f"Bearer {SECRETS.get(key, key)}", **more.pop("headers", {})}
        if body is not None:
            more["json"] = body
        answer = self._client.request(method, path, headers=headers, **more)
        self.hear(answer)
        return answer

    def hear(self, answer: httpx2.Response) -> None:
        """Keep an answer; vectors and good chats are the client's own."""
        self.heard.append(str(dict(answer.headers)))
        if answer.status_code != 200:
            self.heard.append(answer.text)

    def embed(self, text: Any = TEXT, model: str = "m", **more: Any) -> httpx2.Response:
        """Ask for a vector."""
        fields = more.pop("fields", {})
        return self.ask("/v1/embeddings", {"model": model, "input": text, **fields}, **more)

    def chat(self, text: Any = TEXT, **more: Any) -> httpx2.Response:
        """Ask for an answer."""
        messages = [{"role": "user", "content": text}]
        fields = more.pop("fields", {})
        body = {"model": "chat", "messages": messages, **fields}
        return self.ask("/v1/chat/completions", body, **more)

    def close(self) -> None:
        """Let go of its connections."""
        self._client.close()

    def check(self) -> None:
        """Search everything that can be seen from outside."""
        for path in (
            "/metrics",
            "/v1/models",
            "/v1/models/m",
            "/health/live",
            "/health/ready",
            "/",
        ):
            answer = self.ask(path, method="GET")
            assert answer.status_code == 200
            clean(answer.text)
        clean(*self.heard, *self.served.lines)
        clean(*_contents(self.served.temporary), *_contents(self.place))
        for process in psutil.Process(self.served.pid).children(recursive=True):
            clean(*process.cmdline(), str(process.environ()))
        clean(*psutil.Process(self.served.pid).cmdline())


def _contents(directory: Path) -> Iterator[str]:
    """Yield the name and the content of every file."""
    for path in directory.rglob("*"):
        yield str(path)
        if path.is_file():
            content = path.read_bytes()
            yield content.decode("latin-1")
            yield content.decode("utf-8", "ignore")


@contextmanager
def caged(fake: FakeOpenAI, redis: RedisServer, place: Path, more: str = "") -> Iterator[Cage]:
    """Run a gateway full of canaries."""
    fake.key = SECRETS["UPSTREAM_KEY"]
    lock(redis)
    place.mkdir()
    toml = CONFIG.format(place=place, redis=redis.port, upstream=fake.base_url, more=more)
    with gateway_process(toml, **SECRETS) as served:
        cage = Cage(served, fake, redis, place, toml)
        yield cage
        cage.close()


def lock(redis: RedisServer, password: str = SECRETS["REDIS_PASSWORD"]) -> None:
    """Have the gateway's user need a password."""
    redis.admin.acl_setuser(
        "gateway", enabled=True, reset=True, passwords=f"+{password}", keys="*", channels="*",
        commands=["+@all"],
    )  # fmt: skip


def environment(**more: str) -> Mapping[str, str]:
    """Return the environment of a command that has all secrets."""
    return {**os.environ, **SECRETS, **more}
