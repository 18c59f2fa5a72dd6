"""`gateway serve` and `models`."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import click

from gateway import __version__
from gateway.backends.local import EngineStatus
from gateway.cli.shared import TEXT, config_option, fail, load_config, read_config, warn
from gateway.config import Config, LlamaUpstream, Model
from gateway.errors import ConfigError
from gateway.models import model_info


@click.command()
@config_option
@click.option("--host", type=TEXT, help="Address to listen on (default: the config's, 127.0.0.1).")
@click.option("--port", type=int, help="Port to listen on (default: the config's, 8000).")
@click.option("--workers", type=int, help="Worker processes (default: the config's, 1).")
@click.option("--offline", is_flag=True, help="Answer from the cache only; nobody is asked.")
def serve(
    file: Path | None, host: str | None, port: int | None, workers: int | None, offline: bool
) -> None:
    """Start the gateway."""
    from gateway.edge.server import StartError
    from gateway.running.process import serve as run

    read = partial(read_config, file, host=host, port=port, workers=workers, offline=offline)
    try:
        config = read()
        warn(config.warnings)
        # Without a file there is nothing that could change.
        run(config, partial(_announce, config), None if file is None else read)
    except ConfigError as error:
        fail(error.problems)
    except StartError as error:
        fail([str(error)])


@click.command()
@config_option
def models(file: Path | None) -> None:
    """List the models, where each goes, and what is known of it."""
    config = load_config(file)
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
    where, known = [], ["also " + ", ".join(model.aliases)] if model.aliases else []
    for served_by in model.upstreams:
        upstream = config.upstreams[served_by]
        if isinstance(upstream, LlamaUpstream):
            info = model_info(upstream, chat=model.task == "chat")
            where.append(f"{served_by}: {upstream.model.name}")
            if model.task == "chat":
                known += ["chat", f"{info.context} tokens"]
            else:
                known += [f"{info.width} wide", f"{info.context} tokens", f"{info.pooling} pooling"]
        else:
            where.append(f"{served_by}: {upstream.base_url}")
            known += {"chat": ["chat"], None: ["embeddings and chat"]}.get(model.task, [])
        if served_by in engines:
            known.append(engines[served_by].state)
    return name, f"-> {', '.join(where)}", ", ".join(dict.fromkeys(known))


def _announce(config: Config, base_url: str, engines: Mapping[str, EngineStatus]) -> None:
    lines = ["", f"  embedding gateway {__version__}", ""]
    lines += [f"  base_url = {click.style(base_url, bold=True)}", ""]
    if config.server.offline:
        lines += ["  Offline: what is in the cache is answered, and nobody is asked.", ""]
    lines += [*model_lines(config, engines), "", "  Stop with Ctrl-C.", ""]
    click.echo("\n".join(lines), err=True)
