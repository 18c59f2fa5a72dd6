"""What metrics cost: a cached answer with them and without, and a scrape of many models."""

import http.client
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from benchmarks import contenders
from benchmarks.answers import expect
from benchmarks.load import LoadError
from benchmarks.report import Goal, Part, rates
from benchmarks.requests import same_request, sentences
from benchmarks.rounds import Client, Workload, fetch, play
from benchmarks.servers import Contender, on_cores, python
from benchmarks.setting import Setting
from benchmarks.upstream import WIDTH

CONNECTIONS = 16
WATCHED, UNWATCHED = "with metrics", "without"
LEAST = 0.95
"""Of the rate without metrics."""

MODELS, UPSTREAMS = 50, 50
SCRAPED_WITHIN, AT_MOST = 50.0, 1000.0
"""Milliseconds and kilobytes of a scrape of so many models."""

_MODEL = """
[upstreams.{upstream}]
kind = "openai"
base_url = "{base}"

[models."{model}"]
upstreams = ["{upstream}"]
price = 0.02
"""


def run(setting: Setting, directory: Path) -> Part:
    """Measure hits; raises StartError and LoadError."""
    text = next(sentences())
    request = same_request(text, "base64")
    workload = Workload("one text", repeat(request), CONNECTIONS, expect(1, WIDTH))
    with on_cores(setting.others), ExitStack() as stack:
        upstream = setting.start(stack, contenders.fake_upstream(), setting.others)
        base = f"{upstream.address}/v1"
        both = [_composed(name, base, directory) for name in (WATCHED, UNWATCHED)]
        clients = [Client(s, upstream) for s in setting.start_all(stack, both, setting.core)]
        measured = play("metrics", clients, [workload], setting.plan, setting.say)
        goal = Goal(workload.name, WATCHED, UNWATCHED, LEAST)
        return rates("Hits, watched or not", "request", UNWATCHED, measured, [goal])


def scrape(setting: Setting, directory: Path) -> Part:
    """Measure scrapes, of one worker and of two; raises StartError and LoadError."""
    part = Part(
        f"A scrape of {MODELS} models at {UPSTREAMS} upstreams, with every label they use",
        ["workers", "lines", "kB", "ms", "longest ms", "CPU ms"],
    )
    with ExitStack() as stack:
        upstream = setting.start(stack, contenders.fake_upstream(), setting.others)
        for workers in (1, 2):
            many = _many(workers, f"{upstream.address}/v1", directory)
            with ExitStack() as alone:
                server = setting.start(alone, many, setting.core)
                _use(server.address)
                before = server.cpu_seconds()
                page, times = _scrapes(server.address, 5 * setting.plan.rounds)
                cpu = (server.cpu_seconds() - before) / len(times) * 1e3
            size, middle = len(page) / 1e3, median(times)
            figures = (page.count(b"\n"), size, middle, max(times), cpu)
            part.rows.append([f"{workers}", *(f"{figure:,.0f}" for figure in figures)])
            if workers == 1:
                reached = middle < SCRAPED_WITHIN and size < AT_MOST
                part.lines.append(
                    f"One worker: {middle:.0f} ms and {size:.0f} kB; goal below "
                    f"{SCRAPED_WITHIN:.0f} ms and {AT_MOST:.0f} kB, "
                    f"{'reached' if reached else '**missed**'}."
                )
    return part


def _composed(name: str, base: str, directory: Path) -> Contender:
    """Return the gateway as benchmarks.watched puts it together."""
    whole = contenders.gateway(base, directory, name=name)
    config = directory / f"{name.replace(' ', '-')}.toml"
    how = "watched" if name == WATCHED else "unwatched"
    return replace(whole, command=lambda port: python("benchmarks.watched", str(port), config, how))


def _many(workers: int, base: str, directory: Path) -> Contender:
    """Return the gateway with many models."""
    config = directory / f"many-{workers}.toml"
    store = directory / f"many-{workers}.db"
    head = (
        f'[server]\nlog_level = "warning"\nworkers = {workers}\n[cache]\nstore = "sqlite://{store}"'
    )
    models = [
        _MODEL.format(upstream=f"upstream-{number % UPSTREAMS}", model=model, base=base)
        for number, model in enumerate(_models())
    ]
    config.write_text(head + "".join(models), encoding="utf-8")
    return Contender(
        f"gateway, {MODELS} models, {workers} workers",
        lambda port: python("gateway", "serve", "--config", config, "--port", str(port)),
        "/health/ready",
        {"XDG_CACHE_HOME": str(directory)},
    )


def _models() -> list[str]:
    return [f"text-embedding-model-{number}" for number in range(MODELS)]


def _use(address: str) -> None:
    """Ask every model in every way that has a label, some times, of whichever worker."""
    for turn in range(4):
        for model in _models():
            for texts, control in _ways(turn):
                _post(address, {"model": model, "input": texts}, control)


def _ways(turn: int) -> Iterator[tuple[Sequence[str], str]]:
    """Yield texts and what is said of the cache: miss, hit, partial, bypass, and an error."""
    yield [f"new {turn}"], ""
    yield [f"new {turn}"], ""
    yield [f"new {turn}", f"newer {turn}", f"newer {turn}"], ""
    yield [f"new {turn}"], "no-cache"
    yield [""], ""


def _post(address: str, body: dict[str, object], control: str) -> None:
    """Ask over a connection of its own, which any worker may take."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    try:
        connection.request("POST", "/v1/embeddings", json.dumps(body), {"cache-control": control})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status not in (200, 400):
            raise LoadError(f"{answer.status}: {said[:200]!r}")
    finally:
        connection.close()


def _scrapes(address: str, times: int) -> tuple[bytes, list[float]]:
    """Scrape so often; return the last page, and the milliseconds that each took."""
    page, took = b"", []
    for _ in range(times):
        began = time.perf_counter()
        page = fetch(f"{address}/metrics")
        took.append((time.perf_counter() - began) * 1e3)
    return page, took
