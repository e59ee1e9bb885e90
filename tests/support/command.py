"""Runs the command `reactor` as a person does: a process of its own, piped or in a terminal."""

import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """The environment without settings of the person who runs the tests."""
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
        timeout=30,
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
    with process, suppress(OSError):  # a terminal that all have left reads as an error
        while chunk := os.read(ours, 65536):
            written += chunk
    os.close(ours)
    return Answer(process.returncode, written.decode().replace("\r\n", "\n"), "")


@dataclass
class Serving:
    """A running `reactor serve`."""

    process: subprocess.Popen[str]
    said: dict[str, Any]

    @property
    def socket(self) -> str:
        """The address of its WebSocket."""
        return str(self.said["socket"])


@contextmanager
def serving(*arguments: str, **env: str) -> Iterator[Serving]:
    """`reactor serve` on a free port, ready for clients; killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "reactor", "serve", "--port", "0", "--drain-seconds", "0", *arguments],
        env=environment(**env),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield Serving(process, wait_for_event(process, "serving"))
        finally:
            process.kill()


def wait_for_event(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    """Read the log up to an event."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        said: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
        if said.get("event") == event:
            return said
    raise AssertionError(f"no event {event!r} in the log: {''.join(seen)}")


def ended(pid: int, seconds: float = 10) -> bool:
    """Wait for the end of a process that is no child of ours."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)
