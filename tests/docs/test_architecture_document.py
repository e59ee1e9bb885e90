"""ARCHITECTURE.md: every file and definition that it names exists, and its tables equal those in the code."""

import ast
import re
from collections.abc import Mapping
from enum import Enum
from functools import cache
from pathlib import Path

import pytest

from reactor.membership import recovery_state
from reactor.presence import attachment
from reactor.protocol import membership
from tests.docs.documents import ROOT, document, section
from tests.unit.test_architecture import GROUND, LAYERS

DOCUMENT = "reactor/ARCHITECTURE.md"
TEXT = document(DOCUMENT)
PACKAGE = ROOT / "reactor"
SCRIPTS = PACKAGE / "presence" / "lua"

CODE = set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)))
DEFINITIONS = sorted(token for token in CODE if re.fullmatch(r"[\w/]+\.py:[\w.]+", token))
FILES = sorted(
    token
    for token in CODE
    if re.fullmatch(r"[\w./-]+/[\w.-]*", token) or re.fullmatch(r"\w+\.(py|lua)", token)
)


@cache
def definitions(path: Path) -> frozenset[str]:
    """What a module defines: its classes, functions and constants, and the methods of its classes."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                found.add(node.name)
            case ast.ClassDef():
                found.add(node.name)
                functions = (ast.FunctionDef, ast.AsyncFunctionDef)
                found |= {f"{node.name}.{one.name}" for one in node.body if isinstance(one, functions)}
            case ast.Assign():
                found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
    return frozenset(found)


def test_it_names_definitions_and_files() -> None:
    assert len(DEFINITIONS) > 50
    assert len(FILES) > 30


@pytest.mark.parametrize("token", DEFINITIONS)
def test_every_definition_that_is_named_exists(token: str) -> None:
    path, _, name = token.partition(":")
    assert name in definitions(PACKAGE / path)


@pytest.mark.parametrize("token", FILES)
def test_every_file_that_is_named_exists(token: str) -> None:
    if "/" not in token and token.endswith(".lua"):
        assert list(SCRIPTS.rglob(token))
    else:
        assert ((ROOT if token.startswith("tests/") else PACKAGE) / token).exists()


def test_every_entry_of_the_table_of_contents_leads_to_a_section() -> None:
    titles = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    }
    links = set(re.findall(r"\]\(#([\w-]+)\)", TEXT))
    assert links <= titles
    assert {title.lower().replace(" ", "-").replace(",", "") for title in sections()} <= links


def sections() -> list[str]:
    return re.findall(r"^## (.+)$", TEXT, re.MULTILINE)


def table(transitions: Mapping[Enum, Mapping[Enum, Enum]]) -> str:
    """A state table as the document has it."""
    rows = ["| state | event → next state |", "|---|---|"]
    for state, events in transitions.items():
        changes = ", ".join(f"{event.name} → {after.name}" for event, after in events.items())
        rows.append(f"| {state.name} | {changes or 'none'} |")
    return "\n".join(rows)


@pytest.mark.parametrize(
    ("title", "transitions"),
    [
        ("### Membership", membership.TRANSITIONS),
        ("### Attachment", attachment.TRANSITIONS),
        ("### Recovery", recovery_state.TRANSITIONS),
    ],
)
def test_the_state_tables_are_those_of_the_code(
    title: str, transitions: Mapping[Enum, Mapping[Enum, Enum]]
) -> None:
    assert table(transitions) in section(DOCUMENT, title)


def test_each_layer_imports_only_from_lines_below_its_own() -> None:
    (picture,) = re.findall(r"^```\n(cli .*?)^```", section(DOCUMENT, "## Layers"), re.MULTILINE | re.DOTALL)
    height = {
        layer: -number
        for number, line in enumerate(picture.splitlines())
        for layer in line.split("  ")[0].split(", ")
    }
    assert height.keys() == LAYERS.keys() - GROUND - {"__main__", "web"}
    for layer, level in height.items():
        assert all(height[below] < level for below in LAYERS[layer] - GROUND), layer


def test_every_log_event_is_listed_and_no_other() -> None:
    rows = section(DOCUMENT, "## Log events").partition("|---|---|---|\n")[2].splitlines()
    listed = {name for row in rows if row for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    logged = {
        str(node.args[0].value)
        for path in PACKAGE.rglob("*.py")
        if path.parts[len(PACKAGE.parts)] not in {"cli", "client", "js"}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if ast.unparse(node.func.value) in {"log", "_log", "self._log"} and node.args
        if isinstance(node.args[0], ast.Constant)
    }
    assert logged == listed


def test_every_key_that_the_scripts_write_is_listed_and_no_other() -> None:
    lua = "\n".join(path.read_text(encoding="utf-8") for path in SCRIPTS.rglob("*.lua"))
    written = set(re.findall(r"(?:SHARD|home|shard) \.\. ':(\w+)", lua)) - {"diff", "wake"}
    listed = re.findall(r"^\| `\{NS:\w+\}:(\w+)", section(DOCUMENT, "## Redis keys"), re.MULTILINE)
    channels = re.findall(r"^\| `\{NS:\w+\}:(\w+)", section(DOCUMENT, "### Channels"), re.MULTILINE)
    assert set(listed) - {"diff", "wake"} == written
    assert {"diff", "wake", "rules", "person"} == set(channels)
