"""Texts become tokens and tokens become the same texts again."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("llama_cpp", reason="llama-cpp-python is missing (extra [local])")

from tests.engine.chat.writing import load
from tests.tiny_chat import BOS, CALLS, ENDS, EOS, TAGS, TURNS, write_chat

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    """The tiny model's."""
    return load(write_chat(tmp_path_factory.mktemp("m") / "m.gguf")).vocabulary


@settings(deadline=None)
@given(st.text(max_size=40).filter(lambda text: "<" not in text and "[" not in text))
def test_pieces_are_the_text(vocabulary, text):
    """Whatever the text: what the vocabulary lacks is spelled in bytes."""
    tokens = vocabulary.tokenize(text.encode())
    assert b"".join(vocabulary.piece(token) for token in tokens) == text.encode()
    assert not any(vocabulary.ends(token) for token in tokens)


def test_marks_of_turns_are_one_token_and_no_text(vocabulary):
    """They are a template's to write; in an answer they are nothing."""
    for mark in TURNS:
        (token,) = vocabulary.tokenize(mark.encode())
        assert (vocabulary.piece(token), vocabulary.ends(token)) == (b"", False)
        assert token in vocabulary.unfit


def test_marks_of_tool_calls_are_text(vocabulary):
    """Who reads calls in an answer must see where they begin."""
    for mark in (*CALLS, *TAGS):
        (token,) = vocabulary.tokenize(mark.encode())
        assert vocabulary.piece(token) == mark.encode()
        assert token not in vocabulary.unfit


def test_ends_are_ends(vocabulary):
    """The file names two of them, and llama.cpp knows the third by its name."""
    for mark in (EOS, *ENDS):
        (token,) = vocabulary.tokenize(mark.encode())
        assert (vocabulary.piece(token), vocabulary.ends(token)) == (b"", True)


@pytest.mark.parametrize("add", [False, True])
def test_the_beginning_is_there_once(tmp_path, add):
    """Where the model wants one: a template may have written it, or not."""
    vocabulary = load(write_chat(tmp_path / "m.gguf", add_bos=add)).vocabulary
    assert (vocabulary.bos, vocabulary.eos) == (BOS, EOS)
    (bos,) = vocabulary.tokenize(BOS.encode())
    assert vocabulary.tokenize(BOS.encode() + b"a").count(bos) == 1
    assert vocabulary.tokenize(b"a").count(bos) == add
    assert len(vocabulary.tokenize(b"")) == add


def test_a_text_without_any_token_of_its_own_is_spelled(vocabulary):
    """One token a byte."""
    text = "\u3000".encode() * 1000  # a character that is no token
    assert len(vocabulary.tokenize(text)) == 3000
