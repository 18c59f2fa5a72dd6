"""`gateway drift`: whether models still make the vectors that are kept of them."""

import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec

from gateway.cli.attended import run
from gateway.cli.shared import TEXT, config_option, fail, give_up_output, read_config, warn
from gateway.commands.asking import Client
from gateway.commands.drift_picture import picture
from gateway.commands.drift_report import NoFigures, Report, report
from gateway.commands.drift_words import lines
from gateway.commands.drifting import RETRIES, NoFiguresError, choose, draw
from gateway.commands.files import replacing
from gateway.commands.progress import Progress
from gateway.config import Config, is_key
from gateway.drift.canaries import DRAWS, TENANT
from gateway.errors import ConfigError

_DRIFT, _WRONG, _UNASKED = 1, 2, 3
"""Exit codes."""
_COLOURS = {"steady": "green", "noise": "green", "drift": "red", "unasked": "yellow"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was typed."""

    models: Sequence[str]
    file: Path | None
    times: int
    url: str | None
    api_key: str | None
    as_json: bool
    picture: Path | None


@click.command()
@click.argument("models", metavar="[MODEL]...", nargs=-1, type=TEXT)
@config_option
@click.option("--times", type=click.IntRange(1, 1000), default=1, show_default=True, metavar="N",
    help="How often to ask anew; 50 say how nondeterministic a model is.")  # fmt: skip
@click.option("--url", type=TEXT, metavar="BASE_URL",
    help="Ask this gateway, such as http://127.0.0.1:8000/v1. Without it the gateway of the "
    "config runs inside this command.")  # fmt: skip
@click.option("--api-key", envvar=["GATEWAY_API_KEY", "OPENAI_API_KEY"], show_envvar=True,
    help="The key for --url; better in the environment, where others do not see it.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.svg",
    help="Draw how far the answers lie from the kept ones.")  # fmt: skip
def drift(**typed: Any) -> None:
    """Ask models whether they still make the vectors that are kept.

    Each MODEL, or each whose task is "embedding", embeds a few fixed texts past the cache. The
    answers are compared with those that were kept when it was first seen, which may be now. How
    far these lie from each other is the model's noise; drift is what is clearly farther away.

    \b
    Exit codes: 0  no model drifted
                1  a model drifted
                2  wrong usage, or a wrong config
                3  it could not be found out of every model, and none drifted
    """
    options = Options(**typed)
    _check(options)
    config = None if options.url else _config(options.file)
    verdicts = run(_drift(options, config), code=_UNASKED)
    if verdicts & {"drift", "unasked"}:
        sys.exit(_DRIFT if "drift" in verdicts else _UNASKED)


def _check(options: Options) -> None:
    """Raise UsageError for what cannot be meant."""
    if options.picture is not None and options.picture.suffix != ".svg":
        raise click.UsageError("--picture draws SVG: give it a name that ends in .svg")
    if options.url and not is_key(options.api_key or ""):
        raise click.UsageError(
            "--api-key (or the variable in the environment) is no key: it may have printable "
            "ASCII characters only, and no spaces or line ends."
        )


def _config(file: Path | None) -> Config:
    try:
        config = read_config(file)
    except ConfigError as error:
        fail(error.problems, _WRONG)
    if config.server.offline:
        fail(["this config is offline: nobody is asked, so nothing can be said of drift"], _UNASKED)
    return config


async def _drift(options: Options, config: Config | None) -> set[str]:
    # First what is quickly found to be impossible.
    drawn = nullcontext() if options.picture is None else replacing(options.picture)
    with drawn as out:
        with Progress("answers", None, sys.stderr) as progress:
            reports = await _measure(options, config, progress)
        try:
            _tell(reports, as_json=options.as_json)
        except BrokenPipeError:
            # Who reads has seen enough. Click's exit code for it would say that a model drifted.
            give_up_output()
        if out is not None:
            out.write(picture(reports).encode())
    return {told.verdict for told in reports}


async def _measure(options: Options, config: Config | None, progress: Progress) -> list[Report]:
    from gateway.commands.hosted import hosted

    async with AsyncExitStack() as stack:
        url, api_key = options.url or "", options.api_key
        if config is not None:
            own = await stack.enter_async_context(hosted(config, TENANT))
            url, api_key = own.base_url, own.api_key
        client = await stack.enter_async_context(
            Client(url, {}, api_key=api_key, trust_env=config is None, retries=RETRIES)
        )
        models, others = list(dict.fromkeys(options.models)), None
        if not models:
            models, others = await choose(client)
        warn([note for note in (others, _of_memory(config)) if note])
        progress.total = len(models) * (DRAWS + options.times)
        return [await _ask(client, model, options.times, progress) for model in models]


def _of_memory(config: Config | None) -> str | None:
    if config is None or config.cache.store:
        return None
    return "this config has no store: what is kept now, to compare with, is gone with this command"


async def _ask(client: Client, model: str, times: int, progress: Progress) -> Report:
    try:
        return report(model, await draw(client, model, times, progress))
    except NoFiguresError as error:
        return NoFigures(model=model, verdict=error.verdict, why=str(error))


def _tell(reports: Sequence[Report], *, as_json: bool) -> None:
    if as_json:
        said = {"models": reports}
        click.echo(msgspec.json.format(msgspec.json.encode(said), indent=2).decode())
        return
    for number, told in enumerate(reports):
        heading, *rest = lines(told)
        click.echo("\n" * bool(number) + click.style(heading, fg=_COLOURS[told.verdict], bold=True))
        click.echo("\n".join(rest))
