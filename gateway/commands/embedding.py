"""From texts to vectors, some batches at a time, in order: `gateway embed`."""

import asyncio
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from gateway.commands.aside import aside
from gateway.commands.asking import Answer, Client, FailedError, RefusedError
from gateway.commands.opened import CommandError
from gateway.commands.progress import Progress
from gateway.commands.rows import Row, Rows
from gateway.commands.texts import Item


@dataclass(slots=True)
class Tally:
    """What has been done so far, for the end and for who interrupts."""

    vectors: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    """How many came from where, as far as the server says."""
    skipped: int = 0
    keeps: bool = False
    """Whether the server says that it keeps vectors."""
    width: int | None = None

    @property
    def kept(self) -> int:
        """Vectors that the server had."""
        return self.sources["memory"] + self.sources["store"]

    @property
    def shared(self) -> int:
        """Vectors of texts that stood there twice, or were on their way for somebody else."""
        return self.sources["duplicate"] + self.sources["in-flight"]


class Embedding:
    """One run: at most `concurrency` batches are on their way or wait to be written."""

    def __init__(
        self,
        client: Client,
        rows: Rows,
        progress: Progress,
        tally: Tally,
        *,
        concurrency: int,
        skips: bool,
    ) -> None:
        """`skips` says that a text which is refused costs its row, not the run."""
        self._client = client
        self._rows = rows
        self._progress = progress
        self._tally = tally
        self._concurrency = concurrency
        self._skips = skips

    async def run(self, batches: Iterator[list[Item]]) -> None:
        """Embed everything. Raises CommandError, InputError, and OSError of who is written to."""
        running: deque[asyncio.Task[list[Row]]] = deque()
        try:
            while (batch := await aside(partial(next, batches, None))) is not None:
                running.append(asyncio.create_task(self._embed(batch)))
                if len(running) == self._concurrency:
                    await self._write(running)
            while running:
                await self._write(running)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        if self._tally.skipped and not self._tally.vectors:
            raise CommandError("every text was refused; without --skip-invalid it is said why")
        await aside(self._rows.finish)

    async def _write(self, running: deque[asyncio.Task[list[Row]]]) -> None:
        rows = await running[0]
        running.popleft()
        await aside(partial(self._rows.write, rows))

    async def _embed(self, batch: list[Item]) -> list[Row]:
        """Return a row for each item, in order."""
        for item in batch:
            if not item.text:
                self._refuse(item, "there is no text in it")
        vectors = await self._ask([item for item in batch if item.text])
        for vector in vectors.values():
            self._check_width(len(vector) // 4)
        return [Row(item, vectors.get(item.line)) for item in batch]

    async def _ask(self, items: Sequence[Item]) -> dict[int, bytes]:
        """Return the vectors by line, without those of texts that are refused and skipped."""
        while items:
            try:
                answer = await self._client.vectors([item.text for item in items])
            except RefusedError as error:
                at = 0 if len(items) == 1 else error.item
                if at is None or at >= len(items):
                    # Too much at once, or nobody says which: it is found by halves.
                    half = len(items) // 2
                    return await self._ask(items[:half]) | await self._ask(items[half:])
                self._refuse(items[at], str(error))
                items = [*items[:at], *items[at + 1 :]]
            except FailedError as error:
                if error.item is None or error.item >= len(items):
                    raise
                raise CommandError(f"line {items[error.item].line}: {error}") from error
            else:
                self._count(answer)
                lines = [item.line for item in items]
                return dict(zip(lines, answer.vectors, strict=True))
        return {}

    def _refuse(self, item: Item, why: str) -> None:
        if not self._skips:
            raise CommandError(
                f"line {item.line}: {why} (with --skip-invalid such lines get no vector)"
            )
        self._tally.skipped += 1
        self._progress.add(1)

    def _count(self, answer: Answer) -> None:
        tally = self._tally
        tally.vectors += len(answer.vectors)
        tally.sources.update(answer.sources)
        tally.keeps = tally.keeps or answer.keeps
        share = tally.kept / tally.vectors
        self._progress.note = f"{share:.0%} from the cache" if answer.keeps else ""
        self._progress.add(len(answer.vectors))

    def _check_width(self, width: int) -> None:
        if self._tally.width is None:
            self._tally.width = width
        elif self._tally.width != width:
            raise CommandError(
                f"the server's vectors have {width} components where they had {self._tally.width}"
            )
