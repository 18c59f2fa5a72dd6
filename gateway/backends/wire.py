"""An upstream's embeddings answer, read and checked: what cannot be trusted goes no further.

Promise P1: an answer is accepted whole or not at all, and items are placed by their `index`.
"""

from binascii import Error as Base64Error
from collections.abc import Sequence
from typing import NoReturn

import msgspec
import numpy as np
from pybase64 import b64decode

from gateway.errors import UpstreamError
from gateway.types import RawEmbeddings, Row


class _Item(msgspec.Struct):
    embedding: str | list[float]
    index: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    total_tokens: int | None = None


class _Answer(msgspec.Struct):
    data: list[_Item]
    usage: _Usage | None = None
    input_tokens: list[int] | None = None
    truncated: list[bool] | None = None


_decode = msgspec.json.Decoder(_Answer).decode


def read_embeddings(
    body: bytes, sizes: Sequence[int], *, upstream: str, by_position: bool = False
) -> RawEmbeddings:
    """Decode an answer for texts of these sizes (bytes), one row a text, in the texts' order.

    Understands base64 and float vectors alike, whichever was asked for. Raises UpstreamError,
    code "upstream_invalid_response", for anything but a whole and consistent answer.
    """
    try:
        answer = _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        _refuse(upstream, "it is not the JSON of an embeddings list")
    items = _placed(answer.data, len(sizes), by_position, upstream)
    rows = [_row(item.embedding, upstream) for item in items]
    width = len(rows[0])
    if any(len(row) != width for row in rows):
        _refuse(upstream, "its vectors have different widths")
    tokens, estimated = _tokens(answer, sizes, upstream)
    truncated = answer.truncated
    if truncated is not None and len(truncated) != len(sizes):
        _refuse(upstream, "`truncated` does not fit the number of texts")
    return RawEmbeddings(rows, tokens, estimated, truncated)


def _placed(items: list[_Item], count: int, by_position: bool, upstream: str) -> list[_Item]:
    if len(items) != count:
        _refuse(upstream, f"{count} vectors were asked for and {len(items)} came")
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
            _refuse(upstream, "its `index` values are not a permutation")
        places[item.index] = item
    if len(unplaced) > 1:
        _refuse(upstream, "items came without `index`")
    if unplaced:
        places[places.index(None)] = unplaced[0]
    return [item for item in places if item is not None]


def _row(embedding: str | list[float], upstream: str) -> Row:
    if isinstance(embedding, str):
        try:
            row: Row = np.frombuffer(b64decode(embedding, validate=True), dtype="<f4")
        except (Base64Error, ValueError):
            _refuse(upstream, "a vector is not base64 of float32 numbers")
    else:
        row = np.array(embedding, dtype=np.float64)
    if not len(row):
        _refuse(upstream, "a vector is empty")
    return row


def _tokens(answer: _Answer, sizes: Sequence[int], upstream: str) -> tuple[Sequence[int], bool]:
    """Return the tokens of each text, and whether they are a share of a sum."""
    if answer.input_tokens is not None:
        if len(answer.input_tokens) != len(sizes) or min(answer.input_tokens) < 0:
            _refuse(upstream, "`input_tokens` does not fit the number of texts")
        return answer.input_tokens, False
    usage = answer.usage or _Usage()
    total = usage.prompt_tokens if usage.prompt_tokens is not None else usage.total_tokens
    if total is None or total < 0:
        # Nothing was said: four bytes a token is the usual measure of English text.
        return [max(1, size // 4) for size in sizes], True
    if len(sizes) == 1:
        return [total], False
    return share(total, sizes), True


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


def _refuse(upstream: str, reason: str) -> NoReturn:
    raise UpstreamError(
        f"The answer of upstream '{upstream}' was refused: {reason}.",
        code="upstream_invalid_response",
    )
