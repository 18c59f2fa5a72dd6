"""A real engine for chat in a real child process, for tests.

with RunningChat(model, directory, contexts=2) as engine:
    engine.text("hello", seed=1)
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from tests.engine.running_engine import RunningEngine

PATH = "/v1/chat/completions"
Body = dict[str, Any]


class RunningChat(RunningEngine):
    """See RunningEngine."""

    def __init__(self, model: Path, directory: Path, **settings: Any) -> None:
        super().__init__(model, directory, **{"task": "chat", "threads": 1, **settings})

    def chat(self, said: str = "hello", **fields: Any) -> dict[str, Any]:
        """Return the whole answer; fails if it is an error."""
        response = self.post(asking(said, **fields), PATH)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def text(self, said: str = "hello", **fields: Any) -> str:
        """Return the first choice's text."""
        text: str = self.chat(said, **fields)["choices"][0]["message"]["content"]
        return text

    def refusal(self, said: str = "hello", **fields: Any) -> tuple[int, dict[str, Any]]:
        """Return status and error object of a request that must fail."""
        response = self.post(asking(said, **fields), PATH)
        assert response.status_code >= 400, response.text
        error = response.json()["error"]
        assert {"message", "type", "param", "code"} == error.keys()
        return response.status_code, error

    def stream(self, said: str = "hello", **fields: Any) -> list[dict[str, Any]]:
        """Return the chunks of a stream that must come to its end."""
        with self.streaming(asking(said, stream=True, **fields)) as response:
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            return chunks(response.read())

    @contextmanager
    def streaming(self, body: Body) -> Iterator[httpx2.Response]:
        """Ask, and yield the answer as soon as its headers are there."""
        with self.client.stream("POST", PATH, content=json.dumps(body)) as response:
            yield response


def asking(said: str = "hello", **fields: Any) -> Body:
    return {"model": "tiny", "messages": [{"role": "user", "content": said}], **fields}


def chunks(events: bytes) -> list[dict[str, Any]]:
    """Return what a stream's events hold; the last of them says that it is done."""
    *data, done, rest = events.split(b"\n\n")
    assert (b"data: [DONE]", b"") == (done, rest)
    return [json.loads(event.removeprefix(b"data: ")) for event in data]


def told(stream: list[dict[str, Any]], index: int = 0) -> str:
    """Return the text of one choice of a stream."""
    deltas = [
        choice["delta"]
        for chunk in stream
        for choice in chunk["choices"]
        if choice["index"] == index
    ]
    return "".join(delta.get("content") or "" for delta in deltas)
