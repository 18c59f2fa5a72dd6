"""Several gateways on one Redis, or each by itself: asked by Zipf's law, from empty caches.

It counts who answered: a gateway's memory, the store that they share, or the upstream. What the
model says of the same traffic stands beside it.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import mean
from time import perf_counter

import msgspec
import numpy as np
import redis
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import contenders, zipf
from benchmarks.load import Load, LoadError, drive_all
from benchmarks.requests import requests_of
from benchmarks.rounds import count_calls, fetch
from benchmarks.servers import Server
from benchmarks.setting import Setting
from benchmarks.stores import redis_server
from benchmarks.upstream import WIDTH
from gateway.cache.entry import Entry

DELAY = 0.05
"""Seconds that the upstream takes for an answer: long enough for two gateways to want the same."""
_PATIENCE = 900.0
_SEED = 20


class Traffic(msgspec.Struct, frozen=True):
    """What is asked for, one text a request."""

    requests: int
    texts: int
    exponent: float
    connections: int
    """Over all gateways; each asks again as soon as it is answered."""
    memory: int
    """Vectors that a gateway's memory holds."""


class Answered(msgspec.Struct, frozen=True):
    """How many requests were answered from where."""

    memory: float
    store: float
    upstream: float


class Ran(msgspec.Struct, frozen=True):
    """One run of a fleet."""

    gateways: int
    shared: bool
    """Whether they share a Redis; else each has its memory alone."""
    answered: Answered
    joined: int
    """Requests that waited for the call of another one."""
    expected: Answered
    """By the model, in which a call takes no time: nobody joins one, the memory has it already."""
    different: int
    """Texts that were asked for at all."""
    seconds: float
    cpu: float
    """Microseconds of all gateways for a request."""
    redis_cpu: float
    """Microseconds of Redis for a request."""
    memory_bytes: float
    """Of a gateway, at the end."""
    redis_bytes: float
    """For each vector in Redis, at the end."""

    @property
    def name(self) -> str:
        """What the tables call it."""
        return f"{self.gateways}, {'one Redis' if self.shared else 'memory only'}"

    @property
    def parts(self) -> list[tuple[float, float]]:
        """Requests by memory, store and upstream, each as counted and by the model.

        Who waited for another's call found in memory what the call had brought.
        """
        counted, of_model = self.answered, self.expected
        return [
            (counted.memory + self.joined, of_model.memory),
            (counted.store, of_model.store),
            (counted.upstream, of_model.upstream),
        ]


def run(
    setting: Setting,
    directory: Path,
    command: str,
    gateways: int,
    traffic: Traffic,
    *,
    shared: bool,
) -> Ran:
    """Ask so many gateways; `command` starts a Redis. Raises StartError and LoadError."""
    shares = zipf.shares(traffic.texts, traffic.exponent)
    ranks = zipf.draws(shares, traffic.requests, np.random.default_rng(_SEED))
    # Dealt out in turn, as a load balancer does that knows nothing of caches.
    dealt = [ranks[place::gateways].tolist() for place in range(gateways)]
    with ExitStack() as stack:
        port = stack.enter_context(redis_server(command, directory))
        store = stack.enter_context(redis.Redis(port=port))
        upstream = setting.start(stack, contenders.fake_upstream(DELAY))
        base, cache = f"{upstream.address}/v1", _cache(traffic, port if shared else None)
        named = [f"gateway {number}" for number in range(1, gateways + 1)]
        servers = setting.start_all(
            stack, [contenders.gateway(base, directory, name=name, cache=cache) for name in named]
        )
        what = f"{gateways} on one Redis" if shared else f"{gateways} by themselves"
        setting.say(f"scaling: {traffic.requests:,} requests, {what}")
        before = store.info("memory")["used_memory"]
        cpu, redis_cpu = _cpu(servers), _redis_cpu(store)
        seconds = _asked(servers, dealt, traffic.connections)
        cpu, redis_cpu = _cpu(servers) - cpu, _redis_cpu(store) - redis_cpu
        counted = _inputs(servers)
        calls = count_calls(upstream)
        if sum(counted.values()) != traffic.requests or counted.get("upstream", 0) != calls:
            raise LoadError(f"{what}: {counted} of {traffic.requests}, and {calls} calls")
        kept = store.dbsize()
        return Ran(
            gateways=gateways,
            shared=shared,
            answered=Answered(counted.get("memory", 0), counted.get("store", 0), calls),
            joined=counted.get("in-flight", 0),
            expected=expected(traffic, gateways, shared=shared),
            different=len(np.unique(ranks)),
            seconds=seconds,
            cpu=cpu / traffic.requests * 1e6,
            redis_cpu=redis_cpu / traffic.requests * 1e6,
            memory_bytes=mean(server.memory()["server"] for server in servers),
            redis_bytes=(store.info("memory")["used_memory"] - before) / kept if shared else 0.0,
        )


def expected(traffic: Traffic, gateways: int, *, shared: bool) -> Answered:
    """Return what the model says of a run from empty caches."""
    shares = zipf.shares(traffic.texts, traffic.exponent)
    memory = gateways * zipf.hits(shares, traffic.memory, traffic.requests / gateways)
    if not shared:
        return Answered(memory, 0.0, traffic.requests - memory)
    upstream = zipf.different(shares, traffic.requests)
    return Answered(memory, traffic.requests - memory - upstream, upstream)


def entry_size() -> int:
    """Return the bytes of a vector in a gateway's memory that was asked for in base64."""
    entry = Entry(bytes(4 * WIDTH), tokens=1, created=0.0)
    entry.render(base64=True)
    return entry.size


def _cache(traffic: Traffic, port: int | None) -> str:
    """Return a gateway's [cache]; `port` is the Redis that they share."""
    lines = [f"memory = {traffic.memory * entry_size()}", 'secret = "only-for-measurements"']
    if port is not None:
        lines.append(f'store = "redis://127.0.0.1:{port}/0"')
    return "\n".join(lines)


def _asked(servers: Sequence[Server], dealt: Sequence[Sequence[int]], connections: int) -> float:
    """Have each gateway asked for its texts; return the seconds that all took."""
    loads = {
        server.address: Load(requests_of(numbers), connections // len(servers))
        for server, numbers in zip(servers, dealt, strict=True)
    }
    began = perf_counter()
    drive_all(loads, _PATIENCE)
    return perf_counter() - began


def _cpu(servers: Sequence[Server]) -> float:
    return sum(server.cpu_seconds() for server in servers)


def _redis_cpu(store: "redis.Redis") -> float:
    used = store.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


def _inputs(servers: Sequence[Server]) -> Counter[str]:
    """Return how many texts the gateways say to have had from where."""
    counted: Counter[str] = Counter()
    for server in servers:
        text = fetch(f"{server.address}/metrics").decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "gateway_inputs_total":
                    counted[sample.labels["result"]] += int(sample.value)
    return counted
