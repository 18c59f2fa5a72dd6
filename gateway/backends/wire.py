"""An upstream's embeddings answer, read and checked: what cannot be trusted goes no further.

Promise P1: an answer is accepted whole or not at all, and items are placed by their `index`.
"""

from binascii import Error as Base64Error
from collections.abc import Sequence
from typing import Any, TypeGuard

import msgspec
import numpy as np
from pybase64 import b64decode

from gateway.errors import VectorsRefusedError
from gateway.types import RawEmbeddings, Row
from gateway.vectors import is_direction


class _Item(msgspec.Struct):
    embedding: str | list[float]
    index: int | None = None


class _Answer(msgspec.Struct):
    data: list[_Item]
    # What is odd beside good vectors does no harm: these are looked at one by one.
    usage: Any = None
    input_tokens: Any = None
    truncated: Any = None
    system_fingerprint: Any = None


_MOST_TOKENS = 10**9
"""More than any answer can be about; larger numbers count as not said."""

MAX_FINGERPRINT = 255
"""Bytes; a longer one counts as not said."""

_decode = msgspec.json.Decoder(_Answer).decode


def read_embeddings(
    body: bytes, sizes: Sequence[int], *, upstream: str, by_position: bool = False
) -> RawEmbeddings:
    """Decode an answer for texts of these sizes (bytes), one row a text, in the texts' order.

    Understands base64 and float vectors alike, whichever was asked for. Raises
    VectorsRefusedError for anything but a whole and consistent answer.
    """
    try:
        answer = _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        why = "it is not the JSON of an embeddings list"
        raise VectorsRefusedError(upstream, why, "unreadable") from None
    items = _placed(answer.data, len(sizes), by_position, upstream)
    rows = [_row(item.embedding, upstream) for item in items]
    width = len(rows[0])
    if any(len(row) != width for row in rows):
        raise VectorsRefusedError(upstream, "its vectors have different widths", "width")
    tokens, estimated = _tokens(answer, sizes)
    truncated = answer.truncated if _fits(answer.truncated, bool, len(sizes)) else None
    said = answer.system_fingerprint
    fingerprint = said if isinstance(said, str) and len(said.encode()) <= MAX_FINGERPRINT else ""
    return RawEmbeddings(rows, tokens, estimated, truncated, fingerprint, upstream=upstream)


def _placed(items: list[_Item], count: int, by_position: bool, upstream: str) -> list[_Item]:
    if len(items) != count:
        raise VectorsRefusedError(
            upstream, f"{count} vectors were asked for and {len(items)} came", "count"
        )
    if count == 1 and items[0].index in (0, None):
        return items
    unplaced = [item for item in items if item.index is None]
    if by_position and len(unplaced) == count:
        return items
    places: list[_Item | None] = [None] * count
    for item in items:
        if item.index is None:
            continue
        if not 0 <= item.index < count or places[item.index] is not None:
            raise VectorsRefusedError(upstream, "its `index` values are not a permutation", "index")
        places[item.index] = item
    if len(unplaced) > 1:
        raise VectorsRefusedError(upstream, "items came without `index`", "index")
    if unplaced:
        places[places.index(None)] = unplaced[0]
    return [item for item in places if item is not None]


def _row(embedding: str | list[float], upstream: str) -> Row:
    if isinstance(embedding, str):
        try:
            row: Row = np.frombuffer(b64decode(embedding, validate=True), dtype="<f4")
        except (Base64Error, ValueError):
            why = "a vector is not base64 of float32 numbers"
            raise VectorsRefusedError(upstream, why, "unreadable") from None
    else:
        # The decimals of a float32 give that float32 back: both forms of a vector are one vector.
        with np.errstate(over="ignore"):
            row = np.array(embedding, dtype=np.float32)
    if not len(row):
        raise VectorsRefusedError(upstream, "a vector is empty", "unreadable")
    if not is_direction(row):
        if row.any():
            raise VectorsRefusedError(upstream, "a vector is not finite", "not_finite")
        raise VectorsRefusedError(upstream, "a vector is all zeros", "zero")
    return row


def _tokens(answer: _Answer, sizes: Sequence[int]) -> tuple[Sequence[int], bool]:
    """Return the tokens of each text, and whether they are a share of a sum."""
    counts = answer.input_tokens
    if _fits(counts, int, len(sizes)) and all(map(_is_count, counts)):
        return counts, False
    usage = answer.usage if isinstance(answer.usage, dict) else {}
    for name in ("prompt_tokens", "total_tokens"):
        total = usage.get(name)
        if _is_count(total):
            return ([total], False) if len(sizes) == 1 else (share(total, sizes), True)
    # Nothing was said: four bytes a token is the usual measure of English text.
    return [max(1, size // 4) for size in sizes], True


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= _MOST_TOKENS


def _fits(values: Any, kind: type, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(type(value) is kind for value in values)
    )


def share(total: int, sizes: Sequence[int]) -> list[int]:
    """Split a sum over the texts by size with nothing lost (cumulative rounding)."""
    weight = sum(sizes)
    if not weight:
        sizes, weight = [1] * len(sizes), len(sizes)
    shares = []
    seen = given = 0
    for size in sizes:
        seen += size
        upto = total * seen // weight
        shares.append(upto - given)
        given = upto
    return shares
