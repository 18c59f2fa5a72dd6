"""Stores that are away, come later, forget or are somebody else's: small runs of tests.heavy's."""

import json
import re
import sqlite3
import time
from contextlib import closing

import httpx2
import pytest
import uvloop

from tests.draws import Draws
from tests.heavy import disks, outage
from tests.heavy.redis_troubles import DIRECT
from tests.heavy.trial import judge
from tests.permissions import permissions_hold
from tests.processes import gateway_process
from tests.redis_server import RedisServer
from tests.running import one_model
from tests.upstream import serve

TEXTS = [f"text {number}" for number in range(20)]
OTHERS = [f"other {number}" for number in range(20)]
ONE, ANOTHER = 'secret = "one-secret-of-many"', 'secret = "another-one-of-many"'
PATIENCE = 30.0
"""Seconds until something that does not happen counts as broken."""


@pytest.fixture(scope="module")
def noisy():
    """The config of a gateway whose upstream never says the same twice, for a store."""
    fake = Draws().upstream(32)
    with serve(fake):

        def toml(store, rest=""):
            return one_model(fake.base_url, rest=f'[cache]\nstore = "{store}"\n{rest}')

        yield toml


@pytest.fixture
def server(tmp_path):
    """A Redis that is not started yet."""
    server = RedisServer(tmp_path / "redis")
    yield server
    server.stop()


def ask(gateway, texts=TEXTS):
    """Return the vectors of a good answer, and its Cache-Status."""
    body = {"model": "m", "input": texts, "encoding_format": "base64"}
    answer = httpx2.post(f"{gateway.address}/v1/embeddings", json=body, timeout=PATIENCE)
    assert answer.status_code == 200, answer.text
    return [item["embedding"] for item in answer.json()["data"]], answer.headers["cache-status"]


def agreed(*gateways, texts=TEXTS):
    """Return what all answer, every worker of them, as soon as they do, and it is stored."""
    until = time.monotonic() + PATIENCE
    while True:
        answers = [ask(gateway, texts) for gateway in gateways for _ in range(5)]
        (vectors, _), *_ = answers
        if all(each == vectors and "unshared" not in status for each, status in answers):
            return vectors
        assert time.monotonic() < until, [status for _, status in answers]
        time.sleep(0.05)


def named(troubles, *names):
    """Return the troubles of these names."""
    found = {trouble.name: trouble for trouble in troubles}
    return [found[name] for name in names]


def events(running):
    """Return level and event of every log line."""
    lines = [json.loads(line) for line in running.log.splitlines()]
    return [(line["level"], line["event"].partition(":")[0]) for line in lines]


def test_troubles_with_redis_cost_no_request():
    """Frozen, then full; two gateways and a newcomer agree afterwards."""
    judge(uvloop.run(outage.run(named(DIRECT, "frozen", "full"), 0.3, proxied=False)))


def test_troubles_with_the_disk_cost_no_request(tmp_path):
    """No file may grow, then the directory is removed; a newcomer finds everything afterwards."""
    chosen = named(disks.ANYWHERE, "no file may grow", "directory removed")
    judge(uvloop.run(disks.run(tmp_path, chosen, 0.3)))


@pytest.mark.parametrize("rest", ["", ONE], ids=["", "secret"])
def test_who_starts_without_redis_agrees_with_the_others_when_it_comes(server, noisy, rest):
    """Until then all answer, each with vectors of its own, and say so."""
    toml = noisy(server.url, rest)
    with gateway_process(toml, "--workers", "2") as two, gateway_process(toml) as one:
        answers = [ask(gateway) for gateway in (two, one)]
        assert answers[0][0] != answers[1][0]
        assert all("unshared" in status for _, status in answers)
        server.start()
        vectors = agreed(two, one)
        with gateway_process(toml) as newcomer:
            assert ask(newcomer) == (vectors, 'gateway; hit; detail="store=20"')
        assert agreed(two, one) == vectors


def test_a_redis_that_forgets_everything_forgets_the_secret_too(server, noisy, gateway):
    """Those who know it say it again, and offer what they have in memory."""
    server.start()
    toml = noisy(server.url)
    one, other = gateway(toml), gateway(toml)
    vectors = agreed(one, other)
    said = server.admin.hget("embgw:1:facts", "secret")
    server.admin.flushall()
    agreed(one, other, texts=OTHERS)
    one.wait_until(lambda: server.admin.hget("embgw:1:facts", "secret") == said, PATIENCE)
    one.wait_until(lambda: server.admin.dbsize() == len(TEXTS) + len(OTHERS) + 1, PATIENCE)
    newcomer = gateway(toml)
    assert agreed(one, other, newcomer) == vectors
    assert "store=20" in ask(gateway(toml))[1]
    assert events(one) == [("warning", "cache has begun anew")]


def test_a_store_of_another_secret_stops_the_start_and_the_message_helps(tmp_path, server, noisy):
    """Which store, why, and what to do; the store stays as it is."""
    server.start()
    for store in (f"sqlite://{tmp_path}/cache.db", server.url):
        with gateway_process(noisy(store, ONE)) as first:
            vectors = agreed(first)
        hint = r"(?s)ended with 1.*cache\.secret: the \w+ store was made with another secret; use"
        with (
            pytest.raises(AssertionError, match=hint),
            gateway_process(noisy(store, ANOTHER)),
        ):
            pass
        with gateway_process(noisy(store, ONE)) as again:
            assert ask(again) == (vectors, 'gateway; hit; detail="store=20"')


def test_a_store_that_turns_out_to_be_of_another_secret_is_not_used(server, noisy, gateway):
    """It was away at the start. One line says so, as an error; nothing is put into it."""
    server.start()
    agreed(gateway(noisy(server.url, ONE)))
    server.admin.save()
    server.kill()
    late = gateway(noisy(server.url, ANOTHER))
    server.start()
    held = server.admin.dbsize()
    late.wait_until(lambda: ("error", "cache is not used") in events(late), PATIENCE)
    asked = late.metric("gateway_cache_operations_total", operation="facts")
    late.wait_until(
        lambda: late.metric("gateway_cache_operations_total", operation="facts") > asked + 3,
        PATIENCE,
    )
    assert "unshared" in ask(late)[1]
    assert ask(late)[0] == ask(late)[0]
    assert events(late) == [("warning", "cache is away"), ("error", "cache is not used")]
    assert server.admin.dbsize() == held


def test_a_file_that_may_only_be_read_is_read_and_later_written(tmp_path, noisy, gateway):
    """What is in it is answered; what is new is unshared until it may be stored."""
    store = tmp_path / "store"
    toml = noisy(f"sqlite://{store}/cache.db")
    with gateway_process(toml) as first:
        vectors = agreed(first)
    try:
        (store / "cache.db").chmod(0o400)
        store.chmod(0o500)
        with permissions_hold():
            running = gateway(toml)
        assert ask(running) == (vectors, 'gateway; hit; detail="store=20"')
        new, status = ask(running, OTHERS)
        assert "unshared" in status
    finally:
        store.chmod(0o700)
        (store / "cache.db").chmod(0o600)
    assert agreed(running, texts=OTHERS) == new
    with closing(sqlite3.connect(store / "cache.db")) as file:
        assert file.execute("SELECT count(*) FROM entries").fetchall() == [(40,)]
    told = re.compile("cache takes (no new entries|new entries again)")
    assert [bool(told.match(event)) for _, event in events(running)] == [True, True]
