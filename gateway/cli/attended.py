"""Commands that wait for something: on an event loop, heedful of signals, with exit codes."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click
import uvloop

from gateway.cli.shared import fail, told
from gateway.commands.opened import CommandError
from gateway.edge.server import StartError
from gateway.errors import ConfigError

T = TypeVar("T")


def run(
    work: Coroutine[Any, Any, T], hint: Callable[[], str | None] = lambda: None, *, code: int = 1
) -> T:
    """Return what the work returns; where it fails or is stopped, end the process.

    `hint` is asked then what to say besides. The exit code is `code`, or 128 and the signal's
    number.
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
    return fail(problems, code)


def _say(message: str | None) -> None:
    if message is not None:
        click.echo(message, err=True)


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
