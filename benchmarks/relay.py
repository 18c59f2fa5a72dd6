"""Chats that nothing keeps: what does the gateway add to an upstream's stream on its way?"""

from contextlib import ExitStack
from itertools import repeat
from pathlib import Path

from benchmarks import contenders
from benchmarks.answers import expect_chat
from benchmarks.chat_rounds import ChatClient, chunks
from benchmarks.chat_upstream import CHUNKS, MODELS, PACED, PAUSE, RUSHED, WHOLE_PAUSE
from benchmarks.report import Bound, Part, memory_lines, relays
from benchmarks.requests import chat_request
from benchmarks.rounds import Workload, play
from benchmarks.servers import on_cores
from benchmarks.setting import Setting

STREAMS = 32
TEXT = "Tell me of a journey to Mars."
PACE = f"{CHUNKS} chunks, one every {PAUSE * 1e3:.0f} ms"
RUSH = f"{CHUNKS} chunks, as fast as they come"
WHOLE = f"not streamed, after {WHOLE_PAUSE * 1e3:.0f} ms"
FIRST_P50, FIRST_P99 = 2.0, 10.0


def run(setting: Setting, directory: Path) -> Part:
    """Measure; raises StartError and LoadError."""
    with on_cores(setting.others), ExitStack() as stack:
        upstream = setting.start(stack, contenders.fake_chat(), setting.others)
        base = f"{upstream.address}/v1"
        taking_part = [contenders.chat_gateway(base, directory), contenders.relay_floor(base)]
        interpreter = setting.litellm()
        if interpreter is not None:
            peer = contenders.litellm(interpreter, base, directory, cached=False, models=MODELS)
            taking_part.append(peer)
        servers = setting.start_all(stack, taking_part, setting.core)
        idle = [server.memory() for server in servers]
        clients = [ChatClient(server, chunks, upstream) for server in (upstream, *servers)]
        measured = play("relay", clients, _workloads(), setting.plan, setting.say)
        part = relays(f"Relay: {STREAMS} chats at once", measured, _bounds())
        part.lines += memory_lines(servers, idle)
        return part


def _workloads() -> list[Workload]:
    # Spread, because else all would begin in one moment, again and again.
    return [
        _workload(PACE, PACED, stream=True, spread=CHUNKS * PAUSE),
        _workload(RUSH, RUSHED, stream=True),
        _workload(WHOLE, PACED, stream=False, spread=WHOLE_PAUSE),
    ]


def _workload(name: str, model: str, *, stream: bool, spread: float = 0.0) -> Workload:
    request = chat_request(model, TEXT, stream=stream)
    check = expect_chat(stream=stream)
    per = CHUNKS if stream else 1
    return Workload(name, repeat(request), STREAMS, check, per=per, spread=spread)


def _bounds() -> list[Bound]:
    told = [
        (PACE, "p50", "the time to the first chunk at the median", FIRST_P50),
        (PACE, "p99", "the time to the first chunk at the 99th percentile", FIRST_P99),
        (PACE, "way50", "a chunk's way at the median", None),
        (PACE, "way99", "a chunk's way at the 99th percentile", None),
        (WHOLE, "p50", "an answer at the median", None),
        (WHOLE, "p99", "an answer at the 99th percentile", None),
    ]
    return [
        Bound(workload, contenders.GATEWAY, contenders.DIRECT, figure, what, most)
        for workload, figure, what, most in told
    ]
