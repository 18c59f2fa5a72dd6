"""P10: a canary text and secret keys go through every path, and are found nowhere afterwards.

Not in the log at debug level, not on standard error, not in the metrics, not in an error's body,
and in no file. Some upstreams quote what they refuse; that is where it would leak first.
"""

import json
import socket
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import httpx2
import pytest

from gateway.tokens import Cl100k
from tests import upstream_behaviours as behave
from tests.running import one_model

CANARY = 'The canary\'s "diary",\nline 2: käfig 鳥籠 \U0001f425'
KEY = "client-key-c4n4ry"
UPSTREAM_KEY = "sk-upstream-c4n4ry"
HEADER = "header-c4n4ry"
QUERY = "query-c4n4ry"
SECRETS = {"KEY": KEY, "UPSTREAM_KEY": UPSTREAM_KEY, "HEADER": HEADER, "QUERY": QUERY}
BEARER = {"authorization": f"Bearer {KEY}"}
TOML = """
    [server]
    log_level = "debug"
    request_timeout = "1s"
    max_body = "64KiB"
    [[keys]]
    name = "one"
    secret = "${env:KEY}"
    admin = true
"""
UPSTREAM = """
    api_key = "${env:UPSTREAM_KEY}"
    headers = { x-secret = "${env:HEADER}" }
    query = { sig = "${env:QUERY}" }
"""


def forms(text):
    """Return what would give a text away: itself, as JSON, in Python's quotes, in base64."""
    quoted = json.dumps(text)[1:-1]
    plain = json.dumps(text, ensure_ascii=False)[1:-1]
    return {text, quoted, plain, repr(text)[1:-1], b64encode(text.encode()).decode()[:-4], "käfig"}


NEVER = {*forms(CANARY), "c4n4ry"}


def clean(*places):
    for place in places:
        for word in NEVER:
            assert word not in place


@pytest.fixture
def running(gateway, fake_openai):
    fake_openai.key = UPSTREAM_KEY
    model = 'token_ids = "decode"\nforward = ["hint"]'
    fake_openai.allow = ("hint",)
    return gateway(
        one_model(fake_openai.base_url, upstream=UPSTREAM, model=model, rest=TOML), **SECRETS
    )


@pytest.fixture
def everywhere(running, capfd):
    """Check, after the test, every place where something could have been left."""
    yield
    page = httpx2.get(f"{running.address}/metrics", headers=BEARER)
    assert page.status_code == 200
    out, err = capfd.readouterr()
    clean(page.text, running.log, out, err)
    assert list(running.directory.rglob("*")) == []


def test_what_goes_well_leaves_nothing_behind(running, everywhere):
    """Texts in all forms, hits and misses, seeds and users, models and health."""
    ids = [*_ids("hello"), 100_257]
    for body in (
        {"input": CANARY},
        {"input": [CANARY, "x", CANARY], "encoding_format": "base64", "seed": 1},
        {"input": ids},
        {"input": CANARY, "user": CANARY, "dimensions": 32, "hint": CANARY, "other": CANARY},
    ):
        answer = httpx2.post(
            f"{running.base_url}/embeddings", json={"model": "m"} | body, headers=BEARER
        )
        assert answer.status_code == 200
        clean(str(answer.headers))
    for path in ("/v1/models", "/v1/models/m", "/health/ready", "/"):
        clean(running.http.get(path, headers=BEARER).text)
    assert '"request"' in running.log


def _ids(text):
    ranks = Cl100k().mergeable_ranks
    return [ranks[text.encode()]]


BAD = [
    {"input": [CANARY, 1]},
    {"input": [[1], [CANARY]]},
    {"input": {"text": CANARY}},
    {"input": CANARY, "dimensions": CANARY},
    {"input": CANARY, "dimensions": 8},
    {"input": CANARY, "seed": CANARY},
    {"input": CANARY, "encoding_format": CANARY},
    {"input": CANARY, "input_type": CANARY},
    {"input": [CANARY, ""]},
    {"input": CANARY, "model": "nope"},
    {"input": CANARY, "model": None},
    {"input": CANARY * 5000},
]


@pytest.mark.parametrize("body", BAD, ids=range(len(BAD)))
def test_a_refused_request_quotes_nothing(running, everywhere, body):
    """Whatever is wrong with it."""
    answer = running.http.post("/v1/embeddings", json={"model": "m"} | body, headers=BEARER)
    assert 400 <= answer.status_code < 500
    clean(answer.text, str(answer.headers))


def test_broken_bodies_and_wrong_keys_are_not_quoted(running, everywhere):
    """Half a JSON, bytes that are no text, another type, a key that is none, a path of its own."""
    whole = json.dumps({"model": "m", "input": CANARY}).encode()
    for body, headers in (
        (whole[:-3], BEARER),
        (whole.replace(b"canary", b"\xff"), BEARER),
        (whole, BEARER | {"content-type": "text/plain"}),
        (whole, {"authorization": "Bearer wrong-c4n4ry"}),
        (whole, {"api-key": "c4n4ry" * 9}),
    ):
        answer = running.http.post("/v1/embeddings", content=body, headers=headers)
        assert 400 <= answer.status_code < 500
        clean(answer.text, str(answer.headers))
    running.http.get("/c4n4ry-in-a-path?c4n4ry=1", headers=BEARER)
    running.http.request("DELETE", "/v1/embeddings", headers=BEARER)


@pytest.mark.parametrize(
    "behaviour",
    [
        behave.short, behave.nan, behave.broken_json, behave.cut_body, behave.close_before_answer,
        behave.redirect, behave.html_error, behave.status(500), behave.status(401), behave.Hang(),
        behave.rate_limit("0"),
    ],
)  # fmt: skip
def test_a_failing_upstream_gives_nothing_away(running, fake_openai, everywhere, behaviour):
    """Errors, timeouts and answers that were refused."""
    fake_openai.always(behaviour)
    answer = running.embed(CANARY, headers=BEARER)
    assert answer.status_code >= 429
    clean(answer.text, str(answer.headers))


def test_a_500_that_quotes_is_not_passed_on(running, fake_openai, everywhere):
    """What an upstream says of its own failure is the operator's business."""
    for status in (500, 503):
        fake_openai.always(behave.status(status, {"retry-after": "60"}, CANARY.encode()))
        clean(running.embed(CANARY, headers=BEARER).text)


def openai_says(message, **keys):
    return {"error": {"message": message, "type": "t", "param": None, "code": None} | keys}


LONG = f"{CANARY} " * 60


@pytest.mark.parametrize(
    ("text", "body"),
    [
        (CANARY, openai_says(f"cannot embed {CANARY!r}")),
        (CANARY, openai_says(f"cannot embed {CANARY}")),
        (CANARY, openai_says(f"cannot embed {json.dumps(CANARY)}")),
        (CANARY, {"message": f"bad: {CANARY}"}),
        (CANARY, {"detail": f"bad: {CANARY}"}),
        (CANARY, {"error": CANARY}),
        (CANARY, openai_says("bad", param=CANARY, code=CANARY)),
        (LONG, openai_says(f"cannot embed {LONG}")),
        (LONG, openai_says(f"cannot embed '{LONG[:200]}...'")),
        (CANARY, openai_says(f"no access with {UPSTREAM_KEY}")),
        (CANARY, openai_says(f"no access with {HEADER} and {QUERY}", param=HEADER, code=QUERY)),
        (LONG, openai_says(f"{'x' * 995} {UPSTREAM_KEY}")),
    ],
    ids=["repr", "plain", "json", "flat", "detail", "string", "param", "long", "cut", "key",
         "header", "cut-key"],
)  # fmt: skip
def test_an_upstream_that_quotes_is_not_quoted(running, fake_openai, everywhere, text, body):
    """P8: neither the client's text nor the gateway's keys, whole or cut, in any notation."""
    answers = []
    for status in (400, 404, 413, 422, 429):
        # A wait beyond the request's time: so that nothing is asked again.
        quoted = behave.status(status, {"retry-after": "60"}, json.dumps(body).encode())
        fake_openai.script(quoted)
        answers.append(running.embed(text, headers=BEARER))
    assert [400, 404, 413, 400, 429] == [answer.status_code for answer in answers]
    for answer in answers:
        clean(answer.text, str(answer.headers), *map(str, answer.json()["error"].values()))
        assert "sk-upstream" not in answer.text


def test_a_client_that_leaves_leaves_nothing(running, fake_openai, everywhere):
    """In the middle of its body, and while it waits."""
    hang = behave.Hang()
    fake_openai.script(hang)
    body = json.dumps({"model": "m", "input": CANARY}).encode()
    head = f"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n".encode()
    for part in (body, body[:-5]):
        with socket.create_connection(("127.0.0.1", running.port)) as connection:
            connection.sendall(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), part))
            if part is body:
                hang.reached.result(10)
            else:
                running.wait_until(lambda: running.requests_running == 1)
        running.wait_until(lambda: running.requests_running == 0)
    assert running.log.count('"status": 499') == 2


def test_what_nobody_foresaw_gives_nothing_away(gateway, fake_openai):
    """An exception whose message holds it all: its place is logged, its words are not."""

    class Broken:
        async def send(self, _, url, headers, body, **__):
            raise RuntimeError(f"{url} {dict(headers)} {body!r} {CANARY}")

        async def aclose(self):
            pass

    toml = one_model(fake_openai.base_url, upstream=UPSTREAM, rest=TOML)
    running = gateway(toml, open_transport=lambda _: Broken(), **SECRETS)
    answer = running.embed(CANARY, headers=BEARER)
    assert answer.status_code == 500
    clean(answer.text, running.log)


def test_a_process_leaves_no_file(fake_openai, tmp_path):
    """`gateway serve` as people start it: standard error, and every file it makes."""
    fake_openai.key = UPSTREAM_KEY
    toml = one_model(fake_openai.base_url, upstream=UPSTREAM, rest=TOML)
    config = tmp_path / "gateway.toml"
    port = _free_port()
    config.write_text(toml.replace("[server]", f"[server]\nport = {port}", 1))
    before = set(tmp_path.rglob("*"))
    with subprocess.Popen(
        [sys.executable, "-m", "gateway", "serve", "--config", str(config)],
        env=SECRETS | {"TMPDIR": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": _root()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "Stop with" in line:
                break
        url = f"http://127.0.0.1:{port}/v1/embeddings"
        for body in ({"input": CANARY}, {"input": [CANARY, 1]}, {"input": CANARY, "seed": 1}):
            httpx2.post(url, json={"model": "m"} | body, headers=BEARER)
        files = [path for path in tmp_path.rglob("*") if path.is_file() and path not in before]
        contents = [path.read_bytes().decode("latin-1") for path in files]
        process.terminate()
        said += process.stdout.read()
        assert process.wait(20) == 0
    clean(said, *contents, *map(str, files))
    assert [p for p in tmp_path.rglob("*") if p not in before] == []


def _root():
    return str(Path(__file__).parents[1])


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
