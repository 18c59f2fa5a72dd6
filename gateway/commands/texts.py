"""The texts that `gateway embed` is given: a line each, or a field of JSON objects, a line each."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gateway.commands.opened import CommandError

Id = str | int
_BLOCK = 2**20
_BOM = b"\xef\xbb\xbf"


class InputError(CommandError):
    """A line that cannot be read; the message names it, and does not quote it."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}: {why}")


@dataclass(frozen=True, slots=True)
class Item:
    """A text, and where it stood."""

    line: int
    """From 1."""
    text: str
    """Empty if the line is: there is nothing to embed."""
    id: Id | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """How texts are written."""

    field: str | None = None
    """The field of a JSON object that holds the text; None: the line is the text."""
    id_field: str | None = None
    """The field that holds an id."""


def read_items(lines: Iterable[bytes], form: Form) -> Iterator[Item]:
    """Yield the texts of a file's lines. Raises InputError where there is none to be had."""
    decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
    for number, line in enumerate(lines, 1):
        raw = line.removeprefix(_BOM) if number == 1 else line
        raw = raw.removesuffix(b"\n").removesuffix(b"\r")
        if not raw.strip():
            yield Item(number, "")
        elif form.field is None:
            yield Item(number, _decoded(raw, number))
        else:
            try:
                fields = decode(raw)
            except (ValueError, RecursionError):
                raise InputError(number, "is no JSON object") from None
            text = _field(fields, form.field, str, number)
            id_ = None if form.id_field is None else _field(fields, form.id_field, Id, number)
            yield Item(number, text, id_)


def _decoded(raw: bytes, number: int) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InputError(number, f"is not UTF-8 (byte {error.start + 1})") from None


def _field(fields: dict[str, msgspec.Raw], name: str, kind: object, number: int) -> str:
    if name not in fields:
        raise InputError(number, f"has no field {name!r}")
    try:
        found: str = msgspec.json.decode(fields[name], type=kind)
    except ValueError:
        wanted = "text" if kind is str else "text, nor a whole number"
        raise InputError(number, f"what {name!r} holds is no {wanted}") from None
    return found


def in_batches(items: Iterable[Item], count: int, size: int) -> Iterator[list[Item]]:
    """Yield the items in order, at most `count` and about `size` bytes together."""
    batch: list[Item] = []
    weight = 0
    for item in items:
        bytes_ = 4 * len(item.text)
        if batch and (len(batch) >= count or weight + bytes_ > size):
            yield batch
            batch, weight = [], 0
        batch.append(item)
        weight += bytes_
    if batch:
        yield batch


def count_lines(file: Path) -> int | None:
    """Return how many lines a file has; None for what can be read only once."""
    if not file.is_file():
        return None
    count, last = 0, b"\n"
    with file.open("rb") as reading:
        while block := reading.read(_BLOCK):
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n")
