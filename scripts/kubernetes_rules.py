"""Writes the alert rules where Kubernetes needs them, from scripts/deploy/alerts.yml.

python scripts/kubernetes_rules.py

The Kustomize base has them as a PrometheusRule, and the Helm chart as a file that a template includes.
"""

import argparse
from pathlib import Path

DEPLOY = Path(__file__).parent / "deploy"
MADE_BY = "# Made by scripts/kubernetes_rules.py from scripts/deploy/alerts.yml.\n"
HEAD = """apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: reactor
spec:
"""


def rendered(alerts: str) -> dict[Path, str]:
    """Return the content of each file, by its path."""
    rules = "".join(line for line in alerts.splitlines(keepends=True) if not line.startswith("#"))
    indented = "".join(f"  {line}" if line.strip() else line for line in rules.splitlines(keepends=True))
    return {
        DEPLOY / "kubernetes" / "prometheusrule.yaml": MADE_BY + HEAD + indented,
        DEPLOY / "helm" / "files" / "alerts.yml": MADE_BY + rules,
    }


def main() -> None:
    """Write the files."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    for path, text in rendered((DEPLOY / "alerts.yml").read_text(encoding="utf-8")).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"written: {path.relative_to(DEPLOY.parents[1])}")


if __name__ == "__main__":
    main()
