"""What kustomize makes of deploy/kubernetes/overlay, as data.

Where there is a kustomize (kubectl has one), it is asked. Elsewhere manifests.yaml is read, which
it made of the files that are there now: a digest of them stands in it. After a change of one of
them, `python -m tests.deploy.manifests` writes it anew.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
BOARD = ROOT / "deploy" / "grafana" / "embedding-gateway.json"
RULE = KUBERNETES / "monitoring" / "prometheus-rule.yaml"
KEPT = Path(__file__).with_name("manifests.yaml")

Manifest = dict[str, Any]


def built() -> list[Manifest] | None:
    """Return what the real kustomize makes; None where there is none."""
    text = _built()
    return None if text is None else list(yaml.safe_load_all(text))


@cache
def _built() -> bytes | None:
    for command in (["kubectl", "kustomize"], ["kustomize", "build"]):
        if shutil.which(command[0]):
            overlay = str(KUBERNETES / "overlay")
            ran = subprocess.run([*command, overlay], capture_output=True, check=True, timeout=60)
            assert ran.stderr == b""  # it tells there of what is deprecated
            return ran.stdout
    return None


def manifests() -> list[Manifest]:
    """Return all manifests of the overlay."""
    return built() or [_whole(manifest) for manifest in kept()]


def kept() -> list[Manifest]:
    """Return what manifests.yaml holds; what others write is left out there."""
    return list(yaml.safe_load_all(KEPT.read_text()))


def shortened(manifest: Manifest) -> Manifest:
    """Return a manifest as it is kept: without the rules and the board, which change often."""
    if manifest["kind"] == "PrometheusRule":
        return manifest | {"spec": None}
    if manifest.get("data", {}).keys() == {BOARD.name}:
        return manifest | {"data": {BOARD.name: None}}
    return manifest


def _whole(manifest: Manifest) -> Manifest:
    if manifest["kind"] == "PrometheusRule":
        return manifest | {"spec": yaml.safe_load(RULE.read_text())["spec"]}
    if manifest.get("data", {}).keys() == {BOARD.name}:
        return manifest | {"data": {BOARD.name: BOARD.read_text()}}
    return manifest


def digest() -> str:
    """Return a digest of all files that kustomize reads, but for the rules and the board."""
    files = [path for path in KUBERNETES.rglob("*.*") if path.suffix in {".yaml", ".toml", ".conf"}]
    files = [path for path in files if path != RULE] + [BOARD.with_name("kustomization.yaml")]
    named = {str(path.relative_to(ROOT)): path.read_text() for path in files}
    return sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def of_kind(kind: str) -> Iterator[Manifest]:
    """Yield the manifests of a kind."""
    return (manifest for manifest in manifests() if manifest["kind"] == kind)


def pods() -> dict[str, Manifest]:
    """Return the pods that are made, by the name of what makes them."""
    makers = [*of_kind("Deployment"), *of_kind("StatefulSet")]
    return {maker["metadata"]["name"]: maker["spec"]["template"] for maker in makers}


def main() -> None:
    """Write manifests.yaml."""
    made = built()
    if made is None:
        raise SystemExit("There is neither kubectl nor kustomize.")
    shown = yaml.safe_dump_all(map(shortened, made), sort_keys=True, width=100)
    KEPT.write_text(f"# Written by manifests.py: see there.\n# {digest()}\n{shown}")


if __name__ == "__main__":
    main()
