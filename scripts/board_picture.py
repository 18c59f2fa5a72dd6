"""Take the picture of Grafana's board in docs/pictures, of a real gateway with real traffic.

    python scripts/board_picture.py [MINUTES]

For so many minutes (4) people ask a gateway of two workers, a Prometheus scrapes it, and a day's
troubles happen; then deploy/grafana/picture.py draws the board. Wants what scripts/test installs,
llama.cpp among it, and Debian's prometheus.
"""

import asyncio
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path

import httpx2

from tests import upstream_behaviours as behave
from tests.cli.drifting import another_model
from tests.deploy.board_file import GRAFANA
from tests.deploy.everyday import ADMIN, CHAT, KEY, LARGE, LOCAL, SMALL, Day, day
from tests.deploy.prometheus_server import serve_prometheus
from tests.heavy.kills import kill_engines
from tests.upstream import FakeOpenAI, serve

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "pictures" / "dashboard.png"
TEXTS = 1500
WORDS = "the green fruit that a man once told the dog about was never found in the garden again"
CLIENTS = 10
PAUSE = 0.25
"""Seconds, about, between two requests of a client."""
MODELS = {SMALL: 9, LARGE: 6, LOCAL: 3, CHAT: 2}


class Crowd:
    """Clients that ask for a few texts often and for most seldom."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http
        self._chance = random.Random(6)
        self._weights = list(accumulate(1 / (rank + 1) for rank in range(TEXTS)))

    async def ask(self) -> None:
        """Ask again and again, until cancelled."""
        while True:
            model = self._chance.choices(list(MODELS), list(MODELS.values()))[0]
            await (self._chat() if model == CHAT else self._embed(model))
            if self._chance.random() < 0.02:
                await self._embed("a-name-that-nobody-serves")
            await asyncio.sleep(self._chance.expovariate(1 / PAUSE))

    def _texts(self, count: int) -> list[str]:
        ranks = self._chance.choices(range(TEXTS), cum_weights=self._weights, k=count)
        return [f"{rank}: {WORDS * (1 + rank % 5)}" for rank in ranks]

    async def _embed(self, model: str) -> None:
        fresh = {"cache-control": "no-cache"} if self._chance.random() < 0.03 else {}
        texts = self._texts(self._chance.choice([1, 1, 1, 2, 8]))
        body = {"model": model, "input": texts}
        await self._http.post("embeddings", json=body, headers=fresh)

    async def _chat(self) -> None:
        said = [{"role": "user", "content": self._texts(1)[0]}]
        body = {"model": CHAT, "messages": said, "stream": self._chance.random() < 0.7}
        if self._chance.random() < 0.5:
            body["seed"] = 1
        await self._http.post("chat/completions", json=body)


def troubles(running: Day) -> Iterator[tuple[float, Callable[[], object]]]:
    """Return what happens, and when: as parts of the whole time."""
    openai = running.openai
    well = behave.slow(0.08)
    yield 0.0, lambda: openai.always(well)
    yield 0.22, lambda: running.served.reload(running.toml)
    yield 0.30, lambda: openai.script(*[behave.rate_limit("1")] * 12)
    yield 0.42, lambda: openai.always(behave.status(500))
    yield 0.52, lambda: openai.always(well)
    yield 0.66, lambda: kill_engines(running.served.pid)
    yield 0.72, lambda: openai.script(behave.nan, well, behave.short, well, behave.nan)
    yield 0.80, lambda: openai.always(behave.together(well, another_model))
    yield (
        0.92,
        lambda: running.served.reload("[server", event="config not reloaded, the old one stays"),
    )


async def pass_time(running: Day, seconds: float) -> None:
    """Let the crowd ask, and the troubles happen."""
    headers = {"authorization": f"Bearer {KEY}"}
    async with (
        httpx2.AsyncClient(
            base_url=running.served.base_url, headers=headers, timeout=60, trust_env=False
        ) as http,
        asyncio.TaskGroup() as group,
    ):
        crowd = Crowd(http)
        clients = [group.create_task(crowd.ask()) for _ in range(CLIENTS)]
        began = asyncio.get_running_loop().time()
        for part, happen in [*troubles(running), (1.0, lambda: None)]:
            await asyncio.sleep(began + part * seconds - asyncio.get_running_loop().time())
            await asyncio.to_thread(happen)
        for client in clients:
            client.cancel()


def main(minutes: float) -> None:
    """Run it all, and draw."""
    openai, azure = FakeOpenAI(width=256, noise=1e-4), FakeOpenAI(width=256, noise=1e-4)
    server = 'drift_every = "10s"'
    with (
        tempfile.TemporaryDirectory() as made,
        serve(openai),
        serve(azure),
        day(openai, azure, Path(made), server=server) as running,
        serve_prometheus(
            Path(made) / "p",
            {"gateway": running.served.address.removeprefix("http://")},
            key=ADMIN,
        ) as prometheus,
    ):
        asyncio.run(pass_time(running, minutes * 60))
        script = [sys.executable, GRAFANA / "picture.py", prometheus.address, PICTURE]
        subprocess.run([*script, "--minutes", str(minutes), "--interval", "12s"], check=True)


if __name__ == "__main__":
    main(float(sys.argv[1]) if sys.argv[1:] else 4.0)
