"""The Kustomize base and the Helm chart: valid, alike, and in step with the alerts and the node's times."""

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reactor.server import node as node_module
from reactor.settings import Settings, setting_fields
from reactor.settings.load import advice, load
from scripts.kubernetes_rules import rendered
from tests.support.waiting import PATIENCE

DEPLOY = Path(__file__).parents[2] / "scripts" / "deploy"
BASE, CHART = DEPLOY / "kubernetes", DEPLOY / "helm"
NAME = "app.kubernetes.io/name"

REQUIRED = {
    "Deployment": (
        "spec.selector.matchLabels",
        "spec.template.metadata.labels",
        "spec.template.spec.containers",
    ),
    "Service": ("spec.selector", "spec.ports"),
    "PodDisruptionBudget": ("spec.selector.matchLabels", "spec.maxUnavailable"),
    "HorizontalPodAutoscaler": ("spec.scaleTargetRef.name", "spec.maxReplicas", "spec.metrics"),
    "NetworkPolicy": ("spec.podSelector.matchLabels", "spec.policyTypes", "spec.ingress", "spec.egress"),
    "ServiceMonitor": ("spec.selector.matchLabels", "spec.endpoints"),
    "PrometheusRule": ("spec.groups",),
    "Ingress": ("spec.rules",),
}
"""The fields without which an object of this kind is refused, or does nothing."""

ALL_ON = (
    "--set", "autoscaling.enabled=true,serviceMonitor.enabled=true,prometheusRule.enabled=true",
    "--set", "ingress.enabled=true",
)  # fmt: skip


def program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on PATH (go install {package})")
    return found


def output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout


def helm(*arguments: str) -> list[dict[str, Any]]:
    """The objects of the chart."""
    binary = program("helm", "helm.sh/helm/v3/cmd/helm@latest")
    return list(yaml.safe_load_all(output(binary, "template", "rooms", str(CHART), *arguments)))


def base() -> list[dict[str, Any]]:
    """The objects of the base, as they stand in its files."""
    files = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    return [yaml.safe_load((BASE / file).read_text()) for file in files]


def at(value: Any, path: str) -> Any:
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def check(objects: list[dict[str, Any]]) -> None:
    """Check the fields, and that every selector chooses the pods and nothing else names a missing port."""
    by_kind = {one["kind"]: one for one in objects}
    assert set(by_kind) - {"Ingress"} == set(REQUIRED) - {"Ingress"}
    for kind, one in by_kind.items():
        assert one["apiVersion"]
        assert re.fullmatch(r"[a-z0-9-]{1,63}", one["metadata"]["name"])
        for path in REQUIRED[kind]:
            assert at(one, path), f"{kind} lacks {path}"
    labels = at(by_kind["Deployment"], "spec.template.metadata.labels")
    for kind, path in (
        ("Deployment", "spec.selector.matchLabels"),
        ("Service", "spec.selector"),
        ("PodDisruptionBudget", "spec.selector.matchLabels"),
        ("NetworkPolicy", "spec.podSelector.matchLabels"),
    ):
        chosen = at(by_kind[kind], path)
        assert chosen[NAME] == "reactor"
        assert chosen.items() <= labels.items(), kind
    chosen = at(by_kind["ServiceMonitor"], "spec.selector.matchLabels")
    assert chosen.items() <= {NAME: "reactor", **by_kind["Service"]["metadata"].get("labels", {})}.items()
    (container,) = at(by_kind["Deployment"], "spec.template.spec.containers")
    ports = {port["name"] for port in container["ports"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert {port["targetPort"] for port in at(by_kind["Service"], "spec.ports")} <= ports
    named = {rule["port"] for one in at(by_kind["NetworkPolicy"], "spec.ingress") for rule in one["ports"]}
    assert named <= ports
    assert (
        at(by_kind["HorizontalPodAutoscaler"], "spec.scaleTargetRef.name")
        == (by_kind["Deployment"]["metadata"]["name"])
    )
    check_pod(at(by_kind["Deployment"], "spec.template.spec"), container)


def check_pod(pod: dict[str, Any], container: dict[str, Any]) -> None:
    """Check the times of a stop, the settings, and the secrets."""
    env = {one["name"]: one["value"] for one in container["env"]}
    settings = {f"REACTOR_{item.name.upper()}" for item in setting_fields()}
    assert set(env) <= settings
    drain = float(env.get("REACTOR_DRAIN_SECONDS", Settings().drain_seconds))
    stopping = drain + node_module.CLOSE_TIMEOUT + node_module.DETACH_TIMEOUT
    (_, before) = container["lifecycle"]["preStop"]["exec"]["command"]
    assert pod["terminationGracePeriodSeconds"] >= float(before) + stopping + 5
    # A Service named reactor would set REACTOR_PORT to tcp://…, which is a setting.
    assert pod["enableServiceLinks"] is False
    (mount,) = container["volumeMounts"]
    (volume,) = pod["volumes"]
    assert mount["name"] == volume["name"]
    files = [value for name, value in env.items() if name.endswith("_FILE")]
    assert len(files) == 3
    assert all(value.startswith(f"{mount['mountPath']}/") for value in files)
    assert not [
        name for name in env if name in {"REACTOR_REDIS_URL", "REACTOR_AUTH_SECRET", "REACTOR_ADMIN_KEY"}
    ]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["securityContext"]["runAsNonRoot"] is True


def test_the_files_of_the_base_are_what_kubernetes_needs():
    check(base())


def test_kustomize_builds_the_base():
    kustomize = program("kustomize", "sigs.k8s.io/kustomize/kustomize/v5@latest")
    check(list(yaml.safe_load_all(output(kustomize, "build", str(BASE)))))


def test_helm_renders_the_chart():
    check(helm(*ALL_ON))
    output(program("helm", ""), "lint", "--strict", str(CHART))


def test_what_needs_an_operator_is_off_in_the_chart_by_default():
    kinds = {one["kind"] for one in helm()}
    assert kinds == {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"}


def test_the_chart_takes_settings_by_their_names():
    objects = helm("--set", "settings.ttl=2h,settings.max_rooms=12", "--set", "drainSeconds=40")
    (deployment,) = (one for one in objects if one["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    env = {one["name"]: one["value"] for one in container["env"]}
    assert (env["REACTOR_TTL"], env["REACTOR_MAX_ROOMS"]) == ("2h", "12")
    check_pod(pod, container)


def test_the_chart_writes_numbers_and_lists_as_the_server_reads_them(tmp_path: Path):
    given = {"departures_bytes": 16777216, "auth_leeway": 2.5, "people": False, "max_rooms": 12}
    lists = {"origins": ["https://a.example", "https://b.example"]}
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"settings": given | lists}))
    (deployment,) = (one for one in helm("-f", str(values)) if one["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    names = {f"REACTOR_{name.upper()}" for name in given | lists}
    env = {one["name"]: one["value"] for one in container["env"] if one["name"] in names}
    read = load({}, env)
    assert {name: getattr(read, name) for name in given} == given
    assert read.origins == ("https://a.example", "https://b.example")


def test_base_and_chart_have_the_same_pod():
    def pod(objects: list[dict[str, Any]]) -> Any:
        (deployment,) = (one for one in objects if one["kind"] == "Deployment")
        found = deployment["spec"]["template"]["spec"]
        (container,) = found["containers"]
        container.pop("imagePullPolicy", None)
        container["image"] = container["image"].partition(":")[0]
        container["env"] = [one for one in container["env"] if one["name"] != "REACTOR_DRAIN_SECONDS"]
        for spread in found["topologySpreadConstraints"]:
            spread["labelSelector"]["matchLabels"] = {NAME: "reactor"}
        return found

    assert pod(base()) == pod(helm())


def test_its_settings_are_safe_together(tmp_path: Path):
    (deployment,) = (one for one in base() if one["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    given: dict[str, Any] = {}
    for one in container["env"]:
        name, value = one["name"].removeprefix("REACTOR_").lower(), one["value"]
        if name.endswith("_file"):
            file = tmp_path / Path(value).name
            file.write_text({"redis-url": "redis://redis:6379/0"}.get(file.name, "x" * 48))
            value = str(file)
        given[name] = value
    # The admin port is open to the pods that the NetworkPolicy names, and to no others.
    assert [line for line in advice(Settings(**given)) if not line.startswith("admin_host is 0.0.0.0")] == []


def templates() -> Iterator[Path]:
    return (CHART / "templates").glob("*.yaml")


def test_the_templates_are_balanced_and_name_values_that_exist():
    """A check without helm: each block is closed, and every value that a template uses has a default."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for path in templates():
        text = path.read_text()
        opened = len(re.findall(r"\{\{-? (?:if|with|range|define) ", text))
        assert opened == len(re.findall(r"\{\{-? end -?\}\}", text)), path.name
        for name in re.findall(r"\.Values\.([A-Za-z.]+)", text):
            found: Any = values
            for step in name.split("."):
                assert step in found, f"{path.name}: {name}"
                found = found[step]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = tomllib.loads((DEPLOY.parents[1] / "pyproject.toml").read_text())["project"]["version"]
    assert chart["appVersion"] == version
    assert yaml.safe_load((BASE / "kustomization.yaml").read_text())["images"][0]["newTag"] == version


def test_the_alert_rules_are_those_of_the_file_of_alerts():
    for path, text in rendered((DEPLOY / "alerts.yml").read_text()).items():
        assert path.read_text() == text, f"run scripts/kubernetes_rules.py: {path.name} is not up to date"
    alerts = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    (rule,) = (one for one in base() if one["kind"] == "PrometheusRule")
    assert rule["spec"]["groups"] == alerts


def test_the_rule_of_the_chart_has_the_same_alerts():
    alerts = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    (rule,) = (one for one in helm(*ALL_ON) if one["kind"] == "PrometheusRule")
    assert rule["spec"]["groups"] == alerts


def test_kubeconform_finds_both_valid(tmp_path: Path):
    schemas = os.environ.get("KUBERNETES_SCHEMAS")
    if schemas is None:
        pytest.skip("KUBERNETES_SCHEMAS names no folder of schemas, which kubeconform would download")
    kubeconform = program("kubeconform", "github.com/yannh/kubeconform/cmd/kubeconform@latest")
    for name, objects in (("base", base()), ("chart", helm(*ALL_ON))):
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump_all(objects))
        location = f"{schemas}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
        output(
            kubeconform, "-strict", "-skip", "ServiceMonitor,PrometheusRule",
            "-schema-location", location, str(file),
        )  # fmt: skip
