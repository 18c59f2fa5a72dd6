"""The command `gateway`: serve, check, models. What it prints says what to do next."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
import msgspec

from gateway import __version__
from gateway.app import model_info
from gateway.backends.local import EngineStatus
from gateway.config import (
    Config,
    LlamaUpstream,
    Model,
    default,
    json_schema,
    load,
    show,
    with_server,
)
from gateway.errors import ConfigError

Command = TypeVar("Command", bound=Callable[..., Any])


def config_option(command: Command) -> Command:
    """Add `--config` to a command."""
    option = click.option(
        "--config", "-c", "file",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="GATEWAY_CONFIG", show_envvar=True,
        help="TOML file. Without it: the bundled model, and OpenAI if OPENAI_API_KEY is set.",
    )  # fmt: skip
    return option(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gateway")
def main() -> None:
    """OpenAI-compatible embedding gateway: one text, one vector."""


@main.command()
@config_option
@click.option("--host", help="Address to listen on (default: the config's, 127.0.0.1).")
@click.option("--port", type=int, help="Port to listen on (default: the config's, 8000).")
@click.option("--workers", type=int, help="Worker processes (default: the config's, 1).")
def serve(file: Path | None, host: str | None, port: int | None, workers: int | None) -> None:
    """Start the gateway."""
    from gateway.process import serve as run
    from gateway.server import StartError

    config = _load(file, host=host, port=port, workers=workers)
    for warning in config.warnings:
        click.secho(f"warning: {warning}", fg="yellow", err=True)
    try:
        run(config, partial(_announce, config))
    except ConfigError as error:
        _fail(error.problems)
    except StartError as error:
        _fail([str(error)])


@main.command()
@config_option
@click.option("--show", "showing", is_flag=True, help="Print what is in effect, secrets masked.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of config files.")
def check(file: Path | None, showing: bool, schema: bool) -> None:
    """Check a config file; all that is wrong is told at once."""
    if schema:
        click.echo(msgspec.json.format(msgspec.json.encode(json_schema()), indent=2).decode())
        return
    config = _load(file)
    for warning in config.warnings:
        click.secho(f"warning: {warning}", fg="yellow", err=True)
    if showing:
        click.echo(show(config), nl=False)
    else:
        models = len(config.models)
        click.echo(f"{config.source or 'the built-in config'} is right: {models} model(s).")


@main.command()
@config_option
def models(file: Path | None) -> None:
    """List the models, where each goes, and what is known of it."""
    config = _load(file)
    for line in model_lines(config, {}):
        click.echo(line)


def model_lines(config: Config, engines: Mapping[str, EngineStatus]) -> list[str]:
    """Return a line for each model: name, where it goes, width, context, state of its engine."""
    rows = [_row(name, model, config, engines) for name, model in config.models.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return [f"  {row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}".rstrip() for row in rows]


def _row(
    name: str, model: Model, config: Config, engines: Mapping[str, EngineStatus]
) -> tuple[str, str, str]:
    served_by = model.upstreams[0]
    upstream = config.upstreams[served_by]
    known: list[str] = []
    if model.aliases:
        known.append("also " + ", ".join(model.aliases))
    if isinstance(upstream, LlamaUpstream):
        info = model_info(upstream)
        where = f"{served_by}: {upstream.model.name}"
        known += [f"{info.width} wide", f"{info.context} tokens", f"{info.pooling} pooling"]
    else:
        where = f"{served_by}: {upstream.base_url}"
    if served_by in engines:
        known.append(engines[served_by].state)
    if model.task == "chat":
        known.append("chat (not in this version)")
    return name, f"-> {where}", ", ".join(known)


def _announce(config: Config, base_url: str, engines: Mapping[str, EngineStatus]) -> None:
    lines = [
        "",
        f"  embedding gateway {__version__}",
        "",
        f"  base_url = {click.style(base_url, bold=True)}",
        "",
        *model_lines(config, engines),
        "",
        "  Stop with Ctrl-C.",
        "",
    ]
    click.echo("\n".join(lines), err=True)


def _load(
    file: Path | None,
    *,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
) -> Config:
    try:
        if file is not None:
            config = load(file, os.environ)
        else:
            config = default(os.environ, local=find_spec("llama_cpp") is not None)
        return with_server(config, host=host, port=port, workers=workers)
    except ConfigError as error:
        _fail(error.problems)


def _fail(problems: Sequence[str]) -> NoReturn:
    for problem in problems:
        click.secho(f"error: {problem}", fg="red", err=True)
    sys.exit(1)
