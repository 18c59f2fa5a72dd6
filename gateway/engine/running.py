"""What both kinds of engine are made of, beside their model: a journal, a thread that tokenizes.

Knows no models and no HTTP.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.engine.decoder import STACK_PER_BYTE, text_bytes
from gateway.engine.faults import RefusedError
from gateway.engine.http import App
from gateway.engine.journal import Journal
from gateway.engine.log import Log
from gateway.engine.pool import Pool
from gateway.engine.settings import Settings
from gateway.engine_counts import COUNTS, EngineCounter


@dataclass(frozen=True, slots=True)
class Engine:
    """A pool with its contexts made and proved, and the app before it."""

    app: App
    pool: Pool[Any, Any]
    tokenizing: ThreadPoolExecutor
    journal: Journal
    counter: EngineCounter
    facts: dict[str, Any]
    """What the parent should know: context and contexts, of vectors also width and pooling."""

    def close(self) -> None:
        """Finish what is being decoded, and leave in good order."""
        self.pool.close()
        self.tokenizing.shutdown()
        self.journal.close()
        self.counter.close()


def open_counter(settings: Settings) -> EngineCounter:
    """Count on where earlier engines left off; raises RefusedError where that cannot be written."""
    try:
        return EngineCounter(Path(settings.journal).with_suffix(COUNTS))
    except OSError as error:
        raise RefusedError(f"the counts cannot be written: {error.strerror}") from error


def open_journal(settings: Settings, slots: int, clock: Callable[[], float]) -> Journal:
    """Open the crash journal; raises RefusedError where it cannot be written."""
    try:
        return Journal(Path(settings.journal), settings.key(), slots, clock)
    except OSError as error:
        raise RefusedError(f"the crash journal cannot be written: {error.strerror}") from error


def warn_of_cores(settings: Settings, contexts: int, threads: int, cores: int, log: Log) -> None:
    """Log it where more is asked for at once than there are cores to do it."""
    if contexts * threads > cores and settings.gpu_layers == 0:
        log.write(
            "warning",
            "contexts",
            message=f"{contexts} contexts of {threads} thread(s) share {cores} core(s): more will"
            " not be faster",
        )


def tokenizing_thread(limit: int) -> ThreadPoolExecutor:
    """Start the tokenizer's thread, with the stack that the longest text may need."""
    before = threading.stack_size(text_bytes(limit) * STACK_PER_BYTE)
    try:
        executor = ThreadPoolExecutor(1, "tokenizer")
        executor.submit(threading.get_ident).result()
    finally:
        threading.stack_size(before)
    return executor
