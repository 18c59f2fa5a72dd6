"""The pods of deploy/kubernetes, run here: their config, their Valkey, their probes.

What differs is where things lie: a directory in place of the mounts, 127.0.0.1 in place of the
Service, a fake OpenAI, and Debian's redis-server under Valkey's name.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest
import redis

from tests.deploy.manifests import KUBERNETES, of_kind, pods
from tests.processes import GatewayProcess, gateway_process
from tests.redis_server import free_port, wait_for
from tests.upstream import FakeOpenAI

OPENAI = "https://api.openai.com/v1"
VALKEY = "@valkey:6379/"


def secret(key: str) -> str:
    """Return what the Secret of these pods has under a name."""
    return f"sixteen-or-more-characters-of-{key}"


@contextmanager
def valkey(place: Path) -> Iterator[int]:
    """Run the command of Valkey's pod; yield its port."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("no `redis-server` command (Debian, Ubuntu: apt-get install redis-server)")
    for name in ("bin", "data"):
        (place / name).mkdir(parents=True)
    (place / "bin" / "valkey-server").symlink_to(server)
    (place / "valkey-password").write_text(secret("valkey-password") + "\n")
    port = free_port()
    settings = (KUBERNETES / "valkey" / "valkey.conf").read_text()
    listening = f"\nport {port}\nbind 127.0.0.1\nlogfile {place}/log\n"
    (place / "valkey.conf").write_text(settings.replace("/data", f"{place}/data") + listening)
    (container,) = pods()["valkey"]["spec"]["containers"]
    script = container["args"][0].replace("/etc/valkey", str(place))
    process = subprocess.Popen(
        [*container["command"], script.replace("/run/secrets/valkey", str(place))],
        env={"PATH": f"{place}/bin:/usr/bin:/bin"},
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: process.poll() is not None or answers(port))
        assert process.poll() is None, (place / "log").read_text()
        yield port
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    """Return whether somebody listens there who wants a password."""
    with suppress(redis.ConnectionError), redis.Redis(port=port, retry=None) as nobody:
        try:
            nobody.ping()
        except redis.AuthenticationError:
            return True
    return False


@pytest.fixture
def pod(tmp_path: Path, fake_openai: FakeOpenAI) -> Iterator[GatewayProcess]:
    """A gateway as in its pod, beside Valkey as in its own."""
    text = (KUBERNETES / "base" / "gateway.toml").read_text()
    assert OPENAI in text
    assert VALKEY in text
    volume = pods()["embedding-gateway"]["spec"]["volumes"][0]["projected"]
    for item in volume["sources"][1]["secret"]["items"]:
        file = tmp_path / item["path"]
        file.parent.mkdir(exist_ok=True)
        file.write_text(secret(item["key"]) + "\n")
    fake_openai.key = secret("openai-api-key")
    with valkey(tmp_path / "valkey") as port:
        text = text.replace(OPENAI, fake_openai.base_url).replace(VALKEY, f"@127.0.0.1:{port}/")
        (tmp_path / "gateway.toml").write_text(text)
        with gateway_process(None, config=tmp_path / "gateway.toml") as served:
            yield served


def test_the_pod_serves_whom_it_should(pod: GatewayProcess):
    """Probes need no key, clients theirs, Prometheus its own; vectors go through Valkey."""
    (container,) = pods()["embedding-gateway"]["spec"]["containers"]
    (endpoint,) = next(of_kind("ServiceMonitor"))["spec"]["endpoints"]
    with httpx2.Client(base_url=pod.address, trust_env=False) as client:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert client.get(container[probe]["httpGet"]["path"]).status_code == 200
        assert client.get(endpoint["path"]).status_code == 401

        def told(key: str) -> httpx2.Response:
            headers = {"authorization": f"{endpoint['authorization']['type']} {secret(key)}"}
            return client.get(endpoint["path"], headers=headers)

        assert told("client-key").status_code == 403
        headers = {"authorization": f"Bearer {secret('client-key')}"}
        body = {"model": "text-embedding-3-small", "input": ["one", "two"]}
        first, second = (client.post("/v1/embeddings", json=body, headers=headers) for _ in "12")
        assert (first.status_code, second.status_code) == (200, 200)
        assert first.json()["data"] == second.json()["data"]
        page = told("metrics-key").text
    assert 'gateway_store_up{tier="redis"} 1.0' in page
    assert 'gateway_cache_operations_total{operation="add",result="ok",tier="redis"} 1.0' in page
    # Neither a secret of the gateway's own making nor a right that Valkey's user lacks.
    assert [line for line in pod.lines if '"level": "warning"' in line] == []


def test_valkeys_user_is_the_one_that_readme_tells_of():
    """With one right more, which limits of keys need."""
    readme = (KUBERNETES.parent / "README.md").read_text()
    (told,) = re.findall(r"^ *user gateway .*$", readme, re.MULTILINE)
    (container,) = pods()["valkey"]["spec"]["containers"]
    (made,) = re.findall(r"^ *user gateway .*$", container["args"][0], re.MULTILINE)
    assert {*told.split()[4:], "+time"} == set(made.partition(") ")[2].split())


def test_valkeys_user_may_do_no_more_than_the_gateway_does(tmp_path: Path):
    """Nobody may come in without the password, and with it nobody may reach other keys."""
    with valkey(tmp_path / "valkey") as port:
        known = {"username": "gateway", "password": secret("valkey-password")}
        with redis.Redis(port=port, retry=None, **known) as gateway:
            assert gateway.set("embgw:1:x", b"y")
            for forbidden in ("FLUSHALL", "CONFIG GET dir", "ACL LIST", "GET other", "KEYS *"):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    gateway.execute_command(*forbidden.split())
