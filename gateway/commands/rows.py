"""What `gateway embed` writes, as the vectors come: JSON lines, or one safetensors file."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Protocol

import msgspec
import numpy as np

from gateway.commands.opened import CommandError
from gateway.commands.texts import Id, Item
from gateway.safetensors import LARGEST_HEADER, Column, write
from gateway.vectors import to_base64, to_floats

FORMAT = "embedding-gateway vectors"
_PIECE = 2**20


@dataclass(frozen=True, slots=True)
class Row:
    """A text with its vector, little-endian float32; None where it has none."""

    item: Item
    vector: bytes | None


class Rows(Protocol):
    """Takes rows in order. Its methods block, and raise OSError where nothing can be written."""

    def write(self, rows: Sequence[Row]) -> None:
        """Take rows."""
        ...

    def finish(self) -> None:
        """Write what is left; there are no more rows."""
        ...


class JsonLines:
    """A JSON object for each text: index (from 0), id if it has one, embedding."""

    def __init__(self, out: BinaryIO, *, base64: bool) -> None:
        self._out = out
        self._render = to_base64 if base64 else to_floats

    def write(self, rows: Sequence[Row]) -> None:
        """See Rows."""
        self._out.write(b"".join(map(self._line, rows)))
        self._out.flush()

    def finish(self) -> None:
        """See Rows."""

    def _line(self, row: Row) -> bytes:
        item = row.item
        named = b"" if item.id is None else b'"id":%b,' % msgspec.json.encode(item.id)
        embedding = b"null" if row.vector is None else self._render(row.vector)
        return b'{"index":%d,%b"embedding":%b}\n' % (item.line - 1, named, embedding)


class VectorFile:
    """A safetensors file with one tensor, `vectors`: F32 [n, width], a row for each text.

    The metadata has `ids` as a JSON list where there are any, and `skipped`, the rows that no
    vector was had for: they are not a number.
    """

    def __init__(self, out: BinaryIO, spool: BinaryIO, metadata: Mapping[str, str]) -> None:
        """`spool` is an empty file, where the vectors wait until their number is known."""
        self._out = out
        self._vectors = spool
        self._metadata = metadata
        self._width: int | None = None
        self._rows = 0
        self._skipped: list[int] = []
        self._ids: list[Id | None] = []
        self._ids_size = 0

    def write(self, rows: Sequence[Row]) -> None:
        """See Rows. Raises CommandError for more ids than a header may hold."""
        for row in rows:
            if row.vector is None:
                self._skipped.append(self._rows)
            elif self._width is None:
                self._width = len(row.vector) // 4
                self._vectors.write(self._none() * self._rows)
            if self._width is not None:
                self._vectors.write(row.vector or self._none())
            self._rows += 1
            self._note(row.item.id)

    def finish(self) -> None:
        """See Rows."""
        said: dict[str, Any] = {"skipped": self._skipped}
        if any(id_ is not None for id_ in self._ids):
            said["ids"] = self._ids
        metadata = {name: msgspec.json.encode(value).decode() for name, value in said.items()}
        metadata = {"format": FORMAT, **self._metadata, **metadata}
        self._vectors.seek(0)
        pieces: Iterator[bytes] = iter(partial(self._vectors.read, _PIECE), b"")
        shape = (self._rows if self._width else 0, self._width or 0)
        write(self._out, {"vectors": Column("F32", shape, pieces)}, metadata)
        self._out.flush()

    def _none(self) -> bytes:
        return np.full(self._width or 0, np.nan, "<f4").tobytes()

    def _note(self, id_: Id | None) -> None:
        self._ids.append(id_)
        self._ids_size += 2 * len(str(id_)) + 8
        if self._ids_size > LARGEST_HEADER:
            raise CommandError(
                "these are more ids than a safetensors file may hold; leave out --id-field, or "
                "write JSON lines with --format jsonl"
            )
