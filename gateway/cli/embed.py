"""`gateway embed`: texts in, vectors out, by a server or by a gateway of its own."""

import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

import click

from gateway.cli.attended import run
from gateway.cli.shared import TEXT, config_option, load_config
from gateway.commands.asking import Client
from gateway.commands.embedding import Embedding, Tally
from gateway.commands.files import replacing
from gateway.commands.progress import Progress
from gateway.commands.rows import JsonLines, Rows, VectorFile
from gateway.commands.texts import Form, count_lines, in_batches, read_items
from gateway.config import Config, is_key

Command = TypeVar("Command", bound=Callable[..., Any])

_BATCH_BYTES = 2**22
_JSON_LINES = frozenset({".jsonl", ".ndjson"})
_STANDARD = Path("-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was typed."""

    file: Path | None
    model: str
    source: Path
    target: Path
    form: str | None
    base64: bool
    field: str | None
    id_field: str | None
    dimensions: int | None
    seed: int | None
    batch: int
    concurrency: int
    url: str | None
    api_key: str | None
    tenant: str | None
    offline: bool
    skip_invalid: bool

    @property
    def as_tensors(self) -> bool:
        """Whether a safetensors file is written."""
        if self.form is not None:
            return self.form == "safetensors"
        return self.target.suffix == ".safetensors"

    @property
    def input_form(self) -> Form:
        """How the texts are written."""
        named = self.field is not None or self.id_field is not None
        if named or self.source.suffix in _JSON_LINES:
            return Form(self.field or "text", self.id_field)
        return Form()

    @property
    def request(self) -> dict[str, Any]:
        """The fields of each request."""
        fields = {"model": self.model, "dimensions": self.dimensions, "seed": self.seed}
        return {name: value for name, value in fields.items() if value is not None}


def embed_options(command: Command) -> Command:
    """Add the options of `gateway embed`."""
    path = click.Path(dir_okay=False, allow_dash=True, path_type=Path)
    there = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
    for option in reversed((
        click.option("--model", "-m", type=TEXT, required=True,
            help="The model, by a name of the config."),
        click.option("--input", "-i", "source", type=there, default="-", show_default=True,
            help="Texts, a line each, or JSON lines (see --field); - is the standard input."),
        click.option("--output", "-o", "target", type=path, default="-", show_default=True,
            help="Where the vectors go; - is the standard output."),
        click.option("--format", "form", type=click.Choice(["jsonl", "safetensors"]),
            help="Default: by the output's name, else jsonl."),
        click.option("--base64", is_flag=True,
            help="Write vectors into JSON lines as base64 of little-endian float32."),
        click.option("--field", type=TEXT, metavar="NAME",
            help="Read JSON lines, texts from this field.  [default for .jsonl, .ndjson: text]"),
        click.option("--id-field", type=TEXT, metavar="NAME",
            help="Read JSON lines, and copy this field to the output as id."),
        click.option("--dimensions", type=click.IntRange(min=1), metavar="N",
            help="Components of each vector, where the model can be cut."),
        click.option("--seed", type=int, metavar="N",
            help="Which of several independent draws of the vectors."),
        click.option("--batch", type=click.IntRange(1, 2048), default=128, show_default=True,
            metavar="N", help="Texts in a request."),
        click.option("--concurrency", type=click.IntRange(1, 256), default=4, show_default=True,
            metavar="N", help="Requests at the same time."),
        click.option("--url", type=TEXT, metavar="BASE_URL",
            help="Ask this server, such as http://127.0.0.1:8000/v1. Without it the gateway of "
            "the config runs inside this command."),
        click.option("--api-key", envvar=["GATEWAY_API_KEY", "OPENAI_API_KEY"], show_envvar=True,
            help="The key for --url; better in the environment, where others do not see it."),
        click.option("--tenant", type=TEXT, metavar="NAME",
            help="Whose vectors they are, where the gateway of the config runs inside this "
            "command.  [default: default]"),
        click.option("--offline", is_flag=True,
            help="Only what is in the cache; a text that is not is an error."),
        click.option("--skip-invalid", is_flag=True,
            help="Give null, not an error, for a line without text and for a text that the model "
            "refuses."),
    )):  # fmt: skip
        command = option(command)
    return command


@click.command()
@config_option
@embed_options
def embed(**typed: Any) -> None:
    """Embed the lines of a file.

    The output has a vector for each line, in their order. A run that was stopped goes on where it
    was when it is started again, because what was done is in the cache.
    """
    options = Options(**typed)
    _check(options)
    if options.source == _STANDARD and sys.stdin.isatty():
        click.echo("Reading texts from the terminal, a line each; Ctrl-D ends them.", err=True)
    config = None if options.url else load_config(options.file, offline=options.offline)
    total = None if options.source == _STANDARD else count_lines(options.source)
    tally = Tally()
    with Progress("texts", total, sys.stderr) as progress:
        run(_embed(options, config, progress, tally), lambda: _hint(options, config, total, tally))
    _tell(options, progress, tally)


def _check(options: Options) -> None:
    """Raise UsageError for what cannot be meant."""
    if options.as_tensors and options.base64:
        raise click.UsageError("--base64 is for JSON lines; safetensors holds the numbers.")
    if options.as_tensors and options.target == _STANDARD and sys.stdout.isatty():
        raise click.UsageError("a terminal cannot show safetensors; name a file with --output.")
    if _is_one_file(options.source, options.target):
        raise click.UsageError("--input and --output are one file: its texts would be gone.")
    if options.url and options.tenant:
        raise click.UsageError("--tenant is not for --url: a server knows the tenant by the key.")
    if options.url and not is_key(options.api_key or ""):
        raise click.UsageError(
            "--api-key (or the variable in the environment) is no key: it may have printable "
            "ASCII characters only, and no spaces or line ends."
        )


def _is_one_file(source: Path, target: Path) -> bool:
    """Return whether both lead to the same regular file, by whatever names."""
    try:
        read = os.fstat(0) if source == _STANDARD else source.stat()
        written = os.fstat(1) if target == _STANDARD else target.stat()
    except OSError:
        return False
    return stat.S_ISREG(read.st_mode) and os.path.samestat(read, written)


async def _embed(options: Options, config: Config | None, progress: Progress, tally: Tally) -> None:
    from gateway.commands.hosted import check_tenant, hosted

    async with AsyncExitStack() as stack:
        # First what is quickly found to be impossible.
        rows = stack.enter_context(_rows(options))
        lines = stack.enter_context(_lines(options.source))
        url, api_key = options.url or "", options.api_key
        if config is not None:
            tenant = options.tenant or "default"
            check_tenant(config, tenant)
            own = await stack.enter_async_context(hosted(config, tenant))
            url, api_key = own.base_url, own.api_key
        client = await stack.enter_async_context(
            Client(
                url,
                options.request,
                api_key=api_key,
                only_cached=options.offline,
                trust_env=config is None,
            )
        )
        embedding = Embedding(
            client,
            rows,
            progress,
            tally,
            concurrency=options.concurrency,
            skips=options.skip_invalid,
        )
        items = read_items(lines, options.input_form)
        await embedding.run(in_batches(items, options.batch, _BATCH_BYTES))


@contextmanager
def _rows(options: Options) -> Iterator[Rows]:
    """Open what the vectors are written to."""
    streams = options.target == _STANDARD
    with _standard(1, "wb") if streams else replacing(options.target) as out:
        if not options.as_tensors:
            yield JsonLines(out, base64=options.base64)
            return
        with tempfile.TemporaryFile(dir=None if streams else options.target.parent) as spool:
            yield VectorFile(out, spool, {"model": options.model})


@contextmanager
def _lines(source: Path) -> Iterator[BinaryIO]:
    with _standard(0, "rb") if source == _STANDARD else source.open("rb") as lines:
        yield lines


@contextmanager
def _standard(descriptor: int, mode: Literal["rb", "wb"]) -> Iterator[BinaryIO]:
    # Never closed: that would wait for a thread that hangs in it, where a pipe is empty or full.
    yield open(descriptor, mode, closefd=False)  # noqa: SIM115


def _hint(options: Options, config: Config | None, total: int | None, tally: Tally) -> str | None:
    """Return what to do after a run that did not end well."""
    if options.offline or not tally.vectors:
        return None
    done = f"{tally.vectors:,}" + (f" of {total:,}" if total is not None else "")
    if not tally.keeps or (config is not None and not config.cache.store):
        return f"{done} vectors were made, and are not kept: the cache has no store."
    if options.source == _STANDARD:
        return f"{done} vectors are in the cache: the same command with the same input goes on."
    return f"Run the same command again: {done} are in the cache."


def _tell(options: Options, progress: Progress, tally: Tally) -> None:
    if options.target == _STANDARD and sys.stderr.isatty() and sys.stdout.isatty():
        return
    said = [f"{tally.vectors:,} texts", f"{progress.seconds:,.1f} s"]
    if tally.width is not None:
        said.insert(1, f"{tally.width} wide")
    if tally.keeps:
        said.append(f"{tally.kept:,} from the cache")
        if tally.shared:
            said.append(f"{tally.shared:,} twice")
        said.append(f"{tally.vectors - tally.kept - tally.shared:,} made")
    if tally.skipped:
        said.append(f"{tally.skipped:,} skipped")
    where = "" if options.target == _STANDARD else f" -> {options.target}"
    click.echo(f"{', '.join(said)}{where}", err=True)
