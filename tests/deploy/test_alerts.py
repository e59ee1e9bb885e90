"""The alerts fire on their faults and on nothing else, and ask for metrics that exist."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from reactor.server.metrics import Metrics
from tests.support.nodes import served
from tests.support.servers import Server
from tests.system.metrics.test_metrics import Read

FOLDER = Path(__file__).parents[2] / "scripts" / "deploy"
RULES = (FOLDER / "alerts.yml").read_text()
CASES = (FOLDER / "alerts_test.yml").read_text()


def test_each_alert_fires_on_its_fault_and_none_in_a_healthy_fleet() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool (it is in Debian's package prometheus)")
    done = subprocess.run(
        [promtool, "test", "rules", "alerts_test.yml"],
        cwd=FOLDER, capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    for alert in re.findall(r"- alert: (\w+)", RULES):
        assert f"- name: {alert}\n" in CASES
        assert f"alertname: {alert}, exp_alerts: []" in CASES


async def test_alerts_use_metrics_that_exist(bundled_server: Server) -> None:
    async with served(bundled_server) as node:
        page, _ = await Metrics(node).page()
    families = Read(page.decode()).families
    there = {f"{name}_total" if one.type == "counter" else name for name, one in families.items()}
    used = {
        name.removesuffix("_bucket")
        for line in RULES.splitlines()
        if not line.strip().startswith(("annotations", "#"))
        for name in re.findall(r"\b(?:reactor|process)_\w+", line)
    }
    assert used <= there | {"reactor_build_info"}
