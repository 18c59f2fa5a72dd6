"""A gateway with two chat models for the clients people use: one at an upstream, one of our own.

The upstream never answers the same twice, seed or no seed. The local model is a tiny one of random
weights that llama.cpp really runs, with Qwen's way of calling tools; without llama.cpp it is left
out, and the tests that ask for it are skipped by `BOTH`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.processes import gateway_process
from tests.tiny_chat import HERMES, write_chat
from tests.upstream import FakeOpenAI, serve

UPSTREAM, TINY = "gpt-4o", "tiny"
HAS_LLAMA = find_spec("llama_cpp") is not None
_ENGINE = (
    pytest.mark.engine,
    pytest.mark.skipif(not HAS_LLAMA, reason="llama-cpp-python is missing (extra [local])"),
)
BOTH = (UPSTREAM, pytest.param(TINY, marks=_ENGINE))
"""The models, as parameters of a test."""

_UPSTREAM = """
[upstreams.far]
kind = "openai"
base_url = "{base_url}"
[models."gpt-*"]
task = "chat"
upstreams = ["far"]
"""
_LOCAL = """
[upstreams.near]
kind = "llama"
model = "{model}"
contexts = 2
threads = 1
[models.tiny]
task = "chat"
upstreams = ["near"]
"""


@dataclass(frozen=True, slots=True)
class Served:
    """A gateway that runs, and its upstream."""

    base_url: str
    fake: FakeOpenAI


@contextmanager
def chat_gateway(directory: Path, *, rest: str = "") -> Iterator[Served]:
    """Run such a gateway, with `rest` in its config too; its model's file is in `directory`."""
    fake = FakeOpenAI()
    with serve(fake):
        toml = rest + _UPSTREAM.format(base_url=fake.base_url)
        if HAS_LLAMA:
            # Room for conversations with tools in them: the tiny vocabulary spells most words. It
            # goes on until it is told to end, so that no answer is empty by chance.
            model = write_chat(directory / "tiny.gguf", template=HERMES, context=4096, ends=-20.0)
            toml += _LOCAL.format(model=model)
        with gateway_process(toml) as process:
            yield Served(process.base_url, fake)
