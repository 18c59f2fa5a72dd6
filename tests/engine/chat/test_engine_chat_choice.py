"""One choice as it is written: what is shown, when it is over, whose probabilities are told."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from gateway.engine.chat.choice import Choosing
from gateway.engine.chat.tool_formats import Hermes
from gateway.engine.chat.tools import ToolReader
from tests.engine.chat.test_engine_chat_text import STOPS, cut_at_first_stop, pieces


@dataclass
class Token:
    """What a session gives, with a number as its probability that tells which it was."""

    piece: bytes
    logprob: float | None = None
    end: bool = False
    token: int = 0
    top: tuple = ()


def written(tokens, *, stops=(), max_tokens=1000, reader=None):
    """Return the parts that a writer would send, and the choosing."""
    choosing = Choosing(3, stops=tuple(stops), max_tokens=max_tokens, reader=reader)
    parts = [choosing.begin()]
    for token in tokens:
        parts += choosing.take(token)
        if choosing.finish is not None:
            break
    return [*parts, *choosing.end()], choosing


def text_of(parts):
    return "".join(part.delta.get("content") or "" for part in parts)


@given(pieces(), STOPS, st.integers(1, 15), st.booleans())
def test_a_choice_is_its_text_up_to_the_first_that_ends_it(parts, stops, most, ends):
    """A stop string, the bound, the model's own end, or a full context, in this order of tokens."""
    tokens = [Token(part) for part in parts] + [Token(b"", end=True)] * ends
    found, choosing = written(tokens, stops=stops, max_tokens=most)
    used = parts[:most]
    expected, stopped = cut_at_first_stop(b"".join(used).decode(errors="replace"), stops)
    assert expected == text_of(found)
    ended = ends and len(parts) < most
    assert ("stop" if stopped or ended else "length") == found[-1].finish
    assert {3} == {part.index for part in found}
    assert [None] * (len(found) - 1) == [part.finish for part in found[:-1]]
    assert choosing.tokens <= len(used)


@given(pieces(), STOPS)
def test_each_token_that_is_shown_has_its_probability_told_once_and_in_order(parts, stops):
    """Those that begin behind the cut are not told; without a cut, all are, empty ones too."""
    found, _ = written([Token(part, -float(n)) for n, part in enumerate(parts)], stops=stops)
    entries = [entry for part in found for entry in part.logprobs]
    shown, stopped = cut_at_first_stop(b"".join(parts).decode(), stops)
    kept = len(parts)
    if stopped:
        before = [len(b"".join(parts[:n]).decode(errors="ignore")) for n in range(len(parts))]
        kept = sum(start < len(shown) for start in before)
    assert [-float(n) for n in range(kept)] == [entry.logprob for entry in entries]
    assert [list(part) for part in parts[:kept]] == [entry.bytes for entry in entries]


def test_a_part_tells_the_probabilities_of_the_text_it_brings():
    """A token that was held back is told with the text that lets it go."""
    found, _ = written([Token(b"a", -1.0), Token(b"E", -2.0), Token(b"Nx", -3.0)], stops=["END"])
    told = [(part.delta.get("content"), [e.logprob for e in part.logprobs]) for part in found]
    assert [("", []), ("a", [-1.0]), ("ENx", [-2.0, -3.0]), (None, [])] == told


def test_a_part_of_a_character_has_exact_bytes():
    """Its token is a replacement, its text comes with the last byte."""
    found, _ = written([Token(bytes([byte]), -1.0) for byte in "é".encode()])
    (part,) = [part for part in found if part.logprobs]
    assert "é" == part.delta["content"]
    assert [[0xC3], [0xA9]] == [entry.bytes for entry in part.logprobs]
    assert ["\ufffd", "\ufffd"] == [entry.token for entry in part.logprobs]


CALL = '<tool_call>\n{"name": "fly", "arguments": {"to": "Mars"}}\n</tool_call>'


@given(pieces(st.just(f"Well\u2026 {CALL}")), st.booleans())
def test_a_call_becomes_one_and_the_reason_says_so(parts, ends):
    """However it falls into tokens; who was cut off is told that, not that a call was made."""
    tokens = [Token(part, -float(n)) for n, part in enumerate(parts)]
    reader = ToolReader(Hermes(), ["fly"], lambda: "7")
    found, _ = written([*tokens, Token(b"", end=True)] if ends else tokens, reader=reader)
    assert {"role": "assistant", "content": None, "refusal": None} == found[0].delta
    assert "Well\u2026" == text_of(found).strip()
    (call,) = [call for part in found for call in part.delta.get("tool_calls", [])]
    function = {"name": "fly", "arguments": '{"to": "Mars"}'}
    assert {"index": 0, "id": "call_7", "type": "function", "function": function} == call
    assert ("tool_calls" if ends else "length") == found[-1].finish
    entries = [entry.logprob for part in found for entry in part.logprobs]
    assert [-float(n) for n in range(len(parts))] == entries
