"""Imports point one way, nothing goes in circles, and PURE modules do no I/O."""

import ast
import graphlib
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from reactor.presence.attachment import Attachment

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "reactor"

BLOCKED = ("asyncio", "anyio", "redis", "websockets", "uvloop", "socket", "selectors")
IMPURE = {"time", "random", "secrets", "datetime", "threading", *BLOCKED}

GROUND = {"errors", "tasks", "log", "histogram"}
"""Modules at the root of the package that every layer may import."""

LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "tasks": set(),
    "histogram": set(),
    "settings": {"errors"},
    "log": {"settings"},
    "protocol": set(),
    "backend": {"settings"},
    "presence": {"backend", "protocol", "settings"},
    "fleet": {"presence", "backend", "settings"},
    "expiry": {"fleet", "presence", "backend", "protocol", "settings"},
    "webhooks": {"fleet", "presence", "backend", "protocol", "settings"},
    "gateway": {"protocol", "settings"},
    "membership": {"expiry", "fleet", "gateway", "presence", "backend", "protocol", "settings"},
    "server": {
        "tracing", "membership", "webhooks", "expiry", "fleet", "gateway", "presence", "backend", "protocol",
        "settings",
    },
    "tracing": {"expiry", "gateway", "membership", "presence", "protocol"},
    "client": {"protocol", "settings"},
    "doctor": {"presence", "backend", "settings"},
    "admin": {"server", "fleet", "gateway", "presence", "backend", "protocol", "settings"},
    "cli": {
        "admin", "client", "doctor", "server", "gateway", "presence", "backend", "protocol", "settings",
    },
    "running": {"admin", "server", "presence", "backend", "settings"},
    "pytest_plugin": {"running"},
    "__main__": {"cli"},
    "web": set(),
}  # fmt: skip
"""Each layer (a folder, or a module at the root) and the layers that it may import besides GROUND."""

BARE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError("blocked: " + name)
for name in list(sys.modules):
    if name.partition(".")[0] in {blocked!r}:
        del sys.modules[name]
sys.meta_path.insert(0, Blocked())
import {module}
"""


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(module: str) -> str:
    """The layer that a module belongs to: its name below `reactor`."""
    return module.split(".")[1] if "." in module else ""


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py") if "node_modules" not in path.parts}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in MODULES.items()}
PURE = sorted(
    module for module, tree in TREES.items() if re.search(r"\bPURE\.", ast.get_docstring(tree) or "")
)
"""Modules without I/O, clock and randomness. The docstring of each has the marker `PURE.`"""

SAME_FILE_NAME = {
    "events.py": "the events of a room; the doctor's check of the setting notify-keyspace-events",
    "handler.py": "the interface that the gateway calls; its implementation",
    "keys.py": "the keys of presence; the doctor's check of them",
    "permissions.py": "the doctor's list of permissions; its check of them",
    "room.py": "the protocol's state of a room; the room of the client library",
    "watch.py": "watching a room over Redis; over a WebSocket",
}
"""File names that more than one module may have, and what the modules are."""


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Modules of the package that this source imports, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == "reactor")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the arrows"
            module = node.module or ""
            if module.partition(".")[0] == "reactor":
                for alias in node.names:
                    whole = f"{module}.{alias.name}"
                    yield whole if whole in MODULES or module == "reactor" else module


def broken_arrows(module: str, tree: ast.AST) -> list[str]:
    own = layer_of(module)
    allowed = LAYERS.get(own, set()) | (GROUND if own not in GROUND else set())
    return [
        f"{module} imports {imported}"
        for imported in imports_of(tree)
        # The package itself gives its version.
        if layer_of(imported) not in {"", own, "__version__", *allowed}
    ]


def test_every_module_of_the_protocol_has_the_marker_of_pure_modules():
    assert {module for module in MODULES if layer_of(module) == "protocol"} <= set(PURE)


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_load_without_any_io_library(module: str):
    code = BARE.format(blocked=BLOCKED, module=module)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_read_no_clock_and_no_randomness(module: str):
    names = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not names & IMPURE


def test_the_blocking_of_io_libraries_works():
    for module in ("asyncio", "redis.asyncio", "websockets.server"):
        code = BARE.format(blocked=BLOCKED, module=module)
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert "blocked: " in done.stderr


def test_every_module_is_in_exactly_one_layer():
    layers = {layer_of(module) for module in MODULES if module != "reactor"}
    assert layers | {"web"} == LAYERS.keys()


def test_imports_point_one_way():
    assert [
        arrow
        for module, tree in TREES.items()
        if module != "reactor"
        for arrow in broken_arrows(module, tree)
    ] == []


def test_the_layers_themselves_have_an_order():
    graphlib.TopologicalSorter(LAYERS).prepare()


def test_no_two_modules_import_each_other_even_for_types_alone():
    needs = {
        module: {name for name in imports_of(tree) if name in MODULES} - {module, "reactor"}
        for module, tree in TREES.items()
        if module != "reactor"  # it loads its public names late
    }
    graphlib.TopologicalSorter(needs).prepare()


def test_no_two_public_classes_share_a_name():
    homes: dict[str, list[str]] = defaultdict(list)
    for module, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(module)
    assert {name: modules for name, modules in homes.items() if len(modules) > 1} == {}


def test_no_two_modules_share_a_file_name_without_need():
    names: dict[str, list[str]] = defaultdict(list)
    for module, path in MODULES.items():
        if not path.name.startswith("__"):
            names[path.name].append(module)
    shared = {name for name, modules in names.items() if len(modules) > 1}
    assert shared == SAME_FILE_NAME.keys()


def foreign_writes(tree: ast.AST, fields: set[str]) -> list[str]:
    """Where this source assigns or deletes one of these attributes of another object than `self`."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            written = node.attr in fields and ast.unparse(node.value) != "self"
        else:
            written = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr")
        if written:
            found.append(ast.unparse(node))
    return found


def test_only_an_attachment_writes_its_fields():
    fields = set(Attachment.__slots__)
    writes = {module: foreign_writes(tree, fields) for module, tree in TREES.items()}
    assert {module: found for module, found in writes.items() if found} == {}


@pytest.mark.parametrize(
    "source", ["a.b.live = 1", "x.unanswered += 1", "del x.state", "setattr(x, 'live', 1)"]
)
def test_a_foreign_write_is_found(source: str):
    assert foreign_writes(ast.parse(source), set(Attachment.__slots__))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("reactor.protocol.room", "import reactor.presence.keys"),
        ("reactor.backend.scripts", "from reactor.presence import keys"),
        ("reactor.presence.store", "from reactor.expiry import sweep"),
        ("reactor.presence.store", "from reactor import gateway"),
        ("reactor.gateway.fanout", "def f():\n    from reactor.presence.keys import parse"),
        ("reactor.gateway.server", "import reactor.membership.handler"),
        ("reactor.server.process", "from reactor.admin import serving_admin"),
        ("reactor.client.reconnector", "from reactor.server.node import Node"),
        ("reactor.settings.load", "from reactor.server import node"),
        ("reactor.newcomer", "import reactor.server.node"),
    ],
)
def test_a_broken_arrow_is_found(module: str, source: str):
    assert broken_arrows(module, ast.parse(source))
