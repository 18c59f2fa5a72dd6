"""Engines over a reload: what did not change goes on, what did is changed without a gap."""

import asyncio
from pathlib import Path

import httpx2
import psutil

from tests.heavy import kills
from tests.processes import LOCAL, GatewayProcess, gateway_process
from tests.test_local import pytestmark  # noqa: F401 - these need the engine too
from tests.tiny_gguf import write_encoder

TWO = """
[server]
watch = false
[cache]
memory = "0"
[upstreams.stays]
kind = "llama"
model = "{stays}"
[upstreams.changes]
kind = "llama"
model = "{changes}"
{options}
[models.a]
upstreams = ["stays"]
{alias}
[models.b]
upstreams = ["changes"]
"""


def test_only_what_changed_is_started_again(tmp_path: Path):
    """Under load, and no request fails; then nothing but the engines of the config is left."""
    stays = write_encoder(tmp_path / "stays.gguf")
    changes = write_encoder(tmp_path / "changes.gguf", seed=2)

    def config(options: str = "", alias: str = "") -> str:
        return TWO.format(stays=stays, changes=changes, options=options, alias=alias)

    with gateway_process(config()) as served:
        before = pids(served)
        served.reload(config(alias='aliases = ["other"]'))
        assert pids(served) == before
        old = vector(served, "b")
        asyncio.run(under_load(served, lambda: served.reload(config("n_ctx = 64"))))
        gone(before["changes"])
        after = pids(served)
        assert after["stays"] == before["stays"]
        assert vector(served, "b") == old  # the file is the same, and so are its vectors
        write_encoder(tmp_path / "new.gguf", seed=3).replace(changes)
        asyncio.run(under_load(served, lambda: served.reload(config("n_ctx = 64"))))
        gone(after["changes"])
        assert vector(served, "b") != old
        without = config().partition("[upstreams.changes]")[0]
        served.reload(f'{without}[models.a]\nupstreams = ["stays"]\n')
        gone(pids(served).get("changes", after["changes"]))
        (left,) = kills.engines(served.pid)
        assert left == before["stays"]
        assert len(list(next(served.temporary.iterdir()).glob("*.sock"))) == 1
        assert not served.events("engine died")


async def under_load(served: GatewayProcess, change) -> None:
    """Make a change while eight clients ask; every answer must be good."""
    over = False

    async def ask(client: httpx2.AsyncClient, number: int) -> int:
        asked = 0
        while not over:
            body = {"model": "ab"[number % 2], "input": f"the dog bites {number} {asked}"}
            answer = await client.post(f"{served.base_url}/embeddings", json=body)
            assert answer.status_code == 200, answer.text
            asked += 1
        return asked

    async with httpx2.AsyncClient(timeout=60, trust_env=False) as client:
        asking = [asyncio.ensure_future(ask(client, number)) for number in range(8)]
        await asyncio.sleep(0.2)
        await asyncio.to_thread(change)
        await asyncio.sleep(0.2)
        over = True
        assert all(asked > 1 for asked in await asyncio.gather(*asking))


def pids(served: GatewayProcess) -> dict[str, int]:
    """Return the engine that runs for each upstream."""
    running = set(kills.engines(served.pid))
    ready = served.events("ready")
    return {said["engine"]: said["pid"] for said in ready if said["pid"] in running}


def vector(served: GatewayProcess, model: str) -> list[float]:
    body = {"model": model, "input": "hello world"}
    answer = httpx2.post(f"{served.base_url}/embeddings", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"][0]["embedding"])


def gone(pid: int) -> None:
    """Return when an engine has ended."""
    if psutil.pid_exists(pid):
        psutil.Process(pid).wait(20)


def test_an_engine_that_does_not_load_is_not_taken(tmp_path: Path):
    """The one that runs goes on, and of the other nothing is left."""
    good = write_encoder(tmp_path / "good.gguf")
    one = "[server]\nwatch = false\n" + LOCAL.partition("[upstreams")[2].join(["[upstreams", ""])
    one = one.replace("builtin:all-minilm-l6-v2", str(good))
    with gateway_process(one) as served:
        (before,) = kills.engines(served.pid)
        dead = write_encoder(tmp_path / "dead.gguf", dead=True)
        bad = one.replace(str(good), str(dead))
        line = served.reload(bad, "config not reloaded, the old one stays")
        assert line["problems"].startswith("upstreams.minilm: ")
        assert [before] == kills.engines(served.pid)
        assert vector(served, "all-minilm-l6-v2")
