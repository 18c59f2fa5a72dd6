"""From the command to the first 200, and the memory of a server that has done nothing yet."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks import contenders
from benchmarks.report import Part
from benchmarks.servers import Contender
from benchmarks.setting import Setting


def run(setting: Setting, directory: Path) -> Part:
    """Measure; raises StartError."""
    part = Part("Start", ["server", "s to the first 200", "MB idle"])
    with ExitStack() as stack:
        upstream = setting.start(stack, contenders.fake_upstream())
        taking_part = _contenders(setting, f"{upstream.address}/v1", directory)
        seconds: dict[str, list[float]] = {}
        memory: dict[str, str] = {}
        for number in range(1, setting.plan.rounds + 1):
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
    return part


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
