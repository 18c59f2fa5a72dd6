"""The HTTP edge as its tests see it: a way to post bytes, and OpenAI's form of an error."""

import httpx2

from tests.running import Running

GOOD = b'{"model":"m","input":"x"}'


def post(edge: Running, body, path="/v1/embeddings", **headers) -> httpx2.Response:
    """Post bytes as JSON; further headers with `_` for `-`."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    typed = {"content-type": "application/json"} | headers
    return edge.http.post(path, content=body, headers=typed)


def error(answer: httpx2.Response) -> dict:
    """Return the error of an answer in OpenAI's form; fail for any other form."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    assert isinstance(body["error"]["message"], str)
    assert "x-request-id" in answer.headers
    assert "openai-processing-ms" in answer.headers
    return body["error"]
