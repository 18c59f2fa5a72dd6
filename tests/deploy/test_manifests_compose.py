"""deploy/compose.yaml: valid, closed to other machines, and made of parts that fit each other."""

import json
import re
import shutil
import subprocess
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import openai
import pytest
import yaml

from gateway.config import load, parse
from tests.deploy.manifests import BOARD, ROOT
from tests.processes import gateway_process
from tests.redis_server import serve_redis

COMPOSE = ROOT / "deploy" / "compose.yaml"
PROJECT: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
SERVICES: dict[str, dict[str, Any]] = PROJECT["services"]
CONFIG = COMPOSE.parent / "compose" / "gateway.toml"
VALKEY = "redis://valkey:6379/"
DCLINT = ROOT / "tests" / "node" / "node_modules" / "dclint"


@pytest.fixture
def dclint() -> Path:
    """The linter of compose files, which brings their specification's schema."""
    if not DCLINT.is_dir():
        pytest.skip("the linter of compose files is not installed: npm ci --prefix tests/node")
    return DCLINT


def test_it_is_valid(dclint):
    """By the specification's own schema, which knows every key."""
    schema = json.loads((dclint / "schemas" / "compose.schema.json").read_text())
    validator = jsonschema.Draft7Validator(schema)
    assert [error.message for error in validator.iter_errors(PROJECT)] == []
    wrong = SERVICES["gateway"] | {"readonly": True}
    assert not validator.is_valid(PROJECT | {"services": {"gateway": wrong}})


def test_nothing_is_found_by_dclint(dclint):
    """No port that is published to all, no image without a version, no name that is not there."""
    node = shutil.which("node") or pytest.skip("Node.js is not installed")
    words = [node, str(dclint / "bin" / "dclint.cjs"), "--quiet", str(COMPOSE)]
    ran = subprocess.run(words, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert (ran.returncode, ran.stdout.strip()) == (0, "")


@pytest.mark.parametrize("name", SERVICES)
def test_services_may_do_nothing_but_their_work(name):
    """No capabilities, none to be had, a root that is read-only, a port on this machine alone."""
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert "build" in service or re.search(r":v?\d+\.\d+", service["image"])
    assert "build" in service or "healthcheck" in service  # our image has its own


def test_what_is_mounted_is_there():
    """Docker makes an empty directory of what is missing; and nothing of ours is written to."""
    for service in SERVICES.values():
        for source, _, *mode in (volume.split(":") for volume in service["volumes"]):
            if source.startswith("."):
                assert (COMPOSE.parent / source).exists(), source
                assert mode == ["ro"]
            else:
                assert source in PROJECT["volumes"]


def test_only_the_gateway_reaches_valkey():
    """Who may write there decides what is served; and Valkey has no password here."""
    assert PROJECT["networks"]["store"] == {"internal": True}
    on_it = [name for name, service in SERVICES.items() if "store" in service.get("networks", [])]
    assert on_it == ["gateway", "valkey"]
    assert SERVICES["valkey"]["networks"] == ["store"]
    assert "ports" not in SERVICES["valkey"]


def test_the_gateway_has_the_time_to_end_well():
    """What it takes to end is shorter than what Docker gives it."""
    server = load(CONFIG, {}).server
    given = float(SERVICES["gateway"]["stop_grace_period"].removesuffix("s"))
    assert given >= server.drain_delay + server.drain_timeout + 5


def test_prometheus_and_grafana_find_what_they_read():
    """By the names of services and the places of mounts."""
    settings = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    (job,) = settings["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"gateway:{load(CONFIG, {}).server.port}"]}]
    assert "default" in SERVICES["gateway"]["networks"]
    provisioning = COMPOSE.parent / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    (boards,) = yaml.safe_load((provisioning / "dashboards" / "embedding-gateway.yml").read_text())[
        "providers"
    ]
    grafana = SERVICES["grafana"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{boards['options']['path']}/{BOARD.name}"
    assert f"./grafana/{BOARD.name}:{home}:ro" in grafana["volumes"]


def test_openai_is_a_few_comments_away():
    """What stands there as a comment is right, once its key is there."""
    text = re.sub(r"^#(\S|$)", r"\1", CONFIG.read_text(), flags=re.MULTILINE)
    text = text.removeprefix(":schema ../../config/schema.json\n")
    environ = {"OPENAI_API_KEY": "sk-of-nobody", "CACHE_SECRET": "sixteen-or-more-characters"}
    assert set(environ) <= SERVICES["gateway"]["environment"].keys()
    config = parse(text, source=None, environ=environ, base_dir=CONFIG.parent)
    assert {"text-embedding-3-*", "gpt-*", "all-minilm-l6-v2"} == set(config.models)
    assert config.cache.secret is not None


def test_its_config_fits_the_schema():
    """An editor that checks it against the schema finds nothing to complain of."""
    schema = json.loads((ROOT / "config" / "schema.json").read_text())
    jsonschema.Draft7Validator(schema).validate(tomllib.loads(CONFIG.read_text()))
    assert CONFIG.read_text().startswith("#:schema ../../config/schema.json\n")


@pytest.mark.engine
def test_the_gateway_of_it_serves(tmp_path: Path):
    """Its config on a real gateway, beside a redis-server with Valkey's options."""
    if find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is missing (extra [local])")
    text = CONFIG.read_text()
    assert VALKEY in text
    options = SERVICES["valkey"]["command"].replace('""', "").split()[1:]
    given = [option for option in options if option != "--save"]
    with (
        serve_redis(tmp_path / "valkey", *given) as server,
        gateway_process(text.replace(VALKEY, f"{server.url}/")) as served,
    ):
        client = openai.OpenAI(base_url=served.base_url, api_key="any")
        with client:
            answer = client.embeddings.create(model="all-minilm-l6-v2", input="one text")
        assert len(answer.data[0].embedding) == 384
        assert server.admin.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lfu"}
        page = httpx2.get(f"{served.address}/metrics", trust_env=False).text  # as Prometheus does
        assert 'gateway_store_up{tier="redis"} 1.0' in page
