"""Imports point one way, and what is pure needs no loop, no Redis and no socket."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "reactor"

PURE = sorted(
    {
        *(PACKAGE / "protocol").glob("*.py"),
        *(
            PACKAGE / path
            for path in (
                "presence/keys.py",
                "tally.py",
                "expiry/deadlines.py",
                "webhooks/signing.py",
                "gateway/outbox.py",
                "gateway/roster.py",
                "client/backoff.py",
                "client/listing.py",
            )
        ),
    }
)
BLOCKED = ("asyncio", "anyio", "redis", "websockets", "uvloop", "socket", "selectors")

# What each step may import of the package beside itself; whoever is not named here may import all.
ARROWS = {
    "protocol": set[str](),
    "errors": set[str](),
    "tasks": set[str](),
    "tally": set[str](),
    "listening": {"errors"},
    "settings": {"errors"},
    "presence": {"protocol", "settings", "errors", "tally", "tasks"},
    "expiry": {"presence", "protocol", "settings", "errors", "tally"},
    "webhooks": {"presence", "protocol", "settings", "errors"},
    "gateway": {"protocol", "settings", "errors"},
    "client": {"protocol", "settings", "errors"},
    "doctor": {"presence", "settings", "errors"},
    "web": set[str](),
}
# Those who know all; nobody else knows them.
TOP = {
    "node",
    "running",
    "collector",
    "metrics",
    "report",
    "admin",
    "workers",
    "dispatch",
    "acks",
    "reconcile",
    "recovery",
    "cli",
    "__main__",
}

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


def step_of(module: str) -> str:
    """The part of the package that a module belongs to: its name below `reactor`."""
    return module.split(".")[1] if "." in module else ""


def imports_of(source: str, package: str = "reactor") -> set[str]:
    """Modules of the package that this source imports, also inside functions and by name of a parent."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the arrows"
            if node.module == package:
                found |= {f"{package}.{alias.name}" for alias in node.names}
            elif node.module:
                found.add(node.module)
    return {name for name in found if name.partition(".")[0] == package}


def broken_arrows(module: str, source: str) -> list[str]:
    step = step_of(module)
    allowed = ARROWS.get(step)
    wrong = []
    for imported in imports_of(source):
        other = step_of(imported)
        # The package itself gives its version, and public names that load late.
        if other in ("", step, "__version__"):
            continue
        if (allowed is not None and other not in allowed) or (other in TOP and step not in TOP):
            wrong.append(f"{module} imports {imported}")
    return wrong


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_pure_parts_load_without_any_io(path: Path):
    code = BARE.format(blocked=BLOCKED, module=module_of(path))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_pure_parts_read_no_clock_and_no_chance(path: Path):
    names = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not names & {"time", "random", "secrets", "datetime", "threading", *BLOCKED}


def test_imports_point_inwards():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = module_of(path)
        if module != "reactor":
            wrong += broken_arrows(module, path.read_text(encoding="utf-8"))
    assert wrong == []


def test_steps_do_not_go_in_circles():
    needs: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        step = step_of(module_of(path))
        others = {step_of(name) for name in imports_of(path.read_text(encoding="utf-8"))}
        needs.setdefault(step, set()).update(others - {step, ""})
    del needs[""]  # the package itself, which loads its public names late
    graphlib.TopologicalSorter(needs).prepare()


def test_every_folder_has_its_arrows():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders - TOP <= ARROWS.keys()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("reactor.protocol.room", "import reactor.presence.keys"),
        ("reactor.presence.store", "from reactor.expiry import sweep"),
        ("reactor.presence.store", "from reactor import gateway"),
        ("reactor.gateway.fanout", "def f():\n    from reactor.presence.keys import parse"),
        ("reactor.gateway.server", "import reactor.dispatch"),
        ("reactor.client.connection", "from reactor.node import Node"),
        ("reactor.settings.load", "from reactor import node"),
        ("reactor.newcomer", "import reactor.node"),
    ],
)
def test_a_broken_arrow_is_found(module: str, source: str):
    assert broken_arrows(module, source)


def test_blocking_works():
    for module in ("asyncio", "redis.asyncio", "websockets.server"):
        code = BARE.format(blocked=BLOCKED, module=module)
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert "blocked: " in done.stderr
