"""`gateway cache stats`: what each store holds, and whose it is."""

import sqlite3

from gateway.cache.facts import ScopeFact
from tests.cli.commands import gateway, write_config
from tests.cli.stored import (
    SCOPE,
    TEXTS,
    answers,
    at,
    entries,
    fill,
    held,
    stats,
    store_of,
    wait_for_facts,
)
from tests.permissions import permissions_hold
from tests.redis_server import free_port

KEYS = """
    [[keys]]
    name = "red"
    secret = "key-of-red"
    tenant = "red"
    admin = true
    [[keys]]
    name = "blue"
    secret = "key-of-blue"
    tenant = "blue"
"""
RED = {"authorization": "Bearer key-of-red"}
BLUE = {"authorization": "Bearer key-of-blue"}


def test_stats_tell_what_each_tenant_has(gateway_for, fake_openai, tmp_path):
    """By model and generation, with widths and sums; for people and for machines."""
    place = tmp_path / "keys"
    config = write_config(place, fake_openai.base_url, at(place / "cache.db"), rest=KEYS)
    running = gateway_for(config)
    running.vectors(TEXTS, headers=RED)
    running.vectors(TEXTS[:3], headers=BLUE)
    running.vectors(TEXTS[:5], "o", headers=BLUE)
    wait_for_facts(running, config, 3)
    expected = {("red", "m", 0): 20, ("blue", "m", 0): 3, ("blue", "o", 0): 5}
    assert held(config) == expected
    (store,) = stats(config)
    assert (store["entries"], store["secret"], store["state"]) == (28, "fits", "here")
    assert {scope["width"] for scope in store["scopes"]} == {32}
    lines = gateway("cache", "stats", "-c", config).stdout.splitlines()
    assert lines[0] == f"sqlite  sqlite://{place}/cache.db"
    assert lines[1] == "  secret: fits"
    assert lines[3].split()[:5] == ["blue", "m", "0", "32", "3"]
    assert lines[-1].split()[:2] == ["total", "28"]


def test_stats_mark_what_is_past_and_what_is_unknown(config):
    """A past generation is purged and left over; a scope without a fact is nobody's."""
    fill(config, SCOPE, ScopeFact("t", "m", generation=2, width=4), entries(3))
    fill(config, SCOPE, ScopeFact("t", "m"), entries(2), generation=1)
    store = store_of(config)
    with sqlite3.connect(store) as database:
        database.execute("UPDATE namespaces SET name = ? WHERE name LIKE '%.1'", ("f" * 24 + ".1",))
    database.close()
    fill(config, SCOPE, ScopeFact("t", "m"), entries(5), generation=0)
    scopes = stats(config)[0]["scopes"]
    assert [(s["scope"], s["state"], s["entries"]) for s in scopes] == [
        (SCOPE, "past", 5),
        (SCOPE, "current", 3),
        ("f" * 24, "unknown", 2),
    ]
    shown = gateway("cache", "stats", "-c", config).stdout
    assert "0 (past: purged)" in shown
    assert f"(unknown)  {'f' * 24}" in shown


def test_stats_count_answers_beside_vectors(config):
    """A model may have both; answers have no width, and their bytes are counted like others'."""
    fill(config, SCOPE, ScopeFact("t", "m", width=4), entries(3))
    fill(config, "f" * 24, ScopeFact("t", "m", seen=("fp_1",)), answers(5))
    (store,) = stats(config)
    assert store["entries"] == 8
    assert {(s["model"], s["state"], s["width"], s["entries"]) for s in store["scopes"]} == {
        ("m", "current", 4, 3),
        ("m", "current", None, 5),
    }
    assert all(scope["bytes"] > 100 for scope in store["scopes"])
    lines = gateway("cache", "stats", "-c", config).stdout.splitlines()
    assert sorted(line.split()[:4] for line in lines[3:5]) == [
        ["t", "m", "0", "4"],
        ["t", "m", "0", "5"],
    ]


def test_stats_make_nothing(config):
    """A store that is not there yet is said to be missing, and is not there afterwards either."""
    assert "not there yet" in gateway("cache", "stats", "-c", config).stdout
    assert list(config.parent.iterdir()) == [config]


def test_a_store_that_can_never_be_is_told(tmp_path, fake_openai):
    """Nobody is promised that the gateway makes it."""
    file = tmp_path / "file"
    file.touch()
    config = write_config(tmp_path / "c", fake_openai.base_url, at(file / "sub" / "cache.db"))
    (store,) = stats(config, code=1)
    assert (store["state"], "Not a directory" in store["why"]) == ("away", True)
    for words in (["purge", "--all"], ["purge", "--all", "--yes"], ["export", tmp_path / "x"]):
        refused = gateway("cache", *words, "-c", config, code=1).stderr
        assert "cannot be looked at: Not a directory" in refused


def test_a_store_that_this_user_cannot_make_is_told(tmp_path, fake_openai):
    """Though there is none to look into; another user may be able to."""
    place = tmp_path / "place"
    place.mkdir(mode=0o500)
    config = write_config(tmp_path / "c", fake_openai.base_url, at(place / "sub" / "cache.db"))
    with permissions_hold():
        (store,) = stats(config)
        shown = gateway("cache", "stats", "-c", config).stdout
    assert (store["state"], store["why"]) == (
        "missing",
        f"{place} cannot be written by who runs this",
    )
    assert f"not there yet; {place} cannot be written" in shown
    place.chmod(0o700)
    assert "the gateway makes it" in gateway("cache", "stats", "-c", config).stdout


def test_stats_tell_of_a_store_that_is_away(tmp_path, fake_openai):
    """With exit code 1; the others are told as ever."""
    place = tmp_path / "away"
    redis = f"redis://127.0.0.1:{free_port()}/0"
    config = write_config(place, fake_openai.base_url, at(place / "cache.db"), redis)
    near, far = stats(config, code=1)
    assert (near["state"], far["state"]) == ("missing", "away")
    assert "is it running" in far["why"]


def test_stats_tell_of_another_secret(config, tmp_path, fake_openai):
    """Nothing in that store can be found with this config."""
    fill(config, SCOPE, ScopeFact("t", "m", width=4), entries(1))
    store = at(store_of(config))
    wrong = write_config(tmp_path / "w", fake_openai.base_url, store, secret="another-one" * 3)
    assert stats(wrong)[0]["secret"] == "other"
    assert "another one than this config's" in gateway("cache", "stats", "-c", wrong).stdout


def test_a_config_without_a_store_says_what_to_add(tmp_path, fake_openai):
    """Memory alone has nothing to look into."""
    config = write_config(tmp_path, fake_openai.base_url)
    for command in (["stats"], ["export", tmp_path / "x"], ["purge", "--all", "--yes"]):
        refused = gateway("cache", *command, "-c", config, code=1)
        assert "store = " in refused.stderr
