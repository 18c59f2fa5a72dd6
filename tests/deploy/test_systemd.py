"""deploy/embedding-gateway.service: valid, confined, and with the time to end well."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.cli.serve import serve
from gateway.config import Server

UNIT = Path(__file__).parents[2] / "deploy" / "embedding-gateway.service"
SETTINGS = dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE))
MOST = 20
"""Tenths: how exposed to harm a service may be; systemd calls one without settings 9.6."""


def analyze(*words: str, unit: Path = UNIT) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze on the unit; it needs no systemd that runs."""
    command = shutil.which("systemd-analyze")
    if command is None:
        pytest.skip("no `systemd-analyze` command (Debian, Ubuntu: apt-get install systemd)")
    return subprocess.run(
        [command, *words, str(unit)], capture_output=True, encoding="utf-8", timeout=60, check=False
    )


def test_it_is_confined():
    """By systemd's own measure, which sees each setting that is missing."""
    ran = analyze("security", "--offline=true", f"--threshold={MOST}", "--no-pager")
    assert ran.returncode == 0, ran.stdout[-300:]


def test_the_measure_sees_what_is_missing(tmp_path):
    """The same unit without its sandbox is refused."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().partition("# No more than it needs")[0])
    ran = analyze("security", "--offline=true", f"--threshold={MOST}", "--no-pager", unit=unit)
    assert ran.returncode != 0


def test_every_setting_is_known(tmp_path):
    """Systemd passes over what it does not know, with a line in a log that nobody reads."""
    program = tmp_path / "gateway"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/gateway/bin/gateway", str(program)))
    ran = analyze("verify", "--man=no", "--recursive-errors=no", unit=unit)
    assert (ran.returncode, ran.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("NoNewPrivileges=", "NoNewPriviliges="))
    assert (
        "NoNewPriviliges"
        in analyze("verify", "--man=no", "--recursive-errors=no", unit=unit).stderr
    )


def test_it_starts_the_command_that_there_is():
    """With options that the command has, and a hangup for a reload."""
    program, command, *options = SETTINGS["ExecStart"].split()
    assert (program, command) == ("/opt/gateway/bin/gateway", "serve")
    known = {name for option in serve.params for name in option.opts}
    assert {option for option in options if option.startswith("-")} <= known
    assert SETTINGS["ExecReload"].endswith("-HUP $MAINPID")


def test_it_has_the_time_to_end_well():
    """What the gateway takes by default is shorter than what systemd gives it."""
    server = Server()
    assert float(SETTINGS["TimeoutStopSec"]) >= server.drain_delay + server.drain_timeout + 5
    assert SETTINGS["KillMode"] == "mixed"  # engines end with the gateway, not beside it
