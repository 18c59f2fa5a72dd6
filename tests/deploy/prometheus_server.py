"""A real Prometheus for tests: on a free port, with its data in a folder of its own.

with serve_prometheus(folder, config) as prometheus:
    prometheus.query("up")
"""

import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests.redis_server import free_port, wait_for

INTERVAL_MS = 500
"""From one scrape to the next, and between two looks at the rules."""


def command(name: str) -> str:
    """Return the path of `prometheus` or `promtool`; skip the test where there is none."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no `{name}` command (Debian, Ubuntu: apt-get install prometheus)")
    return found


def promtool(*arguments: str | Path, read: str | None = None) -> str:
    """Run promtool, which may `read` a text; return what it said.

    Raises AssertionError, with that, where it finds something wrong.
    """
    ran = subprocess.run(
        [command("promtool"), *arguments],
        input=read,
        check=False,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


class Prometheus:
    """A running Prometheus, asked over HTTP as Grafana asks it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._http = httpx2.Client(base_url=f"{address}/api/v1", timeout=30, trust_env=False)

    def get(self, path: str, **parameters: Any) -> Any:
        """Return the data of an answer of its API; raises AssertionError where it refuses."""
        answer = self._http.get(path, params=parameters)
        assert answer.status_code == 200, f"{parameters}: {answer.text}"
        return answer.json()["data"]

    def query(self, expression: str) -> list[tuple[Mapping[str, str], float]]:
        """Return labels and value of all that an expression has now."""
        found = self.get("/query", query=expression)["result"]
        return [(series["metric"], float(series["value"][1])) for series in found]

    def values(self, expression: str, start: float) -> list[float]:
        """Return all values of an expression from a (Unix) time until now, two for each second."""
        times = {"start": start, "end": time.time(), "step": 0.5}
        found = self.get("/query_range", query=expression, **times)["result"]
        return [float(value) for series in found for _, value in series["values"]]

    def samples(self, selector: str, window: str = "1h") -> list[tuple[Mapping[str, str], list]]:
        """Return labels and scraped values, oldest first, of all series that a selector finds."""
        found = self.get("/query", query=f"{selector}[{window}]")["result"]
        return [
            (series["metric"], [(at, float(value)) for at, value in series["values"]])
            for series in found
        ]

    def firing(self) -> dict[str, dict[str, Any]]:
        """Return the alerts that fire now, by name."""
        active = self.get("/alerts")["alerts"]
        return {a["labels"]["alertname"]: a for a in active if a["state"] == "firing"}

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()


@contextmanager
def serve_prometheus(
    folder: Path, targets: Mapping[str, str], rules: Sequence[Path] = (), *, key: str = "none"
) -> Iterator[Prometheus]:
    """Run one that scrapes each job's target (`host:port`) and evaluates these files of rules.

    `key` is what it shows at /metrics. Raises AssertionError where it does not start.
    """
    config = {
        "global": {
            "scrape_interval": f"{INTERVAL_MS}ms",
            "evaluation_interval": f"{INTERVAL_MS}ms",
        },
        "rule_files": [str(path) for path in rules],
        "scrape_configs": [
            {
                "job_name": job,
                "authorization": {"credentials": key},
                "static_configs": [{"targets": [target]}],
            }
            for job, target in targets.items()
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    options = {
        "config.file": "prometheus.yml",
        "storage.tsdb.path": "data",
        "web.listen-address": address,
        "log.level": "warn",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([command("prometheus"), *flags], cwd=folder, stderr=log)
    prometheus = Prometheus(f"http://{address}")
    try:
        wait_for(lambda: _is_ready(prometheus, process, folder / "log"))
        yield prometheus
    finally:
        prometheus.close()
        process.terminate()
        process.wait(30)


def _is_ready(prometheus: Prometheus, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    with suppress(httpx2.TransportError):
        return httpx2.get(f"{prometheus.address}/-/ready", trust_env=False).status_code == 200
    return False
