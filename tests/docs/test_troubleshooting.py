"""Each sentence of /readyz, each close code and each event that is logged as a warning has its row."""

import ast
import inspect
import re
import textwrap

import pytest

from reactor.protocol.closing import CloseCode
from reactor.server.node import Node
from reactor.server.readiness import Readiness
from tests.docs.documents import section
from tests.support.command import ROOT

PAGE = section("scripts/deploy/README.md", "## Troubleshooting by symptom")
ROWS = [row.strip("|").split(" | ") for row in re.findall(r"^\| .*\|$", PAGE, re.MULTILINE)]
SYMPTOMS = "\n".join(row[0] for row in ROWS)
ALERTS = (ROOT / "scripts/deploy/alerts.yml").read_text()
EVENTS = section("reactor/ARCHITECTURE.md", "## Log events")


def test_every_row_says_symptom_cause_and_remedy() -> None:
    assert len(ROWS) > 40
    assert {len(row) for row in ROWS} == {3}
    assert all(cell.strip() for row in ROWS for cell in row)


def readyz_sentences() -> list[str]:
    """The sentences that a node returns itself; others begin with the words of Redis."""
    sources = [inspect.getsource(function) for function in (Readiness.status, Node._expiry_warning)]
    trees = [ast.parse(textwrap.dedent(source)) for source in sources]
    texts = [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    sentences = [text for text in texts if isinstance(text, str) and not text.startswith("Return whether")]
    return ["waiting for Redis: ", "Redis does not answer", "Redis refuses commands (", " lacks ", *sentences]


@pytest.mark.parametrize("sentence", sorted({text for text in readyz_sentences() if " " in text}))
def test_every_sentence_of_readyz_has_a_row(sentence: str) -> None:
    rows = [row[0] for row in ROWS if "/readyz" in row[0]]
    assert any(sentence.partition(":")[0].partition(",")[0] in row for row in rows), sentence


@pytest.mark.parametrize("code", [code for code in CloseCode if code not in {1000, 1001}])
def test_every_close_code_has_a_row(code: CloseCode) -> None:
    assert any(str(int(code)) in row[0] for row in ROWS if row[0].strip().startswith("close"))


def alarming_events() -> list[str]:
    found = []
    for names, levels, _ in re.findall(r"^\| (`.*?) \| (.*?) \| (.*?) \|$", EVENTS, re.MULTILINE):
        levels_of = levels.split(", ")
        events = re.findall(r"`(\w+)`", names)
        if len(levels_of) != len(events):
            levels_of = [", ".join(levels_of)] * len(events)
        found += [event for event, level in zip(events, levels_of, strict=True) if level != "info"]
    return [event for event in found if event != "member_expired"]


@pytest.mark.parametrize("event", alarming_events())
def test_every_event_of_a_warning_or_an_error_has_a_row(event: str) -> None:
    assert f"`{event}`" in SYMPTOMS


@pytest.mark.parametrize("alert", re.findall(r"- alert: (\w+)", ALERTS))
def test_every_alert_has_a_row(alert: str) -> None:
    assert [row for row in ROWS if row[0].strip() == f"`{alert}`"]


def test_no_row_is_about_an_event_that_does_not_exist() -> None:
    by_event = PAGE.partition("### By log event")[2]
    rows = re.findall(r"^\| (`.*?) \|", by_event, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named <= set(re.findall(r"`(\w+)`", EVENTS))
