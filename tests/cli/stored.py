"""What the stores of a config hold, put there and looked at past every gateway."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gateway.cache.entry import Entry
from gateway.cache.facts import PREFIX, ScopeFact, write_fact
from gateway.cache.keys import check_value
from gateway.cache.record import pack
from gateway.cache.scopes import namespace
from gateway.cache.seal import seal
from gateway.config import SqliteAddress, load
from gateway.logs import open_log
from gateway.stores import open_stores, own_secret
from tests.cli.commands import gateway
from tests.running import Running

TEXTS = [f"text {number}" for number in range(20)]
SCOPE = "0123456789abcdef01234567"


def at(path: Path) -> str:
    """Return the address of a SQLite store."""
    return f"sqlite://{path}"


def stats(config: Path, code: int = 0) -> list[dict[str, Any]]:
    """Return what `gateway cache stats --json` says of each store."""
    return json.loads(gateway("cache", "stats", "-c", config, "--json", code=code).stdout)["stores"]


def held(config: Path) -> dict[tuple[str, str, int], int]:
    """Return the entries of the first store by tenant, model and generation."""
    scopes = stats(config)[0]["scopes"]
    return {(s["tenant"], s["model"], s["generation"]): s["entries"] for s in scopes}


def store_of(config: Path) -> Path:
    """Return the file of the config's SQLite store."""
    address = load(config, {}).cache.store[0]
    assert isinstance(address, SqliteAddress)
    return address.path


def fill(
    config: Path,
    scope: str,
    fact: ScopeFact,
    entries: Mapping[bytes, Entry],
    generation: int | None = None,
) -> None:
    """Put entries into the config's last store, as a gateway that has used it does."""

    async def put() -> None:
        settings = load(config, {}).cache
        stores = open_stores(settings, open_log("error", "json"))
        place = namespace(scope, fact.generation if generation is None else generation)
        await stores[-1].settle("check", check_value(own_secret(settings).value))
        await stores[-1].settle(PREFIX + scope, write_fact(fact))
        await stores[-1].add(place, {key: pack(key, entry) for key, entry in entries.items()})
        for store in stores:
            await store.aclose()

    asyncio.run(put())


def contents(config: Path, place: str) -> dict[bytes, bytes]:
    """Return all values of a namespace in the last store."""

    async def scan() -> dict[bytes, bytes]:
        stores = open_stores(load(config, {}).cache, open_log("error", "json"))
        found = {}
        async for batch in stores[-1].scan(place):  # type: ignore[attr-defined]
            found.update(batch)
        for store in stores:
            await store.aclose()
        return found

    return asyncio.run(scan())


def entries(count: int, width: int = 4, *, made: float = 1.7e9) -> dict[bytes, Entry]:
    """Return entries whose keys are far apart."""
    rows = np.random.default_rng(count).standard_normal((count, width))
    units = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("<f4")
    return {
        number.to_bytes(1) * 32: Entry(row.tobytes(), number, created=made + number)
        for number, row in enumerate(units)
    }


def answers(count: int, *, made: float = 1.7e9, apart: float = 1.0) -> dict[bytes, Entry]:
    """Return answers to chats as a gateway keeps them, made so many seconds apart."""
    secret, asked, told = b"s" * 32, b'{"messages":[]}', b'{"choices":[]}'
    keys = [b"chat" * 4 + number.to_bytes(16) for number in range(count)]
    return {
        key: Entry(b"", 0, created=made + apart * number, sealed=seal(secret, asked, key, told))
        for number, key in enumerate(keys)
    }


def wait_for_facts(running: Running, config: Path, scopes: int) -> None:
    """Wait until every store knows of the models, which a gateway tells it twice a second."""

    def known() -> bool:
        return all(
            [scope["state"] for scope in store["scopes"]] == ["current"] * scopes
            for store in stats(config)
        )

    running.wait_until(known)
