"""The config file."""

import tomllib
from contextlib import suppress
from pathlib import Path

from gateway.config import parse
from gateway.config.show import show
from gateway.errors import ConfigError
from tests.heavy.fuzzing.target import Target
from tests.processes import ROOT

_HOME = Path("/nonexistent")
_ENVIRONMENT = {"KEY": "a-secret-of-the-environment", "HOME": str(_HOME)}


def try_one(data: bytes) -> None:
    """Only a ConfigError may come out; what is taken can be shown, and that is TOML again."""
    text = data.decode("utf-8", "replace")
    with suppress(ConfigError):
        config = parse(text, source=_HOME / "c.toml", environ=_ENVIRONMENT, base_dir=_HOME)
        tomllib.loads(show(config))


_KEYS = """
[[keys]]
name = "a"
secret = "${env:KEY}"
models = ["m-*"]
[upstreams.u]
base_url = "http://h/v1"
api_key = "${env:KEY}"
headers = { a = "${env:KEY}" }
timeout = "1m30s"
proxy = "http://u:p@h:1"
[models."m-*"]
upstreams = ["u"]
"""
_STORES = """
[cache]
memory = "1.5GiB"
store = ["sqlite:///a/b.db", "redis://u:p@h:1/2"]
secret = "0123456789abcdef"
ttl = "30d"
[upstreams.u]
kind = "llama"
model = "a"
[models.m]
task = "chat"
upstreams = ["u"]
aliases = ["n"]
"""

CONFIG = Target(
    try_one,
    [
        *(path.read_bytes() for path in sorted((ROOT / "config").glob("*.toml"))),
        _KEYS.encode(),
        _STORES.encode(),
    ],
    [
        b"${env:KEY}", b"${env:", b"${file:", b"[[keys]]", b"[models.", b"[upstreams.", b'"""',
        b"1979-05-27T07:32:00Z", b"0x", b"inf", b"nan", b"1_000", b"\\u0000", b"[::1]:80", b"*",
        b"sha256:", b"redis+cluster://", b"rediss://", b"builtin:", b"PT1S", b"-1d", b"{ a = [",
    ],
)  # fmt: skip
