"""Text as it grows: whole characters, stop strings never shown, whatever the tokens' borders."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.engine.chat.text import Writing

FEW = st.text("ab\u00e9\U0001f600", max_size=30)
STOPS = st.lists(st.text("ab\u00e9\U0001f600", min_size=1, max_size=5), max_size=4)


@st.composite
def pieces(draw, texts=FEW):
    """Return a text's bytes, split anywhere, also inside characters."""
    data = draw(texts).encode()
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def cut_at_first_stop(text, stops):
    """Return the text before the stop that is complete first: read off one end at a time."""
    for end in range(1, len(text) + 1):
        found = [len(stop) for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(found)], True
    return text, False


@given(pieces(), STOPS)
def test_the_borders_of_pieces_change_nothing(parts, stops):
    """Any split gives the text before the first complete stop, or all of it."""
    writing = Writing(stops)
    shown = "".join(writing.feed(part) for part in parts) + writing.finish()
    expected, stopped = cut_at_first_stop(b"".join(parts).decode(), stops)
    assert (expected, stopped) == (shown, writing.stopped)


@given(pieces(), STOPS)
def test_only_what_may_begin_a_stop_or_end_a_character_is_held_back(parts, stops):
    """After each piece, what is not shown is the longest end that may still become a stop."""
    writing = Writing(stops)
    data, shown = b"", ""
    for part in parts:
        data += part
        shown += writing.feed(part)
        if writing.stopped:
            return
        known = data.decode(errors="ignore")
        assert len(known) == writing.known
        starts = (stop[:size] for stop in stops for size in range(1, len(stop)))
        held = max((len(start) for start in starts if known.endswith(start)), default=0)
        assert known[: len(known) - held] == shown


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_any_bytes_become_text(first, second):
    """Rubbish is replaced; nothing fails and nothing is lost."""
    writing = Writing()
    shown = writing.feed(first) + writing.feed(second) + writing.finish()
    assert (first + second).decode(errors="replace") == shown
    assert len(shown) == writing.known


def test_nothing_follows_a_stop():
    """Not from the same piece, nor from later ones."""
    writing = Writing(["END"])
    assert "one " == writing.feed(b"one E")
    assert "" == writing.feed(b"ND two")
    assert writing.stopped
    assert "" == writing.feed(b"three") + writing.finish()
