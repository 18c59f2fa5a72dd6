"""Stores: what a vector costs that has to come from one, or to go there, and what it weighs.

Redis takes part where the command redis-server is there.
"""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice, repeat
from pathlib import Path
from statistics import median

from benchmarks import contenders
from benchmarks.answers import expect
from benchmarks.load import Load, drive
from benchmarks.report import Part, rates
from benchmarks.requests import numbered_requests, same_request, sentences
from benchmarks.rounds import Client, Workload, play
from benchmarks.servers import Server, StartError, on_cores
from benchmarks.setting import Setting
from benchmarks.upstream import WIDTH

CONNECTIONS = 16
BATCH = 64
WEIGHED = 20_000
"""Vectors that are put into memory to see what one takes."""
FIRST_TIMES = 15
_REDIS_PATIENCE = 10.0


def run(setting: Setting, directory: Path) -> Part:
    """Measure; raises StartError and LoadError."""
    texts = list(islice(sentences(), BATCH))
    kept = same_request(texts, "base64")
    workloads = [
        Workload("one miss", numbered_requests(), CONNECTIONS, expect(1, WIDTH)),
        Workload(
            "one hit", repeat(same_request(texts[0], "base64")), CONNECTIONS, expect(1, WIDTH)
        ),
        Workload(f"{BATCH} hits", repeat(kept), CONNECTIONS, expect(BATCH, WIDTH)),
    ]
    with on_cores(setting.others), ExitStack() as stack:
        upstream = setting.start(stack, contenders.fake_upstream(), setting.others)
        base = f"{upstream.address}/v1"
        caches = {
            "memory": 'memory = "4GiB"',
            "SQLite": f'memory = "0"\nstore = "sqlite://{directory}/cache.db"',
        }
        if redis := shutil.which("redis-server"):
            port = stack.enter_context(redis_server(redis, directory))
            caches["Redis"] = f'memory = "0"\nstore = "redis://127.0.0.1:{port}/0"'
        else:
            setting.say.note("Redis is left out: there is no redis-server")
        taking_part = [
            contenders.gateway(base, directory, name=f"gateway, {tier}", cache=cache)
            for tier, cache in caches.items()
        ]
        servers = setting.start_all(stack, taking_part, setting.core)
        for server in servers:
            drive(server.address, Load(iter([kept]), 1), 10)
        clients = [Client(server, upstream) for server in servers]
        weight = _weight(servers[0], setting)
        measured = play("stores", clients, workloads, setting.plan, setting.say)
        part = rates("Stores, without the memory tier", "request", servers[0].name, measured)
        part.lines += weight
        return part


def _weight(server: Server, setting: Setting) -> list[str]:
    """Return what a vector takes in memory, and how long its first float form takes."""
    setting.say("stores: weighing vectors")
    source = sentences()
    before = server.memory()["server"]
    batches = [list(islice(source, 1000)) for _ in range(WEIGHED // 1000)]
    for batch in batches:
        drive(server.address, Load(iter([same_request(batch, "base64")]), 1), 60)
    bare = server.memory()["server"]
    first = []
    for batch in batches[:FIRST_TIMES]:
        load = Load(iter([same_request(batch[:BATCH], "float")]), 1)
        first.append(1000 * drive(server.address, load, 60).latencies[0])
    each = (bare - before) / WEIGHED
    own = f"{4 * WIDTH:,} and {16 * WIDTH // 3 + 2:,} bytes"
    times = f"{median(first):.1f} ms ({min(first):.1f} to {max(first):.1f})"
    return [
        f"A vector of {WIDTH} numbers in float32 and base64 ({own}) takes {each:,.0f} of memory.",
        f"{BATCH} kept vectors in float for the first time: {times}.",
    ]


@contextmanager
def redis_server(command: str, directory: Path) -> Iterator[int]:
    """Run a Redis that keeps nothing on disk; yield its port. Raises StartError."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    process = subprocess.Popen(
        [command, "--port", str(port), "--save", "", "--appendonly", "no", "--dir", directory],
        stdout=subprocess.DEVNULL,
    )
    try:
        _wait_for(port)
        yield port
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int) -> None:
    until = time.perf_counter() + _REDIS_PATIENCE
    while time.perf_counter() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.01)
    raise StartError("redis-server was not ready in time")
