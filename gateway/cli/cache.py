"""`gateway cache`: what the stores hold, and how to move or forget it."""

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from math import inf
from pathlib import Path

import click
import msgspec

from gateway.cli.attended import run
from gateway.cli.shared import TEXT, config_option, fail, load_config, warn
from gateway.commands.exporting import export as write_export
from gateway.commands.importing import import_ as read_export
from gateway.commands.opened import Held
from gateway.commands.progress import Progress
from gateway.commands.purging import Plan, Purge, plan
from gateway.commands.purging import purge as forget
from gateway.commands.selection import Selection
from gateway.commands.stats import lines, size, table
from gateway.commands.stats import stats as look

models_option = click.option(
    "--model", "models", type=TEXT, multiple=True, metavar="NAME",
    help="Only this model's, by any of its names; * stands for any characters. Repeatable.",
)  # fmt: skip
tenants_option = click.option(
    "--tenant", "tenants", type=TEXT, multiple=True, metavar="NAME",
    help="Only this tenant's; * stands for any characters. Repeatable.",
)  # fmt: skip


@click.group()
def cache() -> None:
    """Look into the stores of a config, move what they hold, or forget it."""


@cache.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
def stats(file: Path | None, as_json: bool) -> None:
    """Tell what each store holds; exit code 1 if one of them is away."""
    found = run(look(load_config(file).cache))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode({"stores": found}), indent=2).decode())
    else:
        click.echo("\n\n".join("\n".join(lines(store)) for store in found))
    if any(store.state == "away" for store in found):
        sys.exit(1)


@cache.command()
@click.argument("path", metavar="FILE.safetensors", type=click.Path(dir_okay=False, path_type=Path))
@config_option
@models_option
@tenants_option
@click.option("--force", is_flag=True, help="Overwrite the file if there is one.")
def export(
    path: Path, file: Path | None, models: Sequence[str], tenants: Sequence[str], force: bool
) -> None:
    """Write the vectors of the last store into a file, without any text.

    `gateway cache import` reads it where the [cache] secret is the same, and so does every
    program that knows safetensors. Answers to chats are left out.
    """
    if path.exists() and not force:
        fail([f"{path}: is there already; --force overwrites it"])
    config = load_config(file)
    with Progress("entries", None, sys.stderr) as progress:
        done = run(write_export(config, Selection(models, tenants), path, progress, time.time()))
    click.echo(f"{done.exported:,} entries, {size(path.stat().st_size)} -> {path}")
    left = {
        "expired or purged": done.over,
        "damaged": done.damaged,
        "of models that the store does not know any more": done.unknown,
        "answers to chats: an export has vectors only": done.answers,
    }
    warn([f"left out: {count:,} {what}" for what, count in left.items() if count])


@cache.command("import")
@click.argument(
    "path", metavar="FILE.safetensors",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)  # fmt: skip
@config_option
def import_(path: Path, file: Path | None) -> None:
    """Add the vectors of an export to the last store; what it has stays."""
    settings = load_config(file).cache
    with Progress("entries", None, sys.stderr) as progress:
        done = run(read_export(settings, path, progress, time.time()))
    click.echo(f"{done.imported:,} imported, {done.there:,} were there already")
    if done.over:
        warn([f"left out: {done.over:,} expired or purged"])
    if done.refused:
        fail([f"{path}: left out: {reason}" for reason in done.refused])


@cache.command()
@config_option
@models_option
@tenants_option
@click.option(
    "--older-than", type=TEXT, metavar="TIME",
    help="Only what was made before, such as 30d or 12h.",
)  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="All models of all tenants.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(
    file: Path | None,
    models: Sequence[str],
    tenants: Sequence[str],
    older_than: str | None,
    everything: bool,
    yes: bool,
) -> None:
    """Forget vectors and answers, in every store and every gateway that runs.

    They notice within a second, and ask their upstreams again.
    """
    if everything and (models or tenants):
        raise click.UsageError("--all is everybody's; leave out --model and --tenant, or --all.")
    if not (everything or models or tenants or older_than):
        raise click.UsageError("say what to purge: --model, --tenant, --older-than or --all.")
    # Nothing was made before 1970, and no calendar has all the years that one could type.
    before = None if older_than is None else max(0.0, time.time() - _seconds(older_than))
    asked = Purge(Selection(models, tenants), not models and not tenants, before)

    config = load_config(file)
    if not yes:
        _confirm(run(plan(config, asked)), before)
    if sys.stderr.isatty():
        click.echo("Telling every gateway, and removing; much takes a while.", err=True)
    removed = run(forget(config, asked))
    for store, entries in removed.items():
        click.echo(f"{store}: {entries:,} entries removed")


def _seconds(typed: str) -> float:
    from gateway.config.forms import duration
    from gateway.config.problems import MisfitError

    try:
        return duration(typed, longest=inf)
    except MisfitError as misfit:
        raise click.BadParameter(str(misfit), param_hint="--older-than") from misfit


def _confirm(plan: Plan, before: float | None) -> None:
    """Show what would go, and end the process unless that is meant."""
    if not any(found for _, found in plan):
        click.echo("there is nothing to purge")
        sys.exit(0)
    for opened, found in plan:
        if found:
            rows = list(map(_row, found))
            click.echo("\n".join([str(opened.address), *table(rows, left=2)]), err=True)
    if before is not None:
        moment = datetime.fromtimestamp(before, UTC)
        click.echo(f"Of these, what was made before {moment:%Y-%m-%d %H:%M:%S} UTC.", err=True)
    if not sys.stdin.isatty():
        fail(["nothing was purged: there is no terminal to ask on; --yes does it unasked"])
    click.confirm("Purge it?", abort=True, err=True)


def _row(found: Held) -> tuple[str, ...]:
    fact, usage = found.fact, found.usage
    tenant, model = (fact.tenant, fact.model) if fact else ("(unknown)", found.scope)
    return tenant, model, f"{usage.entries:,} entries", size(usage.bytes)
