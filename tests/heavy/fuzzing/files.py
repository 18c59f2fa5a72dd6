"""Files that somebody hands over: exports, vectors, and models."""

import io
import tempfile
from contextlib import suppress
from pathlib import Path

from gateway.commands.exports import read_metadata
from gateway.gguf import GGUFError, describe
from gateway.safetensors import Column, SafetensorsError, SafetensorsFile, write
from tests.heavy.fuzzing.target import Target
from tests.tiny_gguf import write_encoder


def try_one(data: bytes) -> None:
    """Read a file as an export, and as a model."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with suppress(SafetensorsError):
            _read(SafetensorsFile(file.file))
        with suppress(GGUFError):
            describe(file.name)


def _read(file: SafetensorsFile) -> None:
    with suppress(SafetensorsError):
        read_metadata(file)
    for name, tensor in file.tensors.items():
        if tensor.shape:
            file.rows(name, 0, min(tensor.shape[0], 2))


def _vectors() -> bytes:
    out = io.BytesIO()
    numbers = Column("F32", (2, 3), [bytes(24)])
    write(out, {"ids": Column("I64", (2,), [bytes(16)]), "vectors": numbers}, {"format": "x"})
    return out.getvalue()


def _model() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        # Only its beginning is read: what it says of itself.
        return write_encoder(Path(directory, "m.gguf")).read_bytes()[: 1 << 14]


_WORDS = [b"GGUF", b"F32", b"BOOL", b"data_offsets", b"shape", b"__metadata__", b"\xff" * 8]

FILE = Target(try_one, [_vectors(), _model()], _WORDS)
