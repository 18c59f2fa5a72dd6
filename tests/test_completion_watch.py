"""Streams are watched as they pass, JSON answers looked at: nothing odd stops them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.completion import Assembly, Kind, Usage, Watch, look
from gateway.sse import DONE
from tests.completions import HELLO, JSON, USAGE, chunk, piece, told


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (chunk(piece({"content": "a"})), Kind.CHUNK),
        (chunk(piece({"content": "a"}), usage=USAGE), Kind.CHUNK),
        (chunk(prompt_filter_results=[]), Kind.CHUNK),
        (chunk(piece({}), error=None), Kind.CHUNK),
        (chunk(usage=USAGE), Kind.USAGE),
        (chunk(usage={}), Kind.USAGE),
        (told({"usage": USAGE}), Kind.USAGE),
        (DONE, Kind.DONE),
        (b"data:[DONE]\r\n\r\n", Kind.DONE),
        (told({"error": {"message": "no"}}), Kind.ERROR),
        (chunk(piece({}, end="error"), error={"code": 502}), Kind.ERROR),
        (b"event: error\ndata: {}\n\n", Kind.ERROR),
        (b"event: error\ndata: oh\n\n", Kind.ERROR),
        (b": ping\n\n", Kind.OTHER),
        (b"event: ping\ndata: {}\n\n", Kind.OTHER),
        (b"\n", Kind.OTHER),
        (b"data: 1\n\n", Kind.OTHER),
        (b"data: [1]\n\n", Kind.OTHER),
        (b"data: NaN\n\n", Kind.OTHER),
        (b'data: {"choices": 1}\n\n', Kind.OTHER),
        (b'data: {"choices": [], "x": NaN}\n\n', Kind.OTHER),
        (b'data: {"choices": [{"finish_reason": "\xff"}]}\n\n', Kind.OTHER),
        (b'data: {"choices": ' + b"[" * 10**5 + b"\n\n", Kind.OTHER),
        (b'data: {"x": ' + b"[" * 10**5 + b"\n\n", Kind.OTHER),
    ],
)
def test_every_event_is_one_of_five_kinds(event, kind):
    """What is odd is none of our business; it passes."""
    assert Watch().see(event) is kind


@given(st.binary(max_size=60).map(lambda data: b"data: " + data) | JSON.map(told))
def test_nothing_that_comes_raises(event):
    """A relay goes on whatever the upstream sends."""
    watch, assembly = Watch(), Assembly()
    for seen in (event, DONE):
        watch.see(seen)
        assembly.add(seen)
    whole = assembly.whole()
    assert whole is None or (not watch.failed and look(whole).complete)


def test_a_stream_is_watched_to_its_end():
    """Usage, fingerprint, and how far it is, event by event."""
    watch = Watch()
    seen = []
    for event in [chunk(system_fingerprint="fp_1"), *HELLO]:
        watch.see(event)
        seen.append((watch.finished, watch.done))
    assert seen == [(False, False)] * 4 + [(True, False)] * 2 + [(True, True)]
    assert watch.usage == Usage(prompt_tokens=3, completion_tokens=5)
    assert (watch.fingerprint, watch.failed) == ("fp_1", False)


def test_a_stream_is_finished_when_all_of_its_choices_are():
    """One of two that goes on is an answer that goes on."""
    watch = Watch()
    watch.see(chunk(piece({"content": "a"}), piece({"content": "b"}, index=1)))
    watch.see(chunk(piece({}, end="stop")))
    assert not watch.finished
    # Some servers say the end, and then something empty.
    watch.see(chunk(piece({})))
    watch.see(chunk(piece({}, index=1, end="length")))
    assert watch.finished


@pytest.mark.parametrize(
    "said",
    [
        {"prompt_tokens": 3},
        {"prompt_tokens": 3, "completion_tokens": -1},
        {"prompt_tokens": 3, "completion_tokens": 10**9 + 1},
        {"prompt_tokens": 3, "completion_tokens": 10**30},
        {"prompt_tokens": 3, "completion_tokens": "5"},
        {"prompt_tokens": 3, "completion_tokens": 5.5},
        {"prompt_tokens": True, "completion_tokens": 5},
        [3, 5],
        "8",
        None,
    ],
)
def test_odd_usage_is_not_said(said):
    """A wrong number in a metric or a price is worse than none."""
    watch = Watch()
    watch.see(chunk(usage=said))
    assert watch.usage is None
    assert look(json.dumps({"usage": said}).encode()).usage is None


@pytest.mark.parametrize("said", [None, "", 5, ["fp"], "f" * 256, "ä" * 128])
def test_an_odd_fingerprint_is_not_said(said):
    """It becomes a line of the log and a field of a record: a short text, or nothing."""
    watch = Watch()
    watch.see(chunk(piece({}), system_fingerprint=said))
    assert watch.fingerprint is None
    watch.see(chunk(piece({}), system_fingerprint="f" * 255))
    watch.see(chunk(piece({}), system_fingerprint="later"))
    assert watch.fingerprint == "f" * 255
