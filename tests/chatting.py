"""Short ways to chat with a gateway that runs: over a client, or a socket of one's own."""

import json
import socket
from collections.abc import Mapping
from typing import Any

import httpx2

from gateway.completion import Assembly
from gateway.sse import Events, data_of
from tests.running import Running, one_model

HELLO = [{"role": "user", "content": "hello"}]


def chat_model(base_url: str, *, upstream: str = "", model: str = "", rest: str = "") -> str:
    """Return the config of one model `m` that chats; see one_model."""
    return one_model(base_url, upstream=upstream, model=f'task = "chat"\n{model}', rest=rest)


def body_of(**fields: Any) -> bytes:
    """Return a request's body."""
    return json.dumps({"model": "m", "messages": HELLO} | fields).encode()


def chat(
    running: Running, *, headers: Mapping[str, str] | None = None, **fields: Any
) -> httpx2.Response:
    """Post a chat and read all of its answer; `fields` go into the body."""
    return running.http.post(
        "/v1/chat/completions",
        content=body_of(**fields),
        headers={"content-type": "application/json", **(headers or {})},
    )


def said(answer: httpx2.Response) -> str:
    """Return what the first choice of a good answer says, in whichever form it came."""
    assert answer.status_code == 200, answer.text
    return str(whole(answer)["choices"][0]["message"]["content"])


def whole(answer: httpx2.Response) -> dict[str, Any]:
    """Return a good answer as one JSON, in whichever form it came."""
    if answer.headers["content-type"] == "application/json":
        return dict(answer.json())
    assembly = Assembly()
    for event in Events().feed(answer.content):
        assembly.add(event)
    put_together = assembly.whole()
    assert put_together is not None, answer.text
    return dict(json.loads(put_together))


def refused(answer: httpx2.Response) -> tuple[int, str | None, str | None]:
    """Return what an error in OpenAI's form says: status, code, param."""
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, error["code"], error["param"]


def chunks(stream: bytes) -> list[dict[str, Any]]:
    """Return the data of a stream's events, but for [DONE]."""
    data = [data_of(event) for event in Events().feed(stream)]
    return [json.loads(each) for each in data if each is not None and each != b"[DONE]"]


def begin(running: Running, *, path: str = "/v1/chat/completions", **fields: Any) -> socket.socket:
    """Send a chat over a socket of its own; closing it is leaving."""
    body = body_of(**fields)
    head = f"POST {path} HTTP/1.1\r\nhost: gateway\r\ncontent-length: {len(body)}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", running.port))
    connection.settimeout(10)
    connection.sendall(head.encode() + body)
    return connection


def read_until(connection: socket.socket, end: bytes) -> bytes:
    """Return what comes on a connection up to some bytes, and what came with them."""
    received = b""
    while end not in received:
        more = connection.recv(65536)
        assert more, received
        received += more
    return received
