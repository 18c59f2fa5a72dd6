"""Our safetensors files against the library's own, both ways, and files that are broken."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from gateway.safetensors import (
    DTYPES,
    LARGEST_HEADER,
    Column,
    SafetensorsError,
    SafetensorsFile,
    write,
)

Arrays = Mapping[str, np.ndarray]

NAMES = st.text(max_size=20).filter(lambda name: name != "__metadata__")
TENSORS = st.dictionaries(
    NAMES,
    st.sampled_from(sorted(DTYPES)).flatmap(
        lambda name: arrays(DTYPES[name], array_shapes(min_dims=0, min_side=0, max_side=5))
    ),
    max_size=5,
)
METADATA = st.dictionaries(NAMES, st.text(max_size=20), max_size=3)
NAME_OF = {dtype: name for name, dtype in DTYPES.items()}


def column(values: np.ndarray, pieces: int = 1) -> Column:
    """Return the array as it is written, in so many pieces or one more."""
    raw = values.tobytes()
    step = max(1, len(raw) // pieces)
    parts = [raw[at : at + step] for at in range(0, len(raw), step)]
    return Column(NAME_OF[values.dtype], values.shape, iter(parts))


def written(tensors: Arrays, metadata: Mapping[str, str], pieces: int = 1) -> bytes:
    with tempfile.TemporaryFile() as file:
        write(file, {name: column(array, pieces) for name, array in tensors.items()}, metadata)
        file.seek(0)
        return file.read()


def read(raw: bytes) -> tuple[Arrays, Mapping[str, str]]:
    """Return all of a file: of each tensor first the rows but the last, and then that."""
    with tempfile.TemporaryFile() as file:
        file.write(raw)
        file.flush()
        opened = SafetensorsFile(file)
        found = {}
        for name, tensor in opened.tensors.items():
            if tensor.shape:
                rows = tensor.shape[0]
                cut = max(0, rows - 1)
                parts = [opened.rows(name, 0, cut), opened.rows(name, cut, rows)]
                found[name] = np.concatenate(parts)
            else:
                found[name] = opened.rows(name, 0, 1).reshape(())
        return found, opened.metadata


def header(said: object, data: bytes = b"", *, pad: int = 0) -> bytes:
    text = said if isinstance(said, bytes) else json.dumps(said).encode()
    text += b" " * pad
    return len(text).to_bytes(8, "little") + text + data


def same(some: Arrays, others: Arrays) -> bool:
    """Whether all names, types, shapes and bits are equal."""
    return some.keys() == others.keys() and all(
        (array.dtype, array.shape, array.tobytes())
        == (others[name].dtype, others[name].shape, others[name].tobytes())
        for name, array in some.items()
    )


@given(TENSORS, METADATA, st.integers(1, 4))
@settings(max_examples=60)
def test_the_library_reads_what_we_write(tensors, metadata, pieces):
    """Every type, every shape, every name; and the same metadata."""
    raw = written(tensors, metadata, pieces)
    assert same(safetensors.numpy.load(raw), tensors)
    with tempfile.TemporaryDirectory() as made:
        path = Path(made, "x.safetensors")
        path.write_bytes(raw)
        with safetensors.safe_open(path, "numpy") as opened:
            assert (opened.metadata() or {}) == metadata
    assert raw == written(dict(reversed(tensors.items())), metadata)


@given(TENSORS, METADATA)
@settings(max_examples=60)
def test_we_read_what_the_library_writes(tensors, metadata):
    """The same, the other way round."""
    found, said = read(safetensors.numpy.save(dict(tensors), metadata or None))
    assert same(found, tensors)
    assert said == metadata


def test_numbers_are_aligned():
    """Each tensor begins at a multiple of its numbers' size, for who maps the file."""
    tensors = {"a": np.zeros(3, np.uint8), "b": np.zeros(2, np.float64), "c": np.zeros(5, np.int32)}
    raw = written(tensors, {"odd": "x"})
    start = 8 + int.from_bytes(raw[:8], "little")
    places = json.loads(raw[8:start])
    for name, array in tensors.items():
        assert (start + places[name]["data_offsets"][0]) % array.dtype.itemsize == 0


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BROKEN = {
    "empty": b"",
    "shorter than a length": b"\x02\0\0",
    "header longer than the file": (100).to_bytes(8, "little") + b"{}",
    "header of a gigabyte": (2**30).to_bytes(8, "little") + b"{}",
    "length beyond any": b"\xff" * 8 + b"{}",
    "no JSON": header(b"{nonsense"),
    "no object": header([1]),
    "a number": header(b"7"),
    "not UTF-8": header(b'{"\xff": 1}'),
    "nested too deeply": header(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "a name twice": header(b'{"__metadata__": {}, "__metadata__": {}}'),
    "metadata of numbers": header({"__metadata__": {"a": 1}}),
    "metadata of a list": header({"__metadata__": ["a"]}),
    "cut short": header({"a": F32}, b"\0" * 7),
    "too long": header({"a": F32}, b"\0" * 9),
    "unknown type": header({"a": F32 | {"dtype": "F33"}}, b"\0" * 8),
    "another shape": header({"a": F32 | {"shape": [3]}}, b"\0" * 8),
    "negative shape": header({"a": F32 | {"shape": [-1, -2]}}, b"\0" * 8),
    "shape of floats": header({"a": F32 | {"shape": [2.0]}}, b"\0" * 8),
    "shape of truths": header({"a": F32 | {"shape": [2, True]}}, b"\0" * 8),
    "shape of a text": header({"a": F32 | {"shape": "2"}}, b"\0" * 8),
    "backwards": header({"a": F32 | {"data_offsets": [8, 0]}}, b"\0" * 8),
    "one offset": header({"a": F32 | {"data_offsets": [8]}}, b"\0" * 8),
    "no shape": header({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, b"\0" * 8),
    "no tensor": header({"a": None}),
    "overlapping": header({"a": F32, "b": F32 | {"data_offsets": [4, 12]}}, b"\0" * 12),
    "the same place": header({"a": F32, "b": F32}, b"\0" * 8),
    "a gap": header({"a": F32, "b": F32 | {"data_offsets": [12, 20]}}, b"\0" * 20),
    "a gap first": header({"a": F32 | {"data_offsets": [4, 12]}}, b"\0" * 12),
}


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused(raw):
    """By the library too: what we refuse is broken, and not only unusual."""
    with pytest.raises(SafetensorsError):
        read(raw)
    with pytest.raises(safetensors.SafetensorError):
        safetensors.numpy.load(raw)


def test_a_header_too_large_for_others_is_not_written():
    """A file is made to be read again."""
    with pytest.raises(SafetensorsError, match="100,000,000"):
        written({}, {"much": "x" * LARGEST_HEADER})


def test_a_header_too_large_is_not_read(tmp_path):
    """However much of it there is: memory is not the file's to fill."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.write((LARGEST_HEADER + 1).to_bytes(8, "little") + b"{}")
        file.truncate(LARGEST_HEADER + 100)
    with path.open("rb") as file, pytest.raises(SafetensorsError, match="header"):
        SafetensorsFile(file)


def test_pieces_that_do_not_make_the_shape_are_a_mistake():
    """Whoever writes has counted wrongly: the file would be one that nobody can read."""
    with tempfile.TemporaryFile() as file, pytest.raises(ValueError, match="vectors has 4 bytes"):
        write(file, {"vectors": Column("F32", (2,), [b"\0" * 4])}, {})


def test_a_file_that_shrinks_while_it_is_read_is_noticed(tmp_path):
    """Somebody writes over it: an error, and no zeros."""
    path = tmp_path / "x"
    path.write_bytes(written({"a": np.ones(1000, np.float32)}, {}))
    with path.open("rb") as file:
        opened = SafetensorsFile(file)
        with path.open("rb+") as other:
            other.truncate(2000)
        with pytest.raises(SafetensorsError, match="cut short"):
            opened.rows("a", 0, 1000)


SOUND = written(
    {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(4, dtype=np.uint8)},
    {"said": "this"},
)
HEADER_BYTES = 8 + int.from_bytes(SOUND[:8], "little")


@given(st.integers(0, HEADER_BYTES - 1), st.integers(0, 255))
@example(0, 0)
@settings(max_examples=200)
def test_a_changed_byte_in_the_header_never_does_harm(place, byte):
    """It is refused, or means something that the library reads in the same way."""
    raw = SOUND[:place] + bytes([byte]) + SOUND[place + 1 :]
    try:
        found, _ = read(raw)
    except SafetensorsError:
        return
    assert same(safetensors.numpy.load(raw), found)
