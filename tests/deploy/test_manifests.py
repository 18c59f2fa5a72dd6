"""deploy/kubernetes: valid to the last field, and made of parts that fit each other."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config import Config, load
from tests.deploy.manifests import (
    BOARD,
    KEPT,
    KUBERNETES,
    ROOT,
    RULE,
    built,
    digest,
    kept,
    manifests,
    of_kind,
    pods,
    shortened,
)

NODE = ROOT / "tests" / "node"
LARGEST = 250_000
"""Bytes: `kubectl apply` keeps a copy in an annotation, and all of them may have 262,144."""


def wrong_with(documents: list[dict[str, Any]]) -> list[str]:
    """Return what the schemas of Kubernetes and of the Prometheus operator find."""
    node = shutil.which("node") or pytest.skip("Node.js is not installed")
    if not (NODE / "node_modules" / "kubernetes-models").is_dir():
        pytest.skip("the schemas are not installed: npm ci --prefix tests/node")
    ran = subprocess.run(
        [node, str(NODE / "manifests.mjs")],
        input=json.dumps(documents),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return list(json.loads(ran.stdout))


def test_every_manifest_is_valid():
    """Every field is known to its kind, and of its type."""
    made = manifests()
    assert {manifest["kind"] for manifest in made} >= {
        "Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy",
        "ServiceMonitor", "PrometheusRule", "ConfigMap", "StatefulSet", "ServiceAccount",
    }  # fmt: skip
    assert wrong_with(made) == []


def test_a_wrong_manifest_is_found():
    """A field that nobody knows, deep inside, and one of another type: in either set of schemas."""
    deployment = next(of_kind("Deployment"))
    deployment["spec"]["template"]["spec"]["containers"][0]["readOnly"] = True
    service = next(of_kind("Service"))
    service["spec"]["ports"][0]["port"] = "8000"
    monitor = next(of_kind("ServiceMonitor"))
    monitor["spec"]["endpoints"][0]["authorization"]["credentials"]["file"] = "x"
    wrong = wrong_with([deployment, service, monitor])
    assert "/spec/template/spec/containers/0/readOnly: unknown" in wrong[0]
    assert "Service embedding-gateway: " in wrong[1]
    assert "/spec/endpoints/0/authorization/credentials/file: unknown" in wrong[2]


def test_what_kustomize_made_is_kept():
    """Else what is checked where it is missing would not be what is there."""
    assert KEPT.read_text().splitlines()[1] == f"# {digest()}", "python -m tests.deploy.manifests"
    made = built()
    if made is not None:
        assert [shortened(manifest) for manifest in made] == kept()


def test_none_is_too_large_to_be_applied():
    """The board is, by far, the largest."""
    sizes = {m["metadata"]["name"]: len(json.dumps(m)) for m in manifests()}
    assert {name: size for name, size in sizes.items() if size > LARGEST} == {}


def test_the_operator_has_the_same_rules_as_prometheus():
    """They are copied by a program, into a manifest that is kept."""
    files = ("recording.yml", "alerts.yml")
    texts = [(ROOT / "deploy" / "prometheus" / file).read_text() for file in files]
    groups = [group for text in texts for group in yaml.safe_load(text)["groups"]]
    message = "python deploy/kubernetes/rules.py"
    assert yaml.safe_load(RULE.read_text())["spec"] == {"groups": groups}, message
    assert next(of_kind("PrometheusRule"))["spec"] == {"groups": groups}


def test_grafana_finds_the_board():
    """The sidecar of its chart looks for the label."""
    boards = [m for m in of_kind("ConfigMap") if "grafana_dashboard" in m["metadata"]["labels"]]
    assert [m["data"] for m in boards] == [{BOARD.name: BOARD.read_text()}]


@pytest.mark.parametrize("name", pods())
def test_pods_may_do_nothing_but_their_work(name):
    """What the strictest of Kubernetes' standards wants, a root that is read-only, and no token."""
    namespace = next(of_kind("Namespace"))["metadata"]
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    spec = pods()[name]["spec"]
    assert spec["automountServiceAccountToken"] is False
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} == set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


def test_selectors_find_what_they_are_for():
    """Each finds the pods of one, and ports are named as there."""
    labels = {name: pod["metadata"]["labels"] for name, pod in pods().items()}
    for manifest in manifests():
        spec, name = manifest.get("spec") or {}, manifest["metadata"]["name"]
        wanted = spec.get("podSelector") or spec.get("selector") or {}
        wanted = wanted.get("matchLabels", wanted)
        assert not wanted or wanted == labels[name], manifest["kind"]
    for service in of_kind("Service"):
        (container,) = pods()[service["metadata"]["name"]]["spec"]["containers"]
        names = [port["name"] for port in container["ports"]]
        assert [port["targetPort"] for port in service["spec"]["ports"]] == names
    monitor = next(of_kind("ServiceMonitor"))["spec"]
    watched = [s for s in of_kind("Service") if monitor["selector"]["matchLabels"].items()
               <= s["metadata"]["labels"].items()]  # fmt: skip
    assert [service["metadata"]["name"] for service in watched] == ["embedding-gateway"]
    assert monitor["endpoints"][0]["port"] == watched[0]["spec"]["ports"][0]["name"]
    scaled = next(of_kind("HorizontalPodAutoscaler"))["spec"]["scaleTargetRef"]
    assert (scaled["kind"], scaled["name"]) == ("Deployment", "embedding-gateway")
    assert "replicas" not in next(of_kind("Deployment"))["spec"]  # they would fight over it


def test_another_config_is_another_rollout():
    """The Deployment names the ConfigMap by its content."""
    (config,) = [m for m in of_kind("ConfigMap") if "gateway.toml" in m["data"]]
    name = config["metadata"]["name"]
    assert re.fullmatch(r"embedding-gateway-[a-z0-9]{10}", name)
    assert config["data"]["gateway.toml"] == (KUBERNETES / "base" / "gateway.toml").read_text()
    sources = pods()["embedding-gateway"]["spec"]["volumes"][0]["projected"]["sources"]
    assert sources[0]["configMap"]["name"] == name


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The config of the pods, where the files that it names are as they are mounted there."""
    (tmp_path / "gateway.toml").write_text((KUBERNETES / "base" / "gateway.toml").read_text())
    for path in mounted_secrets().values():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(f"sixteen-or-more-characters-of-{Path(path).name}\n")
    return load(tmp_path / "gateway.toml", {})


def mounted_secrets() -> dict[str, str]:
    """Return the values of the Secret that the gateway's pods have, and the file of each."""
    sources = pods()["embedding-gateway"]["spec"]["volumes"][0]["projected"]["sources"]
    return {item["key"]: item["path"] for item in sources[1]["secret"]["items"]}


def test_a_pod_has_the_time_to_end_well(config):
    """What the gateway takes to end is shorter than what Kubernetes gives it, and heard of."""
    assert config.warnings == ()
    spec = pods()["embedding-gateway"]["spec"]
    server = config.server
    assert spec["terminationGracePeriodSeconds"] >= server.drain_delay + server.drain_timeout + 5
    readiness = spec["containers"][0]["readinessProbe"]
    assert readiness["periodSeconds"] * readiness["failureThreshold"] < server.drain_delay
    assert spec["containers"][0]["ports"][0]["containerPort"] == server.port


def test_the_secret_that_is_told_is_the_one_that_is_used(config):
    """README's command makes every value that a pod or Prometheus reads, and no other."""
    readme = (ROOT / "deploy" / "README.md").read_text()
    told = set(re.findall(r"--from-literal=([a-z-]+)=", readme))
    valkeys = pods()["valkey"]["spec"]["volumes"][1]["secret"]
    monitors = next(of_kind("ServiceMonitor"))["spec"]["endpoints"][0]["authorization"]
    assert set(mounted_secrets()) == told
    assert {item["key"] for item in valkeys["items"]} <= told
    assert monitors["credentials"] == {"name": valkeys["secretName"], "key": "metrics-key"}
    (admin,) = [key for key in config.keys if key.admin]
    assert admin.secret.matches("sixteen-or-more-characters-of-metrics-key")
