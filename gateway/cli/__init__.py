"""The command `gateway`. What it prints says what to do next; errors go to stderr."""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from gateway import __version__
from gateway.cli.shared import fail, give_up_output, told

_COMMANDS = {
    "serve": "gateway.cli.serve",
    "check": "gateway.cli.check",
    "models": "gateway.cli.serve",
    "embed": "gateway.cli.embed",
    "cache": "gateway.cli.cache",
    "health": "gateway.cli.health",
    "drift": "gateway.cli.drift",
}
"""The module that has each command. It is imported when the command is typed: `gateway check` is
done before the libraries of the others have been read."""


class _Gateway(click.Group):
    """Finds its commands. Files and outputs that fail are told in a line, not only pipes."""

    def list_commands(self, _: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _: click.Context, cmd_name: str) -> click.Command | None:
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = getattr(import_module(module), cmd_name)
        return command

    def main(self, *args: Any, **options: Any) -> Any:
        _open_standard_streams()
        try:
            return super().main(*args, **options)
        except OSError as error:
            give_up_output()
            fail([told(error)])


def _open_standard_streams() -> None:
    """Open those that whoever has started us closed: else their numbers go to sockets.

    uvloop ends the process, with a core dump, where it is to close one of these.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            standing = Path(os.devnull).open(mode)  # noqa: SIM115 - as long as the process
            setattr(sys, name, standing)


@click.group(cls=_Gateway, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gateway")
def main() -> None:
    """OpenAI-compatible embedding gateway: one text, one vector."""
