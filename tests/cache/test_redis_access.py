"""The tier in Redis: who may reach it, over what, and what it may do there."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import gateway.cache.redis
from gateway.cache.redis import RedisStore
from gateway.cache.store import StoreError
from gateway.errors import ConfigError
from tests.backends.sockets import make_authority
from tests.cache.redis_verbs import (
    PREFIX,
    RedisContract,
    failure,
    opened,
    put_stranger,
    reasons,
    record,
)
from tests.cache.store_contract import NAMESPACE, key
from tests.redis_server import RedisServer, free_port, serve_redis

RULES = re.search(r"user gateway on (.*?)\n\n", gateway.cache.redis.__doc__, re.DOTALL)[1].split()
"""The rights that the module says it needs."""


def grant(server: RedisServer, rules: list[str]) -> str:
    """Let a user do this and no more; return the address for that user, and database 3."""
    rules = [">s3cret/" if rule.startswith(">") else rule for rule in rules]
    server.admin.execute_command("ACL SETUSER", "gateway", "reset", "on", *rules)
    return f"redis://gateway:s3cret%2F@127.0.0.1:{server.port}/3"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with serve_redis(tmp_path / "redis") as server:
        yield server


class TestAsAUserWithFewRights(RedisContract):
    """The contract, kept with no other rights than those that we ask for."""

    @pytest.fixture(autouse=True)
    def _reach(self, server):
        self.servers = [server]
        self.url = grant(server, RULES)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisServer, str, str]]:
    """A server that wants TLS and a certificate of us, its address, and the files for both."""
    ca, certificate, its_key = make_authority(tmp_path_factory.mktemp("tls"))
    port = str(free_port())
    options = ["--tls-port", port, "--tls-ca-cert-file", str(ca)]
    options += ["--tls-cert-file", str(certificate), "--tls-key-file", str(its_key)]
    with serve_redis(tmp_path_factory.mktemp("sealed"), *options) as server:
        files = f"ssl_ca_certs={ca}&ssl_certfile={certificate}&ssl_keyfile={its_key}"
        yield server, f"rediss://127.0.0.1:{port}", files


class TestOverTls(RedisContract):
    """The contract over TLS, with certificates on both sides."""

    @pytest.fixture(autouse=True)
    def _reach(self, tls):
        server, address, files = tls
        self.servers = [server]
        self.url = f"{address}?{files}"

    def test_a_server_that_nobody_vouches_for_is_not_talked_to(self, tls):
        """Without its authority's certificate there is no connection."""

        async def check():
            async with opened(tls[1]) as store:
                error = await failure(store.facts())
            assert error.reason == "connect"
            assert "CERTIFICATE_VERIFY_FAILED" in str(error)

        asyncio.run(check())

    def test_a_certificate_that_is_none_is_a_mistake_in_the_config(self, tmp_path, tls):
        """It is found before anybody connects."""
        (tmp_path / "ca.pem").write_text("no certificate")
        with pytest.raises(ConfigError, match="certificates"):
            RedisStore(f"{tls[1]}?ssl_ca_certs={tmp_path / 'ca.pem'}")


async def use(server: RedisServer, url: str) -> None:
    """Do everything that can be done with one server, in database 3."""
    server.admin.execute_command("SELECT", 3)
    async with opened(url) as store:
        made = {key(n): record(n, 5.0) for n in range(2)}
        await store.add(NAMESPACE, made)
        put_stranger(server, "list", server.admin.keys(PREFIX + "*")[0].decode())
        await store.add(NAMESPACE, made)
        await store.get(NAMESPACE, list(made))
        facts = await store.facts()
        assert await store.swap("epoch", facts["epoch"], b"new")
        await store.usage()
        await store.namespaces()
        assert [batch async for batch in store.scan(NAMESPACE)] == [made]
        assert await store.purge(NAMESPACE, 1.0) == 0
        assert await store.discard(NAMESPACE, made) == 2


def test_the_rights_that_we_ask_for_suffice(server):
    """They are the ones in the module's documentation."""
    asyncio.run(use(server, grant(server, RULES)))


@pytest.mark.parametrize("missing", [rule for rule in RULES if rule[0] in "+~"])
def test_no_right_is_asked_for_in_vain(server, missing):
    """Without any one of them something fails; what only a cluster needs is tried with one."""
    url = grant(server, [rule for rule in RULES if rule != missing])
    if missing in {"+cluster|slots", "+asking"}:
        asyncio.run(use(server, url))
        return
    with pytest.raises(StoreError) as caught:
        asyncio.run(use(server, url))
    in_script = missing in {"+get", "+unlink", "+type", "+hget", "+hset", "+hsetnx"}
    assert caught.value.reason == ("error" if in_script else "refused")


@pytest.mark.parametrize("user", ["", "gateway:wrong@", ":wrong@", "poor:p@"])
def test_who_may_not_is_refused(server, user):
    """Without a password, with a wrong one, and with no rights to what is ours."""

    async def check():
        server.admin.execute_command("ACL SETUSER", "poor", "on", ">p", "~x:*", "+@all", "-info")
        server.admin.config_set("requirepass", "open sesame")
        async with opened(server.url.replace("//", f"//{user}")) as store:
            assert await reasons(store) == {"refused"}

    asyncio.run(check())


def test_a_password_that_nobody_set_is_refused(server):
    """The address was meant for another server, or this one is open to all."""

    async def check():
        async with opened(server.url.replace("//", "//:needless@")) as store:
            assert await reasons(store) == {"refused"}

    asyncio.run(check())
