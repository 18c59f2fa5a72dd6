"""`gateway cache export`: from a store to a file that others read too."""

import json
import sqlite3
import stat
import time

import httpx2
import safetensors
import safetensors.numpy

from gateway.cache.entry import Entry
from gateway.cache.facts import PREFIX, ScopeFact
from tests.cli.commands import gateway, write_config
from tests.cli.stored import SCOPE, TEXTS, answers, at, contents, entries, fill, wait_for_facts
from tests.processes import gateway_process


def test_an_export_gives_another_gateway_the_same_bits(config, other, gateway_for, tmp_path):
    """Offline, so that nothing but the export can have answered."""
    running = gateway_for(config)
    vectors = running.vectors(TEXTS)
    seeded = running.vectors(TEXTS[:3], seed=7)
    wait_for_facts(running, config, 1)
    file = tmp_path / "x.safetensors"
    assert "23 entries" in gateway("cache", "export", file, "-c", config).stdout
    assert gateway("cache", "import", file, "-c", other).stdout == (
        "23 imported, 0 were there already\n"
    )
    assert gateway("cache", "import", file, "-c", other).stdout == (
        "0 imported, 23 were there already\n"
    )
    with gateway_process(other.read_text(), "--offline") as offline:
        assert any("Offline" in line for line in offline.lines)
        for body, expected in [
            ({"input": TEXTS}, vectors),
            ({"input": TEXTS[:3], "seed": 7}, seeded),
        ]:
            answer = httpx2.post(f"{offline.base_url}/embeddings", json={"model": "m", **body})
            assert [item["embedding"] for item in answer.json()["data"]] == expected


def test_an_export_is_what_it_says(config, tmp_path):
    """Read by the library itself: six tensors for each scope, by key, and who they belong to."""
    given_ = entries(200)
    flagged = Entry(b"\0\0\x80\x3f", 7, created=2.5, estimated=True, truncated=True)
    flagged.fingerprint = "fp_é"
    fill(config, SCOPE, ScopeFact("t", "m", generation=3, width=4), given_)
    fill(config, "f" * 24, ScopeFact("u", "o", width=1), {b"\7" * 32: flagged})
    file = tmp_path / "x.safetensors"
    gateway("cache", "export", file, "-c", config)
    tensors = safetensors.numpy.load_file(file)
    keys = tensors[f"{SCOPE}.keys"]
    assert [row.tobytes() for row in keys] == sorted(given_)
    for row, key in enumerate(map(bytes, keys)):
        assert tensors[f"{SCOPE}.vectors"][row].tobytes() == given_[key].vector
        assert tensors[f"{SCOPE}.created"][row] == given_[key].created
        assert tensors[f"{SCOPE}.tokens"][row] == given_[key].tokens
    with safetensors.safe_open(file, "numpy") as opened:
        said = opened.metadata()
    assert (said["format"], said["format_version"]) == ("embedding-gateway cache", "1")
    assert json.loads(said["scopes"]) == {
        SCOPE: {"tenant": "t", "model": "m", "generation": 3, "width": 4},
        "f" * 24: {"tenant": "u", "model": "o", "generation": 0, "width": 1},
    }
    assert tensors[f"{'f' * 24}.flags"].tolist() == [3]
    (place,) = tensors[f"{'f' * 24}.fingerprints"].tolist()
    assert json.loads(said["fingerprints"])[place] == "fp_é"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_an_unchanged_store_gives_the_same_file(config, tmp_path):
    """Byte for byte, so that one can be compared, and kept only once."""
    fill(config, SCOPE, ScopeFact("t", "m", width=4), entries(200))
    first, second = tmp_path / "1", tmp_path / "2"
    gateway("cache", "export", first, "-c", config)
    gateway("cache", "export", second, "-c", config)
    assert first.read_bytes() == second.read_bytes()


def test_answers_to_chats_are_left_out(config, other, tmp_path):
    """And counted; what is exported is what it would be without them, and can be imported."""
    fill(config, SCOPE, ScopeFact("t", "m", width=4), entries(20))
    without, with_ = tmp_path / "1", tmp_path / "2"
    gateway("cache", "export", without, "-c", config)
    fill(config, "f" * 24, ScopeFact("t", "m"), answers(1500))
    fill(config, "e" * 24, ScopeFact("u", "o", seen=("fp_1",)), answers(2))
    done = gateway("cache", "export", with_, "-c", config)
    assert "20 entries, " in done.stdout
    assert "left out: 1,502 answers to chats: an export has vectors only" in done.stderr
    assert with_.read_bytes() == without.read_bytes()
    fill(other, "f" * 24, ScopeFact("t", "m"), answers(3))
    imported = gateway("cache", "import", with_, "-c", other)
    assert imported.stdout == "20 imported, 0 were there already\n"
    assert len(contents(other, f"{'f' * 24}.0")) == 3


def test_an_export_of_nothing_but_answers_is_none(config, tmp_path):
    """It says what there is."""
    fill(config, SCOPE, ScopeFact("t", "m"), answers(3))
    refused = gateway("cache", "export", tmp_path / "x", "-c", config, code=1)
    assert "there is nothing to export, but 3 answers to chats" in refused.stderr
    assert not (tmp_path / "x").exists()


def test_an_export_overwrites_only_when_told(config, tmp_path):
    """And leaves nothing beside the file, whatever happens."""
    fill(config, SCOPE, ScopeFact("t", "m", width=4), entries(3))
    file = tmp_path / "out" / "x.safetensors"
    file.parent.mkdir()
    file.write_text("precious")
    refused = gateway("cache", "export", file, "-c", config, code=1)
    assert "--force overwrites" in refused.stderr
    assert file.read_text() == "precious"
    gateway("cache", "export", file, "-c", config, "--model", "nobody", "--force", code=1)
    assert file.read_text() == "precious"
    gateway("cache", "export", file, "-c", config, "--force")
    assert safetensors.numpy.load_file(file)
    assert list(file.parent.iterdir()) == [file]


def test_an_export_may_be_of_some_models_and_tenants(config, tmp_path):
    """By any name that the config has for the model's vectors, or by a pattern."""
    fill(config, "a" * 24, ScopeFact("red", "m", width=4), entries(1))
    fill(config, "b" * 24, ScopeFact("blue", "m", width=4), entries(2))
    fill(config, "c" * 24, ScopeFact("blue", "other", width=4), entries(4))
    for words, expected in {
        ("--model", "m"): "ab",
        ("--model", "mm"): "ab",  # its alias
        ("--model", "n"): "ab",  # another model of the same upstream and name
        ("--model", "o*"): "c",
        ("--tenant", "blue"): "bc",
        ("--tenant", "blue", "--model", "m"): "b",
        ("--model", "m", "--model", "other"): "abc",
    }.items():
        file = tmp_path / "x"
        gateway("cache", "export", file, "-c", config, "--force", *words)
        found = {name[0] for name in safetensors.numpy.load_file(file)}
        assert found == set(expected)
    refused = gateway("cache", "export", tmp_path / "y", "-c", config, "--model", "q", code=1)
    assert "nothing of model 'q'; it holds m, other" in refused.stderr


def test_what_is_over_or_damaged_is_not_exported(tmp_path, fake_openai):
    """It is counted, and the rest is there."""
    place = tmp_path / "a"
    now = time.time()
    settings_ = {"cache": 'ttl = "1h"'}
    config = write_config(place, fake_openai.base_url, at(place / "cache.db"), **settings_)
    forever = write_config(tmp_path / "b", fake_openai.base_url, at(place / "cache.db"))
    fact = ScopeFact("t", "m", before=now - 600, width=4)
    fill(forever, SCOPE, fact, entries(5, made=now - 60))
    old = {b"old" + key[3:]: entry for key, entry in entries(2, made=now - 1800).items()}
    fill(forever, SCOPE, fact, old)  # purged
    fill(forever, SCOPE, fact, {b"x" * 32: next(iter(entries(1, 3, made=now).values()))})
    with sqlite3.connect(place / "cache.db") as database:
        changed = "UPDATE entries SET value = zeroblob(100) WHERE key = ?"
        database.execute(changed, (b"\1" * 32,))
    database.close()
    fill(forever, "f" * 24, ScopeFact("t", "gone"), entries(3, made=now))
    with sqlite3.connect(place / "cache.db") as database:
        database.execute("DELETE FROM facts WHERE name = ?", (PREFIX + "f" * 24,))
    database.close()
    done = gateway("cache", "export", tmp_path / "x", "-c", config)
    assert done.stdout.startswith("4 entries, ")
    assert "left out: 2 expired or purged" in done.stderr
    assert "left out: 2 damaged" in done.stderr
    assert "left out: 3 of models that the store does not know any more" in done.stderr
    assert len(safetensors.numpy.load_file(tmp_path / "x")[f"{SCOPE}.keys"]) == 4
