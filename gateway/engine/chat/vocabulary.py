"""A chat model's tokens: text to tokens, and tokens to the bytes they stand for.

What a template writes, marks of turns included, is tokenized as one text. Knows the model's
vocabulary; nothing of contexts.
"""

import ctypes
from collections.abc import Sequence

import numpy as np
from llama_cpp import llama_cpp as llama

from gateway.engine.model import Model

_NO_TOKEN = -1
_MARKS = 1 | 8
"""Kinds of tokens that llama.cpp does not look for in plain text: unknown, control."""
_NEVER_IN_UTF8 = bytes([0xC0, 0xC1, *range(0xF5, 0x100)])
_SHOWN = frozenset(
    {b"[TOOL_CALLS]", b"[CALL_ID]", b"[ARGS]", b"<|python_tag|>", b"<tool_call>", b"</tool_call>"}
)
"""Marks of a tool call: control tokens in some files, and yet part of what is answered."""


class Vocabulary:
    """The tokens of one model; may be used by several threads."""

    def __init__(self, model: Model) -> None:
        self.handle = handle = model.vocab
        self.size = model.vocab_size
        self._pieces = [self._piece(token) for token in range(self.size)]
        self._ends = frozenset(
            token for token in range(self.size) if llama.llama_vocab_is_eog(handle, token)
        )
        unfit = [token for token in range(self.size) if self._unfit(token)]
        self.unfit = np.array(unfit, dtype=np.int64)
        """Tokens that must not be had under a grammar. Marks of turns: a grammar reads their names,
        an answer does not show them. Bytes that no character has: llama.cpp takes them for one.
        (It takes characters written in more bytes than they need too; these are not prevented.)"""
        self.marks = [name for token in range(self.size) if (name := self._mark(token))]
        """The names of such marks, as a template writes them."""
        self._bos = int(llama.llama_vocab_bos(handle))
        self._adds_bos = bool(llama.llama_vocab_get_add_bos(handle))
        self.bos = self._name(self._bos)
        """How a template writes the beginning of a text; "" where the model knows none."""
        self.eos = self._name(int(llama.llama_vocab_eos(handle)))

    def tokenize(self, prompt: bytes) -> list[int]:
        """Return the tokens of a prompt (UTF-8) as a template wrote it; marks become their tokens.

        The beginning of a text is put before it where the model wants one and the template did not
        write it.
        """
        return self.tokenize_parts([(prompt, True)])

    def tokenize_parts(self, parts: Sequence[tuple[bytes, bool]]) -> list[int]:
        """Return the tokens of a prompt in parts; marks are marks only where the part says so."""
        found: list[int] = []
        for text, marked in parts:
            found += self._tokens(text, marked=marked)
        if self._adds_bos and found[:1] != [self._bos]:
            found.insert(0, self._bos)
        return found

    def _tokens(self, text: bytes, *, marked: bool) -> list[int]:
        size = len(text) + 8
        while True:
            tokens = (ctypes.c_int32 * size)()
            count = llama.llama_tokenize(self.handle, text, len(text), tokens, size, False, marked)
            if count >= 0:
                return list(tokens[:count])
            size = -count  # so many are needed

    def piece(self, token: int) -> bytes:
        """Return the bytes a token adds to an answer: any part of a UTF-8 text, or nothing."""
        return b"" if token in self._ends else self._pieces[token]

    def ends(self, token: int) -> bool:
        """Return whether the model says with this token that its answer is over."""
        return token in self._ends

    def _mark(self, token: int) -> str:
        kind = llama.llama_vocab_get_attr(self.handle, token)
        return self._name(token) if kind & _MARKS else ""

    def _unfit(self, token: int) -> bool:
        if token in self._ends:
            return False
        piece = self._pieces[token]
        return not piece or any(byte in _NEVER_IN_UTF8 for byte in piece)

    def _piece(self, token: int) -> bytes:
        plain = self._bytes(token, marks=False)
        if plain:
            return plain
        marked = self._bytes(token, marks=True)
        return marked if marked in _SHOWN else b""

    def _name(self, token: int) -> str:
        return "" if token == _NO_TOKEN else self._bytes(token, marks=True).decode(errors="replace")

    def _bytes(self, token: int, *, marks: bool) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = llama.llama_token_to_piece(self.handle, token, buffer, size, 0, marks)
            if count >= 0:
                return buffer.raw[:count]
            size = -count
