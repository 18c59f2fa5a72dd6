"""Vectors that tell whose they are: of which text, and which draw of it.

OpenAI answers the same text with another vector each time. So does this, and every one of them can
be read like a label, full or shortened to eight components or more, whatever its length is: the
first component is 1, the others are 1 + t/2**6 + d/2**18, before all are scaled alike. t is a digit
of the text's number, d one of the draw's, six bits each; so texts differ much, draws hardly.
"""

from base64 import b64decode
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

WIDTH = 16
SHORTEST = 8
"""Components that suffice to be read."""

IDS = 2**40
"""Added to the number of an array of token ids, which is another text than the string."""

Rows = npt.NDArray[np.float32]
"""Vectors: shape (texts, width), float32."""

_DIGITS = SHORTEST - 1
_WORDS = ("cafe", "café", "cafe\u0301", "cafe ", "Cafe")
"""Alike for people, but other texts: no byte may be changed on the way."""

_floats = msgspec.json.Decoder(list[float]).decode


class UntoldError(ValueError):
    """A vector that was not made here, or not read as it was made."""


def text(number: int) -> str:
    """Return the text of a number."""
    return f"{number // len(_WORDS)} {_WORDS[number % len(_WORDS)]}"


def ids(number: int) -> tuple[int, ...]:
    """Return the token ids that stand for a number."""
    return (number, 7)


def number_of(given: str | Sequence[int]) -> int:
    """Return the number of a text or of ids; raise ValueError for any other."""
    if isinstance(given, str):
        before, _, word = given.partition(" ")
        return int(before) * len(_WORDS) + _WORDS.index(word)
    return IDS + given[0]


def drawn(numbers: Sequence[int], draws: Sequence[int]) -> Rows:
    """Return a row for each text: draws differ in bits and in length, never in direction much."""
    shifts = _shifts(WIDTH)
    texts = (np.array(numbers)[:, None] >> shifts) & 63
    digits = (np.array(draws)[:, None] >> shifts) & 63
    rows = np.ones((len(numbers), WIDTH))
    rows[:, 1:] += texts / 2**6 + digits / 2**18
    scale = 0.3 + np.array(draws) % 7
    return (rows * scale[:, None]).astype("<f4")


def told(rows: Rows) -> tuple[list[int], list[int]]:
    """Return the text's number and the draw of each row; raise UntoldError for any other row."""
    with np.errstate(all="ignore"):
        exact = rows.astype(np.float64)
        label = (exact[:, 1:] / exact[:, :1] - 1.0) * 2**18
        whole = np.rint(label)
        legible = (np.abs(label - whole) < 0.25) & (whole >= 0) & (whole < 2**18)
    digits = np.where(legible, whole, -1).astype(np.int64)
    if (digits & (63 << 6)).any():
        raise UntoldError("a vector is none that an upstream said")
    shifts = _shifts(rows.shape[1])
    halves = []
    for half in (digits >> 12, digits & 63):
        values = (half[:, :_DIGITS] << shifts[:_DIGITS]).sum(axis=1)
        if not ((values[:, None] >> shifts) & 63 == half).all():
            raise UntoldError("a vector is put together from several")
        halves.append(values.tolist())
    return halves[0], halves[1]


def sent(fragments: Sequence[bytes], *, base64: bool) -> Rows:
    """Return the vectors of an answer, from the JSON of each; raise UntoldError for other JSON."""
    if base64:
        packed = b"".join(b64decode(fragment[1:-1], validate=True) for fragment in fragments)
        return np.frombuffer(packed, "<f4").reshape(len(fragments), -1)
    doubles = np.array([_floats(fragment) for fragment in fragments])
    rows = doubles.astype("<f4")
    if not (rows.astype(np.float64) == doubles).all():
        raise UntoldError("a number is none of float32")
    return rows


def _shifts(width: int) -> npt.NDArray[np.int64]:
    return 6 * (np.arange(width - 1) % _DIGITS)
