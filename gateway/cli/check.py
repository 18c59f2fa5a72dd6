"""`gateway check`. It imports little: editors and CI run it after every change."""

from pathlib import Path

import click
import msgspec

from gateway.cli.shared import config_option, load_config, warn
from gateway.config import json_schema, show


@click.command()
@config_option
@click.option("--show", "showing", is_flag=True, help="Print what is in effect, secrets masked.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of config files.")
def check(file: Path | None, showing: bool, schema: bool) -> None:
    """Check a config file; all that is wrong is told at once."""
    if schema:
        click.echo(msgspec.json.format(msgspec.json.encode(json_schema()), indent=2).decode())
        return
    config = load_config(file)
    warn(config.warnings)
    if showing:
        click.echo(show(config), nl=False)
    else:
        models = len(config.models)
        click.echo(f"{config.source or 'the built-in config'} is right: {models} model(s).")
