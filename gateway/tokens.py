"""OpenAI's cl100k_base vocabulary, offline: ids to bytes, and token counts where tiktoken is there.

Clients such as LangChain send token ids by default. They are ids of this vocabulary, whatever
model answers, so an id array is turned back into its text here. The table stands in
`assets/cl100k`. This module knows nothing of requests, models or limits.
"""

import importlib.util
import lzma
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tiktoken

TABLE = Path(__file__).parent / "assets" / "cl100k" / "cl100k_base.xz"
RANKS = 100_256
"""Tokens of the table; their ids are 0 … 100,255. Id 100,256 was never given out."""

LONGEST_TOKEN = 128
"""Characters of the longest token, which is of spaces."""

SPECIAL_TOKENS = {
    "<|endoftext|>": 100_257,
    "<|fim_prefix|>": 100_258,
    "<|fim_middle|>": 100_259,
    "<|fim_suffix|>": 100_260,
    "<|endofprompt|>": 100_276,
}
"""Source: tiktoken_ext/openai_public.py; the ids between them are unused."""

# How a text is split before merging. Source: tiktoken_ext/openai_public.py, cl100k_base (MIT).
_SPLIT = "|".join(
    [
        r"'(?i:[sdmt]|ll|ve|re)",
        r"[^\r\n\p{L}\p{N}]?+\p{L}++",
        r"\p{N}{1,3}+",
        r" ?[^\s\p{L}\p{N}]++[\r\n]*+",
        r"\s++$",
        r"\s*[\r\n]",
        r"\s+(?!\S)",
        r"\s",
    ]
)


def tokenizer_available() -> bool:
    """Return whether `Cl100k.count` can be used: the optional tiktoken package is installed."""
    return importlib.util.find_spec("tiktoken") is not None


class Cl100k:
    """The vocabulary, read from disk when it is first needed and kept by whoever owns the object.

    Reading takes about 40 ms and 7 MB (counting another 18 MB); safe to use from several threads.
    """

    def __init__(self, table: Path = TABLE) -> None:
        self._table = table

    def decode(self, ids: Sequence[int]) -> bytes:
        """Return the bytes that these tokens stand for; special tokens as their literal text.

        The bytes of one token, or of a cut sequence, need not be valid UTF-8.

        Raises ValueError naming the first id that is not of this vocabulary.
        """
        pieces = self._pieces
        parts = []
        for token in ids:
            piece = pieces[token] if 0 <= token < len(pieces) else None
            if piece is None:
                raise ValueError(f"{token} is not a token id of cl100k_base")
            parts.append(piece)
        return b"".join(parts)

    def count(self, text: str) -> int:
        """Return how many tokens OpenAI counts for `text`; a special token's name is plain text.

        Takes 0.1 to 0.5 s a megabyte, so it is not for an event loop.

        Raises ImportError without tiktoken; see `tokenizer_available`.
        """
        return len(self._encoding.encode_ordinary(text))

    @cached_property
    def mergeable_ranks(self) -> dict[bytes, int]:
        """Token bytes -> rank, as tiktoken.Encoding wants them; 100,256 entries."""
        return {token: rank for rank, token in enumerate(self._tokens)}

    @cached_property
    def _tokens(self) -> list[bytes]:
        # One length byte per token, then the bytes of all tokens, both by id.
        content = lzma.decompress(self._table.read_bytes())
        bounds = accumulate(content[:RANKS], initial=RANKS)
        return [content[start:end] for start, end in pairwise(bounds)]

    @cached_property
    def _pieces(self) -> list[bytes | None]:
        gap = max(SPECIAL_TOKENS.values()) + 1 - RANKS
        pieces: list[bytes | None] = [*self._tokens, *[None] * gap]
        for text, token in SPECIAL_TOKENS.items():
            pieces[token] = text.encode()
        return pieces

    @cached_property
    def _encoding(self) -> "tiktoken.Encoding":
        import tiktoken

        return tiktoken.Encoding(
            "cl100k_base",
            pat_str=_SPLIT,
            mergeable_ranks=self.mergeable_ranks,
            special_tokens=SPECIAL_TOKENS,
        )
