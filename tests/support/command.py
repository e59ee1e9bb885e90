"""Runs the command `reactor` in a process of its own, with its output piped or in a terminal."""

import json
import os
import pty
import select
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.waiting import PATIENCE

ROOT = Path(__file__).parents[2]


@dataclass
class Answer:
    """What a finished command wrote and how it ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """The output read as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


def environment(**more: str) -> dict[str, str]:
    """The environment without the REACTOR_ settings of the shell that runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REACTOR_")}
    return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **more}


def reactor(*arguments: str, **env: str) -> Answer:
    """Run `reactor` with its output piped."""
    done = subprocess.run(
        [sys.executable, "-m", "reactor", *arguments],
        env=environment(**env),
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def reactor_in_terminal(*arguments: str, **env: str) -> Answer:
    """Run `reactor` in a terminal; its two outputs are one there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "reactor", *arguments],
        env=environment(TERM="dumb", **env),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    with process, suppress(OSError):  # EIO: the other side of the terminal is closed
        while chunk := os.read(ours, 65536):
            written += chunk
    os.close(ours)
    return Answer(process.returncode, written.decode().replace("\r\n", "\n"), "")


def ended(pid: int, seconds: float = PATIENCE) -> bool:
    """Whether a process, which need not be a child of this one, ends within some seconds."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)
