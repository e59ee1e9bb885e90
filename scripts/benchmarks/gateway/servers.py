"""The measured servers, each a process on a core of its own, and their figures in /proc."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from scripts.benchmarks.child import ask, child_process
from scripts.benchmarks.running import ROOT
from scripts.benchmarks.server import Bench, bench_server

SOCKETIO = Path(__file__).parent / "socketio"
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = {CORES[0]}, {CORES[-1]}
"""The server has one core; the load generator and Redis share the other."""


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process, user and system: proc(5), /proc/PID/stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def resident_bytes(pid: int) -> int:
    """Return the resident bytes of a process: proc(5), /proc/PID/statm."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def children_of(pid: int) -> list[int]:
    """Return the child processes of a process: proc(5), /proc/PID/task/TID/children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@dataclass
class Served:
    """A running server: its port, and the processes whose cost is counted."""

    port: int
    pids: list[int]
    process: asyncio.subprocess.Process
    marks: dict[str, Any] = field(default_factory=dict)

    def cpu(self) -> float:
        """CPU seconds used so far."""
        return sum(map(cpu_seconds, self.pids))

    def resident(self) -> int:
        """Resident bytes now."""
        return sum(map(resident_bytes, self.pids))

    async def status(self) -> dict[str, Any]:
        """Return the counters of a reactor node; see watched_node.py."""
        return await ask(self.process)


@asynccontextmanager
async def server_process(command: Sequence[str], cores: set[int], cwd: Path = ROOT) -> AsyncIterator[Served]:
    """Start a server that prints {"port": ...} and exits at the end of its standard input.

    Raises ReactorError with the last of its log when it does not start.
    """
    async with child_process(command, cwd=cwd, cores=cores) as (process, port):
        yield Served(port, [process.pid], process)


@asynccontextmanager
async def reactor_server(
    bench: Bench, settings: Mapping[str, Any] | None = None, *, cores: set[int] = SERVER_CORE
) -> AsyncIterator[Served]:
    """Start a node on this Redis."""
    given = {
        "redis_url": bench.url, "namespace": bench.namespace, "port": 0, "log_level": "warning",
        "drain_seconds": 0,
        # All clients have one address, and some send as fast as they can.
        "max_per_address": 1_000_000, "new_per_second": 100_000, "messages_per_second": 100_000,
        "message_burst": 100_000, **(settings or {}),
    }  # fmt: skip
    await asyncio.to_thread(_compile_bytecode)
    command = (sys.executable, "-m", "scripts.benchmarks.gateway.watched_node", json.dumps(given))
    async with server_process(command, cores) as served:
        await asyncio.sleep(1.0)  # for the first sweep and the leader election
        served.pids += children_of(served.pids[0])  # with several workers
        yield served


@cache
def _compile_bytecode() -> None:
    """Compile what the server imports.

    A server that compiles its modules while it starts keeps some MiB of free memory, and the first
    connections fill that: the same code then seems to need 2.1 KiB a connection instead of 3.6.
    """
    command = (sys.executable, "-m", "compileall", "-qq", ROOT / "reactor", sysconfig.get_path("purelib"))
    subprocess.run(command, check=False)


@asynccontextmanager
async def peer_server(name: str, bench: Bench) -> AsyncIterator[Served]:
    """Start a peer: `socketio`, `centrifugo`, or the bare echo of `websockets` or `picows`."""
    if name == "socketio":
        command: tuple[str, ...] = ("node", "server.js", bench.url.removeprefix("unix://"))
        folder = SOCKETIO
    elif name == "centrifugo":
        command = (sys.executable, "-m", "scripts.benchmarks.gateway.centrifugo", bench.url)
        folder = ROOT
    else:
        command = (sys.executable, "-m", "scripts.benchmarks.gateway.echo_servers", name)
        folder = ROOT
    async with server_process(command, SERVER_CORE, folder) as served:
        served.pids += children_of(served.pids[0])
        yield served


def missing_peers() -> dict[str, str]:
    """Return the peers that this machine lacks, each with the reason; Socket.IO is installed if possible."""
    missing = {}
    if reason := _install_socketio():
        missing["socketio"] = reason
    if shutil.which("centrifugo") is None:
        missing["centrifugo"] = "there is no centrifugo (6) on PATH"
    return missing


def _install_socketio() -> str | None:
    """Install the Socket.IO peer from its lock file; return the reason if that fails."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "there is no Node.js (20 or later) with npm"
    if not (SOCKETIO / "node_modules" / "socket.io").exists():
        install = ("npm", "ci", "--no-audit", "--no-fund")
        run = subprocess.run(install, cwd=SOCKETIO, capture_output=True, text=True, check=False)
        if run.returncode:
            return f"npm could not install it: {run.stderr.strip().splitlines()[-1:]}"
    return None


@asynccontextmanager
async def pinned_redis(url: str | None, program: Path | None) -> AsyncIterator[tuple[Bench, int | None]]:
    """Yield a Redis on the load generator's core, and its process id if it runs on this machine."""
    async with bench_server(url, program) as bench:
        pid: int | None = int((await bench.redis.info("server"))["process_id"])
        if bench.owned and pid is not None:
            os.sched_setaffinity(pid, LOAD_CORE)
        yield bench, pid if bench.owned else None
