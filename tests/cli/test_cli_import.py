"""`gateway cache import`: what a file adds to a store, and what it may not."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.cache.entry import Entry
from gateway.cache.facts import ScopeFact
from gateway.cache.record import MAX_TOKENS, unpack
from gateway.cache.scopes import namespace
from tests.cli.commands import gateway, write_config
from tests.cli.stored import SCOPE, TEXTS, at, contents, entries, fill, held, stats, wait_for_facts


def test_an_export_with_another_secret_is_refused(config, tmp_path, fake_openai):
    """Nothing of it could be found, and the message says what to do; nothing is made."""
    fill(config, SCOPE, ScopeFact("t", "m", width=4), entries(3))
    file = tmp_path / "x"
    gateway("cache", "export", file, "-c", config)
    place = tmp_path / "b"
    store = at(place / "cache.db")
    wrong = write_config(place, fake_openai.base_url, store, secret="another-secret" * 2)
    refused = gateway("cache", "import", file, "-c", wrong, code=1)
    assert "set [cache] secret to that of the gateway whose export it is" in refused.stderr
    bare = write_config(place, fake_openai.base_url, store, secret=None)
    refused = gateway("cache", "import", file, "-c", bare, code=1)
    assert f"copy the .key file beside its store to {place}/cache.db.key" in refused.stderr
    assert list(place.iterdir()) == [bare]
    used = write_config(place, fake_openai.base_url, store, secret="another-secret" * 2)
    fill(used, SCOPE, ScopeFact("t", "m", width=4), entries(1))
    refused = gateway("cache", "import", file, "-c", used, code=1)
    assert "name an empty store" in refused.stderr


def test_a_secret_that_was_made_moves_with_its_file(tmp_path, fake_openai):
    """What the message says to do works: the .key file beside the new store."""
    configs = []
    for name in "ab":
        place = tmp_path / name
        store = at(place / "cache.db")
        configs.append(write_config(place, fake_openai.base_url, store, secret=None))
    first, second = configs
    fill(first, SCOPE, ScopeFact("t", "m", width=4), entries(3))
    gateway("cache", "export", tmp_path / "x", "-c", first)
    key = (first.parent / "cache.db.key").read_bytes()
    (second.parent / "cache.db.key").write_bytes(key)
    assert "3 imported" in gateway("cache", "import", tmp_path / "x", "-c", second).stdout


def edited(file: Path, change: Callable[[dict[str, np.ndarray], dict[str, str]], None]) -> None:
    """Change an export as somebody with the library could."""
    tensors = safetensors.numpy.load_file(file)
    with safetensors.safe_open(file, "numpy") as opened:
        metadata = opened.metadata()
    tensors = {name: array.copy() for name, array in tensors.items()}
    change(tensors, metadata)
    safetensors.numpy.save_file(tensors, file, metadata)


ROWS = {
    "not of unit length": lambda t, _: t[f"{SCOPE}.vectors"].__setitem__(150, 0.5001),
    "not a number": lambda t, _: t[f"{SCOPE}.vectors"].__setitem__((199, 1), np.nan),
    "infinite": lambda t, _: t[f"{SCOPE}.vectors"].__setitem__((0, 1), np.inf),
    "no time": lambda t, _: t[f"{SCOPE}.created"].__setitem__(7, np.nan),
    "a time to come": lambda t, _: t[f"{SCOPE}.created"].__setitem__(7, 1e300),
    "more tokens than any text": lambda t, _: t[f"{SCOPE}.tokens"].__setitem__(7, 2**63 - 1),
    "fewer tokens than none": lambda t, _: t[f"{SCOPE}.tokens"].__setitem__(7, -1),
    "unknown flags": lambda t, _: t[f"{SCOPE}.flags"].__setitem__(7, 4),
    "no such fingerprint": lambda t, _: t[f"{SCOPE}.fingerprints"].__setitem__(7, 1),
    "negative fingerprint": lambda t, _: t[f"{SCOPE}.fingerprints"].__setitem__(7, -1),
}


@pytest.mark.parametrize("change", ROWS.values(), ids=ROWS)
def test_nothing_of_a_broken_scope_is_imported(exported, other, change):
    """One row is enough; the other scope is imported, and the exit code says that it is not all."""
    edited(exported, change)
    done = gateway("cache", "import", exported, "-c", other, code=1)
    assert done.stdout == "5 imported, 0 were there already\n"
    assert "left out: t, m: row " in done.stderr
    assert held(other) == {("u", "o", 0): 5}


def test_a_scope_without_entries_says_nothing(exported, other):
    """Not even how wide its vectors are: nobody could have others then."""

    def empty(tensors, said):
        for name in [name for name in tensors if name.startswith(SCOPE)]:
            tensors[name] = tensors[name][:0]

    edited(exported, empty)
    done = gateway("cache", "import", exported, "-c", other)
    assert done.stdout == "5 imported, 0 were there already\n"
    assert [(one["tenant"], one["model"]) for one in stats(other)[0]["scopes"]] == [("u", "o")]


FILES = {
    "a tensor too few": lambda t, _: t.pop(f"{SCOPE}.tokens"),
    "a tensor too many": lambda t, _: t.update(more=np.zeros(3, np.float32)),
    "another type": lambda t, _: t.update({f"{SCOPE}.vectors": np.zeros((200, 4))}),
    "fewer vectors": lambda t, _: t.update({f"{SCOPE}.vectors": np.zeros((199, 4), np.float32)}),
    "another width": lambda _, said: said.update(
        scopes=said["scopes"].replace('"width":4', '"width":5')
    ),
    "keys of 31 bytes": lambda t, _: t.update({f"{SCOPE}.keys": np.zeros((200, 31), np.uint8)}),
    "no keys": lambda t, _: t.update({f"{SCOPE}.keys": np.zeros((), np.uint8)}),
    "a scope that is none": lambda _, said: said.update(
        scopes=said["scopes"].replace(SCOPE, "../../" + SCOPE)
    ),
    "no scopes": lambda _, said: said.pop("scopes"),
    "scopes that are no JSON": lambda _, said: said.update(scopes="{"),
    "a generation below none": lambda _, said: said.update(
        scopes=said["scopes"].replace('"generation":3', '"generation":-3')
    ),
    "fingerprints that are too long": lambda _, said: said.update(
        fingerprints=json.dumps(["é" * 200])
    ),
    "another format": lambda _, said: said.update(format="pickles"),
    "another version": lambda _, said: said.update(format_version="2"),
    "no metadata": lambda _, said: said.clear(),
}


@pytest.mark.parametrize("change", FILES.values(), ids=FILES)
def test_nothing_of_a_broken_file_is_imported(exported, other, change):
    """The message names the file."""
    edited(exported, change)
    refused = gateway("cache", "import", exported, "-c", other, code=1)
    assert refused.stderr.startswith(f"error: {exported}: ")
    assert stats(other)[0]["state"] == "missing"


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_a_file_that_was_cut_short_is_refused(exported, other, size):
    """Wherever it was cut."""
    raw = exported.read_bytes()
    exported.write_bytes(raw[:size])
    refused = gateway("cache", "import", exported, "-c", other, code=1)
    assert refused.stderr.startswith(f"error: {exported}: it")


def test_a_generation_comes_with_its_entries(config, other, gateway_for, tmp_path):
    """A gateway finds what was purged once where it was made, and imported into an empty store."""
    running = gateway_for(config)
    old = running.vectors(TEXTS)
    wait_for_facts(running, config, 1)
    gateway("cache", "export", tmp_path / "old", "-c", config)
    gateway("cache", "purge", "--all", "--yes", "-c", config)
    new = running.vectors(TEXTS)
    assert new != old
    wait_for_facts(running, config, 1)
    gateway("cache", "export", tmp_path / "new", "-c", config)
    gateway("cache", "import", tmp_path / "new", "-c", other)
    second = gateway_for(other)
    assert second.vectors(TEXTS) == new
    refused = gateway("cache", "import", tmp_path / "old", "-c", other, code=1)
    assert refused.stdout.startswith("0 imported")
    assert "default, m: it was purged here since: it is of generation 0" in refused.stderr
    assert held(other) == {("default", "m", 1): 20}


def test_an_import_purges_nothing(exported, other):
    """What the store has of an older generation is not given up for the file's."""
    fill(other, SCOPE, ScopeFact("t", "m", generation=2, width=4), entries(1))
    refused = gateway("cache", "import", exported, "-c", other, code=1)
    assert "would purge what the store has of 2" in refused.stderr
    assert held(other) == {("t", "m", 2): 1, ("u", "o", 0): 5}


def test_vectors_of_another_width_are_not_imported(exported, other):
    """One scope, one width."""
    fill(other, SCOPE, ScopeFact("t", "m", generation=3, width=5), entries(1, 5))
    refused = gateway("cache", "import", exported, "-c", other, code=1)
    assert "its vectors have 4 components, and those in the store 5" in refused.stderr


def test_what_is_over_is_not_imported(exported, tmp_path, fake_openai):
    """Expired by this config, or purged in this store."""
    place = tmp_path / "b"
    store = at(place / "cache.db")
    short = write_config(place, fake_openai.base_url, store, cache='ttl = "30d"')
    done = gateway("cache", "import", exported, "-c", short)
    assert done.stdout == "0 imported, 0 were there already\n"
    assert "left out: 205 expired or purged" in done.stderr
    ever = write_config(tmp_path / "c", fake_openai.base_url, at(tmp_path / "c" / "cache.db"))
    fill(ever, SCOPE, ScopeFact("t", "m", generation=3, before=1.7e9 + 100, width=4), {})
    assert (
        "left out: 100 expired or purged" in gateway("cache", "import", exported, "-c", ever).stderr
    )


RECORDS = st.dictionaries(
    st.binary(min_size=32, max_size=32),
    st.builds(
        lambda seed, tokens, created, estimated, truncated, fingerprint: (
            seed, tokens, created, estimated, truncated, fingerprint,
        ),
        st.integers(0, 2**32), st.integers(0, MAX_TOKENS), st.floats(1, 1.7e9),
        st.booleans(), st.booleans(), st.text(max_size=60),
    ),
    min_size=1, max_size=40,
)  # fmt: skip


@given(RECORDS, st.integers(1, 9), st.integers(0, 3))
@example({b"a" + b"\0" * 31: (1, 1, 1.0, False, False, ""),
          b"a" + b"\0" * 30 + b"\1": (2, 1, 1.0, False, False, "")}, 1, 0)  # fmt: skip
@settings(max_examples=8)
def test_what_is_exported_is_imported(records, width, generation):
    """Every entry, bit for bit, with all that is known of it."""
    made = {}
    for key, (seed, tokens, created, estimated, truncated, fingerprint) in records.items():
        row = np.random.default_rng(seed).standard_normal(width)
        vector = (row / np.linalg.norm(row)).astype("<f4").tobytes()
        made[key] = Entry(
            vector,
            tokens,
            created=created,
            estimated=estimated,
            truncated=truncated,
            fingerprint=fingerprint,
        )
    with tempfile.TemporaryDirectory() as directory:
        first, second = (
            write_config(
                Path(directory, name), "http://127.0.0.1:9/v1", at(Path(directory, name, "c"))
            )
            for name in "ab"
        )
        fill(first, SCOPE, ScopeFact("t", "m", generation, width=width), made)
        gateway("cache", "export", Path(directory, "x"), "-c", first)
        gateway("cache", "import", Path(directory, "x"), "-c", second)
        place = namespace(SCOPE, generation)
        found = contents(second, place)
        assert {key: unpack(key, value, "") for key, value in found.items()} == made
        assert found == contents(first, place)
