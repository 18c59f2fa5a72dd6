"""Asks llama.cpp itself what a grammar allows: whole texts, and texts drawn from it at random."""

import ctypes
import math
from codecs import getincrementaldecoder
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

from gateway.engine.chat.gbnf_check import check_grammar

CLOSING = [ord(mark) for mark in '"}]>0']
"""What a text drawn at random goes for when it has become long enough."""


class Follower:
    """A vocabulary with every byte, and the grammar sampler of llama.cpp over it."""

    def __init__(self, path: Path) -> None:
        from llama_cpp import llama_cpp

        self._llama = llama_cpp
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        assert self._model
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self._end = llama_cpp.llama_vocab_eos(self._vocab)
        self._tokens: dict[int, int] = {}
        buffer = ctypes.create_string_buffer(64)
        for token in range(llama_cpp.llama_vocab_n_tokens(self._vocab)):
            size = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, 64, 0, False)
            if size == 1:
                self._tokens.setdefault(buffer.raw[0], token)
        assert len(self._tokens) == 256

    def close(self) -> None:
        self._llama.llama_model_free(self._model)

    def allows(self, grammar: str, text: str) -> bool:
        """Whether the whole text follows the grammar, and may end there."""
        with self._sampler(grammar) as sampler:
            for byte in text.encode():
                if not self._open(sampler, [self._tokens[byte]]):
                    return False
                self._llama.llama_sampler_accept(sampler, self._tokens[byte])
            return bool(self._open(sampler, [self._end]))

    def draw(self, grammar: str, seed: int, *, longest: int = 600) -> str | None:
        """A text of the grammar; None where it became too long before it could end."""
        random, drawn = Random(seed), bytearray()
        bytes_ = {token: byte for byte, token in self._tokens.items()}
        with self._sampler(grammar) as sampler:
            while len(drawn) < longest:
                fitting = [t for t, byte in bytes_.items() if _begins(bytes([*drawn[-3:], byte]))]
                allowed = self._open(sampler, [*fitting, self._end])
                if self._end in allowed and (len(allowed) == 1 or random.random() < 0.5):
                    return drawn.decode()
                assert allowed, f"the grammar leads nowhere behind {bytes(drawn)!r}"
                token = random.choice([token for token in allowed if token != self._end])
                if len(drawn) > 60 or random.random() < 0.3:
                    closing = [t for b in CLOSING if (t := self._tokens[b]) in allowed]
                    token = closing[0] if closing else token
                self._llama.llama_sampler_accept(sampler, token)
                drawn.append(bytes_[token])
        return None

    def _open(self, sampler: object, tokens: Sequence[int]) -> list[int]:
        """Return those of the tokens that may come next."""
        data = (self._llama.llama_token_data * len(tokens))()
        for place, token in enumerate(tokens):
            data[place].id, data[place].logit, data[place].p = token, 1.0, 0.0
        array = self._llama.llama_token_data_array(
            data=data, size=len(tokens), selected=-1, sorted=False
        )
        self._llama.llama_sampler_apply(sampler, ctypes.byref(array))
        return [data[place].id for place in range(len(tokens)) if data[place].logit > -math.inf]

    @contextmanager
    def _sampler(self, grammar: str) -> Iterator[object]:
        check_grammar(grammar)
        made = self._llama.llama_sampler_init_grammar(self._vocab, grammar.encode(), b"root")
        assert made, "llama.cpp does not take this grammar"
        try:
            yield made
        finally:
            self._llama.llama_sampler_free(made)


def _begins(tail: bytes) -> bool:
    """Whether a text may go on like this: llama.cpp takes bytes with which no character begins.

    0xED is left out: it may begin half of a UTF-16 pair, which Python sees a byte later.
    """
    if tail.endswith(b"\xed"):
        return False
    while tail and 0x80 <= tail[0] < 0xC0:
        tail = tail[1:]
    try:
        getincrementaldecoder("utf-8")("strict").decode(tail)
    except UnicodeDecodeError:
        return False
    return True
