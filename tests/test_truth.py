"""A small storm, and that a storm finds what is wrong: see tests.heavy.truth for the long one."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.vectors import shorten, to_base64, to_floats, unit
from tests.heavy.storm import telling
from tests.heavy.storm.houses import BrokenPromiseError
from tests.heavy.storm.moody import Moody
from tests.heavy.storm.weather import Weathered
from tests.heavy.truth import storm

NUMBERS = st.integers(0, telling.IDS - 1)
DRAWS = st.integers(0, 2**40)


def test_a_small_storm(tmp_path):
    """P1 to P4 through eight workers, a Redis and SQLite files, of which some always fail."""
    outcome = storm(1, tmp_path, number=300)
    assert outcome.batches == 300
    assert outcome.count["shared"] > 100
    assert outcome.count["texts store"] > 1000
    assert outcome.kept > 1000


class Forgetful(Weathered):
    """A store that does not say who was there first."""

    async def add(self, namespace, values):
        """See CacheStore.add."""
        await super().add(namespace, values)
        return {}


class Swapping(Moody):
    """An upstream that gives the first two vectors of an answer each other's index."""

    def _body(self, call, texts, encoding):
        said = msgspec.json.decode(super()._body(call, texts, encoding))
        if len(said["data"]) > 1:
            first, second = said["data"][:2]
            first["index"], second["index"] = second.get("index"), first.get("index")
        return msgspec.json.encode(said)


@pytest.mark.parametrize(
    ("kinds", "found"),
    [
        ({"around_stores": Forgetful}, "(another vector|a vector .* that its authority does not)"),
        ({"upstream": Swapping}, r"vector of text \d+"),
    ],
)
def test_a_storm_finds_what_is_wrong(tmp_path, kinds, found):
    """Else the storms before were no proof; the account tells what was answered, and why not."""
    with pytest.raises(BrokenPromiseError, match=f"(?s){found}.*draw .*answered at"):
        storm(1, tmp_path, number=2000, **kinds)


@given(st.lists(st.tuples(NUMBERS, DRAWS), min_size=1, max_size=8), st.booleans())
def test_a_vector_tells_its_text_and_its_draw(labels, base64):
    """After all that the gateway does to it, in both forms, and shortened."""
    numbers, draws = map(list, zip(*labels, strict=True))
    units = [unit(row).tobytes() for row in telling.drawn(numbers, draws)]
    form = to_base64 if base64 else to_floats
    for width in (telling.SHORTEST, telling.WIDTH):
        fragments = [form(shorten(vector, width)) for vector in units]
        assert telling.told(telling.sent(fragments, base64=base64)) == (numbers, draws)


@given(NUMBERS, NUMBERS, DRAWS, st.integers(1, telling.WIDTH - 1))
def test_what_is_put_together_from_two_vectors_is_noticed(one, other, draw, place):
    """Half of it is another text's."""
    row, wrong = telling.drawn([one, other], [draw, draw])
    row[place] = wrong[place] / wrong[0] * row[0] + np.float32(0.001) * row[0]
    with pytest.raises(telling.UntoldError):
        telling.told(row[None])


@given(st.integers(0, 10**6))
def test_a_text_has_one_number(number):
    """Also where texts differ by a space, or only by how an accent is written."""
    assert telling.number_of(telling.text(number)) == number
    assert telling.number_of(list(telling.ids(number))) == telling.IDS + number
