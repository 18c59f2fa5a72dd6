"""The config of a start without a file: what is served, and where vectors last."""

from pathlib import Path

import pytest

from gateway import config as gateway_config
from gateway.config import SqliteAddress
from gateway.errors import ConfigError


def test_without_a_file_the_bundled_model_is_served():
    """No file and no key: the bundled model on loopback, and nothing else."""
    config = gateway_config.default({})
    assert ("127.0.0.1", 8000) == (config.server.host, config.server.port)
    assert {"all-minilm-l6-v2": {"minilm": None}} == {
        name: model.aliases for name, model in config.models.items()
    }
    assert (None, (), {}) == (config.source, config.warnings, config.lines)


def test_without_a_file_an_openai_key_adds_openai():
    """OPENAI_API_KEY puts OpenAI's models behind the same door: those that embed and all others."""
    config = gateway_config.default({"OPENAI_API_KEY": "canary-upstream-key"})
    openai = config.upstreams["openai"]
    assert ("https://api.openai.com/v1", "canary-upstream-key") == (
        openai.base_url,
        openai.api_key.reveal(),
    )
    widths = {name: m.dimensions_for(name) for name, m in config.models.items()}
    assert {
        "all-minilm-l6-v2": "native",
        "text-embedding-3-*": "any",
        "text-embedding-*": "native",
        "*": "native",
    } == widths
    assert (config.models["*"].task, config.models["*"].upstreams) == (None, ("openai",))
    assert config.warnings == ()


def test_without_a_file_openai_may_be_elsewhere():
    """OPENAI_BASE_URL is honoured as OpenAI's SDKs honour it; empty means not set."""
    environ = {"OPENAI_API_KEY": "canary-upstream-key", "OPENAI_BASE_URL": "http://proxy:1234/v1/"}
    assert gateway_config.default(environ).upstreams["openai"].base_url == "http://proxy:1234/v1"
    environ["OPENAI_BASE_URL"] = ""
    openai = gateway_config.default(environ, local=False).upstreams["openai"]
    assert openai.base_url == "https://api.openai.com/v1"


def test_without_a_file_the_gateway_does_not_ask_itself():
    """An OPENAI_BASE_URL that is set for the clients, and so names the gateway, is an error."""
    environ = {"OPENAI_API_KEY": "a-key", "OPENAI_BASE_URL": "http://127.0.0.1:8000/v1"}
    with pytest.raises(ConfigError, match=r"openai\.base_url: is the gateway's own address"):
        gateway_config.default(environ)


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"HOME": "/home/me"}, "/home/me/.cache/embedding-gateway/cache.db"),
        ({"HOME": "/home/me", "XDG_CACHE_HOME": "/c"}, "/c/embedding-gateway/cache.db"),
        ({"XDG_CACHE_HOME": "/c/"}, "/c/embedding-gateway/cache.db"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "cache"}, "/h/.cache/embedding-gateway/cache.db"),
        ({"HOME": "/h", "XDG_CACHE_HOME": ""}, "/h/.cache/embedding-gateway/cache.db"),
        ({"HOME": "/h ?#${env:X}"}, "/h ?#${env:X}/.cache/embedding-gateway/cache.db"),
    ],
)
def test_without_a_file_vectors_last_in_the_cache_directory(environ, path):
    """The store lies where programs keep what can be made again, whatever that is called."""
    config = gateway_config.default(environ)
    assert config.cache.store == (SqliteAddress(Path(path)),)
    assert config.cache == gateway_config.with_server(config, workers=2, port=0).cache
    assert f'store = "sqlite://{path}"' in gateway_config.show(config)


@pytest.mark.parametrize("environ", [{}, {"HOME": "", "XDG_CACHE_HOME": ""}, {"HOME": "me"}])
def test_without_a_file_and_a_home_vectors_are_kept_in_memory(environ):
    """There is no place that is surely the user's, so nothing is written."""
    assert gateway_config.default(environ).cache.store == ()


def test_a_home_that_is_no_text_can_be_shown():
    """A directory's name may be any bytes; it is used as it is, and shown as well as can be."""
    config = gateway_config.default({"HOME": "/h\udcff"})
    assert str(config.cache.store[0].path).startswith("/h\udcff/")
    assert 'store = "sqlite:///h?/.cache/' in gateway_config.show(config).encode().decode()


def test_without_a_file_and_a_model_the_way_out_is_named():
    """Where llama.cpp is not installed and no key is set, the error says what to do."""
    with pytest.raises(ConfigError, match="there is no model: set OPENAI_API_KEY"):
        gateway_config.default({}, local=False)
