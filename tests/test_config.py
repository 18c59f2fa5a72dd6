"""What a good config becomes: values, defaults, warnings, and what `check --show` prints."""

import hashlib
import pickle
import shutil
import tomllib

import certifi
import pytest
from config_texts import MODEL, SAMPLE, UPSTREAM, parse
from starlette.routing import Router
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from gateway import config as gateway_config
from gateway.config import LlamaUpstream, Model, OpenAIUpstream, Secret
from gateway.errors import ConfigError


def test_the_sample_is_read_into_values():
    """Each table of the file is a value with the file's options and everyone's defaults."""
    config = parse(SAMPLE)
    assert ("127.0.0.1", 8000, 1, 120.0) == (
        config.server.host,
        config.server.port,
        config.server.workers,
        config.server.request_timeout,
    )
    assert config.cache.memory == 256 * 2**20
    [key] = config.keys
    assert ("search-team", ("text-embedding-3-*",), "search", False) == (
        key.name,
        key.models,
        key.tenant,
        key.admin,
    )
    assert (
        OpenAIUpstream(base_url="https://api.openai.com/v1", api_key=Secret("canary-upstream-key"))
        == config.upstreams["openai"]
    )
    assert isinstance(config.upstreams["minilm"], LlamaUpstream)
    assert config.upstreams["minilm"].model.name == "all-minilm-l6-v2-q8_0.gguf"
    assert (
        Model(task="embedding", upstreams=("minilm",), aliases={"minilm": None})
        == config.models["all-minilm-l6-v2"]
    )
    assert ["text-embedding-3-small", "all-minilm-l6-v2", "gpt-*"] == list(config.models)


def test_a_config_cannot_be_changed():
    """What has passed the checks stays as it was checked."""
    config = parse(SAMPLE)
    with pytest.raises(AttributeError):
        config.server.port = 1


def test_a_config_goes_to_another_process_whole():
    """Workers that are spawned get the same config, secrets included."""
    config = parse(SAMPLE)
    copy = pickle.loads(pickle.dumps(config))
    assert config == copy
    assert copy.upstreams["openai"].api_key.reveal() == "canary-upstream-key"


# The command line


def test_the_command_line_overrides_the_server():
    """Host, port and workers given on the command line replace the file's."""
    config = parse(SAMPLE.replace("256MiB", "0"))
    changed = gateway_config.with_server(config, host="::1", port=0, workers=4)
    assert ("::1", 0, 4) == (changed.server.host, changed.server.port, changed.server.workers)
    assert config == gateway_config.with_server(config)


def test_the_command_line_obeys_the_rules():
    """An override that breaks a rule is an error that does not blame the file."""
    with pytest.raises(ConfigError) as caught:
        gateway_config.with_server(parse(SAMPLE), host="a b", port=-1, workers=2)
    starts = [line.split(": ")[:2] for line in caught.value.problems]
    assert [["command line", f"server.{name}"] for name in ("host", "port", "workers")] == starts


def test_the_command_line_brings_its_own_warnings():
    """Listening for everyone warns, and going back to loopback takes the warning away."""
    opened = gateway_config.with_server(gateway_config.default({}), host="0.0.0.0")
    [warning] = opened.warnings
    assert warning.startswith("command line: server.host: anyone who can reach 0.0.0.0 may use it")
    assert gateway_config.with_server(opened, host="127.0.0.1").warnings == ()


# Warnings

LLAMA = '[upstreams.l]\nkind = "llama"\nmodel = "builtin:all-minilm-l6-v2"\n'
KEY = '[[keys]]\nname = "a"\nsecret = "${env:SEARCH_TEAM_KEY}"\n'
WARNED = {
    '[server]\nhost = "0.0.0.0"': "2: server.host: anyone who can reach 0.0.0.0 may use it",
    '[upstreams.o]\napi_key = "plain"': "2: upstreams.o.api_key: is written here in plain text",
    '[server]\nadmin = "0.0.0.0:9090"': "2: server.admin: asks for no key, so anyone who can reach",
    '[cache]\nsecret = "${env:OPENAI_API_KEY}"': "2: cache.secret: is of no use without a store",
    '[cache]\nstore = "sqlite:///a/b"\nsecret = "plain-plain-plain"': (
        "3: cache.secret: is written here in plain text"
    ),
    '[cache]\nstore = [\n"sqlite:///a/b",\n"redis://:plain@cache"]': (
        "4: cache.store[1]: has a password that is written here in plain text"
    ),
    '[[keys]]\nname = "a"\nsecret = "plain-text"\nadmin = true': (
        "3: keys[0].secret: is written here in plain text"
    ),
    KEY: "1: keys: no key has admin = true and server.admin is not set",
    f'{KEY}admin = true\nmodels = ["n*"]': '5: keys[0].models[0]: "n*" fits no model of this file',
    '[upstreams.p]\nkind = "openai"\nbase_url = "http://h"': "1: upstreams.p: no model uses it",
    '[cache]\nstore = "sqlite:///a/b"\n'
    '[models.n]\nupstreams = ["o"]\noffline = true\ncache = "off"': (
        "6: models.n.cache: leaves nothing to answer with while the model is offline"
    ),
    '[models.n]\nupstreams = ["o"]\ntask = "chat"\nprefix = "query: "': (
        "4: models.n.prefix: has no meaning for a chat model"
    ),
    '[models.n]\nupstreams = ["o"]\ntask = "chat"\nforward = ["input_type"]': (
        "4: models.n.forward: has no meaning for a chat model"
    ),
    '[models.n]\nupstreams = ["o"]\ntask = "chat"\nmax_tokens = 512': (
        "4: models.n.max_tokens: has no meaning for a chat model"
    ),
    '[models.n]\nupstreams = ["o"]\ntask = "chat"\naliases = { c = { prefix = "query: " } }': (
        "4: models.n.aliases.c.prefix: has no meaning for a chat model"
    ),
    '[models.n]\nupstreams = ["o"]\ntask = "chat"\ndrift = "refuse"': (
        "4: models.n.drift: has no meaning for a chat model"
    ),
    '[models.n]\nupstreams = ["o"]\ncache = "off"\ndrift = "generation"': (
        "4: models.n.drift: has no meaning where nothing is kept to compare with"
    ),
    '[upstreams.f]\nkind = "openai"\nbase_url = "http://h"\nforward_key = true\n'
    '[models.n]\nupstreams = ["f"]\ndrift = "refuse"': (
        "7: models.n.drift: has no meaning where callers send keys of their own"
    ),
    f'{LLAMA}pooling = "mean"\n[models.n]\nupstreams = ["l"]\ntask = "chat"': (
        "4: upstreams.l.pooling: has no meaning for an upstream that chats"
    ),
    f'{LLAMA}chat_template = "{__file__}"\n[models.n]\nupstreams = ["l"]': (
        "4: upstreams.l.chat_template: has no meaning for an upstream that embeds"
    ),
}


@pytest.mark.parametrize(("addition", "says"), WARNED.items(), ids=list(WARNED.values()))
def test_what_is_probably_not_meant_is_warned_of(addition, says):
    """A config that works and is probably not what was meant is used, with one warning."""
    rest = UPSTREAM.replace("[upstreams.o]\n", "") if "[upstreams.o]" in addition else UPSTREAM
    [warning] = parse(addition + rest + MODEL).warnings
    assert warning.startswith(f"built-in config:{says}")


def test_a_sound_config_has_no_warnings():
    """Keys from the environment or as a digest, and an admin key: nothing to say."""
    digest = hashlib.sha256(b"canary-client-key").hexdigest()
    cache = '[cache]\nttl = "1d"\nstore = ["sqlite:///a/b", "redis://me:${env:OPENAI_API_KEY}@h"]\n'
    cache += 'secret = "${env:OPENAI_API_KEY}"\nstore_size = "1MiB"\n[server]\nworkers = 2\n'
    assert parse(cache + UPSTREAM + MODEL).warnings == ()
    for secret in ("${env:SEARCH_TEAM_KEY}", f"sha256:{digest}"):
        key = f'[[keys]]\nname = "a"\nsecret = "{secret}"\nadmin = true\n'
        assert parse(key + UPSTREAM + MODEL).warnings == ()


# References


def test_references_are_put_in(tmp_path):
    """${env:…} and ${file:…} may be a part of a text, and a file's line end is dropped."""
    (tmp_path / "key").write_bytes(b"from-a-file\r\n")
    options = (
        'api_key = "${file:key}"\nmax_batch = "${env:N}"\n'
        'headers = { a = "Bearer ${env:N}-${env:N}", b = "$${env:N} $1 {}" }\n'
    )
    config = parse(UPSTREAM + options + MODEL, environ={"N": "96"}, base_dir=tmp_path)
    read = config.upstreams["o"]
    assert ("from-a-file", 96) == (read.api_key.reveal(), read.max_batch)
    headers = {name: value.reveal() for name, value in read.headers.items()}
    assert {"a": "Bearer 96-96", "b": "${env:N} $1 {}"} == headers


def test_a_variable_that_is_no_text_is_refused():
    """Bytes that are not UTF-8 in the environment are an error, not a crash when they are sent."""
    text = UPSTREAM + 'api_key = "${env:KEY}"' + MODEL
    with pytest.raises(ConfigError, match="the environment variable KEY is not UTF-8"):
        parse(text, environ={"KEY": "canary-\udcff"})


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("*", "*"),
        (" * ", "*"),
        ("127.0.0.1", "127.0.0.1"),
        ("10.0.0.0/8 , ::1,fd00::/8", "10.0.0.0/8,::1,fd00::/8"),
    ],
)
def test_proxies_are_kept_as_uvicorn_reads_them(written, kept):
    """Each is an address or a network to it, and none a name that equals no address."""
    text = f'[server]\nforwarded_allow_ips = "{written}"' + UPSTREAM + MODEL
    read = parse(text).server.forwarded_allow_ips
    trusted = ProxyHeadersMiddleware(Router(), read).trusted_hosts
    assert (kept, set()) == (read, trusted.trusted_literals)
    assert ("10.1.2.3" in trusted) == (kept != "127.0.0.1")


@pytest.mark.parametrize(
    ("written", "kept"), [("localhost", "localhost"), ("0:0::1", "::1"), ("my-host.x", "my-host.x")]
)
def test_a_host_is_an_address_or_a_name(written, kept):
    """Addresses are kept in their usual spelling, names as they are."""
    assert kept == parse(f'[server]\nhost = "{written}"' + UPSTREAM + MODEL).server.host


def test_relative_paths_start_at_the_file(tmp_path):
    """A model, a certificate and a secret's file are found beside the config, or under ~."""
    (tmp_path / "certs").mkdir()
    shutil.copy(certifi.where(), tmp_path / "certs/ca.pem")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    path = tmp_path / "gateway.toml"
    path.write_text(
        UPSTREAM + 'ca_file = "certs/ca.pem"\n'
        '[upstreams.a]\nkind = "llama"\nmodel = "model.gguf"\n'
        '[upstreams.b]\nkind = "llama"\nmodel = "~/model.gguf"\n' + MODEL
    )
    config = gateway_config.load(path, {"HOME": str(tmp_path)})
    assert config.upstreams["o"].ca_file == tmp_path / "certs/ca.pem"
    assert config.upstreams["a"].model == config.upstreams["b"].model == tmp_path / "model.gguf"
    assert config.source == path


def test_a_byte_order_mark_is_no_error(tmp_path):
    """Editors on Windows put one before the text."""
    path = tmp_path / "gateway.toml"
    path.write_bytes(b"\xef\xbb\xbf" + (UPSTREAM + MODEL).encode())
    assert list(gateway_config.load(path, {}).models) == ["m"]


# What took effect


def test_what_is_shown_is_the_config_again(tmp_path):
    """The shown text, with its secrets put back, is a config with the same values."""
    (tmp_path / "it's\x7f.gguf").write_bytes(b"GGUF")
    extra = (
        '[upstreams.g]\nkind = "llama"\nmodel = "it\'s\\u007f.gguf"\n'
        'load = "first-use"\nidle = 90\nthreads = 2\ncontexts = 3\nmax_queue = 9\n'
        '[models."g \\"1\\" é"]\nupstreams = ["g"]\ndimensions = [64]\ntruncate = true\n'
        'aliases = { "g:q" = { prefix = "q\\n" } }\n'
    )
    config = parse(SAMPLE + extra, base_dir=tmp_path)
    shown = gateway_config.show(config)
    back = parse(shown.replace('"***"', '"${env:SEARCH_TEAM_KEY}"'))
    assert shown == gateway_config.show(back)
    assert config.server == back.server
    assert config.upstreams["g"] == back.upstreams["g"]
    assert config.models['g "1" é'].aliases == back.models['g "1" é'].aliases


def test_what_is_shown_of_chat_took_effect():
    """The defaults of a chat model, and of the upstream that runs it, are those of chat."""
    text = (
        f'{LLAMA}[models.local]\ntask = "chat"\nupstreams = ["l"]\n'
        '[models.priced]\ntask = "chat"\nupstreams = ["o"]\ncache = "deterministic"\n'
        'price = { input = 0.15, output = "${env:PRICE}" }\n'
        '[models.either]\nupstreams = ["o"]\n[models.embeds]\ntask="embedding"\nupstreams=["o"]\n'
    )
    config = parse(UPSTREAM + text, environ={"PRICE": "0.6"})
    shown = tomllib.loads(gateway_config.show(config))
    assert shown["server"]["chat_timeout"] == "10m"
    models = shown["models"]
    assert {"local": "seeded", "priced": "deterministic", "either": None, "embeds": "always"} == {
        name: model.get("cache") for name, model in models.items()
    }
    assert models["local"]["price"] == {"input": 0.0, "output": 0.0}
    assert models["priced"]["price"] == {"input": 0.15, "output": 0.6}
    local = shown["upstreams"]["l"]
    assert (local["contexts"], local.get("threads"), local["max_queue"]) == (1, None, 256)
    embeds = gateway_config.show(parse(UPSTREAM + LLAMA + '[models.m]\nupstreams = ["l"]\n'))
    local = tomllib.loads(embeds)["upstreams"]["l"]
    assert (local.get("contexts"), local["threads"], local["max_queue"]) == (None, 1, 16384)


def test_what_is_shown_names_its_file(tmp_path):
    """The first line says where the config came from, whatever the file is called."""
    path = tmp_path / "a\nb.toml"
    path.write_text(UPSTREAM + MODEL)
    first, *_ = gateway_config.show(gateway_config.load(path, {})).splitlines()
    assert first == f"# What took effect ({tmp_path}/a?b.toml). Secrets are masked."
