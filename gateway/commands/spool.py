"""Entries on their way into a file: put down as they come, read back in the order of their keys.

A store yields entries in any order, perhaps some of them twice, and nobody knows before the end
how many there are. So they lie in temporary files, one for each column. What is in memory is a
batch, eight bytes for each entry, and for a moment all keys of a scope.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from struct import pack
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt

from gateway.cache.entry import Entry
from gateway.cache.facts import ScopeFact
from gateway.cache.keys import Key
from gateway.commands.exports import (
    COLUMNS,
    ESTIMATED,
    KEY_BYTES,
    TRUNCATED,
    Contents,
    Exported,
    shape,
    write_metadata,
)
from gateway.safetensors import Column, Tensor, write

_ROWS = 1024
"""Rows that are read back at once."""

Order = npt.NDArray[np.int64]
"""Rows of a scope by key, each key once: shape (rows,)."""


@dataclass(slots=True)
class _Part:
    """The rows of one scope."""

    about: Exported
    first: int
    """Its first row, which is the same in every column."""
    vectors: int
    """Where its vectors begin, in bytes: those of other scopes have other widths."""
    rows: int = 0


class Spool:
    """Rows in temporary files that have no names, and are gone when the block ends."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = ExitStack()
        self._files: dict[str, BinaryIO] = {}
        self._rows = 0
        self._parts: dict[str, _Part] = {}
        self._fingerprints: dict[str, int] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for column in COLUMNS:
                file = tempfile.TemporaryFile(dir=self._directory)
                self._files[column] = stack.enter_context(file)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def put(self, scope: str, fact: ScopeFact, entries: Iterable[tuple[Key, Entry]]) -> None:
        """Put down entries of one width; all of a scope before those of the next."""
        for key, entry in entries:
            if scope not in self._parts:
                about = Exported(fact.tenant, fact.model, fact.generation, entry.width)
                vectors = self._files["vectors"].tell()
                self._parts[scope] = _Part(about, self._rows, vectors)
            self._parts[scope].rows += 1
            self._rows += 1
            flags = ESTIMATED * entry.estimated | TRUNCATED * entry.truncated
            print_ = self._fingerprints.setdefault(entry.fingerprint, len(self._fingerprints))
            self._files["vectors"].write(entry.vector)
            self._files["keys"].write(key)
            self._files["created"].write(pack("<d", entry.created))
            self._files["tokens"].write(pack("<q", entry.tokens))
            self._files["flags"].write(pack("<B", flags))
            self._files["fingerprints"].write(pack("<i", print_))

    def finish(self, out: BinaryIO, check: bytes) -> int:
        """Write the file, and return how many rows it has."""
        for file in self._files.values():
            file.flush()
        # The list is sorted, as its order must not depend on that of the scan.
        names = sorted(self._fingerprints)
        places = np.empty(len(names), np.int32)
        places[[self._fingerprints[name] for name in names]] = np.arange(len(names))
        orders = {scope: self._order(part) for scope, part in self._parts.items()}
        columns = {
            f"{scope}.{column}": Column(
                dtype,
                shape(column, len(orders[scope]), part.about.width),
                self._pieces(column, part, orders[scope], places),
            )
            for scope, part in self._parts.items()
            for column, dtype in COLUMNS.items()
        }
        scopes = {scope: part.about for scope, part in self._parts.items()}
        write(out, columns, write_metadata(Contents(check, scopes, names)))
        return sum(map(len, orders.values()))

    def _order(self, part: _Part) -> Order:
        raw = self._read("keys", part, np.arange(part.rows))
        keys = np.frombuffer(raw, f"S{KEY_BYTES}")
        order = np.argsort(keys, kind="stable")
        first = np.ones(len(order), bool)
        for begin in range(1, len(order), _ROWS):
            here = order[begin - 1 : begin + _ROWS]
            first[begin : begin + _ROWS] = keys[here[1:]] != keys[here[:-1]]
        return order[first]

    def _pieces(
        self, column: str, part: _Part, order: Order, places: npt.NDArray[np.int32]
    ) -> Iterator[bytes]:
        for begin in range(0, len(order), _ROWS):
            piece = self._read(column, part, order[begin : begin + _ROWS])
            if column == "fingerprints":
                piece = places[np.frombuffer(piece, "<i4")].tobytes()
            yield piece

    def _read(self, column: str, part: _Part, rows: Order) -> bytes:
        """Return these rows of a column; those that lie in a row are read at once."""
        tensor = Tensor(COLUMNS[column], shape(column, part.rows, part.about.width))
        size = tensor.row_bytes
        at = part.vectors if column == "vectors" else part.first * size
        handle = self._files[column].fileno()
        runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
        return b"".join(
            os.pread(handle, len(run) * size, at + int(run[0]) * size) for run in runs if len(run)
        )
