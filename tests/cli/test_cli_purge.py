"""`gateway cache purge`: forgotten in every store, and by every gateway that runs."""

import sqlite3
import time
from collections.abc import Iterator

import pytest
import safetensors
import safetensors.numpy

from gateway.cache.facts import PREFIX, ScopeFact
from gateway.cache.scopes import namespace
from tests.cli.commands import gateway, write_config
from tests.cli.stored import (
    SCOPE,
    TEXTS,
    answers,
    at,
    contents,
    entries,
    fill,
    held,
    stats,
    store_of,
    wait_for_facts,
)
from tests.redis_server import RedisServer, serve_redis


def test_a_purge_is_noticed_by_who_runs(config, gateway_for, fake_openai):
    """When the command has ended the next answer is a new one, and stays the answer."""
    running = gateway_for(config)
    old, of_another = running.vectors(TEXTS), running.vectors(TEXTS, "o")
    wait_for_facts(running, config, 2)
    done = gateway("cache", "purge", "--model", "mm", "--yes", "-c", config)
    assert done.stdout == "sqlite: 20 entries removed\n"
    calls = fake_openai.calls
    new = running.vectors(TEXTS)
    assert fake_openai.calls == calls + 1
    assert all(one != other for one, other in zip(new, old, strict=True))
    assert running.vectors(TEXTS) == new
    assert running.vectors(TEXTS, "o") == of_another
    assert fake_openai.calls == calls + 1
    assert gateway_for(config).vectors(TEXTS) == new


def test_an_older_than_purge_leaves_what_is_newer(config, gateway_for, fake_openai):
    """In memory too."""
    now = time.time()
    running = gateway_for(config)
    running.vectors(TEXTS[:1])
    wait_for_facts(running, config, 1)
    (scope,) = stats(config)[0]["scopes"]
    place = namespace(scope["scope"], 0)
    fill(config, scope["scope"], ScopeFact("default", "m"), entries(10, 32, made=now - 86400))
    done = gateway("cache", "purge", "--older-than", "12h", "--yes", "-c", config)
    assert done.stdout == "sqlite: 10 entries removed\n"
    assert len(contents(config, place)) == 1
    calls = fake_openai.calls
    running.vectors(TEXTS[:1])
    assert fake_openai.calls == calls
    done = gateway("cache", "purge", "--older-than", "400d", "--yes", "-c", config)
    assert done.stdout == "sqlite: 0 entries removed\n"
    done = gateway("cache", "purge", "--older-than", "1ms", "--yes", "-c", config)
    assert done.stdout == "sqlite: 1 entries removed\n"
    running.vectors(TEXTS[:1])
    assert fake_openai.calls == calls + 1


def test_a_purge_takes_what_was_left_over(config):
    """Of past generations, whosoever purged them; and with --all what is nobody's."""
    fill(config, SCOPE, ScopeFact("t", "m", generation=2, width=4), entries(3))
    fill(config, SCOPE, ScopeFact("t", "m"), entries(5), generation=0)
    fill(config, "f" * 24, ScopeFact("t", "o", width=4), entries(2))
    with sqlite3.connect(store_of(config)) as database:
        database.execute("DELETE FROM facts WHERE name = ?", (PREFIX + "f" * 24,))
    database.close()
    gateway("cache", "purge", "--model", "m", "--yes", "-c", config)
    assert held(config) == {(None, None, 0): 2}
    gateway("cache", "purge", "--all", "--yes", "-c", config)
    assert held(config) == {}


CHATS = {
    "a" * 24: ScopeFact("red", "m"),
    "b" * 24: ScopeFact("red", "o"),
    "c" * 24: ScopeFact("blue", "m", seen=("fp_1",)),
}
VECTORS = ScopeFact("red", "v", width=4)


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["--model", "m"], {("red", "o"): 3, ("red", "v"): 3}),
        (["--model", "mm"], {("red", "o"): 3, ("red", "v"): 3}),  # its alias
        (["--tenant", "red"], {("blue", "m"): 3}),
        (["--model", "m", "--tenant", "blue"], {("red", each): 3 for each in "mov"}),
        (["--older-than", "1h"], {("red", "m"): 1, ("red", "o"): 1, ("blue", "m"): 1}),
        (["--all"], {}),
    ],
)
def test_answers_are_purged_as_vectors_are(config, words, left):
    """By model, by tenant and by age: whose they are is known, though they have no width."""
    long_ago = time.time() - 7200
    fill(config, "d" * 24, VECTORS, entries(3, made=long_ago))
    for scope, fact in CHATS.items():
        fill(config, scope, fact, answers(3, made=long_ago, apart=3000))
    gateway("cache", "purge", *words, "--yes", "-c", config)
    assert {whose[:2]: count for whose, count in held(config).items()} == left


def test_a_purge_shows_what_goes_and_asks(config):
    """Without a terminal to ask on, and without --yes, nothing goes."""
    fill(config, SCOPE, ScopeFact("t", "m", width=4), entries(3))
    refused = gateway("cache", "purge", "--tenant", "t", "-c", config, code=1, answer="y\n")
    assert "t  m  3 entries" in refused.stderr
    assert "--yes does it unasked" in refused.stderr
    assert held(config) == {("t", "m", 0): 3}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "say what to purge"),
        (["--all", "--model", "m"], "leave out --model"),
        (["--older-than", "a while"], "must be a duration"),
        (["--older-than", "0d"], "must be longer than 0"),
    ],
)
def test_a_purge_wants_to_be_told_what(config, words, said):
    """Usage errors have exit code 2."""
    assert said in gateway("cache", "purge", *words, "--yes", "-c", config, code=2).stderr


def test_older_than_may_be_any_time(config):
    """Also one before which nobody had a computer."""
    fill(config, SCOPE, ScopeFact("t", "m", width=4), entries(3))
    typed = ["--older-than", "999999999999d"]
    refused = gateway("cache", "purge", *typed, "-c", config, code=1)
    assert "what was made before 1970-01-01 00:00:00 UTC" in refused.stderr


def test_a_purge_leaves_strangers_alone(config, tmp_path, fake_openai):
    """A store that was made with another secret is somebody else's."""
    fill(config, SCOPE, ScopeFact("t", "m", width=4), entries(3))
    store = at(store_of(config))
    wrong = write_config(tmp_path / "w", fake_openai.base_url, store, secret="another-one" * 3)
    refused = gateway("cache", "purge", "--all", "--yes", "-c", wrong, code=1)
    assert "was not made with the secret of this config" in refused.stderr
    assert held(config) == {("t", "m", 0): 3}


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with serve_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


def test_both_stores_are_looked_into(redis, tmp_path, gateway_for, fake_openai):
    """Redis decides and is exported, in the order of keys; a purge clears both, and is noticed."""
    redis.admin.flushall()
    place = tmp_path / "both"
    near = at(place / "cache.db")
    config = write_config(place, fake_openai.base_url, near, f"{redis.url}/0", secret=None)
    running = gateway_for(config)
    texts = [f"text {number}" for number in range(1500)]
    old = running.vectors(texts)
    wait_for_facts(running, config, 1)
    assert [store["secret"] for store in stats(config)] == ["fits", "fits"]
    assert [store["entries"] for store in stats(config)] == [1500, 1500]
    gateway("cache", "export", tmp_path / "x", "-c", config)
    tensors = safetensors.numpy.load_file(tmp_path / "x")
    (keys,) = (array for name, array in tensors.items() if name.endswith(".keys"))
    listed = [row.tobytes() for row in keys]
    assert listed == sorted(set(listed))
    assert len(listed) == 1500
    done = gateway("cache", "purge", "--all", "--yes", "-c", config)
    assert done.stdout == "sqlite: 1,500 entries removed\nredis: 1,500 entries removed\n"
    assert running.vectors(texts[:3]) != old[:3]
