"""The GGUF reader believes real files and nothing else."""

import os
import struct
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.gguf import GGUFError, GGUFInfo, Skipped, describe, read_header, sha256_file
from tests.tiny_gguf import PoolingType, cut, write_decoder, write_encoder, write_header

BUNDLED = Path(__file__).parents[1] / "gateway/assets/all-minilm-l6-v2/all-minilm-l6-v2-q8_0.gguf"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("gguf") / "encoder.gguf")


def write_keys(path, **keys):
    """Write a file with these metadata and one tensor."""
    writer = GGUFWriter(path, "bert")
    for name, (method, *values) in keys.items():
        getattr(writer, method)(name.replace("__", "."), *values)
    writer.add_tensor("t", np.zeros(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_an_encoder_is_described(encoder):
    """Everything the gateway needs to know before a model is loaded."""
    expected = GGUFInfo(
        architecture="bert",
        name="tiny",
        context_train=128,
        width=32,
        pooling="mean",
        causal=False,
        vocab_size=85,
        has_chat_template=False,
        layers=2,
        heads=4,
        heads_kv=4,
        key_value_width=64,
        feed_forward=64,
        file_type="F32",
        size=encoder.stat().st_size,
    )
    assert expected == describe(encoder)


def test_a_chat_model_has_no_pooling(tmp_path):
    """Silence is None, not a guess."""
    info = describe(write_decoder(tmp_path / "m.gguf"))
    assert (None, True, 2048) == (info.pooling, info.causal, info.context_train)


def test_poolings_are_named(tmp_path):
    """All that llama.cpp knows."""
    for pooling in PoolingType:
        path = write_encoder(tmp_path / f"{pooling.name}.gguf", pooling=pooling)
        assert pooling.name.lower() == describe(path).pooling


@pytest.mark.skipif(not BUNDLED.exists(), reason="the bundled model is not built")
def test_the_bundled_model_is_read_as_the_reference_reader_reads_it():
    """Every value that is kept is the one the format's own library finds."""
    header = read_header(BUNDLED)
    reference = GGUFReader(BUNDLED)
    assert len(reference.tensors) == header.tensors
    for name, value in header.metadata.items():
        field = reference.fields[name]
        found = field.contents()
        if isinstance(value, Skipped):
            assert len(found) == value.length
        else:
            assert found == (list(value) if isinstance(value, tuple) else value)


def test_one_number_a_layer_counts_with_its_largest(tmp_path):
    """Some models have other head counts in other layers; memory is sized by the most."""
    path = write_keys(
        tmp_path / "m.gguf",
        bert__embedding_length=("add_uint32", 64),
        bert__attention__head_count=("add_array", [2, 4, 8]),
        bert__attention__head_count_kv=("add_array", [1, 2]),
        bert__attention__key_length=("add_uint32", 16),
        bert__embedding_length_out=("add_uint32", 48),
    )
    info = describe(path)
    assert (8, 2, 2 * (16 + 8), 48) == (
        info.heads,
        info.heads_kv,
        info.key_value_width,
        info.width,
    )


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "how wide"),
        ({"bert__embedding_length": ("add_string", "x")}, "not a whole number"),
        ({"bert__embedding_length": ("add_bool", True)}, "not a whole number"),
        ({"bert__embedding_length": ("add_uint64", 1 << 40)}, "no model has"),
        ({"bert__embedding_length": ("add_array", ["a", "b"])}, "not a whole number"),
        ({"bert__attention__causal": ("add_uint32", 1)}, "not a boolean"),
        ({"bert__pooling_type": ("add_uint32", 9)}, "does not know"),
        ({"general__name": ("add_uint32", 1)}, "not a string"),
        ({"split__count": ("add_uint16", 2)}, "one part of a split"),
    ],
)
def test_metadata_that_make_no_sense_are_named(tmp_path, keys, said):
    """The message names the key."""
    usable = {"bert__embedding_length": ("add_uint32", 32)} if keys else {}
    with pytest.raises(GGUFError, match=said):
        describe(write_keys(tmp_path / "m.gguf", **(usable | keys)))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"magic": b"GGML"}, "not a GGUF file"),
        ({"magic": b""}, "not a GGUF file"),
        ({"version": 1}, "version 1; versions 2 and 3"),
        ({"version": 3 << 24}, "big-endian"),
        ({"keys": 1 << 63}, "metadata keys"),
        ({"tensors": 1 << 40}, "tensors"),
        ({"keys": 5}, "cut short"),
        ({}, "architecture"),
    ],
)
def test_a_header_that_claims_too_much_is_refused(tmp_path, fields, said):
    """Counts are bounded before anything is allocated for them."""
    with pytest.raises(GGUFError, match=said):
        describe(write_header(tmp_path / "m.gguf", **fields))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (struct.pack("<IQ", 8, 1 << 50), "bytes in a string"),
        (struct.pack("<IIQ", 9, 4, 1 << 50), "array entries"),
        (struct.pack("<IIQ", 9, 4, 1 << 20), "cut short"),
        (struct.pack("<IIQ", 9, 8, 1 << 20), "cut short"),
        (struct.pack("<IIQ", 9, 9, 1), "type 9"),
        (struct.pack("<I", 77), "type 77"),
        (struct.pack("<I", 4), "cut short"),
    ],
)
def test_a_value_that_claims_too_much_is_refused(tmp_path, value, said):
    """Lengths and types inside a value are bounded too."""
    path = write_header(tmp_path / "m.gguf", keys=1)
    path.write_bytes(path.read_bytes() + struct.pack("<Q", 1) + b"k" + value)
    with pytest.raises(GGUFError, match=said):
        read_header(path)


def test_a_key_that_comes_twice_is_refused(tmp_path):
    """Two readers could believe two different values."""
    path = write_header(tmp_path / "m.gguf", keys=2)
    path.write_bytes(
        path.read_bytes() + (struct.pack("<Q", 1) + b"k" + struct.pack("<IB", 0, 1)) * 2
    )
    with pytest.raises(GGUFError, match="twice"):
        read_header(path)


def test_every_cut_inside_the_header_is_noticed(encoder, tmp_path):
    """Wherever a download stopped before the tensors' data, the file is refused."""
    data = encoder.read_bytes()
    tensors_begin = data.index(b"layer_output_norm.bias")
    for size in range(0, tensors_begin, 37):
        with pytest.raises(GGUFError, match=r"GGUF|cut short"):
            read_header(cut(encoder, tmp_path / "cut.gguf", size))


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(st.tuples(st.integers(0, 4000), st.binary(min_size=1, max_size=9)), max_size=4)
)
def test_damaged_files_are_refused_or_read_and_soon(encoder, tmp_path, changes):
    """No damage to a header makes anything but GGUFError, or takes long."""
    data = bytearray(encoder.read_bytes())
    for at, new in changes:
        data[at : at + len(new)] = new
    path = tmp_path / "damaged.gguf"
    path.write_bytes(data)
    begun = time.process_time()
    with suppress(GGUFError):
        describe(path)
    assert time.process_time() - begun < 2


def test_what_is_no_file_is_refused(tmp_path):
    """A missing file, a folder, a pipe that would never end."""
    os.mkfifo(tmp_path / "pipe")
    for name, said in (("none", "does not exist"), ("", "not a file"), ("pipe", "not a file")):
        with pytest.raises(GGUFError, match=said):
            describe(tmp_path / name)


def test_unreadable_files_are_refused(tmp_path):
    """The kernel's reason is passed on."""
    if os.geteuid() == 0:
        path = Path("/proc/self/mem")  # root may open anything, but not read this
    else:
        path = write_header(tmp_path / "m.gguf")
        path.chmod(0)
    with pytest.raises(GGUFError):
        read_header(path)


def test_a_digest_is_sha256(tmp_path):
    """The published digest of a file can be compared with it."""
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    assert "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" == sha256_file(path)
