"""Event streams: cut into whole events at any split, and not a byte of them changed."""

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import UpstreamError
from gateway.sse import DONE, LARGEST_EVENT, Events, data_of, event, read

LINES = st.sampled_from(
    [
        b"",
        b"data: one",
        b"data:two",
        b"data:  three",
        b'data: {"a": "\xc3\xa4"}',
        b"data",
        b"data : no",
        b": comment",
        b"event: x",
        b"\xef\xbb\xbfdata: late",
    ]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=20).map(
    lambda lines: b"".join(line + end for line, end in lines)
)


def cut(stream, places):
    """Return the pieces between these places."""
    edges = sorted({0, len(stream), *(place for place in places if place < len(stream))})
    return [stream[a:b] for a, b in pairwise(edges)]


def fed(pieces):
    """Return all events of the pieces, and the rest."""
    events = Events()
    found = [found for piece in pieces for found in events.feed(piece)]
    return found, events.rest()


def by_the_book(stream):
    """Return the data of a stream's events, as the specification's own words have it."""
    text = stream.removeprefix(b"\xef\xbb\xbf")
    found, data = [], []
    for line in re.findall(rb"([^\r\n]*)(?:\r\n|\r|\n)", text):
        if not line:
            if data:
                found.append(b"\n".join(data))
            data = []
        elif not line.startswith(b":"):
            field, colon, value = line.partition(b":")
            if field == b"data":
                data.append(value[1:] if colon and value[:1] == b" " else value)
    return found


# In the middle of a stream the mark is no mark; only `data_of` alone cannot know, see below.
@given(bom=st.booleans(), stream=STREAMS, places=st.lists(st.integers(0, 200), max_size=20))
@example(bom=False, stream=b"data: a\r\n\r\ndata: b\r\n\r\n", places=list(range(30)))
@example(bom=False, stream=b"data: a\r\rdata: b\n\n", places=[])
@example(bom=False, stream=b"data: a\r\n\r\n", places=[10])
def test_any_split_gives_the_same_data_and_all_of_the_bytes(bom, stream, places):
    """What is relayed is what came; what is read is what the specification says."""
    stream = b"\xef\xbb\xbf" * bom + stream
    events, rest = fed(cut(stream, places))
    assert b"".join([*events, rest]) == stream
    assert all(found.endswith((b"\n", b"\r")) for found in events)
    if b"\xef\xbb\xbfdata: late" not in stream:
        assert [data for data in map(data_of, events) if data is not None] == by_the_book(stream)


@given(st.lists(st.sampled_from([b"{}", b'{"a": "b"}', b"[DONE]"]), max_size=8))
def test_an_event_a_piece_is_given_as_it_is(datas):
    """The usual case: nothing is put together or cut."""
    pieces = [b"data: " + data + b"\n\n" for data in datas]
    assert fed(pieces) == (pieces, b"")
    assert fed([b"".join(pieces)] if pieces else []) == (pieces, b"")


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_event_is_given_as_soon_as_its_blank_line_is_there(end):
    """The next event may be seconds away: none waits for it, whatever ends its lines."""
    events = Events()
    whole = b"data: a" + end + end
    assert events.feed(whole[:4]) == []
    assert events.feed(whole[4:]) == [whole]
    assert events.rest() == b""


def test_crlf_cut_between_its_bytes_is_one_line_end():
    """An event must not end early there, nor hold its last byte back."""
    events = Events()
    assert events.feed(b"data: a\r") == []
    assert events.feed(b"\ndata: b\r\n\r") == [b"data: a\r\ndata: b\r\n\r"]
    assert events.feed(b"\n") == [b"\n"]
    assert events.feed(b"data: c\n\n") == [b"data: c\n\n"]


def test_what_is_not_ended_is_the_rest():
    """A stream that is cut shows it."""
    assert fed([b"data: a\n\ndata: b\n"]) == ([b"data: a\n\n"], b"data: b\n")


def test_an_event_without_end_is_refused():
    """Memory is bounded; many small events of any sum are not one large event."""
    events = Events()
    for _ in range(20):
        assert len(events.feed(b"data: " + b"x" * 2**19 + b"\n\nda")) == 1
        assert events.feed(b"ta: a\n\n") == [b"data: a\n\n"]
    events.feed(b"data: " + b"x" * (LARGEST_EVENT - 6))
    with pytest.raises(UpstreamError) as caught:
        events.feed(b"x")
    assert caught.value.code == "upstream_invalid_response"


def test_many_small_pieces_are_searched_once():
    """An event of a megabyte in pieces of 16 bytes: searched anew each time, it takes minutes."""
    whole = b"data: " + b"x" * 2**20 + b"\r\n\r\n"
    assert fed(cut(whole, range(0, len(whole), 16))) == ([whole], b"")


@pytest.mark.parametrize(
    ("raw", "name", "data"),
    [
        (b"data: a\n\n", b"", b"a"),
        (b"data:a\n\n", b"", b"a"),
        (b"data:  a\n\n", b"", b" a"),
        (b"data\n\n", b"", b""),
        (b"data: a\ndata: b\n\n", b"", b"a\nb"),
        (b"data: a\rdata: b\r\n\r\n", b"", b"a\nb"),
        (b"event: error\ndata: {}\n\n", b"error", b"{}"),
        (b"data: {}\nevent:error\r\n\r\n", b"error", b"{}"),
        (b"\xef\xbb\xbfdata: a\n\n", b"", b"a"),
        (b": data: a\n\n", b"", None),
        (b"id: 1\nretry: 2\n\n", b"", None),
        (b"\n", b"", None),
        (b"", b"", None),
        (b"data: cut", b"", b"cut"),
        (DONE, b"", b"[DONE]"),
    ],
)
def test_an_event_is_read_as_the_specification_says(raw, name, data):
    """Fields with and without a space, several data lines, comments, a byte order mark."""
    assert read(raw) == (name, data)
    assert data_of(raw) == data


@given(st.binary(max_size=40) | st.text("ab\r\n:", max_size=20).map(str.encode))
def test_data_that_is_written_is_read_again(data):
    """Line ends of any kind are kept as line ends: an event never ends inside its data."""
    written = event(data)
    assert fed([written]) == ([written], b"")
    assert data_of(written) == re.sub(rb"\r\n?", b"\n", data)
