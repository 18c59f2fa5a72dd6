"""A gateway with keys, for tests of what a key may use: `alice` is limited, `bob` is not."""

from typing import Any

import httpx2

from tests.running import Running, one_model

KEYS = {"alice": "alice-secret-key", "bob": "bobs-secret-key"}


def keyed(
    base_url: str, limits: str, *, model: str = "", rest: str = "", upstream: str = ""
) -> str:
    """Return the config of one model `m`, a key with limits, and one that may read metrics."""
    keys = f"""
        {rest}
        [[keys]]
        name = "alice"
        secret = "{KEYS["alice"]}"
        {limits}
        [[keys]]
        name = "bob"
        secret = "{KEYS["bob"]}"
        admin = true
    """
    return one_model(base_url, model=model, upstream=upstream, rest=keys)


def auth(name: str = "alice") -> dict[str, str]:
    """Return the header that says who asks."""
    return {"authorization": f"Bearer {KEYS[name]}"}


def embed(
    running: Running, text: Any, who: str = "alice", headers: Any = None, **fields: Any
) -> httpx2.Response:
    """Ask for a vector."""
    return running.embed(text, headers=auth(who) | (headers or {}), **fields)


def chat(running: Running, text: str, who: str = "alice", **fields: Any) -> httpx2.Response:
    """Ask for a whole chat."""
    body = {"model": "m", "messages": [{"role": "user", "content": text}]} | fields
    return running.http.post("/v1/chat/completions", json=body, headers=auth(who))


def metric(running: Running, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples, as bob may read them."""
    return sum(
        sample.value
        for sample in running.samples(headers=auth("bob"))
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def left(answer: httpx2.Response, what: str = "requests") -> int:
    """Return what an answer says is left of a minute's."""
    return int(answer.headers[f"x-ratelimit-remaining-{what}"])
