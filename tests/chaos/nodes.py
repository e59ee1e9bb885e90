"""`reactor serve` in a process of its own, with a probe that reports its asyncio tasks and sets its clock."""

import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.chaos.history import NodeLife, now_ms
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
PROBE = Path(__file__).parent / "probe"
START_WITHIN = 120.0
STOP_WITHIN = 10.0


class NodeFailedError(Exception):
    """A node did not start."""


class NodeProcess:
    """One process of a node. `tree` is the folder whose `reactor` package it runs."""

    def __init__(self, name: str, folder: Path, tree: Path) -> None:
        self.node_life = NodeLife(name)
        self.port = 0
        self.accepting = False
        self.exit_code: int | None = None
        self.started = self.frozen = False
        self.base: dict[str, int] = {}
        self._folder, self._tree = folder, tree
        self._log: list[str] = []
        self._child: asyncio.subprocess.Process
        self._reading: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether the process exists and is not frozen."""
        return self._child.returncode is None and not self.frozen

    async def start(self, flags: dict[str, Any], skew_file: Path) -> None:
        """Return once the node accepts clients. Raises NodeFailedError."""
        environment = os.environ | {
            "PYTHONPATH": f"{PROBE}{os.pathsep}{self._tree}",
            "CHAOS_PROBE": str(self._probe_file),
            "CHAOS_SKEW": str(skew_file),
        }
        words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        self._child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "reactor", "serve", *words,
            cwd=self._tree, env=environment, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self.started = True
        serving: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read(serving))
        try:
            self.port = await asyncio.wait_for(serving, START_WITHIN)
        except TimeoutError as error:
            raise NodeFailedError(f"{self.node_life.name} did not start: {self._log[-5:]}") from error
        self.base = await self.resources()
        self.accepting = True

    async def _read(self, serving: "asyncio.Future[int]") -> None:
        assert self._child.stderr is not None
        while line := await self._child.stderr.readline():
            text = line.decode(errors="replace").rstrip()
            self._log.append(text)
            if '"expiry_suspended"' in text:
                logged_at = datetime.fromisoformat(json.loads(text)["timestamp"])
                self.node_life.suspensions.append(int(logged_at.timestamp() * 1000))
            if not serving.done() and '"serving"' in text:
                serving.set_result(int(json.loads(text)["socket"].rpartition(":")[2].removesuffix("/ws")))
        if not serving.done():
            serving.set_exception(NodeFailedError(f"{self.node_life.name} exited: {self._log[-5:]}"))

    # Faults.

    def kill(self) -> None:
        """SIGKILL."""
        self.accepting = False
        self.node_life.ended_at = now_ms()
        with suppress(ProcessLookupError):
            self._child.send_signal(signal.SIGKILL)

    async def kill_at(self, point: str, within: float) -> None:
        """Have the process kill itself at a point that the probe knows; kill it if it does not get there."""
        self._probe_file.with_suffix(".probe.die").write_text(point)
        with suppress(ProcessLookupError):
            self._child.send_signal(signal.SIGUSR1)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._child.wait(), within)
        self.kill()
        died = self._probe_file.with_suffix(".probe.died")
        if died.exists():
            self.node_life.ended_at = int(died.read_text())

    def freeze(self) -> None:
        """SIGSTOP."""
        self.frozen = True
        self.node_life.impaired.append([now_ms(), now_ms() + 3_600_000])
        with suppress(ProcessLookupError):
            self._child.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        with suppress(ProcessLookupError):
            self._child.send_signal(signal.SIGCONT)
        self.frozen = False
        self.node_life.impaired[-1][1] = now_ms()

    async def stop(self) -> bool:
        """SIGTERM; whether it ended in time, with exit code 0."""
        self.accepting = False
        if self._child.returncode is None:
            self._child.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._child.wait(), STOP_WITHIN)
            except TimeoutError:
                self.kill()
        await self.ended()
        return self.exit_code == 0

    async def ended(self) -> None:
        """Wait for the end of the process and of its log."""
        self.exit_code = await self._child.wait()
        self.node_life.ended_at = self.node_life.ended_at or now_ms()
        if self._reading is not None:
            await self._reading

    # Observation.

    @property
    def _probe_file(self) -> Path:
        return self._folder / f"{self.node_life.name}.probe"

    async def resources(self) -> dict[str, int]:
        """What the process holds: client sockets, other sockets, other files, and asyncio tasks by name."""
        self._probe_file.unlink(missing_ok=True)
        self._child.send_signal(signal.SIGUSR2)
        await until(self._probe_file.exists, what=f"{self.node_life.name} wrote its probe file")
        tasks = json.loads(self._probe_file.read_text())
        return {**self._open_files(), **{f"task {name}": number for name, number in tasks.items()}}

    def _open_files(self) -> dict[str, int]:
        ports = _local_ports()
        found = {"client sockets": 0, "other sockets": 0, "other files": 0}
        for entry in Path(f"/proc/{self._child.pid}/fd").iterdir():
            with suppress(OSError):
                target = str(entry.readlink())
                if not target.startswith("socket:["):
                    found["other files"] += 1
                elif ports.get(target[8:-1]) == self.port:
                    found["client sockets"] += 1
                else:
                    found["other sockets"] += 1
        return found

    @property
    def log(self) -> list[str]:
        """Its log so far."""
        return list(self._log)

    def note_stalls(self) -> None:
        """Record when the process got no CPU time, which has the same effect as a freeze."""
        stalls = self._folder / f"{self.node_life.name}.probe.stalls"
        if stalls.exists():
            found = [[int(at) for at in line.split()] for line in stalls.read_text().splitlines()]
            self.node_life.impaired += [gap for gap in found if gap not in self.node_life.impaired]

    def logged_errors(self) -> list[str]:
        """Log lines of level error, and tracebacks."""
        return [line for line in self._log if '"level": "error"' in line or not line.startswith("{")]


def _local_ports() -> dict[str, int]:
    """The local port of each TCP socket of this machine, by inode."""
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, *rest = line.split()
        found[rest[7]] = int(local.rpartition(":")[2], 16)
    return found


def write_skew(path: Path, seconds: float) -> None:
    """Set the skew of a node's wall clock, which takes effect at once."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(struct.pack("d", seconds))
