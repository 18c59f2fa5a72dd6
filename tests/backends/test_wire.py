"""An upstream's answer: right, and each in its own place, or refused as a whole."""

import json
from base64 import b64encode

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.wire import read_embeddings, share
from gateway.errors import UpstreamError

WIDTH = 3


def vector(number):
    return np.array([number + 1, 0.5, -0.25], np.float32)


def item(number, *, index="own", base64=False):
    values = vector(number)
    embedding = b64encode(values.tobytes()).decode() if base64 else values.tolist()
    made = {"object": "embedding", "embedding": embedding}
    return made if index is None else made | {"index": number if index == "own" else index}


def answer(items, **keys):
    return json.dumps({"object": "list", "data": items} | keys).encode()


def read(body, count, **options):
    return read_embeddings(body, [1] * count, upstream="up", **options)


def refused(body, count, **options):
    with pytest.raises(UpstreamError) as caught:
        read(body, count, **options)
    assert (caught.value.status, caught.value.code) == (502, "upstream_invalid_response")
    assert caught.value.message.startswith("The answer of upstream 'up' was refused: ")
    return caught.value.message


@given(data=st.data(), count=st.integers(1, 12), base64=st.booleans())
def test_items_in_any_order_are_placed_by_their_index(data, count, base64):
    """P1: whatever the order of the answer, each row is that of its own text."""
    order = data.draw(st.permutations(range(count)))
    raw = read(answer([item(number, base64=base64) for number in order]), count)
    assert [row.tolist() for row in raw.rows] == [vector(n).tolist() for n in range(count)]


@given(data=st.data(), count=st.integers(2, 8))
def test_one_item_without_index_takes_the_place_left_over(data, count):
    """One is forgiven: there is only one place it can have."""
    order = data.draw(st.permutations(range(count)))
    bare = data.draw(st.integers(0, count - 1))
    items = [item(number, index=None if number == bare else "own") for number in order]
    raw = read(answer(items), count)
    assert [row[0] for row in raw.rows] == [number + 1 for number in range(count)]


@given(indexes=st.lists(st.integers(-3, 8) | st.none(), min_size=1, max_size=6))
def test_no_list_of_indexes_puts_a_row_in_a_wrong_place(indexes):
    """Accepted, every index that was given is the place it went to; else all is refused."""
    items = [item(n, index=index) for n, index in enumerate(indexes)]
    try:
        raw = read(answer(items), len(indexes))
    except UpstreamError:
        return
    given_indexes = [index for index in indexes if index is not None]
    assert len(indexes) - len(given_indexes) <= 1
    assert len(given_indexes) == len(set(given_indexes))
    for number, index in enumerate(indexes):
        if index is not None:
            assert raw.rows[index].tolist() == vector(number).tolist()


@pytest.mark.parametrize(
    ("items", "count", "why"),
    [
        ([item(0)], 2, "2 vectors were asked for and 1 came"),
        ([item(0), item(1), item(2)], 2, "2 vectors were asked for and 3 came"),
        ([], 1, "1 vectors were asked for and 0 came"),
        ([item(0), item(1, index=0)], 2, "not a permutation"),
        ([item(0), item(1, index=-1)], 2, "not a permutation"),
        ([item(0), item(1, index=2)], 2, "not a permutation"),
        ([item(0, index=1)], 1, "not a permutation"),
        ([item(0, index=None), item(1, index=None)], 2, "without `index`"),
        ([item(0), item(1, index=None), item(2, index=None)], 3, "without `index`"),
    ],
)
def test_an_answer_that_is_not_whole_is_refused(items, count, why):
    """P1: short, long, twice, out of range, unplaced: nothing of it is taken."""
    assert why in refused(answer(items), count)


def test_items_without_index_go_by_position_only_where_the_config_says_so():
    """`order = "position"` trusts the order, and only where no item has an index."""
    bare = [item(n, index=None) for n in (0, 1, 2)]
    raw = read(answer(bare), 3, by_position=True)
    assert [1, 2, 3] == [row[0] for row in raw.rows]
    placed = [item(1), item(0)]
    assert [1, 2] == [row[0] for row in read(answer(placed), 2, by_position=True).rows]
    refused(answer([item(2), item(0, index=None), item(1, index=None)]), 3, by_position=True)


def test_a_single_item_needs_no_index():
    """One text, one vector: there is no doubt."""
    assert len(read(answer([item(0, index=None)]), 1).rows) == 1


def test_numbers_and_base64_are_read_whatever_was_asked_for():
    """Mixed, too: the type of what came decides."""
    raw = read(answer([item(0, base64=True), item(1)]), 2)
    assert [row.astype("<f4").tobytes() for row in raw.rows] == [
        vector(0).tobytes(),
        vector(1).tobytes(),
    ]


@pytest.mark.parametrize(
    ("embedding", "why"),
    [
        ("", "empty"),
        ([], "empty"),
        ("AAA=", "base64"),
        ("AAAAAAA", "base64"),
        ("AAAA AAA", "base64"),
        ("AAAAA$==", "base64"),
        ("äöüß", "base64"),
        ("AACAPwAAgD8AAIA", "base64"),
        (None, "JSON"),
        ([1.0, None], "JSON"),
        ([1.0, "2"], "JSON"),
        ([True], "JSON"),
        ([[1.0]], "JSON"),
        ({"0": 1.0}, "JSON"),
    ],
)
def test_what_is_no_vector_is_refused(embedding, why):
    """Neither base64 of float32 nor a list of numbers: no guess is made."""
    items = [{"index": 0, "embedding": embedding}]
    assert why in refused(answer(items), 1)


@pytest.mark.parametrize("odd", [-1, 1])
def test_different_widths_in_one_answer_are_refused(odd):
    """All vectors of an answer are of one model, and of one width."""
    wrong = {"index": 1, "embedding": [0.5] * (WIDTH + odd)}
    assert "different widths" in refused(answer([item(0), wrong]), 2)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"data":null}',
        b'{"data":{}}',
        b'{"data":[null]}',
        b'{"data":[{"index":0}]}',
        b'{"data":[{"index":"0","embedding":[1.0]}]}',
        b'{"data":[{"index":0.5,"embedding":[1.0]}]}',
        b'{"data":[{"index":0,"embedding":[NaN]}]}',
        b'{"data":[{"index":0,"embedding":[Infinity]}]}',
        b'{"data":[{"index":0,"embedding":[1e999]}]}',
        b'{"data":[{"index":0,"embedding":[1.0]}]',
        b'{"data":[{"index":0,"embedding":"\xff\xfe"}]}',
        b'{"data":' + b"[" * 100_000,
        b"<html>",
        b"\x00" * 10,
    ],
)
def test_what_is_no_list_of_embeddings_is_refused(body):
    """HTML, half a JSON, NaN, a bomb of brackets: an error of ours, never one of Python's."""
    assert "not the JSON" in refused(body, 1)


@given(body=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_bytes_can_raise_anything_else(body):
    """An upstream cannot make this code fail in a way nobody foresaw."""
    with pytest.raises(UpstreamError):
        read(body, 1)


@pytest.mark.parametrize(
    ("keys", "tokens", "estimated"),
    [
        ({"usage": {"prompt_tokens": 7, "total_tokens": 9}}, 7, False),
        ({"usage": {"total_tokens": 9}}, 9, False),
        ({"usage": {"prompt_tokens": 0, "total_tokens": 0}}, 0, False),
        ({"usage": {"prompt_tokens": None, "total_tokens": None}}, 2, True),
        ({"usage": {"prompt_tokens": -1}}, 2, True),
        ({"usage": {}}, 2, True),
        ({"usage": None}, 2, True),
        ({}, 2, True),
        ({"input_tokens": [5], "usage": {"prompt_tokens": 7}}, 5, False),
    ],
)
def test_tokens_are_taken_from_wherever_they_are_told(keys, tokens, estimated):
    """A text's own count, else the sum of one, else an estimate that says so."""
    raw = read_embeddings(answer([item(0)], **keys), [8], upstream="up")
    assert (list(raw.tokens), raw.estimated) == ([tokens], estimated)


def test_a_sum_over_several_texts_is_split_and_marked_as_estimated():
    """Nothing of what is billed is lost, and nobody takes the shares for exact."""
    body = answer([item(0), item(1)], usage={"prompt_tokens": 10, "total_tokens": 10})
    raw = read_embeddings(body, [1, 4], upstream="up")
    assert ([2, 8], True) == (list(raw.tokens), raw.estimated)


@pytest.mark.parametrize(
    "keys",
    [
        {"truncated": False},
        {"truncated": "no"},
        {"truncated": [True]},
        {"truncated": [1, 0]},
        {"input_tokens": 12},
        {"input_tokens": [1]},
        {"input_tokens": [1, -1]},
        {"input_tokens": [1, True]},
        {"usage": {"prompt_tokens": 10**400}},
        {"usage": {"prompt_tokens": True}},
        {"usage": {"prompt_tokens": 5.5}},
        {"usage": "none"},
    ],
)
def test_odd_things_beside_good_vectors_do_no_harm(keys):
    """Other servers have other keys: what is no count for each text counts as not said."""
    raw = read(answer([item(0), item(1)], **keys), 2)
    assert ([1, 1], True) == (list(raw.tokens), raw.estimated)
    assert not raw.truncated


def test_what_an_engine_says_of_each_text_is_taken():
    """Its own count, and whether the text was cut."""
    raw = read(answer([item(0), item(1)], input_tokens=[3, 4], truncated=[False, True]), 2)
    assert (list(raw.tokens), raw.estimated) == ([3, 4], False)
    assert raw.truncated == [False, True]


@given(
    total=st.integers(0, 10**9),
    sizes=st.lists(st.integers(0, 10**6), min_size=1, max_size=50),
)
def test_sharing_out_loses_nothing(total, sizes):
    """The shares add up, are never negative, and each is within one of its fair part."""
    shares = share(total, sizes)
    assert sum(shares) == total
    assert len(shares) == len(sizes)
    weights = sizes if any(sizes) else [1] * len(sizes)
    for part, size in zip(shares, weights, strict=True):
        assert abs(part - total * size / sum(weights)) < 1
        assert part >= 0
