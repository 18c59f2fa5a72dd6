"""What commands have in common: the config they work with, errors, signals, exit codes."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
import uvloop

from gateway.commands.opened import CommandError
from gateway.config import Config, default, load, with_server
from gateway.edge.server import StartError
from gateway.errors import ConfigError

Command = TypeVar("Command", bound=Callable[..., Any])
T = TypeVar("T")


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


def fail(problems: Sequence[str]) -> NoReturn:
    """Tell what is wrong, and end the process with exit code 1."""
    for problem in problems:
        click.secho(f"error: {problem}", fg="red", err=True)
    sys.exit(1)


def run(work: Coroutine[Any, Any, T], hint: Callable[[], str | None] = lambda: None) -> T:
    """Return what the work returns; where it fails or is stopped, end the process.

    `hint` is asked then what to say besides. Exit codes: 1, or 128 and the signal's number.
    """
    try:
        return uvloop.run(_attended(work))
    except _StoppedError as stopped:
        _say(hint())
        sys.exit(128 + stopped.number)
    except BrokenPipeError:
        raise  # who reads has seen enough; click ends the process without a word
    except ConfigError as error:
        problems = error.problems
    except (CommandError, StartError) as error:
        problems = [str(error)]
    except OSError as error:
        problems = [told(error)]
    _say(hint())
    fail(problems)


def told(error: OSError) -> str:
    """Return what an operating system's error says, without its number."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def _say(message: str | None) -> None:
    if message is not None:
        click.echo(message, err=True)


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


class _StoppedError(Exception):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


async def _attended(work: Coroutine[Any, Any, T]) -> T:
    """Do the work; the first signal to end calls it off, a second one ends the process."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    got: list[int] = []

    def stop(number: int) -> None:
        got.append(number)
        for each in numbers:
            loop.remove_signal_handler(each)
        if task is not None:
            task.cancel()

    # Under nohup SIGHUP is ignored, and stays so.
    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    numbers = [number for number in ends if signal.getsignal(number) is not signal.SIG_IGN]
    for number in numbers:
        loop.add_signal_handler(number, stop, number)
    try:
        return await work
    except asyncio.CancelledError:
        if got:
            raise _StoppedError(got[0]) from None
        raise
