"""From the command to the first 200, what `gateway check` takes, and the memory of a server that
has done nothing yet."""

import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks import contenders
from benchmarks.report import Part
from benchmarks.servers import ROOT, Contender, StartError, environment, python
from benchmarks.setting import Setting

READY_WITHIN = 1.0
"""Seconds from `gateway serve` to ready, without local models."""
CHECKED_WITHIN = 0.5
"""Seconds that `gateway check` takes as a process."""


def run(setting: Setting, directory: Path) -> Part:
    """Measure; raises StartError."""
    part = Part("Start", ["server", "s to the first 200", "MB idle"])
    checks: list[float] = []
    with ExitStack() as stack:
        upstream = setting.start(stack, contenders.fake_upstream())
        taking_part = _contenders(setting, f"{upstream.address}/v1", directory)
        seconds: dict[str, list[float]] = {}
        memory: dict[str, str] = {}
        for number in range(1, setting.plan.rounds + 1):
            checks.append(_check(directory / f"{contenders.GATEWAY}.toml"))
            for contender in taking_part:
                setting.say(f"start: round {number} of {setting.plan.rounds}, {contender.name}")
                with ExitStack() as alone:
                    for server in setting.start_all(alone, [contender]):
                        seconds.setdefault(server.name, []).append(server.start_seconds)
                        sizes = [
                            f"{size / 1e6:.0f} ({role})" for role, size in server.memory().items()
                        ]
                        memory[server.name] = " + ".join(sizes)
    for name, all_seconds in seconds.items():
        part.rows.append([name, f"{median(all_seconds):.2f}", memory[name]])
    part.lines += [
        _told("`gateway serve` to ready", seconds[contenders.GATEWAY], READY_WITHIN),
        _told("`gateway check`", checks, CHECKED_WITHIN),
    ]
    return part


def _check(config: Path) -> float:
    """Return the seconds that a whole `gateway check` takes; raises StartError."""
    began = time.perf_counter()
    ran = subprocess.run(
        python("gateway", "check", "--config", config),
        cwd=ROOT, env=environment({}), check=False, capture_output=True, text=True,
    )  # fmt: skip
    if ran.returncode:
        raise StartError(f"gateway check ended with code {ran.returncode}:\n{ran.stderr}")
    return time.perf_counter() - began


def _told(what: str, seconds: Sequence[float], most: float) -> str:
    middle = median(seconds)
    verdict = "reached" if middle <= most else "**missed**"
    spread = f"({min(seconds):.2f} to {max(seconds):.2f})"
    return f"{what}: {middle:.2f} s {spread}; goal {most:g} s, {verdict}."


def _contenders(setting: Setting, base: str, directory: Path) -> list[Contender]:
    """Return all that can start here: those with an upstream, then those with a local model."""
    found = [contenders.gateway(base, directory), contenders.starlette_floor(base)]
    litellm = setting.litellm()
    if litellm is not None:
        found.append(contenders.litellm(litellm, base, directory, cached=False))
    if setting.has_llama():
        local = contenders.local_gateway(directory)
        found.append(replace(local, name=f"{local.name} with its bundled model"))
        llama_server = setting.llama_server()
        if llama_server is not None:
            found.append(contenders.llama_server(llama_server, directory))
    return found
