"""Gateways with several upstreams, over real fake ones, and what tests ask of them."""

import socket
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gateway.spaces.reference import TEXTS
from tests.running import Running
from tests.upstream import FakeOpenAI


def several(*urls: str, model: str = "", rest: str = "", **options: str) -> str:
    """Return the config of one model `m` behind upstreams `a`, `b`, …, each with its options.

    It embeds in a space `s`, unless `model` has a task of its own.
    """
    names = [chr(ord("a") + place) for place in range(len(urls))]
    tables = "".join(
        f'[upstreams.{name}]\nkind = "openai"\nbase_url = "{url}"\n{options.get(name, "")}\n'
        for name, url in zip(names, urls, strict=True)
    )
    listed = ", ".join(f'"{name}"' for name in names)
    task = "" if "task" in model else 'task = "embedding"\nspace = "s"\n'
    return f"{rest}\n{tables}[models.m]\nupstreams = [{listed}]\n{task}{model}\n"


def nobody() -> str:
    """Return an address where nobody listens."""
    return f"http://127.0.0.1:{free_port()}/v1"


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def states(running: Running, model: str = "m") -> dict[str, str]:
    """Return what is told of each upstream of a model."""
    return {name: told["state"] for name, told in told_of(running, model).items()}


def told_of(running: Running, model: str = "m") -> Mapping[str, Mapping[str, Any]]:
    """Return all that is told of each upstream of a model, by name."""
    answer = running.http.get(f"/v1/models/{model}").json()
    return {told["name"]: told for told in answer["upstreams"]}


def until(running: Running, model: str = "m", **wanted: str) -> None:
    """Return when these upstreams are in these states; raises TimeoutError."""
    running.wait_until(lambda: wanted.items() <= states(running, model).items())


def asked(fake: FakeOpenAI) -> list[Any]:
    """Return the texts of clients that an upstream was asked for."""
    return [text for text in fake.texts if text not in TEXTS]


def probes(fake: FakeOpenAI) -> int:
    """Return how often an upstream was compared with its space."""
    return fake.texts.count(TEXTS[0])


def right(fake: FakeOpenAI, *texts: str, model: str = "m") -> list[list[float]]:
    """Return the unit vectors that an upstream's model has for texts."""
    rows = np.array([fake.vector(model, text) for text in texts], np.float64)
    units = (rows / np.linalg.norm(rows, axis=1)[:, None]).astype(np.float32)
    return units.astype(np.float64).tolist()


def log_lines(running: Running, event: str) -> Sequence[str]:
    """Return the log's lines of an event."""
    return [line for line in running.log.splitlines() if event in line]
