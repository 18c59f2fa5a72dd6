"""Small random-weight GGUF files: real models in shape and behaviour, some kilobytes in size.

Their vectors mean nothing, but they are computed by the same code as those of a large model. The
same arguments give the same bytes.
"""

import string
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, PoolingType, TokenType

WIDTH = 32
HEADS = 4
LAYERS = 2
WORDS = ["the", "man", "bites", "dog", "hello", "world", "green", "fruit"]


def write_encoder(
    path: Path,
    *,
    context: int = 128,
    pooling: PoolingType | None = PoolingType.MEAN,
    seed: int = 1,
    sep: int | None = 3,
    broken_word: str | None = None,
    dead: bool = False,
) -> Path:
    """Write a BERT encoder whose WordPiece vocabulary knows lower-case letters and a few words.

    Without `sep` it names no closing token, and llama.cpp's default for one is beyond its end. The
    weights of `broken_word` are NaN; those of a `dead` model's last layer are zeros.
    """
    writer = GGUFWriter(path, "bert")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    specials = len(pieces)
    letters = string.ascii_lowercase + string.digits
    pieces += [f"\u2581{word}" for word in [*letters, *WORDS]] + list(letters)
    _shape(writer, context)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    if pooling is not None:
        writer.add_pooling_type(pooling)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(pieces)
    writer.add_token_type_count(2)
    kinds = [TokenType.CONTROL] * specials + [TokenType.NORMAL] * (len(pieces) - specials)
    writer.add_token_types(kinds)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    if sep is not None:
        writer.add_sep_token_id(sep)
    writer.add_mask_token_id(4)
    tensors = _Tensors(writer, seed)
    broken = [] if broken_word is None else [pieces.index(f"\u2581{broken_word}")]
    tensors.matrix("token_embd.weight", len(pieces), WIDTH, nan_rows=broken)
    tensors.matrix("position_embd.weight", context, WIDTH)
    tensors.matrix("token_types.weight", 2, WIDTH)
    tensors.norm("token_embd_norm", bias=True)
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors.linear(f"blk.{layer}.{name}", WIDTH, WIDTH, bias=True)
        tensors.norm(f"blk.{layer}.attn_output_norm", bias=True)
        tensors.linear(f"blk.{layer}.ffn_up", 2 * WIDTH, WIDTH, bias=True)
        tensors.linear(f"blk.{layer}.ffn_down", WIDTH, 2 * WIDTH, bias=True)
        zeros = dead and layer == LAYERS - 1
        tensors.norm(f"blk.{layer}.layer_output_norm", bias=True, scale=0.0 if zeros else 1.0)
    return _finish(writer, path)


def write_decoder(
    path: Path,
    *,
    context: int = 2048,
    pooling: PoolingType | None = None,
    add_bos: bool = True,
    add_eos: bool = False,
    byte_tokens: bool = True,
    vocab: int = 0,
    seed: int = 2,
) -> Path:
    """Write a Llama decoder whose SentencePiece vocabulary falls back to bytes.

    Without `pooling` it is what a chat model is; without `byte_tokens` it ends any process that
    tokenizes a capital letter with it. `vocab` fills up the vocabulary to that size.
    """
    writer = GGUFWriter(path, "llama")
    every_byte = [f"<0x{byte:02X}>" for byte in range(256)] if byte_tokens else []
    pieces = ["<unk>", "<s>", "</s>", *every_byte]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    kinds += [TokenType.BYTE] * len(every_byte)
    words = ["\u2581", *string.ascii_lowercase, *(f"\u2581{letter}" for letter in "abcdefgh")]
    words += [f"filler{n}" for n in range(max(0, vocab - len(pieces) - len(words)))]
    pieces += words
    kinds += [TokenType.NORMAL] * len(words)
    _shape(writer, context)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(pieces))
    if pooling is not None:
        writer.add_pooling_type(pooling)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores([-float(n) for n in range(len(pieces))])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(add_bos)
    writer.add_add_eos_token(add_eos)
    tensors = _Tensors(writer, seed)
    tensors.matrix("token_embd.weight", len(pieces), WIDTH)
    tensors.matrix("output.weight", len(pieces), WIDTH)
    tensors.norm("output_norm")
    for layer in range(LAYERS):
        tensors.norm(f"blk.{layer}.attn_norm")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors.linear(f"blk.{layer}.{name}", WIDTH, WIDTH)
        tensors.norm(f"blk.{layer}.ffn_norm")
        for name in ("ffn_gate", "ffn_up"):
            tensors.linear(f"blk.{layer}.{name}", 2 * WIDTH, WIDTH)
        tensors.linear(f"blk.{layer}.ffn_down", WIDTH, 2 * WIDTH)
    return _finish(writer, path)


def cut(source: Path, path: Path, size: int) -> Path:
    """Write the first `size` bytes of `source`: a download that stopped."""
    path.write_bytes(source.read_bytes()[:size])
    return path


def write_header(path: Path, *, magic: bytes = b"GGUF", version: int = 3, **counts: int) -> Path:
    """Write a header and nothing else, with whatever `tensors` and `keys` it claims."""
    numbers = struct.pack("<IQQ", version, counts.get("tensors", 0), counts.get("keys", 0))
    path.write_bytes(magic + numbers)
    return path


def _shape(writer: GGUFWriter, context: int) -> None:
    writer.add_name("tiny")
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_file_type(0)


def _finish(writer: GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


class _Tensors:
    """Adds random weights to a file, the same for the same seed."""

    def __init__(self, writer: GGUFWriter, seed: int) -> None:
        self._writer = writer
        self._random = np.random.default_rng(seed)

    def matrix(self, name: str, rows: int, columns: int, nan_rows: Sequence[int] = ()) -> None:
        weights = self._random.normal(0, 0.3, (rows, columns)).astype(np.float32)
        weights[list(nan_rows)] = np.nan
        self._writer.add_tensor(name, weights)

    def linear(self, name: str, rows: int, columns: int, *, bias: bool = False) -> None:
        self.matrix(f"{name}.weight", rows, columns)
        if bias:
            self._vector(f"{name}.bias", rows, 0.0)

    def norm(self, name: str, *, bias: bool = False, scale: float = 1.0) -> None:
        self._vector(f"{name}.weight", WIDTH, 1.0, scale)
        if bias:
            self._vector(f"{name}.bias", WIDTH, 0.0, scale)

    def _vector(self, name: str, size: int, mean: float, scale: float = 1.0) -> None:
        numbers = self._random.normal(mean, 0.1, size) * scale
        self._writer.add_tensor(name, numbers.astype(np.float32))
