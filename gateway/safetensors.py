"""Tensors in a file, as the safetensors library writes and reads them, a few rows at a time.

    length of the header: 8 bytes, little-endian | header: JSON, padded with spaces | tensors

The header says of each tensor its type, its shape and where it lies; the tensors follow one
another without gaps, those of the widest numbers first, so that all of them are aligned.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

DTYPES: Mapping[str, np.dtype[Any]] = {
    name: np.dtype(spelled)
    for name, spelled in {
        "F64": "<f8", "F32": "<f4", "F16": "<f2", "BOOL": "|b1",
        "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
        "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1",
    }.items()
}  # fmt: skip
"""The types of numbers that are known here."""

LARGEST_HEADER = 100_000_000
"""Bytes; the library reads no larger one."""

_METADATA = "__metadata__"
_ALIGNED = 8


class SafetensorsError(ValueError):
    """A file that is not what it should be, or a header too large to be read again."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """What a header says of a tensor."""

    dtype: str
    """A name of `DTYPES`."""
    shape: tuple[int, ...]
    begin: int = 0
    """Where it lies, counted from the header's end."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row: of what each index of the first dimension stands for."""
        return DTYPES[self.dtype].itemsize * prod(self.shape[1:])

    @property
    def size(self) -> int:
        """Bytes in all."""
        return DTYPES[self.dtype].itemsize * prod(self.shape)


@dataclass(frozen=True, slots=True)
class Column:
    """A tensor to be written: its bytes come in pieces, and are asked for when it is its turn."""

    dtype: str
    shape: tuple[int, ...]
    pieces: Iterable[bytes]


def write(out: BinaryIO, columns: Mapping[str, Column], metadata: Mapping[str, str]) -> None:
    """Write a whole file. Equal columns and metadata make equal bytes.

    Raises SafetensorsError for more names and metadata than a header may hold.
    """
    names = sorted(columns, key=lambda name: (-DTYPES[columns[name].dtype].itemsize, name))
    header: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    at = 0
    for name in names:
        column = columns[name]
        end = at + Tensor(column.dtype, column.shape).size
        header[name] = {"dtype": column.dtype, "shape": column.shape, "data_offsets": (at, end)}
        at = end
    text = msgspec.json.encode(header)
    text += b" " * (-len(text) % _ALIGNED)
    if len(text) > LARGEST_HEADER:
        raise SafetensorsError(
            f"names and metadata take {len(text):,} bytes, and a safetensors file may have "
            f"{LARGEST_HEADER:,} of them"
        )
    out.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        column = columns[name]
        written = sum(map(out.write, column.pieces))
        if written != Tensor(column.dtype, column.shape).size:
            raise ValueError(f"{name} has {written} bytes, which is not its shape")


class SafetensorsFile:
    """A file that is read: what it says of itself is checked at once, rows are read when asked."""

    def __init__(self, file: BinaryIO) -> None:
        """Read the header. Raises SafetensorsError for whatever is wrong with it, and OSError."""
        self._file = file
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(os.pread(file.fileno(), 8, 0), "little")
        if size < 8 or length > size - 8:
            raise SafetensorsError("it is cut short, or no safetensors file")
        if length > LARGEST_HEADER:
            raise SafetensorsError(f"its header has {length:,} bytes; no such file has so many")
        self._data = 8 + length
        header = _decoded(os.pread(file.fileno(), length, 8))
        self.metadata = _metadata(header.pop(_METADATA, {}))
        self.tensors = {name: _tensor(name, said) for name, said in header.items()}
        _check_places(self.tensors, size - self._data)

    def rows(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """Return these rows of a tensor; raise SafetensorsError where the file ends before."""
        tensor = self.tensors[name]
        wanted = (stop - start) * tensor.row_bytes
        at = self._data + tensor.begin + start * tensor.row_bytes
        raw = b""
        while len(raw) < wanted:
            # A call of the system reads at most two gigabytes.
            piece = os.pread(self._file.fileno(), wanted - len(raw), at + len(raw))
            if not piece:
                raise SafetensorsError("it was cut short while it was read")
            raw = raw + piece if raw else piece
        return np.frombuffer(raw, DTYPES[tensor.dtype]).reshape(stop - start, *tensor.shape[1:])


def _decoded(raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw.decode(), object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        raise SafetensorsError("its header is not the JSON that it should be") from error
    if not isinstance(header, dict):
        raise SafetensorsError("its header is no JSON object")
    return header


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _metadata(said: Any) -> dict[str, str]:
    if not isinstance(said, dict) or not all(isinstance(value, str) for value in said.values()):
        raise SafetensorsError("its metadata is something else than texts by name")
    return said


def _tensor(name: str, said: Any) -> Tensor:
    match said:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end], **rest}:
            whole = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
            if whole and not rest and dtype in DTYPES:
                tensor = Tensor(dtype, tuple(shape), begin)
                if tensor.size == end - begin:
                    return tensor
    raise SafetensorsError(f"what its header says of {name[:100]!r} cannot be")


def _check_places(tensors: Mapping[str, Tensor], size: int) -> None:
    """Refuse tensors that overlap, leave gaps, or do not end with the file."""
    end = 0
    for tensor in _by_place(tensors):
        if tensor.begin != end:
            raise SafetensorsError("its tensors overlap or leave gaps")
        end += tensor.size
    if end != size:
        raise SafetensorsError(f"its header tells of {end:,} bytes of tensors; it has {size:,}")


def _by_place(tensors: Mapping[str, Tensor]) -> Iterator[Tensor]:
    # An empty one lies where another begins, and comes first there.
    yield from sorted(tensors.values(), key=lambda tensor: (tensor.begin, tensor.size))
