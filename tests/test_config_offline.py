"""Offline: what a start without keys and networks may lack, and what it may not."""

import shutil
from pathlib import Path

import certifi
import pytest

from gateway import config as gateway_config
from gateway.errors import ConfigError

CI = {"HOME": "/home/ci"}
STORE = '[cache]\nstore = "sqlite:///var/lib/cache.db"\n'
LACKING = """\
[upstreams.openai]
kind = "openai"
base_url = "https://api.openai.com/v1"
api_key = "${env:OPENAI_API_KEY}"
proxy = "http://${env:PROXY_USER}@proxy:3128"
ca_file = "company.pem"
headers = { x-team = "search", x-token = "${file:token}", x-empty = "${env:EMPTY}" }
[upstreams.other]
kind = "openai"
base_url = "https://example.com/v1"
ca_file = "${env:CA_FILE}"
[models.m]
upstreams = ["openai"]
[models.n]
upstreams = ["other"]
"""
LINES = {
    4: "upstreams.openai.api_key: the environment variable OPENAI_API_KEY is not set",
    5: "upstreams.openai.proxy: the environment variable PROXY_USER is not set",
    6: 'upstreams.openai.ca_file: "DIR/company.pem" cannot be read: No such file or directory',
    7: 'upstreams.openai.headers."x-token": the file "token" cannot be read: No such file or '
    "directory",
    7.5: 'upstreams.openai.headers."x-empty": the environment variable EMPTY is empty',
    11: "upstreams.other.ca_file: the environment variable CA_FILE is not set",
}


def load(directory, text, *, offline, **environ):
    """Load a config from a file in this directory."""
    path = directory / "gateway.toml"
    path.write_text(text)
    return gateway_config.load(path, CI | {"EMPTY": ""} | environ, offline=offline)


def problems_of(directory, text, *, offline=True, **environ):
    """Return what is wrong with a config, without the directory's name."""
    with pytest.raises(ConfigError) as caught:
        load(directory, text, offline=offline, **environ)
    return [line.replace(f"{directory}/", "", 1) for line in caught.value.problems]


def lines(directory, ending=""):
    """Return the lines about everything that LACKING lacks."""
    return [
        f"gateway.toml:{int(line)}: {says.replace('DIR', str(directory))}{ending}"
        for line, says in LINES.items()
    ]


@pytest.mark.parametrize("written", [False, True], ids=["on the command line", "in the file"])
def test_what_is_only_needed_to_ask_may_be_missing(written, tmp_path):
    """Keys, headers, proxies and certificates are left out, each with a warning."""
    text = LACKING + STORE + ("[server]\noffline = true\n" if written else "")
    config = load(tmp_path, text, offline=not written)
    assert config.server.offline
    openai, other = config.upstreams.values()
    assert (None, None, None, None) == (openai.api_key, openai.proxy, openai.ca_file, other.ca_file)
    assert list(openai.headers) == ["x-team"]
    said = [warning.replace(f"{tmp_path}/", "", 1) for warning in config.warnings]
    assert said == lines(tmp_path, "; left out, for nothing is asked")


def test_where_upstreams_are_asked_it_is_an_error(tmp_path):
    """The same file does not start online: all that it lacks is told at once."""
    assert problems_of(tmp_path, LACKING + STORE, offline=False) == lines(tmp_path)


def test_what_is_there_is_used(tmp_path):
    """With all of it set, offline reads the same upstreams as online, and warns of nothing."""
    (tmp_path / "token").write_text("token")
    shutil.copy(certifi.where(), tmp_path / "company.pem")
    environ = {
        "OPENAI_API_KEY": "key",
        "PROXY_USER": "me",
        "EMPTY": "not",
        "CA_FILE": "company.pem",
    }
    offline = load(tmp_path, LACKING + STORE, offline=True, **environ)
    assert offline.warnings == ()
    online = load(tmp_path, LACKING + STORE, offline=False, **environ)
    assert (online.upstreams, online.server.offline) == (offline.upstreams, False)
    assert gateway_config.with_server(online, offline=True) == offline


@pytest.mark.parametrize(
    ("addition", "says"),
    [
        ('[upstreams.u]\nkind = "openai"\nbase_url = "${env:GONE}"', "upstreams.u.base_url"),
        (
            '[upstreams.u]\nkind = "openai"\nbase_url = "http://u"\nquery.v = "${env:GONE}"',
            "upstreams.u.query.v",
        ),
        (
            '[models.x]\nupstreams = ["openai"]\nupstream_model = "${env:GONE}"',
            "models.x.upstream_",
        ),
        ('[[keys]]\nname = "a"\nsecret = "${env:GONE}"', "keys[0].secret"),
    ],
)
def test_what_decides_whose_vector_it_is_may_not_be_missing(addition, says, tmp_path):
    """An address, a name, a query or a client's key is an error, offline as online."""
    [problem] = problems_of(tmp_path, f"{addition}\n{LACKING}{STORE}")
    assert f": {says}" in problem
    assert problem.endswith("the environment variable GONE is not set")


@pytest.mark.parametrize("option", ["secret", "store", "ttl"])
def test_the_cache_may_lack_nothing(option, tmp_path):
    """Without the same store and secret nothing would be found."""
    cache = STORE if option != "store" else "[cache]\n"
    [problem] = problems_of(tmp_path, f'{LACKING}{cache}{option} = "${{env:GONE}}"\n')
    assert f": cache.{option}: the environment variable GONE is not set" in problem


@pytest.mark.parametrize(
    "wrong", ["${OPENAI_API_KEY}", "${env:A-B}", "${vault:x}", "${file:\\u0000}"]
)
def test_what_is_no_reference_is_not_missing(wrong, tmp_path):
    """A mistake in the file would be one online too, so it is told where it is found first."""
    text = LACKING.replace("${env:OPENAI_API_KEY}", wrong) + STORE
    [problem] = problems_of(tmp_path, text)
    assert problem.startswith("gateway.toml:4: upstreams.openai.api_key: ")


def test_a_model_file_must_be_there(tmp_path):
    """Its digest is part of the identity of the vectors."""
    text = (
        f'{STORE}[upstreams.g]\nkind = "llama"\nmodel = "gone.gguf"\n[models.m]\nupstreams = ["g"]'
    )
    [problem] = problems_of(tmp_path, text)
    assert problem.startswith("gateway.toml:5: upstreams.g.model: ")


def test_there_must_be_something_to_answer_from(tmp_path):
    """Offline without a store is an error, of the command line where that said it."""
    text = LACKING.replace("[models.m]", "[models.m]\noffline = true")
    [problem] = problems_of(tmp_path, text)
    assert problem.startswith("command line: server.offline: there is no store to answer from")
    with pytest.raises(ConfigError, match=r"^command line: server\.offline: there is no store"):
        gateway_config.with_server(gateway_config.default({}), offline=True)


def test_a_model_that_is_never_kept_is_never_answered(tmp_path):
    """A model that keeps nothing has nothing offline; the others are served."""
    text = LACKING.replace("[models.m]", '[models.m]\ncache = "off"') + STORE
    warnings = load(tmp_path, text, offline=True).warnings
    assert any("models.m.cache: leaves nothing to answer with" in line for line in warnings)
    assert not any("models.n" in line for line in warnings)


@pytest.mark.parametrize("both", [False, True])
def test_whose_models_are_all_offline_is_asked_nothing(both, tmp_path):
    """What the others lack is an error still."""
    text = LACKING.replace("[models.m]", "[models.m]\noffline = true") + STORE
    if not both:
        assert problems_of(tmp_path, text, offline=False) == lines(tmp_path)[-1:]
        return
    text = text.replace("[models.n]", "[models.n]\noffline = true")
    config = load(tmp_path, text, offline=False)
    assert not config.server.offline
    assert config.upstreams["openai"].api_key is None
    said = [warning.replace(f"{tmp_path}/", "", 1) for warning in config.warnings]
    assert said == lines(tmp_path, "; left out, for nothing is asked")


@pytest.mark.parametrize(
    "others",
    ['[models.o]\nupstreams = ["openai"]', '[models."*"]\nupstreams = ["openai"]'],
    ids=["another model", "a pattern"],
)
def test_one_model_that_is_offline_excuses_no_upstream(others, tmp_path):
    """Its key is needed by who else is served there."""
    text = LACKING.replace("[models.m]", "[models.m]\noffline = true")
    assert problems_of(tmp_path, f"{text}{others}\n{STORE}", offline=False) == lines(tmp_path)


def test_an_upstream_that_no_model_uses_is_excused_nothing(tmp_path):
    """Somebody forgot something; what it lacks may be a hint."""
    text = LACKING.replace('[models.n]\nupstreams = ["other"]', "")
    text = text.replace("[models.m]", "[models.m]\noffline = true") + STORE
    assert problems_of(tmp_path, text, offline=False) == lines(tmp_path)[-1:]


def test_the_command_line_keeps_and_lifts_it(tmp_path):
    """Further options of the command line lose no warning; going online brings the errors back."""
    config = load(tmp_path, LACKING + STORE, offline=True)
    assert gateway_config.with_server(config, port=0).warnings == config.warnings
    assert gateway_config.with_server(config, offline=True) == config
    with pytest.raises(ConfigError) as caught:
        gateway_config.with_server(config, offline=False)
    said = [line.replace(f"{tmp_path}/", "", 1) for line in caught.value.problems]
    assert said == lines(tmp_path)


def test_a_chat_needs_no_more_than_a_text(tmp_path):
    """A chat model offline lacks what any may; its GGUF file names its answers, so it is there."""
    chats = '[models.c]\ntask = "chat"\nupstreams = ["openai"]\n'
    config = load(tmp_path, LACKING + chats + STORE, offline=True)
    assert [warning.replace(f"{tmp_path}/", "", 1) for warning in config.warnings] == lines(
        tmp_path, "; left out, for nothing is asked"
    )
    gone = '[upstreams.g]\nkind = "llama"\nmodel = "gone.gguf"\n'
    local = '[models.m]\ntask = "chat"\nupstreams = ["g"]\n'
    [problem] = problems_of(tmp_path, STORE + gone + local)
    assert problem.startswith("gateway.toml:5: upstreams.g.model: ")


@pytest.mark.parametrize("local", [True, False])
def test_without_a_file_all_models_are_there(local):
    """What is cached of OpenAI and of the bundled model needs neither a key nor llama.cpp."""
    config = gateway_config.default(CI, local=local, offline=True)
    online = gateway_config.default(CI | {"OPENAI_API_KEY": "key"})
    assert config.models == online.models
    assert config.upstreams["openai"].base_url == online.upstreams["openai"].base_url
    assert (config.upstreams["openai"].api_key, config.warnings) == (None, ())
    assert (config.server.offline, config.cache) == (True, online.cache)
    keyed = gateway_config.default(CI | {"OPENAI_API_KEY": "key"}, offline=True)
    assert keyed.upstreams == online.upstreams


def test_without_a_file_and_a_home_there_is_nothing_to_answer_from():
    """No cache directory, no store: the command line's wish cannot be met."""
    with pytest.raises(ConfigError, match=r"^command line: server\.offline: there is no store"):
        gateway_config.default({}, offline=True)


def test_offline_is_not_read_from_what_is_broken():
    """An `offline` that is neither true nor false is one error, and excuses nothing."""
    text = f'[server]\noffline = "yes"\n{LACKING}{STORE}'
    with pytest.raises(ConfigError) as caught:
        gateway_config.parse(text, source=None, environ={"EMPTY": ""}, base_dir=Path("/nowhere"))
    first, *others = caught.value.problems
    assert 'server.offline: must be true or false, without quotes, not "yes"' in first
    assert len(others) == len(LINES)
