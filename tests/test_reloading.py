"""What two configs have in common: what needs a restart, what has changed, and their names."""

import pytest
from config_texts import parse

from gateway.running.reloading import at_start, config_hash, sections

BASE = """
[server]
{server}
[cache]
{cache}
[upstreams.o]
kind = "openai"
base_url = "http://o/v1"
api_key = "{key}"
[models.m]
upstreams = ["o"]
{model}
"""


def config(server="", cache="", key="some-key", model=""):
    return parse(BASE.format(server=server, cache=cache, key=key, model=model))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"server": 'host = "::1"'}, ["server.host"]),
        ({"server": "port = 1"}, ["server.port"]),
        ({"server": "workers = 2", "cache": "memory = 0"}, ["server.workers", "cache.memory"]),
        ({"server": 'admin = "127.0.0.1:1"'}, ["server.admin"]),
        ({"server": 'forwarded_allow_ips = "*"'}, ["server.forwarded_allow_ips"]),
        ({"server": 'log_level = "debug"\nlog_format = "json"'},
         ["server.log_level", "server.log_format"]),
        ({"cache": 'store = "sqlite:///c.db"'}, ["cache.store"]),
        ({"cache": 'secret = "0123456789abcdef"\nttl = "1d"'}, ["cache.secret", "cache.ttl"]),
    ],
)  # fmt: skip
def test_what_needs_a_restart_is_named(changed, named):
    """All of it at once."""
    assert at_start(config(), config(**changed)) == named


@pytest.mark.parametrize(
    "changed",
    [
        {"server": 'request_timeout = "1s"\nchat_timeout = "1s"\nmax_body = 5'},
        {"server": 'watch = false\ndrain_delay = "0s"\ndrain_timeout = "1s"'},
        {"key": "other-key"},
        {"model": 'dimensions = "any"'},
    ],
)
def test_everything_else_changes_while_it_runs(changed):
    """Nothing of it is refused."""
    assert at_start(config(), config(**changed)) == []


def test_a_certificate_may_lie_elsewhere_but_not_come_and_go(tmp_path):
    """The listener speaks TLS or it does not."""
    one, other = (
        config(f'tls_cert = "{tmp_path}/{name}"\ntls_key = "{tmp_path}/{name}"')
        for name in ("one", "other")
        if (tmp_path / name).write_text("pem")
    )
    assert at_start(one, other) == []
    assert at_start(config(), one) == at_start(one, config()) == ["server.tls_cert"]


def test_the_hash_is_of_what_is_in_effect_without_secrets():
    """Equal for equal configs, also where a default is written out; a key does not show in it."""
    plain = config_hash(config())
    assert config_hash(config("port = 8000")) == plain
    assert config_hash(config(key="another-key")) == plain
    assert config_hash(config(model='dimensions = "any"')) != plain


def test_what_changed_is_told_by_tables():
    """In the line about a reload."""
    assert sections(config(), config()) == []
    assert sections(config(), config("max_body = 5", key="x-key")) == ["server", "upstreams"]
    assert sections(config(), config(model='dimensions = "any"')) == ["models"]
