"""Other people's servers, each installed from the package index into an environment of its own.

They live under `.venv-peers`, are no dependencies of ours, and stay there: delete a directory to
have the newest release again. A peer that cannot be installed is left out, by name.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.progress import Say
from benchmarks.servers import ROOT

INSTALL_TIMEOUT = 900


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer's name, what to install, and the package whose version is told."""

    name: str
    packages: tuple[str, ...]
    shown: str


LITELLM = Peer("litellm", ("litellm[proxy]",), "litellm")
LLAMA_SERVER = Peer(
    "llama-cpp-server",
    # What llama-cpp-python and its extra [server] need. The library itself is the one built for
    # the gateway, so both run the same machine code.
    (
        "diskcache", "fastapi", "jinja2", "numpy", "pydantic-settings", "PyYAML", "sse-starlette",
        "starlette-context", "typing-extensions", "uvicorn",
    ),
    "fastapi",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Installed:
    """A peer's interpreter, and the version that was installed."""

    interpreter: Path
    version: str


def install(peer: Peer, say: Say) -> Installed | None:
    """Install the newest release where nothing is yet; return None where that cannot be."""
    home = ROOT / ".venv-peers" / peer.name
    interpreter = home / "bin" / "python"
    done = home / "installed"
    try:
        if not done.exists():
            say(f"installing {peer.name} into {home.relative_to(ROOT)}")
            _run([sys.executable, "-m", "venv", "--clear", home])
            _run(
                [
                    interpreter,
                    "-m",
                    "pip",
                    "--disable-pip-version-check",
                    "install",
                    "--quiet",
                    *peer.packages,
                ]
            )
            code = f"import importlib.metadata as m; print(m.version({peer.shown!r}))"
            done.write_text(_run([interpreter, "-c", code]), encoding="utf-8")
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        say.note(f"{peer.name} is left out, it could not be installed: {said.strip()[-300:]}")
        return None
    return Installed(interpreter, done.read_text(encoding="utf-8").strip())


def _run(command: list[str | Path]) -> str:
    ran = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        check=True,
        text=True,
        timeout=INSTALL_TIMEOUT,
    )
    return ran.stdout
