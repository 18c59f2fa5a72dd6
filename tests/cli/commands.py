"""The command `gateway`, in this process or in one of its own."""

import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner, Result

from gateway.cli import main
from tests.processes import ROOT

SECRET = "sixteen-or-more-characters"


def gateway(*words: str | Path, code: int = 0, answer: str = "", **environ: str) -> Result:
    """Run a command in this process, and ask that it ends with this code and no traceback."""
    env = {"GATEWAY_CONFIG": None, "OPENAI_API_KEY": None, "GATEWAY_API_KEY": None} | environ
    result = CliRunner(env=env).invoke(main, [str(word) for word in words], input=answer)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def started(*words: str | Path, **pipes: int) -> subprocess.Popen[bytes]:
    """Start a command in a process of its own, with pipes unless told otherwise."""
    inherited = {n: v for n, v in os.environ.items() if not n.endswith("_API_KEY")}
    piped = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", *map(str, words)],
        cwd=ROOT,
        env=inherited,
        **(piped | pipes),
    )


def write_config(
    place: Path,
    base_url: str,
    *stores: str,
    secret: str | None = SECRET,
    cache: str = "",
    rest: str = "",
) -> Path:
    """Write a config with models `m`, `n` (the same vectors as `m`) and `o`; return its path."""
    place.mkdir(parents=True, exist_ok=True)
    named = "" if secret is None else f'secret = "{secret}"'
    listed = ", ".join(f'"{store}"' for store in stores)
    file = place / "gateway.toml"
    file.write_text(f"""
        [cache]
        store = [{listed}]
        {named}
        {cache}
        {rest}
        [upstreams.fake]
        kind = "openai"
        base_url = "{base_url}"
        [models.m]
        upstreams = ["fake"]
        aliases = ["mm"]
        [models.n]
        upstreams = ["fake"]
        upstream_model = "m"
        [models.o]
        upstreams = ["fake"]
    """)
    return file
