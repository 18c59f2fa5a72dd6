"""Five times what can be done is asked for: what can be done is done, the rest is told at once.

    python -m tests.heavy.overload [--seconds 20] [--only upstream|engine] [--untimed]

First an upstream that takes so many calls at a time and so long for each, then the bundled model
on this machine. For each: the answers a second that busy clients get is the peak; then one key
floods it with five times as much, while another key asks for a fifth of it, cached texts are asked
for, and health and metrics are looked at. Clients are processes of their own that wait for nobody.

Then at least 0.9 of the peak is still answered, refusals come within 10 ms (99 of 100) and say when
to come back, the other key gets all it asks for, and so do cached texts, health and metrics.

Where clients, gateway and engine share few cores, a refusal that waits for a core is late by no
fault of the gateway's: beside it is told how late the clients themselves were, and (on Linux) for
what part of the time the gateway was ready and had no core. On a machine that is busy with other
things `--untimed` judges only who was answered what.
"""

import argparse
import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from tests.heavy.arrivals import Came, Stream, arrive, percentile, saturate
from tests.heavy.trial import tell
from tests.processes import gateway_process
from tests.upstream import Exchange, FakeOpenAI, serve

TIMES = 5.0
"""What is asked for, of what can be done;"""
OTHERS = 0.2
"""and by the other key."""
HITS, LOOKS = 50.0, 2.0
"""A second: cached texts, and looks at health and metrics."""
LEAST, SHED_WITHIN = 0.9, 0.010
_TAKES, _PLACES = 0.05, 8
_KNOWN = "known"

KEYS = """
[[keys]]
name = "flood"
secret = "key-of-flood"
[[keys]]
name = "calm"
secret = "key-of-calm"
[[keys]]
name = "watcher"
secret = "key-of-watcher"
admin = true
"""
UPSTREAM = """
[upstreams.fake]
kind = "openai"
base_url = "{base_url}"
concurrency = {places}
max_queue = {queue}
[models.m]
task = "embedding"
upstreams = ["fake"]
"""
ENGINE = """
[upstreams.minilm]
kind = "llama"
model = "builtin:all-minilm-l6-v2"
concurrency = 4
max_queue = 256
[models.m]
task = "embedding"
upstreams = ["minilm"]
"""


@dataclass
class Trial:
    """One gateway, and what it is asked."""

    name: str
    config: str
    words: int
    """Of a text: many, so that an engine has much to do and its clients little."""
    clients: int
    """Who keep all places busy."""


async def _slow(exchange: Exchange) -> None:
    await asyncio.sleep(_TAKES)


def trials(fake: FakeOpenAI) -> Sequence[Trial]:
    """Return what there is to overload; the fake upstream takes its time."""
    fake.always(_slow)
    upstream = UPSTREAM.format(base_url=fake.base_url, places=_PLACES, queue=4 * _PLACES)
    return [
        Trial("upstream", KEYS + upstream, words=4, clients=2 * _PLACES),
        Trial("engine", KEYS + ENGINE, words=80, clients=8),
    ]


@dataclass(frozen=True, slots=True)
class Found:
    """What became of a trial."""

    peak: float
    """Answers a second."""
    came: Came
    without_core: float
    """Seconds for which the gateway was ready to run, and waited for a core."""


async def go(trial: Trial, seconds: float) -> Found:
    """Measure the peak, then overload."""
    with gateway_process(trial.config) as gateway:
        port = int(gateway.address.rpartition(":")[2])
        flood = Stream("flood", 0.0, key="key-of-flood", words=trial.words)
        await saturate(port, flood, trial.clients, 1.0)
        peak = await saturate(port, flood, trial.clients, seconds / 2)
        before = _without_core(gateway.pid)
        came = await arrive(port, _streams(trial, peak), seconds)
        return Found(peak, came, _without_core(gateway.pid) - before)


def _without_core(pid: int) -> float:
    """Return the seconds that a process's main thread waited for a core; 0 where nobody tells."""
    try:
        told = Path(f"/proc/{pid}/schedstat").read_text()
    except OSError:
        return 0.0
    return int(told.split()[1]) / 1e9


def _streams(trial: Trial, peak: float) -> Sequence[Stream]:
    return [
        Stream("flood", peak * TIMES, key="key-of-flood", words=trial.words),
        Stream("calm", peak * OTHERS, key="key-of-calm", words=trial.words),
        Stream("hit", HITS, key="key-of-calm", text=_KNOWN),
        Stream("health", LOOKS, path="/health/ready", text=""),
        Stream("metrics", LOOKS, path="/metrics", key="key-of-watcher", text=""),
    ]


def judge(trial: Trial, found: Found, seconds: float, *, timed: bool) -> None:
    """Tell what was found; raises AssertionError where it is not as it should be."""
    peak, came = found.peak, found.came
    answered = came.of("flood", "calm", status=200)
    useful = sum(sample.ended <= came.ends for sample in answered) / seconds
    shed = [s for s in came.of("flood") if s.status in (429, 503)]
    late = percentile([s.seconds for s in shed], 0.99)
    rows = [
        ("answered a second, before", f"{peak:.1f}", ""),
        ("asked for a second", f"{len(came.of('flood', 'calm')) / seconds:.1f}", ""),
        ("answered a second, of the peak", f"{useful / peak:.3f}", f"at least {LEAST}"),
        ("refused", f"{len(shed)}", ""),
        ("refusals, half of them within", _ms(percentile([s.seconds for s in shed], 0.5)), ""),
        ("refusals, 99 of 100 within", _ms(late), f"at most {_ms(SHED_WITHIN)}"),
        ("clients late by, 99 of 100", _ms(percentile(came.lateness, 0.99)), ""),
        ("gateway without a core", f"{found.without_core / seconds:.1%} of the time", ""),
    ]
    for kind in ("flood", "calm", "hit", "health", "metrics"):
        samples = came.of(kind)
        p99 = percentile([s.seconds for s in samples if s.status == 200], 0.99)
        statuses = dict(sorted(Counter(s.status for s in samples).items()))
        rows.append((f"{kind}: statuses, 99 of 100 within", f"{statuses}, {_ms(p99)}", ""))
    tell((trial.name, "found", "wanted"), rows)
    assert shed, rows
    assert all(sample.honest for sample in shed), rows
    assert {s.status for s in came.of("flood")} == {200, *{s.status for s in shed}}, rows
    for kind in ("hit", "health", "metrics"):
        assert {s.status for s in came.of(kind)} == {200}, rows
    if timed:
        assert {s.status for s in came.of("calm")} == {200}, rows
        assert useful >= LEAST * peak, rows
        assert late <= SHED_WITHIN, rows


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def main() -> None:
    """Run the whole of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--only", choices=["upstream", "engine"])
    parser.add_argument("--untimed", action="store_true")
    asked = parser.parse_args()
    with serve(FakeOpenAI(width=16)) as served:
        for trial in trials(served.app):
            if asked.only in (None, trial.name):
                found = uvloop.run(go(trial, asked.seconds))
                judge(trial, found, asked.seconds, timed=not asked.untimed)


if __name__ == "__main__":
    main()
