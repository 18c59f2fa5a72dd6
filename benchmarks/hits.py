"""Texts that the cache knows: how near is the gateway to an app that sends the same bytes?"""

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import islice, repeat
from pathlib import Path

from benchmarks import contenders
from benchmarks.answers import expect
from benchmarks.load import Load, drive
from benchmarks.report import Part, memory_lines, rates
from benchmarks.requests import same_request, sentences
from benchmarks.rounds import Client, Workload, play
from benchmarks.servers import Server, on_cores
from benchmarks.setting import Setting
from benchmarks.upstream import WIDTH

CONNECTIONS = 16
BATCH = 64


def run(setting: Setting, directory: Path) -> Part:
    """Measure; raises StartError and LoadError."""
    asked = _requests()
    workloads = [
        Workload(name, repeat(request), CONNECTIONS, expect(count, WIDTH))
        for name, (request, count) in asked.items()
    ]
    with on_cores(setting.others), ExitStack() as stack:
        upstream = setting.start(stack, contenders.fake_upstream(), setting.others)
        base = f"{upstream.address}/v1"
        gateway = setting.start(stack, contenders.gateway(base, directory), setting.core)
        idle = [gateway.memory()]
        _keep_answers([request for request, _ in asked.values()], gateway, directory)
        others = [contenders.ready_floor(directory)]
        interpreter = setting.litellm()
        if interpreter is not None:
            others.append(contenders.litellm(interpreter, base, directory, cached=True))
        servers = [gateway, *setting.start_all(stack, others, setting.core)]
        idle += [server.memory() for server in servers[1:]]
        clients = [Client(server, upstream) for server in servers]
        measured = play("hits", clients, workloads, setting.plan, setting.say)
        part = rates("Hits: texts kept in memory", "request", contenders.READY, measured)
        part.lines += memory_lines(servers, idle)
        return part


def _requests() -> dict[str, tuple[bytes, int]]:
    """Return what is asked, by name, with the number of texts."""
    texts = list(islice(sentences(), BATCH))
    shapes: list[tuple[str, str | Sequence[str], int]] = [
        ("one text", texts[0], 1),
        (f"{BATCH} texts", texts, BATCH),
    ]
    return {
        f"{name}, {form}": (same_request(inputs, form), count)
        for name, inputs, count in shapes
        for form in ("base64", "float")
    }


def _keep_answers(requests: Sequence[bytes], gateway: Server, directory: Path) -> None:
    """Write what the gateway answers once it has kept the texts, for the floor to send."""
    for number, request in enumerate(requests):
        for _ in range(2):
            answered = drive(gateway.address, Load(iter([request]), 1), 10)
        (directory / f"{number}.request").write_bytes(request.partition(b"\r\n\r\n")[2])
        (directory / f"{number}.answer").write_bytes(answered.body)
