"""The Grafana dashboard shows every metric, and only metrics that exist."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from reactor.server.metrics import Metrics
from tests.support.nodes import served
from tests.support.servers import Server
from tests.system.metrics.test_metrics import LABELS, Read

FILE = Path(__file__).parents[3] / "scripts" / "deploy" / "grafana.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]


async def test_every_metric_has_a_panel_and_every_panel_has_metrics(bundled_server: Server) -> None:
    async with served(bundled_server) as node:
        page, _ = await Metrics(node).page()
    families = Read(page.decode()).families
    there = {f"{name}_total" if one.type == "counter" else name for name, one in families.items()}
    shown = {
        name.removesuffix("_bucket")
        for one in EXPRESSIONS
        for name in re.findall(r"(?:reactor|process)_\w+", one)
    }
    assert shown <= there
    assert {name for name in there if name.startswith("reactor_")} <= shown


def test_expressions_use_existing_labels() -> None:
    for expression in EXPRESSIONS:
        for labels in re.findall(r"by \(([\w, ]+)\)", expression):
            assert set(labels.split(", ")) <= LABELS | {"instance"}, expression
        assert '{job="$job"}' in expression
        assert expression.count("(") == expression.count(")")


def test_departures_are_not_summed_over_nodes() -> None:
    (expression,) = [one for one in EXPRESSIONS if "reactor_departures_total" in one]
    assert expression.startswith("max by (reason)")


def test_panels_have_titles_unique_ids_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["title"] for panel in panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_each_panel_uses_the_selected_prometheus(panel: dict[str, Any]) -> None:
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
