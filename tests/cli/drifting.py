"""An upstream whose vectors are turned by known angles, and what `gateway drift` tells of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from gateway.drift.canaries import TEXTS
from tests.cli.commands import SECRET, gateway
from tests.running import one_model
from tests.upstream import Behaviour, Exchange, FakeOpenAI

ANGLES = (0.0, 0.01, 0.02, 0.03, 0.04)
"""Of the kept draws, where they are told one by one."""


def drift_config(place: Path, base_url: str, *, model: str = "", rest: str = "") -> Path:
    """Write a config of one model `m` with a store of its own; return its path."""
    place.mkdir(parents=True, exist_ok=True)
    file = place / "gateway.toml"
    cache = f'[cache]\nstore = "sqlite://{place}/cache.db"\nsecret = "{SECRET}"\n'
    task = f'task = "embedding"\n{model}'
    file.write_text(one_model(base_url, model=task, rest=cache + rest))
    return file


def turned(angle: float) -> Behaviour:
    """Turn each vector by so many radians, in the plane of its first two components."""

    async def behave(exchange: Exchange) -> None:
        for item in exchange.items:
            assert item.vector is not None
            flat = np.zeros_like(item.vector)
            flat[:2] = np.cos(angle), np.sin(angle)
            item.vector = flat

    return behave


async def another_model(exchange: Exchange) -> None:
    """Answer with vectors that have nothing to do with the right ones."""
    for item in exchange.items:
        assert item.vector is not None
        item.vector = item.vector[::-1].copy()


def drift(*words: str | Path, code: int = 0, **environ: str) -> list[dict[str, Any]]:
    """Run `gateway drift --json`; return what it says of each model."""
    return json.loads(gateway("drift", "--json", *words, code=code, **environ).stdout)["models"]


def asked(upstream: FakeOpenAI) -> int:
    """Return how often an upstream was asked for the canary texts."""
    assert len(upstream.texts) % len(TEXTS) == 0
    return len(upstream.texts) // len(TEXTS)
