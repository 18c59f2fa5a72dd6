"""The command `gateway`. What it prints says what to do next; errors go to stderr."""

import sys
from contextlib import suppress
from typing import Any

import click

from gateway import __version__
from gateway.cli.cache import cache
from gateway.cli.embed import embed
from gateway.cli.serve import check, models, serve
from gateway.cli.shared import fail, told


class _Gateway(click.Group):
    """Tells of files and outputs that fail in a line; click does so for pipes alone."""

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            return super().main(*args, **options)
        except OSError as error:
            _give_up_output()
            fail([told(error)])


def _give_up_output() -> None:
    """Close the standard output if it takes no more: Python would try again as it ends."""
    out = sys.__stdout__
    if out is None:
        return
    try:
        out.flush()
    except OSError:
        with suppress(OSError):
            out.close()


@click.group(cls=_Gateway, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gateway")
def main() -> None:
    """OpenAI-compatible embedding gateway: one text, one vector."""


for command in (serve, check, models, embed, cache):
    main.add_command(command)
