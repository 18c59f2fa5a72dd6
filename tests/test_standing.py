"""What is known of one upstream of a space: when it counts, and when it is looked at again."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gateway.cache.scopes import Scopes
from gateway.spaces.standing import OUT_FOR, Standing

PLACE, OTHER = (Scopes(b"s" * 32).of("t", name, "m").place for name in "ab")


def units(*rows):
    return [(np.array(row) / np.linalg.norm(row)).astype("<f4").tobytes() for row in rows]


REFERENCE = units([3, 4], [0, 1])


def probed(vectors, now=10.0, alike=0.99):
    standing = Standing(alike)
    standing.place, standing.times = PLACE, (3, False)
    assert standing.compare(vectors, REFERENCE, "s", now)
    return standing


def test_who_agrees_counts_until_something_changes():
    """Not with another reference, nor once its circuit has opened again."""
    standing = probed(units([3, 4], [0, 2]))
    assert (standing.state, standing.reason) == ("agrees", None)
    assert standing.similarity is not None
    assert abs(standing.similarity - 1) < 1e-6
    assert standing.holds(PLACE, (3, False))
    assert not standing.holds(PLACE, (3, True))
    assert not standing.holds(PLACE, (4, False))
    assert not standing.holds(OTHER, (3, False))
    standing.forget()
    assert not standing.holds(PLACE, (3, False))


def test_who_differs_in_one_text_is_out():
    """The least alike decides; it is looked at again a minute later."""
    standing = probed(units([3, 4], [1, 1]))
    assert (standing.state, standing.due) == ("out", 10.0 + OUT_FOR)
    assert standing.reason == "its vectors are not of the space 's': cosine 0.7071"
    assert not standing.holds(PLACE, (3, False))


def test_who_has_another_width_is_out():
    """There is nothing to compare."""
    standing = probed(units([3, 4, 0], [0, 1, 0]))
    assert (standing.state, standing.similarity) == ("out", None)
    assert standing.reason == "its vectors have 3 components, and those of the space 2"


def test_what_is_alike_enough_is_the_configs_matter():
    """The same vectors, judged twice."""
    vectors = units([3, 4.2], [0, 1])
    assert probed(vectors, alike=0.9).state == "agrees"
    assert probed(vectors, alike=0.99999).state == "out"


def test_only_changes_are_news():
    """One line in the log for each."""
    standing = probed(REFERENCE)
    assert not standing.compare(REFERENCE, REFERENCE, "s", 11.0)
    assert standing.failed("away", 12.0)
    assert not standing.failed("away", 13.0)
    assert standing.compare(REFERENCE, REFERENCE, "s", 14.0)


def test_who_is_out_stays_out_where_it_cannot_be_asked():
    """Being away is no proof of having changed."""
    standing = probed(units([3, 4], [1, 1]))
    assert not standing.failed("away", 90.0)
    assert (standing.state, standing.due) == ("out", 90.0 + OUT_FOR)


@given(st.integers(1, 30))
def test_who_cannot_be_probed_is_probed_ever_less_often(failures):
    """After a second, then twice as long each time, at most half a minute."""
    standing, now = Standing(0.99), 100.0
    for number in range(failures):
        standing.failed("away", now)
        assert standing.due - now == min(2.0**number, 30.0)
        now = standing.due
    standing.compare(REFERENCE, REFERENCE, "s", now)
    assert standing.due <= now
    standing.failed("away", now)
    assert standing.due == now + 1.0
