"""A whole gateway with a tiny chat model behind it, for tests: its config, and how it is asked."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from tests.processes import GatewayProcess

PATH = "/v1/chat/completions"
CHAT = "tiny"
BEGINNING = "we went to Mars and the sky was red " * 12
"""More tokens than a chunk, so that much of a prompt that begins so can be reused."""


def chat_toml(path: Path, *, server: str = "", upstream: str = "", model: str = "") -> str:
    """Return the config of one chat model, with further lines for each part.

    Nothing is kept, so that every answer is computed; one thread, as more wait for each other
    busily, which is slow where others use the processor.
    """
    return f"""
        [server]
        port = 0
        {server}
        {chat_upstream("chat", path, upstream)}
        [models.{CHAT}]
        task = "chat"
        upstreams = ["chat"]
        cache = "off"
        {model}
    """


def chat_upstream(name: str, path: Path, lines: str = "") -> str:
    """Return one engine's part of a config."""
    threads = "" if "threads" in lines else "threads = 1"
    return f"""
        [upstreams.{name}]
        kind = "llama"
        model = "{path}"
        {threads}
        {lines}
    """


def asking(said: str = "hello", **fields: Any) -> dict[str, Any]:
    """Return a request's body."""
    return {"model": CHAT, "messages": [{"role": "user", "content": said}], **fields}


@contextmanager
def client(served: GatewayProcess) -> Iterator[httpx2.Client]:
    """Open a client at the root address, which takes its time."""
    with httpx2.Client(base_url=served.address, timeout=60, verify=False) as http:
        yield http


def post(http: httpx2.Client, body: Any, **headers: str) -> httpx2.Response:
    """Ask for a chat."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return http.post(PATH, content=data, headers={"content-type": "application/json", **headers})


@contextmanager
def streaming(http: httpx2.Client, body: Any) -> Iterator[httpx2.Response]:
    """Ask for a stream; leave when the block ends."""
    with http.stream("POST", PATH, json={**body, "stream": True}) as answer:
        yield answer


def said(answer: httpx2.Response) -> str:
    """Return the text of an answer, streamed or whole; fails if it is an error."""
    assert answer.status_code == 200, answer.text
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return str(answer.json()["choices"][0]["message"]["content"])
    *events, done, rest = answer.read().split(b"\n\n")
    assert (b"data: [DONE]", b"") == (done, rest)
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events]
    return "".join(choice["delta"].get("content") or "" for c in chunks for choice in c["choices"])


def figure(http: httpx2.Client, name: str, engine: str = "chat") -> float:
    """Return one of an engine's figures on /metrics; NaN where it did not tell in time."""
    beginning = f'gateway_engine_{name}{{engine="{engine}"}} '
    lines = http.get("/metrics").text.splitlines()
    found = [line for line in lines if line.startswith(beginning)]
    return float(found[0].removeprefix(beginning)) if found else math.nan
