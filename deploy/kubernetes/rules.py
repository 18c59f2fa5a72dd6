"""Writes the rules for the Prometheus operator: python deploy/kubernetes/rules.py.

They are those of deploy/prometheus, and kept in monitoring/prometheus-rule.yaml, since kustomize
cannot make one from the other: whoever changes them runs this again.
"""

from pathlib import Path
from textwrap import indent

HERE = Path(__file__).parent
RULE = HERE / "monitoring" / "prometheus-rule.yaml"
FILES = [HERE.parent / "prometheus" / name for name in ("recording.yml", "alerts.yml")]

_HEAD = """\
# Written by rules.py from the files in deploy/prometheus: change those.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: embedding-gateway
  labels:
    app.kubernetes.io/name: embedding-gateway
spec:
  groups:
"""


def text() -> str:
    """Return the manifest; the same each time."""
    groups = (path.read_text().partition("\ngroups:\n")[2] for path in FILES)
    return _HEAD + "\n".join(indent(group, "  ") for group in groups)


if __name__ == "__main__":
    RULE.write_text(text())
