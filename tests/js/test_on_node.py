"""The page's client and its view of a room, on Node.js: the room by the same cases as the server's own."""

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
OLDEST = (20, 19)
"""The first Node.js that takes a plain .js file for a module by itself."""


def node_program() -> str:
    program = shutil.which("node")
    if program is None:
        pytest.skip("no Node.js on PATH")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    version = tuple(int(part) for part in said.strip().lstrip("v").split(".")[:2])
    if version < OLDEST or (21, 0) <= version < (22, 7):
        pytest.skip(f"Node.js {said.strip()} is too old: 20.19, or 22.7 and newer")
    return program


@pytest.mark.parametrize("name", ["room", "client", "membership"])
def test_on_node(name: str):
    done = subprocess.run(
        [node_program(), "--test", "--test-reporter=spec", str(HERE / f"{name}.test.mjs")],
        capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
