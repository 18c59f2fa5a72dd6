"""The arithmetic of vectors: unit length in every case, and two forms of the same bits."""

import json
from base64 import b64decode

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gateway.vectors import InvalidVectorError, shorten, to_base64, to_floats, unit

float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
singles = st.lists(float32s, min_size=1, max_size=64).map(lambda row: np.array(row, np.float32))


def norm(vector):
    return float(np.linalg.norm(vector.astype(np.float64)))


@given(row=singles)
@example(row=np.array([1e-45], np.float32))
@example(row=np.array([3.4e38] * 3, np.float32))
def test_every_float32_row_but_zero_becomes_a_unit_vector(row):
    """No float32 row is too long or too short to be normalized."""
    assume(row.any())
    vector = unit(row)
    assert vector.dtype == np.dtype("<f4")
    assert abs(norm(vector) - 1) < 1e-6


@given(row=singles)
def test_normalizing_again_changes_the_last_digit_at_most(row):
    """A unit vector is left as it is, within float32's precision."""
    assume(row.any())
    once = unit(row)
    assert np.allclose(once, unit(once), rtol=0, atol=1e-7)


@given(row=singles, factor=st.integers(-20, 20))
def test_length_does_not_change_direction(row, factor):
    """A row and its multiple by a power of two are the same unit vector, bit for bit."""
    assume(row.any())
    with np.errstate(over="ignore", under="ignore"):
        scaled = np.ldexp(row, factor)
        assume(np.isfinite(scaled).all() and (np.ldexp(scaled, -factor) == row).all())
    assert unit(row).tobytes() == unit(scaled).tobytes()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([0.0, 0.0], "zero"),
        ([-0.0], "zero"),
        ([1.0, np.nan], "not_finite"),
        ([np.inf, 1.0], "not_finite"),
        ([-np.inf, np.inf], "not_finite"),
    ],
)
def test_what_has_no_direction_is_refused(row, reason):
    """Zero, NaN and infinity are told apart from vectors."""
    with pytest.raises(InvalidVectorError) as caught:
        unit(np.array(row, np.float32))
    assert caught.value.reason == reason


def test_float32_nan_and_infinity_are_refused():
    """A float32 row is looked at as closely as a float64 one."""
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(InvalidVectorError):
            unit(np.array([1.0, bad], np.float32))


def test_bits_do_not_depend_on_where_the_row_lies():
    """The same row at any alignment gives the same bits."""
    row = np.random.default_rng(1).standard_normal(1537).astype(np.float32)
    vectors = set()
    for shift in range(8):
        buffer = np.zeros(1600, np.float32)
        buffer[shift : shift + 1537] = row
        vectors.add(unit(buffer[shift : shift + 1537]).tobytes())
    assert len(vectors) == 1


@given(row=singles, data=st.data())
def test_shortening_slices_and_renormalizes(row, data):
    """Fewer dimensions are the first ones, of unit length again, as OpenAI documents it."""
    count = data.draw(st.integers(1, len(row)))
    assume(row[:count].any())
    full = unit(row)
    assume(full[:count].any())
    short = np.frombuffer(shorten(full.tobytes(), count), "<f4")
    sliced = full[:count].astype(np.float64)
    assert len(short) == count
    assert abs(norm(short) - 1) < 1e-6
    assert np.allclose(short, sliced / np.linalg.norm(sliced), rtol=0, atol=1e-7)


def test_shortening_to_the_full_width_changes_nothing():
    """The model's own width gives the very bits that are kept."""
    full = unit(np.array([0.3, 0.4, 0.5], np.float32)).tobytes()
    assert shorten(full, 3) is full


def test_shortening_to_nothing_but_zeros_is_refused():
    """A vector whose kept components are zero has no direction left."""
    with pytest.raises(InvalidVectorError) as caught:
        shorten(unit(np.array([0.0, 0.0, 1.0])).tobytes(), 2)
    assert caught.value.reason == "zero"


@given(row=singles)
def test_both_forms_hold_the_same_float32(row):
    """Numbers and base64 are the same bits: a client that compares them finds them equal."""
    assume(row.any())
    vector = unit(row).tobytes()
    floats = json.loads(to_floats(vector))
    assert b64decode(json.loads(to_base64(vector))) == vector
    assert np.array(floats, "<f4").tobytes() == vector
    assert floats == np.frombuffer(vector, "<f4").astype(np.float64).tolist()
