"""The command `gateway`. What it prints says what to do next; errors go to stderr."""

import click

from gateway import __version__
from gateway.cli.cache import cache
from gateway.cli.embed import embed
from gateway.cli.serve import check, models, serve


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gateway")
def main() -> None:
    """OpenAI-compatible embedding gateway: one text, one vector."""


for command in (serve, check, models, embed, cache):
    main.add_command(command)
