"""What commands have in common: their config, what may be typed, and how errors are told."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from gateway.config import Config, default, load, with_server
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


def load_config(file: Path | None, *, offline: bool = False) -> Config:
    """Return the config of a file, or the built-in one; ends the process if it is wrong."""
    try:
        return read_config(file, offline=offline)
    except ConfigError as error:
        fail(error.problems)


def read_config(
    file: Path | None,
    *,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
    offline: bool = False,
) -> Config:
    """Return the config of a file, or the built-in one; raises ConfigError if it is wrong."""
    if file is not None:
        config = load(file, os.environ, offline=offline)
    else:
        local = find_spec("llama_cpp") is not None
        config = default(os.environ, local=local, offline=offline)
    return with_server(config, host=host, port=port, workers=workers, offline=offline or None)


def warn(messages: Sequence[str]) -> None:
    """Tell of what is allowed and probably not meant."""
    for message in messages:
        click.secho(f"warning: {message}", fg="yellow", err=True)


def fail(problems: Sequence[str], code: int = 1) -> NoReturn:
    """Tell what is wrong, and end the process with this exit code."""
    for problem in problems:
        click.secho(f"error: {problem}", fg="red", err=True)
    sys.exit(code)


def give_up_output() -> None:
    """Close the standard output if it takes no more: Python would try again as it ends."""
    out = sys.__stdout__
    if out is None:
        return
    try:
        out.flush()
    except OSError:
        with suppress(OSError):
            out.close()


def told(error: OSError) -> str:
    """Return what an operating system's error says, without its number."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


class _Text(click.types.StringParamType):
    """What can be sent, stored and printed; a file's name need not be."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        typed = str(super().convert(value, param, ctx))
        if not _is_text(typed):
            self.fail("has bytes in it that are no text", param, ctx)
        return typed


def _is_text(typed: str) -> bool:
    try:
        typed.encode()
    except UnicodeEncodeError:  # Python's way to hand on bytes that it could not decode
        return False
    return True


TEXT = _Text()
"""The type of options that are text."""
