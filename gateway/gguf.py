"""What a GGUF file says of itself, read from its header without loading the model.

Knows the file format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) and the metadata
names llama.cpp reads. It does not know llama.cpp, tensors' data, or what anybody does with a model.
Files come from strangers, so each count, length and type is bounded before it is believed.
"""

import hashlib
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MAX_KEYS = 10_000  # real files have 20 to 60
MAX_TENSORS = 200_000
MAX_NAME = 65_535  # bytes in a key, as the format has it
MAX_STRING = 16 << 20  # bytes; the longest real ones are chat templates of some 100 kB
MAX_ARRAY = 5_000_000
KEPT_ARRAY = 1024  # arrays of numbers up to here are kept: some models have one a layer
MAX_DIMENSION = 1 << 31
_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    _BOOL: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_U32, _U64 = _SCALARS[4], _SCALARS[10]

_POOLING = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}
# llama_ftype in llama.h, by number; the dashes are numbers it has given up.
_FILE_TYPES = (
    "F32 F16 Q4_0 Q4_1 - - - Q8_0 Q5_0 Q5_1 Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M"
    " Q6_K IQ2_XXS IQ2_XS Q2_K_S IQ3_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ3_M IQ2_S IQ2_M IQ4_XS IQ1_M"
    " BF16 - - - TQ1_0 TQ2_0 MXFP4_MOE"
)


class GGUFError(ValueError):
    """The file is not a GGUF model that can be used; the message says why, for a person."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """An array that was stepped over: only its length is kept."""

    length: int


Scalar = bool | int | float
Value = str | Scalar | tuple[Scalar, ...] | Skipped


@dataclass(frozen=True, slots=True)
class Header:
    """The metadata of a file, and how many tensors follow it."""

    metadata: Mapping[str, Value]
    tensors: int


@dataclass(frozen=True, slots=True)
class GGUFInfo:
    """What the gateway needs to know of a model before it runs."""

    architecture: str
    name: str | None
    context_train: int
    """Tokens the model was trained on; 0 where the file is silent."""
    width: int
    """Components of a vector."""
    pooling: str | None
    """none, mean, cls, last, rank; None where the file is silent."""
    causal: bool
    vocab_size: int
    has_chat_template: bool
    layers: int
    heads: int
    heads_kv: int
    """The most of any layer."""
    key_value_width: int
    """Components of one token's key and value together, in the widest layer."""
    feed_forward: int
    file_type: str
    size: int
    """Bytes of the whole file."""


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read the metadata of the GGUF file at `path`; raises GGUFError."""
    try:
        if not Path(path).is_file():  # opening a pipe would wait for its writer
            raise GGUFError("is not a file" if Path(path).exists() else "does not exist")
        with Path(path).open("rb", buffering=1 << 18) as file:
            return _Reader(file).header()
    except OSError as error:
        raise GGUFError(f"cannot be read: {error.strerror}") from error


def describe(path: str | os.PathLike[str]) -> GGUFInfo:
    """Return what the file at `path` says of its model; raises GGUFError."""
    header = read_header(path)
    facts = _Facts(header.metadata)
    if facts.integer("split.count") > 1:
        raise GGUFError(
            "is one part of a split model; join the parts with llama.cpp's `llama-gguf-split"
            " --merge` and name the whole file"
        )
    if not header.tensors:
        raise GGUFError("holds no tensors: a vocabulary or metadata file is not a model")
    heads = facts.model("attention.head_count")
    heads_kv = facts.model("attention.head_count_kv") or heads
    width = facts.model("embedding_length")
    head = width // heads if heads else 0
    key = facts.model("attention.key_length") or head
    value = facts.model("attention.value_length") or head
    if not width:
        raise GGUFError(f"does not say how wide its vectors are ({facts.arch}.embedding_length)")
    return GGUFInfo(
        architecture=facts.arch,
        name=facts.string("general.name"),
        context_train=facts.model("context_length"),
        width=facts.model("embedding_length_out") or width,
        pooling=facts.pooling(),
        causal=facts.boolean(f"{facts.arch}.attention.causal", default=True),
        vocab_size=facts.vocabulary(),
        has_chat_template=facts.string("tokenizer.chat_template") is not None,
        layers=facts.model("block_count"),
        heads=heads,
        heads_kv=heads_kv,
        key_value_width=heads_kv * (key + value),
        feed_forward=facts.model("feed_forward_length"),
        file_type=facts.file_type(),
        size=Path(path).stat().st_size,
    )


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes, in hex; raises OSError."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Facts:
    """Typed access to metadata: a value of the wrong kind is an error that names its key."""

    def __init__(self, metadata: Mapping[str, Value]) -> None:
        self._metadata = metadata
        arch = self.string("general.architecture")
        if not arch:
            raise GGUFError("does not say its architecture (general.architecture)")
        self.arch = arch

    def string(self, key: str) -> str | None:
        value = self._metadata.get(key)
        if value is not None and not isinstance(value, str):
            raise GGUFError(f"{key} is not a string")
        return value

    def boolean(self, key: str, *, default: bool) -> bool:
        value = self._metadata.get(key, default)
        if not isinstance(value, bool):
            raise GGUFError(f"{key} is not a boolean")
        return value

    def integer(self, key: str, default: int = 0) -> int:
        value = self._metadata.get(key, default)
        # One number a layer: the largest decides about memory.
        largest = max(value, default=0) if isinstance(value, tuple) else value
        if not isinstance(largest, int) or isinstance(largest, bool):
            raise GGUFError(f"{key} is not a whole number")
        if not -1 <= largest < MAX_DIMENSION:
            raise GGUFError(f"{key} is {largest}, which no model has")
        return largest

    def model(self, key: str) -> int:
        return max(0, self.integer(f"{self.arch}.{key}"))

    def pooling(self) -> str | None:
        kind = self.integer(f"{self.arch}.pooling_type", -1)
        if kind < 0:
            return None
        if kind not in _POOLING:
            raise GGUFError(f"{self.arch}.pooling_type is {kind}, which llama.cpp does not know")
        return _POOLING[kind]

    def file_type(self) -> str:
        kind = self.integer("general.file_type", -1)
        if kind < 0:
            return "unknown"
        names = _FILE_TYPES.split()
        return names[kind] if kind < len(names) else f"type {kind}"

    def vocabulary(self) -> int:
        tokens = self._metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, Skipped):
            return tokens.length
        return self.model("vocab_size")


class _Reader:
    """Reads one header from the start of `file`, never past its end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        file.seek(0)

    def header(self) -> Header:
        magic = self._file.read(4)
        if magic != b"GGUF":
            raise GGUFError("is not a GGUF file: it does not begin with the letters GGUF")
        version = self._number(_U32)
        if version not in (2, 3):
            hint = ", or is big-endian" if version & 0xFFFF == 0 else ""
            raise GGUFError(f"is GGUF version {version}{hint}; versions 2 and 3 can be read")
        tensors = self._count(_U64, MAX_TENSORS, "tensors")
        keys = self._count(_U64, MAX_KEYS, "metadata keys")
        metadata: dict[str, Value] = {}
        for _ in range(keys):
            name = self._string(MAX_NAME)
            if name in metadata:
                raise GGUFError(f"names {name} twice")
            metadata[name] = self._value(self._number(_U32))
        self._check_end(tensors, metadata)
        return Header(metadata, tensors)

    def _check_end(self, tensors: int, metadata: Mapping[str, Value]) -> None:
        """Refuse a file that ends before its last tensor begins (an unfinished download)."""
        last = -1
        for _ in range(tensors):
            self._string(MAX_NAME)
            self._skip(8 * self._count(_U32, 8, "dimensions of a tensor"))
            self._skip(4)
            last = max(last, self._number(_U64))
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20:
            raise GGUFError("general.alignment is not a sensible number of bytes")
        begin = -(-self._file.tell() // alignment) * alignment
        if last >= 0 and begin + last >= self._size:
            raise GGUFError(
                f"is cut short: {self._size:,} bytes, and its last tensor begins at"
                f" {begin + last:,}; an unfinished download?"
            )

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._string(MAX_STRING)
        return self._array() if kind == _ARRAY else self._scalar(kind)

    def _array(self) -> Value:
        kind = self._number(_U32)
        length = self._count(_U64, MAX_ARRAY, "array entries")
        if kind == _STRING:
            for _ in range(length):
                self._skip(self._count(_U64, MAX_STRING, "bytes in a string"))
            return Skipped(length)
        if kind in _SCALARS and length > KEPT_ARRAY:
            self._skip(length * _SCALARS[kind].size)
            return Skipped(length)
        return tuple(self._scalar(kind) for _ in range(length))

    def _scalar(self, kind: int) -> Scalar:
        if kind not in _SCALARS:
            raise GGUFError(f"holds a value of type {kind}, which cannot be read")
        value: Scalar = _SCALARS[kind].unpack(self._exactly(_SCALARS[kind].size))[0]
        return value

    def _number(self, form: struct.Struct) -> int:
        value: int = form.unpack(self._exactly(form.size))[0]
        return value

    def _count(self, form: struct.Struct, limit: int, what: str) -> int:
        count = self._number(form)
        if count > limit:
            raise GGUFError(f"claims {count:,} {what}; {limit:,} is the most that is believed")
        return count

    def _string(self, limit: int) -> str:
        length = self._count(_U64, limit, "bytes in a string")
        return self._exactly(length).decode("utf-8", errors="replace")

    def _exactly(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) != length:
            raise GGUFError(f"is cut short inside its header, at byte {self._file.tell():,}")
        return data

    def _skip(self, length: int) -> None:
        if self._file.seek(length, os.SEEK_CUR) > self._size:
            raise GGUFError(f"is cut short inside its header, at byte {self._size:,}")
