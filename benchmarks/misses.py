"""Texts that no cache knows, to an upstream that answers at once: what does the gateway add?"""

from contextlib import ExitStack
from pathlib import Path

from benchmarks import contenders
from benchmarks.answers import expect
from benchmarks.report import Goal, Part, memory_lines, rates
from benchmarks.requests import numbered_requests
from benchmarks.rounds import Client, Workload, play
from benchmarks.servers import on_cores
from benchmarks.setting import Setting
from benchmarks.upstream import WIDTH

CONNECTIONS = 16
ASKED = "one text, base64"


def run(setting: Setting, directory: Path) -> Part:
    """Measure; raises StartError and LoadError."""
    with on_cores(setting.others), ExitStack() as stack:
        upstream = setting.start(stack, contenders.fake_upstream(), setting.others)
        base = f"{upstream.address}/v1"
        taking_part = [
            contenders.gateway(base, directory),
            contenders.starlette_floor(base),
            contenders.bare_floor(base),
        ]
        interpreter = setting.litellm()
        if interpreter is not None:
            taking_part += [
                contenders.litellm(interpreter, base, directory, cached=cached)
                for cached in (False, True)
            ]
        servers = setting.start_all(stack, taking_part, setting.core)
        idle = [server.memory() for server in servers]
        workload = Workload(ASKED, numbered_requests(), CONNECTIONS, expect(1, WIDTH))
        clients = [Client(server, upstream) for server in servers]
        measured = play("misses", clients, [workload], setting.plan, setting.say)
        part = rates(
            "Misses: an upstream that answers at once",
            "request",
            contenders.STARLETTE,
            measured,
            [Goal(ASKED, contenders.GATEWAY, contenders.STARLETTE, 0.5, wanted=0.8)],
        )
        part.lines += memory_lines(servers, idle)
        return part
