"""Chats that the cache knows: how near is the gateway to an app that sends the same bytes?"""

from contextlib import ExitStack
from itertools import repeat
from pathlib import Path

from benchmarks import contenders
from benchmarks.answers import expect_chat
from benchmarks.chat_rounds import ChatClient, answers
from benchmarks.chat_upstream import CHUNKS, RUSHED
from benchmarks.load import Load
from benchmarks.report import Part, memory_lines, rates
from benchmarks.requests import chat_request
from benchmarks.rounds import Workload, play
from benchmarks.servers import on_cores
from benchmarks.setting import Setting
from benchmarks.streams import drive

CONNECTIONS = 16
TEXT = "Tell me of a journey to Mars."
ASKED = {"not streamed": False, "streamed": True}


def run(setting: Setting, directory: Path) -> Part:
    """Measure; raises StartError and LoadError."""
    requests = {
        name: chat_request(RUSHED, TEXT, stream=stream, seed=int(stream), max_tokens=CHUNKS)
        for name, stream in ASKED.items()
    }
    workloads = [
        Workload(name, repeat(request), CONNECTIONS, expect_chat(stream=ASKED[name]))
        for name, request in requests.items()
    ]
    with on_cores(setting.others), ExitStack() as stack:
        upstream = setting.start(stack, contenders.fake_chat(), setting.others)
        base = f"{upstream.address}/v1"
        gateway = setting.start(stack, contenders.chat_gateway(base, directory), setting.core)
        idle = [gateway.memory()]
        for number, request in enumerate(requests.values()):
            # The second time it is told as it was kept.
            told = drive(gateway.address, Load(iter([request] * 2), 1), 10)
            body = request.partition(b"\r\n\r\n")[2]
            (directory / f"{number}.request").write_bytes(body)
            (directory / f"{number}.answer").write_bytes(told.answers[-1].body)
        ready = setting.start(stack, contenders.ready_floor(directory), setting.core)
        idle.append(ready.memory())
        servers = [gateway, ready]
        clients = [ChatClient(server, answers, upstream) for server in servers]
        measured = play("chat hits", clients, workloads, setting.plan, setting.say)
        part = rates("Chat hits: answers kept in memory", "chat", contenders.READY, measured)
        part.lines += memory_lines(servers, idle)
        return part
