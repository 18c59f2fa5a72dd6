"""The bundled model: distinct texts of 20 tokens, 32 to a request, from several clients.

The engine may use every core, and so may whatever it is compared with.
"""

import json
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import contenders
from benchmarks.answers import expect
from benchmarks.load import LoadError
from benchmarks.report import Goal, Part, memory_lines, rates
from benchmarks.requests import TOKENS, sentence_requests
from benchmarks.rounds import Client, Figures, Subject, Workload, play
from benchmarks.servers import environment, python
from benchmarks.setting import Setting

CLIENTS = 4
BATCH = 32
WIDTH = 384
POOL = "bare context pool"
ASKED = f"{BATCH} texts of {TOKENS} tokens, {CLIENTS} clients"


@dataclass(frozen=True, slots=True)
class BarePool:
    """The floor: a process of its own for each round, without HTTP."""

    name: str = POOL
    optional: bool = False

    def measure(self, workload: Workload, seconds: float) -> Figures:  # noqa: ARG002
        """See Subject.measure; it makes texts of the same kind itself."""
        ran = subprocess.run(
            [str(word) for word in python("benchmarks.pool", contenders.GGUF, str(seconds))],
            env=environment({}),
            capture_output=True,
            check=False,
            text=True,
        )
        if ran.returncode:
            raise LoadError(f"{POOL}: {ran.stderr.strip()[-300:]}")
        said = json.loads(ran.stdout)
        return Figures(said["texts"] / said["seconds"], said["cpu"] / said["texts"] * 1e6)


def run(setting: Setting, directory: Path) -> Part | None:
    """Measure, where there is llama.cpp; raises StartError and LoadError."""
    if not setting.has_llama():
        return None
    with ExitStack() as stack:
        taking_part = [contenders.local_gateway(directory)]
        interpreter = setting.llama_server()
        if interpreter is not None:
            taking_part.append(contenders.llama_server(interpreter, directory))
        servers = setting.start_all(stack, taking_part)
        idle = [server.memory() for server in servers]
        subjects: list[Subject] = [BarePool(), *map(Client, servers)]
        workload = Workload(
            ASKED,
            sentence_requests(contenders.LOCAL_MODEL, BATCH),
            CLIENTS,
            # llama_cpp.server does not normalize.
            expect(BATCH, WIDTH, unit=False, tokens=BATCH * TOKENS),
            per=BATCH,
        )
        measured = play("local", subjects, [workload], setting.plan, setting.say)
        goals = [
            Goal(ASKED, contenders.GATEWAY, POOL, 0.85),
            Goal(ASKED, contenders.GATEWAY, contenders.LLAMA_SERVER, 1.5),
        ]
        part = rates("Local model: all-MiniLM-L6-v2, q8_0", "text", POOL, measured, goals)
        part.lines += memory_lines(servers, idle)
        return part
