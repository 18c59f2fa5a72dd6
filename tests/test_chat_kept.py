"""Chat answers in stores: there after a restart, the same for all replicas, and sealed."""

import json
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import upstream_chat_behaviours as chat_behave
from tests.chatting import chat, chat_model, chunks, said
from tests.cli.commands import gateway as command
from tests.redis_server import serve_redis

CANARY = "A canary: käfig 鳥籠 sings"
OTHER_SECRET = 'secret = "another-secret-of-others"'
SECRET = 'secret = "sixteen-or-more-characters"'


def kept(tmp_path, secret=SECRET, more=""):
    return f'[cache]\n{secret}\n{more}\nstore = "sqlite://{tmp_path}/store/cache.db"'


@pytest.fixture
def toml(fake_openai, tmp_path):
    return chat_model(fake_openai.base_url, rest=kept(tmp_path))


@pytest.mark.parametrize("behaviour", [None, chat_behave.unmergeable], ids=["JSON", "stream"])
def test_answers_survive_a_restart(gateway, fake_openai, toml, behaviour):
    """As JSON for both forms, or as the stream that it came as."""
    fake_openai.chat.always(behaviour)
    first = gateway(toml)
    answer = chat(first, seed=1, stream=True)
    first.stop()
    first.join()
    later = gateway(toml)
    again = chat(later, seed=1, stream=True)
    assert again.headers["cache-status"] == 'gateway; hit; detail="store=1"'
    assert int(again.headers["age"]) >= 0
    assert told(again) == told(answer)
    assert 'hit; detail="memory=1"' in chat(later, seed=1, stream=True).headers["cache-status"]
    if behaviour is None:
        assert said(chat(later, seed=1)) == told(answer)
    assert len(fake_openai.chat.calls) == 1


def told(answer):
    """Return what a stream says."""
    said = [chunk["choices"][0]["delta"] for chunk in chunks(answer.content)]
    return "".join(delta.get("content") or "" for delta in said)


def test_stores_hold_nothing_that_can_be_read(gateway, fake_openai, tmp_path, toml):
    """Neither what was asked nor what was said, in any form, nor the fingerprint's owner's key."""
    running = gateway(toml)
    messages = [{"role": "user", "content": CANARY}]
    for stream in (False, True):
        for seed in range(5):
            chat(running, messages=messages, seed=seed, stream=stream)
    secret = [said(chat(running, messages=messages, seed=seed)) for seed in range(5)]
    running.stop()
    running.join()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    contents = b"".join(path.read_bytes() for path in files)
    assert len(contents) > 5 * 300
    for text in (CANARY, *secret):
        for form in (text, json.dumps(text)[1:-1], b64encode(text.encode()).decode()[:-4]):
            assert form.encode() not in contents
    assert b"chat.completion" not in contents
    assert b"choices" not in contents


def test_another_secret_finds_nothing(gateway, fake_openai, tmp_path, toml):
    """And leaves what it cannot read where it is."""
    first = chat(gateway(toml), seed=1)
    other = gateway(chat_model(fake_openai.base_url, rest=kept(tmp_path, OTHER_SECRET)))
    assert said(chat(other, seed=1)) != said(first)
    assert len(fake_openai.chat.calls) == 2
    assert said(chat(gateway(toml), seed=1)) == said(first)


def test_without_the_package_answers_stay_in_memory(
    gateway, fake_openai, tmp_path, toml, monkeypatch
):
    """What cannot be sealed is not stored; vectors are, as ever."""
    monkeypatch.setattr("gateway.cache.seal.AESGCM", None)
    toml += '\n[models.e]\nupstreams = ["fake"]'
    first = gateway(toml)
    answer = chat(first, seed=1)
    assert "; stored" in answer.headers["cache-status"]
    assert said(chat(first, seed=1, stream=True)) == said(answer)
    vector = first.vectors("x", "e")
    first.stop()
    first.join()
    later = gateway(toml)
    assert later.vectors("x", "e") == vector
    assert fake_openai.calls == 1
    assert said(chat(later, seed=1)) != said(answer)
    assert later.metric("gateway_store_entries", tier="sqlite") == 1


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "in memory"])
def test_a_purge_reaches_answers(gateway, fake_openai, tmp_path, toml, monkeypatch, sealed):
    """Those of the model that was named, in stores and in the memory of who runs."""
    if not sealed:
        monkeypatch.setattr("gateway.cache.seal.AESGCM", None)
    toml += '\n[models.o]\ntask = "chat"\nupstreams = ["fake"]'
    config = tmp_path / "gateway.toml"
    config.write_text(toml)
    running = gateway(toml)
    purged, other = chat(running, seed=1), chat(running, seed=1, model="o")
    running.wait_until(lambda: purges(config))
    running.wait_until(lambda: said(chat(running, seed=1)) != said(purged))
    assert said(chat(running, seed=1, model="o")) == said(other)


def purges(config):
    """Return whether a purge of `m` went well; stores are told of models twice a second."""
    try:
        command("cache", "purge", "--model", "m", "--yes", "-c", config)
    except AssertionError:
        return False
    return True


@pytest.fixture
def redis(tmp_path):
    with serve_redis(tmp_path / "redis") as server:
        yield server


def test_two_gateways_on_one_redis_tell_the_same(gateway, fake_openai, redis):
    """Racing, with an upstream that never says the same twice: who stored first has won."""

    async def jitter(exchange):
        seconds = (len(fake_openai.chat.calls) * 7 % 5) / 100
        await chat_behave.slow(0.001, headers=seconds)(exchange)

    fake_openai.chat.always(jitter)
    rest = f'[cache]\n{SECRET}\nstore = "{redis.url}"'
    toml = chat_model(fake_openai.base_url, rest=rest)
    both = gateway(toml), gateway(toml)
    with ThreadPoolExecutor(16) as pool:
        for seed in range(20):
            asked = [pool.submit(chat, both[n % 2], seed=seed) for n in range(8)]
            answers = {answer.result(30).content for answer in asked}
            assert len(answers) == 1
            streams = [pool.submit(chat, both[n], seed=seed, stream=True) for n in range(2)]
            texts = {said(stream.result(30)) for stream in streams}
            assert texts == {said(asked[0].result())}
    calls = len(fake_openai.chat.calls)
    assert 20 <= calls <= 40
    assert calls > 20, "they never raced"


def test_a_json_beside_a_kept_stream_is_asked_for_by_itself(gateway, fake_openai, redis):
    """Both look it up together, and only one of them can be told the bytes that are found."""
    fake_openai.chat.script(chat_behave.unmergeable)
    toml = chat_model(fake_openai.base_url, rest=f'[cache]\n{SECRET}\nstore = "{redis.url}"')
    first = chat(gateway(toml), seed=1, stream=True)
    later = gateway(toml)
    redis.freeze()
    try:
        with ThreadPoolExecutor(2) as pool:
            stream = pool.submit(chat, later, seed=1, stream=True)
            later.wait_until(lambda: later.requests_running == 1)
            other = pool.submit(chat, later, seed=1)
            later.wait_until(lambda: later.requests_running == 2)
            redis.thaw()
            assert stream.result(10).content == first.content
            assert other.result(10).headers["content-type"] == "application/json"
            assert said(other.result(10))
    finally:
        redis.thaw()
    assert len(fake_openai.chat.calls) == 2


def test_after_racing_streams_everybody_is_told_the_first(gateway, fake_openai, redis):
    """Streams are told as they come, and from then on all tell the one that was stored."""
    rest = f'[cache]\n{SECRET}\nstore = "{redis.url}"'
    toml = chat_model(fake_openai.base_url, rest=rest)
    both = gateway(toml), gateway(toml)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda running: chat(running, seed=1, stream=True), both))
    texts = {
        said(chat(running, seed=1, stream=stream)) for running in both for stream in (False, True)
    }
    assert len(texts) == 1


def test_only_if_cached_says_so_where_a_store_is_away(gateway, fake_openai, redis):
    """What is asked for may be there: 503, to come back."""
    rest = f'[cache]\n{SECRET}\nstore = "{redis.url}"'
    running = gateway(chat_model(fake_openai.base_url, rest=rest))
    redis.kill()
    running.wait_until(lambda: running.metric("gateway_store_up") == 0)
    answer = chat(running, seed=1, headers={"cache-control": "only-if-cached"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "cache_unavailable")
    assert "retry-after-ms" in answer.headers
    made = chat(running, seed=1)
    assert (
        made.headers["cache-status"] == 'gateway; fwd=miss; stored; detail="upstream=1, unshared"'
    )
    again = chat(running, seed=1, stream=True)
    assert said(again) == said(made)
    assert again.headers["cache-status"] == 'gateway; hit; detail="memory=1, unshared"'
    redis.start()
    running.wait_until(
        lambda: "unshared" not in chat(running, seed=1).headers["cache-status"], timeout=20
    )
    assert said(chat(running, seed=1)) == said(made)
    assert len(fake_openai.chat.calls) == 1
