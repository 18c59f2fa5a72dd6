"""What the clients of a soak ask for, and the configs that follow each other meanwhile."""

import random
from collections.abc import Sequence

from tests.heavy.swift import request

ADMIN = "the-key-of-whoever-looks-after-it"
GENERATIONS = 6
"""Configs that differ; after the last one comes the first again, so names are not without end."""
_HOT = 300
"""Texts that are asked for again and again."""
_LEAVES, _MOVES = 0.004, 0.01
"""How often a client hangs up in the middle, and how often it connects anew."""

_TOML = """
[server]
log_level = "warning"
workers = {workers}
watch = false
[cache]
memory = "4MiB"
store = "sqlite://{{home}}/soak.db"
store_size = "8MiB"
[[keys]]
name = "admin"
secret = "{admin}"
admin = true
[upstreams.fake]
kind = "openai"
base_url = "http://127.0.0.1:{port}/v1"
concurrency = {concurrency}
[models.m]
task = "embedding"
upstreams = ["fake"]
[models.chat]
task = "chat"
upstreams = ["fake"]
[models."any-*"]
upstreams = ["fake"]
"""
_KEY = """
[[keys]]
name = "key-{number}"
secret = "the-secret-of-key-{number}"
tenant = "tenant-{tenant}"
requests_per_minute = 100000000
"""
_MODEL = """
[models.m{number}]
task = "embedding"
upstreams = ["fake"]
upstream_model = "m"
aliases = ["alias-{number}"]
"""


def config(port: int, workers: int, generation: int) -> str:
    """Return the config of a generation: some of its keys and models are in no other."""
    number = generation % GENERATIONS
    keys = [*range(2), 10 + number]
    toml = _TOML.format(workers=workers, admin=ADMIN, port=port, concurrency=32 + number % 2)
    toml = toml.replace("{home}", "${env:HOME}")
    toml += "".join(_KEY.format(number=key, tenant=key % 3) for key in keys)
    return toml + _MODEL.format(number=number)


class Life:
    """Makes requests, the same ones for the same chance."""

    def __init__(self, chance: random.Random) -> None:
        self.generation = 0
        """Which config there is."""
        self._chance = chance
        self._new = 0

    def requests(self, count: int) -> Sequence[bytes]:
        """Return so many."""
        return [self._request() for _ in range(count)]

    def leaves(self) -> bool:
        """Whether a client hangs up now."""
        return self._chance.random() < _LEAVES

    def moves(self) -> bool:
        """Whether a client connects anew now."""
        return self._chance.random() < _MOVES

    def _request(self) -> bytes:
        draw = self._chance.random()
        if draw < 0.90:
            return self._embed([f"hot {self._chance.randrange(_HOT)}"])
        if draw < 0.93:
            self._new += 1
            return self._embed([f"new {self._new}", f"hot {self._chance.randrange(_HOT)}"])
        if draw < 0.95:
            return self._embed([f"new {self._chance.randrange(self._new + 1)}"])
        if draw < 0.97:
            return self._chat(f"hello {self._chance.randrange(50)}", stream=draw < 0.96)
        if draw < 0.98:
            return self._embed(["a"], model=f"any-{self._chance.getrandbits(64):x}")
        return self._wrong(self._chance.randrange(6))

    def _embed(self, texts: list[str], model: str = "m") -> bytes:
        form = "base64" if self._chance.random() < 0.8 else "float"
        body = {"model": model, "input": texts, "encoding_format": form}
        return request("/v1/embeddings", body, key=self._key())

    def _chat(self, text: str, *, stream: bool) -> bytes:
        body = {"model": "chat", "messages": [{"role": "user", "content": text}], "stream": stream}
        if self._chance.random() < 0.5:
            body["seed"] = self._chance.randrange(100)
        return request("/v1/chat/completions", body, key=self._key())

    def _key(self) -> str:
        number = self._chance.choice((0, 1, 10 + self.generation % GENERATIONS))
        return f"the-secret-of-key-{number}"

    def _wrong(self, kind: int) -> bytes:
        """Return something that is refused."""
        match kind:
            case 0:
                return request("/v1/embeddings", {"model": "nobody"}, key=self._key())
            case 1:
                return request("/v1/embeddings", {"model": "m", "input": "a"}, key="no key")
            case 2:
                return request(f"/v1/{self._chance.getrandbits(64)}", key=self._key())
            case 3:
                return request("/v1/embeddings", {"model": "m", "input": []}, key=self._key())
            case 4:
                number = 10 + (self.generation + 1) % GENERATIONS
                body = {"model": "m", "input": "a"}
                return request("/v1/embeddings", body, key=f"the-secret-of-key-{number}")
        return request("/v1/models", key=self._key(), method="GET")
