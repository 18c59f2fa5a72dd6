"""P8 and P10: every class of error is met with canaries all around, and none is found afterwards.

Not in an answer, the log at debug level, the metrics, a file, or what a process was started with.
"""

import json
import socket
import stat
import subprocess
import sys
import time

import httpx2
import pytest

from gateway import errors
from tests import upstream_behaviours as behave
from tests import upstream_chat_behaviours as chat_behave
from tests.canaries import MARK, SECRETS, TEXT, Cage, caged, clean, environment, lock
from tests.cli.commands import gateway as run_command
from tests.processes import ROOT
from tests.redis_server import serve_redis
from tests.running import one_model

QUOTED = json.dumps({"error": {"message": f"no: {TEXT} {SECRETS['UPSTREAM_KEY']}"}}).encode()


@pytest.fixture(scope="module")
def house(served_openai, tmp_path_factory):
    """A gateway over SQLite and Redis; at the end of the module everything is searched."""
    place = tmp_path_factory.mktemp("canaries")
    served_openai.forget()
    with serve_redis(place / "redis") as redis:
        with caged(served_openai, redis, place / "store") as cage:
            yield cage
            cage.check()
        clean(*cage.served.lines)
    served_openai.key = None


@pytest.fixture
def cage(house):
    """The same, with an upstream that behaves until it is told otherwise."""
    key = house.fake.key
    house.fake.forget()
    house.fake.key = key
    yield house
    clean(*house.heard)


def raw(cage, said, wait=0.0):
    """Send bytes, and return what comes back."""
    port = int(cage.served.address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(said)
        time.sleep(wait)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
            if b"\r\n\r\n" in answer and b"}" in answer:
                break
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ")[1])
    cage.heard.append(answer.decode("latin-1"))
    return httpx2.Response(status, content=body)


def upstream(behaviour, **more):
    """Return what to do for an upstream that does this."""

    def do(cage):
        cage.fake.always(behaviour)
        return cage.embed(f"{TEXT} {time.monotonic_ns()}", **more)

    return do


def over_the_limit(cage):
    cage.embed(key="FEW_KEY")
    return cage.embed(key="FEW_KEY")


HEAD = f"POST /v1/embeddings HTTP/1.1\r\nhost: 127.0.0.1\r\nx-secret: {MARK}\r\n".encode()
MET = {
    errors.InvalidRequestError: (400, lambda cage: cage.embed({"text": TEXT})),
    errors.InvalidInputError: (400, lambda cage: cage.embed(["x", TEXT * 9], "short")),
    errors.TooManyTokensError: (400, lambda cage: cage.embed([[1] * 300_001])),
    errors.AuthenticationError: (401, lambda cage: cage.embed(key=f"wrong-{MARK}")),
    errors.PermissionDeniedError: (403, lambda cage: cage.chat(key="OTHER_KEY")),
    errors.NotFoundError: (404, lambda cage: cage.embed(model="nobody")),
    errors.MethodNotAllowedError: (405, lambda cage: cage.embed(method="PUT")),
    errors.SlowClientError: (408, lambda cage: raw(cage, HEAD)),
    errors.PayloadTooLargeError: (413, lambda cage: cage.embed(TEXT * 100_000)),
    errors.UnsupportedMediaError: (
        415,
        lambda cage: cage.embed(headers={"content-type": f"text/{MARK}-{MARK}"[:9]}),
    ),
    errors.MisdirectedError: (421, lambda cage: cage.embed(headers={"host": f"{MARK}.test"})),
    errors.HeadersTooLargeError: (
        431,
        lambda cage: raw(cage, HEAD + b"x-long: " + f"{MARK} ".encode() * 6000 + b"\r\n\r\n"),
    ),
    errors.RateLimitError: (429, upstream(behave.status(429, {"retry-after": "60"}, QUOTED))),
    errors.OwnLimitError: (429, over_the_limit),
    errors.UpstreamError: (502, upstream(behave.status(500, {"retry-after": "60"}, QUOTED))),
    errors.VectorsRefusedError: (502, upstream(behave.status(200, {}, QUOTED))),
    errors.UpstreamTimeoutError: (504, upstream(behave.slow(30))),
    errors.UpstreamConnectError: (502, upstream(behave.cut_body)),
    errors.NotCachedError: (
        504,
        lambda cage: cage.embed(TEXT + "!", headers={"cache-control": f"only-if-cached, x={MARK}"}),
    ),
    errors.UnavailableError: (503, upstream(behave.status(503, {"retry-after": "60"}, QUOTED))),
}
ELSEWHERE = {
    errors.GatewayError: "test_privacy: what nobody foresaw",
    errors.ConfigError: "below: at start, at a reload, and by commands",
}


def classes(kind):
    """Return a class and all below it."""
    return {kind}.union(*(classes(below) for below in kind.__subclasses__()))


def test_every_class_of_error_is_met():
    """Whoever adds one says here how it comes about."""
    ours = {kind for kind in classes(errors.GatewayError) if kind.__module__ == "gateway.errors"}
    assert ours == MET.keys() | ELSEWHERE.keys()


@pytest.mark.parametrize("kind", MET, ids=lambda kind: kind.__name__)
def test_an_error_gives_nothing_away(cage: Cage, kind):
    """Each with the text in the request, and keys and secrets in the headers around it."""
    status, meet = MET[kind]
    answer = meet(cage)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == kind.type or kind is errors.TooManyTokensError
    clean(answer.text)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 429, 500, 502, 503])
def test_an_upstream_that_quotes_everything_is_not_quoted(cage: Cage, status):
    """Neither as a status nor within a stream."""
    cage.fake.always(behave.status(status, {"retry-after": "60"}, QUOTED))
    assert cage.embed(f"{TEXT} {status}").status_code >= 400
    cage.fake.chat.script(chat_behave.refuse(status, headers={"retry-after": "60"}, body=QUOTED))
    assert cage.chat().status_code >= 400
    error = {"message": f"no: {TEXT}", "code": status, "type": "t", "param": TEXT}
    cage.fake.chat.script(chat_behave.error_event(0, error))
    assert cage.chat(fields={"stream": True}).status_code >= 400


def test_what_goes_well_leaves_nothing_behind(cage: Cage):
    """Vectors and chats, kept and found again; a proxy that is not there."""
    for _ in range(2):
        assert cage.embed([TEXT, "x"], fields={"user": TEXT, "seed": 1}).status_code == 200
        assert cage.chat(fields={"seed": 1, "user": TEXT}).status_code == 200
        assert cage.chat(fields={"seed": 2, "stream": True}).status_code == 200
    assert cage.embed(model="behind").status_code in {502, 503, 504}


def test_stores_that_fail_are_not_quoted(cage: Cage):
    """A password that is not taken any more, a Redis that dies, a SQLite file that is no more."""
    lock(cage.redis, "another")
    cage.redis.admin.client_kill_filter(_type="normal", skipme=True)
    assert cage.embed(f"{TEXT} 1").status_code == 200
    lock(cage.redis)
    cage.redis.kill()
    assert cage.embed(f"{TEXT} 2").status_code == 200
    for file in cage.place.glob("near.db*"):
        file.write_bytes(b"no database" * 1000)
    assert cage.embed(f"{TEXT} 3").status_code == 200
    cage.redis.start()
    lock(cage.redis)


BROKEN = {
    "a password in an address": (
        'base_url = "http', f'base_url = "http://somebody:{MARK}@h:port',
    ),
    "a key that is a number": ('api_key = "${env:UPSTREAM_KEY}"', f'api_key = ["{MARK}"]'),
    "a header that is none": ('x-secret = "${env:HEADER}"', f'"x secret" = "{MARK}\\n"'),
    "a short key": ('secret = "${env:KEY}"', f'secret = "{MARK}"'),
    "a broken digest": ('secret = "${env:KEY}"', f'secret = "sha256:{MARK * 11}"'),
    "a digest of other letters": ('secret = "${env:KEY}"', f'secret = "sha256:{MARK:z<64}"'),
    "a broken proxy": ('proxy = "http://somebody', f'proxy = "htp://{MARK}'),
    "a broken store": ('"redis://gateway:', f'"redus://gateway:{MARK}'),
    "a short cache secret": ('secret = "${env:CACHE_SECRET}"', f'secret = "{MARK}"'),
    "a secret that is none": ("${env:QUERY}", "${env:NOT_THERE}"),
    "TOML that breaks off": ('api_key = "${env:UPSTREAM_KEY}"', f'api_key = "{MARK}'),
    "the same twice": ('api_key = "', f'api_key = "{MARK}"\napi_key = "'),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_config_is_not_quoted(cage: Cage, name, tmp_path):
    """Where a secret should be: at start, by `check`, and by a reload, which changes nothing."""
    old, new = BROKEN[name]
    assert old in cage.toml
    broken = cage.toml.replace(old, new, 1)
    file = tmp_path / "gateway.toml"
    file.write_text(broken)
    for words in (["serve", "--port", "0"], ["check"], ["models"]):
        refused = run_command(*words, "--config", file, code=1, **SECRETS)
        assert "error: " in refused.output
        clean(refused.output)
    cage.served.reload(broken, "config not reloaded, the old one stays")
    assert cage.embed("x").status_code == 200
    cage.served.write(cage.toml)


def test_commands_show_no_secret(cage: Cage, tmp_path):
    """What is for people, and what is for other programs; what they write is for nobody else."""
    file = tmp_path / "gateway.toml"
    file.write_text(cage.toml)
    export = tmp_path / "export.safetensors"
    cage.embed(TEXT)
    for words in (
        ["check", "--show"],
        ["models"],
        ["cache", "stats"],
        ["cache", "stats", "--json"],
        ["cache", "export", str(export)],
        ["drift"],
        ["--help"],
    ):
        more = [] if words[0] in {"--help", "drift"} else ["--config", str(file)]
        done = command(*words, *more)
        assert "Traceback" not in done.stderr
        assert words[0] == "drift" or done.returncode == 0, done.stderr
    content = export.read_bytes()
    clean(content.decode("latin-1"), content.decode("utf-8", "ignore"))
    assert stat.S_IMODE(export.stat().st_mode) == 0o600


def test_what_is_written_is_for_nobody_else(cage: Cage):
    """Stores and all that lies beside them: 0600, in directories of our own 0700."""
    cage.embed(TEXT)
    files = [path for path in cage.place.rglob("*") if path.is_file()]
    files += [path for path in cage.served.temporary.rglob("*") if path.is_file()]
    assert files
    assert {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in files} == {
        path.name: "0o600" for path in files
    }


def command(*words):
    """Run `gateway` with all secrets in its environment; nothing of it may be said."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway", *words],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    clean(done.stdout, done.stderr)
    return done


def test_the_ledger_of_limits_is_for_nobody_else(gateway, fake_openai, tmp_path):
    """Where it is a file of its own, beside the store; keys are in it by their names."""
    store = tmp_path / "own" / "cache.db"
    limits = f'[cache]\nstore = "sqlite://{store}"\n[[keys]]\nname = "k"\nsecret = "{MARK * 2}"\n'
    limits += "requests_per_minute = 100\nusd_per_day = 1.0\nmodels = ['m']\n"
    toml = one_model(fake_openai.base_url, rest=limits, model='task = "embedding"\nprice = 1.0')
    running = gateway(toml)
    assert running.embed("x", headers={"authorization": f"Bearer {MARK * 2}"}).status_code == 200
    files = [path for path in store.parent.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert {oct(stat.S_IMODE(path.stat().st_mode)) for path in files} == {"0o600"}
    clean(*(path.read_bytes().decode("latin-1") for path in files))


def test_a_callers_own_key_is_sent_on_and_is_nowhere_else(gateway, fake_openai, tmp_path):
    """With forward_key: taken, refused, and quoted by an upstream that fails."""
    own, wrong = SECRETS["UPSTREAM_KEY"], f"sk-wrong-{MARK}"
    fake_openai.key = own
    rest = f'[server]\nlog_level = "debug"\nrequest_timeout = "2s"\n[cache]\nstore = "sqlite://{tmp_path}/own/cache.db"\n'
    running = gateway(one_model(fake_openai.base_url, upstream="forward_key = true", rest=rest))

    def ask(key):
        named = {"openai-organization": f"org-{MARK}", "openai-project": f"proj-{MARK}"}
        return running.embed(TEXT, headers={"authorization": f"Bearer {key}", **named})

    assert ask(own).status_code == 200
    assert fake_openai.requests[-1].headers["authorization"] == f"Bearer {own}"
    said = [ask(wrong)]
    for status in (400, 403, 429, 500):
        fake_openai.always(behave.status(status, {"retry-after": "60"}, QUOTED))
        said.append(running.embed(TEXT + "!", headers={"authorization": f"Bearer {own}"}))
    assert [answer.status_code for answer in said] == [401, 400, 403, 429, 502]
    page = running.http.get("/metrics").text
    clean(page, running.log, *(answer.text + str(answer.headers) for answer in said))
    for path in (tmp_path / "own").rglob("*"):
        content = path.read_bytes()
        clean(path.name, content.decode("latin-1"), content.decode("utf-8", "ignore"))
    fake_openai.key = None


LOCAL = """
[upstreams.local]
kind = "llama"
model = "builtin:all-minilm-l6-v2"
load = "first-use"
[models.local]
upstreams = ["local"]
"""


@pytest.mark.engine
def test_engines_know_no_secret_and_repeat_no_text(served_openai, tmp_path):
    """Running, killed in the middle, and started again: their words, journals and surroundings."""
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is missing (extra [local])")
    served_openai.forget()
    with (
        serve_redis(tmp_path / "redis") as redis,
        caged(served_openai, redis, tmp_path / "store", LOCAL) as cage,
    ):
        assert cage.embed(model="local", fields={"seed": 1}).status_code in {200, 503, 504}
        cage.served.wait_for(lambda: cage.served.events("ready"), timeout=60, what="an engine")
        assert cage.embed(model="local", fields={"seed": 2}).status_code == 200
        assert cage.embed([[1, 2, 10**9]], model="local").status_code == 400
        cage.check()
        pid = cage.served.events("ready")[-1]["pid"]
        subprocess.run(["kill", "-SEGV", str(pid)], check=True)
        assert cage.embed(f"{TEXT} again", model="local").status_code in {200, 503, 504}
        cage.check()
    served_openai.key = None
