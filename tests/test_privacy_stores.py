"""P10 on disk: texts and secrets go through a gateway whose vectors last, and lie nowhere in it."""

import httpx2
import pytest

from tests.running import one_model
from tests.test_privacy import BEARER, CANARY, SECRETS, TOML, UPSTREAM, UPSTREAM_KEY, clean

CACHE_SECRET = "cache-secret-c4n4ry"
MODEL = 'token_ids = "decode"\nforward = ["hint"]'


@pytest.fixture(params=["given", "made"])
def running(request, gateway, fake_openai, tmp_path):
    """A gateway over a SQLite store, with a secret of the config or one that it made."""
    fake_openai.key = UPSTREAM_KEY
    fake_openai.allow = ("hint",)
    cache = f'[cache]\nmemory = "0"\nstore = "sqlite://{tmp_path}/store/cache.db"\n'
    if request.param == "given":
        cache += 'secret = "${env:CACHE_SECRET}"\n'
    toml = one_model(fake_openai.base_url, upstream=UPSTREAM, model=MODEL, rest=cache + TOML)
    return gateway(toml, CACHE_SECRET=CACHE_SECRET, **SECRETS)


def left(tmp_path):
    """Return the name and the content of every file that the store is made of."""
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    return {path.name: path.read_bytes() for path in files}


def test_a_store_holds_digests_and_vectors_and_no_words(running, tmp_path):
    """Stored, found, drawn again and refused; what the log and the metrics say as well."""
    for body, headers in (
        ({"input": CANARY}, {}),
        ({"input": [CANARY, "x"], "seed": 1, "user": CANARY, "hint": CANARY}, {}),
        ({"input": CANARY}, {"cache-control": "no-cache, c4n4ry"}),
        ({"input": f"{CANARY} unknown"}, {"cache-control": 'only-if-cached, x="c4n4ry"'}),
        ({"input": [CANARY, 1]}, {}),
    ):
        answer = running.http.post(
            "/v1/embeddings", json={"model": "m"} | body, headers=BEARER | headers
        )
        assert answer.status_code in {200, 400, 504}
        clean(str(answer.headers), "" if answer.status_code == 200 else answer.text)
    assert "store=1" in running.embed(CANARY, headers=BEARER).headers["cache-status"]
    page = httpx2.get(f"{running.address}/metrics", headers=BEARER).text
    files = left(tmp_path)
    assert any(len(content) > 3 * 32 * 4 for content in files.values())
    clean(page, running.log, *files, *(content.decode("latin-1") for content in files.values()))
    utf8 = (content.decode("utf-8", "ignore") for content in files.values())
    clean(*utf8)


def test_the_secret_that_was_made_is_in_its_own_file_alone(running, tmp_path):
    """Not in the store beside it, not in the log: with it one could test for a text."""
    running.embed(CANARY, headers=BEARER)
    files = left(tmp_path)
    made = files.pop("cache.db.key", None)
    assert (made is None) == (running.config.cache.secret is not None)
    if made is not None:
        secret = bytes.fromhex(made.decode())
        page = httpx2.get(f"{running.address}/metrics", headers=BEARER).text
        assert secret.hex() not in page + running.log
        assert not [name for name, content in files.items() if secret in content]
        assert not [name for name, content in files.items() if made.strip() in content]
